use super::*;
use crate::sources::http::fake::Service;

const BASE: &str = "http://169.254.169.254";

fn service() -> Service {
    let mut service = Service::new(
        BASE,
        &[
            ("/latest/api/token", "secret-token"),
            ("/2021-03-23/meta-data/instance-id", "i-0123"),
            (
                "/2021-03-23/meta-data/",
                "instance-id\nlocal-hostname\nplacement/\npublic-keys/\niam/\nnetwork/\n",
            ),
            (
                "/2021-03-23/meta-data/local-hostname",
                "ip-10-0-0-5.ec2.internal",
            ),
            ("/2021-03-23/meta-data/placement/", "availability-zone"),
            (
                "/2021-03-23/meta-data/placement/availability-zone",
                "eu-west-1b",
            ),
            ("/2021-03-23/meta-data/public-keys/", "0=mine"),
            ("/2021-03-23/meta-data/public-keys/0/", "openssh-key"),
            (
                "/2021-03-23/meta-data/public-keys/0/openssh-key",
                "ssh-ed25519 AAAA me\n",
            ),
            ("/2021-03-23/meta-data/network/", "interfaces/"),
            ("/2021-03-23/meta-data/network/interfaces/", "macs/"),
            (
                "/2021-03-23/meta-data/network/interfaces/macs/",
                "06:00:00:00:00:02/\n06:00:00:00:00:01/\n",
            ),
            (
                "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:01/",
                "device-number\nlocal-ipv4s\nsubnet-ipv4-cidr-block",
            ),
            (
                "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:01/device-number",
                "0",
            ),
            (
                "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:01/local-ipv4s",
                "10.0.0.5\n10.0.0.9",
            ),
            (
                "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:01/subnet-ipv4-cidr-block",
                "10.0.0.0/20",
            ),
            (
                "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:02/",
                "device-number\nlocal-ipv4s\nsubnet-ipv4-cidr-block",
            ),
            (
                "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:02/device-number",
                "1",
            ),
            (
                "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:02/local-ipv4s",
                "10.0.16.7",
            ),
            (
                "/2021-03-23/meta-data/network/interfaces/macs/06:00:00:00:00:02/subnet-ipv4-cidr-block",
                "10.0.16.0/20",
            ),
            ("/2021-03-23/user-data", "#!/bin/sh\n"),
        ],
    );
    service.requires = Some(("X-aws-ec2-metadata-token".into(), "secret-token".into()));
    service
}

fn ask(service: &mut Service) -> (Result<Source, String>, Vec<String>) {
    let mut diagnostics = Diagnostics::new("");
    let mut exchange = |request: &Request| service.answer(request);
    let mut client = Client::new(&mut exchange);
    let source = fetch(&Dialect::amazon(), &mut client, &mut diagnostics);
    let said = diagnostics.into_sorted();
    (source, said.iter().map(ToString::to_string).collect())
}

#[test]
fn all_is_asked_for_with_a_token_and_no_secret_at_all() {
    let mut service = service();
    let (source, said) = ask(&mut service);
    let source = source.unwrap();
    assert_eq!(said, [""; 0]);
    assert_eq!(source.instance_id, "i-0123");
    assert_eq!(source.hostname.as_deref(), Some("ip-10-0-0-5.ec2.internal"));
    assert_eq!(source.public_keys, ["ssh-ed25519 AAAA me"]);
    assert_eq!(source.region.as_deref(), Some("eu-west-1"));
    assert_eq!(source.user_data.as_deref(), Some(&b"#!/bin/sh\n"[..]));
    let first = &service.asked[0];
    assert_eq!(
        (first.method, first.url.as_str()),
        (Method::Put, "http://169.254.169.254/latest/api/token")
    );
    assert!(
        service
            .asked
            .iter()
            .all(|request| !request.url.contains("/iam"))
    );
    let network = source.network.unwrap();
    let [one, two, _others] = network.interfaces.as_slice() else {
        panic!("{network:?}")
    };
    assert_eq!(one.matches.mac.as_deref(), Some("06:00:00:00:00:01"));
    assert_eq!(one.addresses[0].to_string(), "10.0.0.9/20");
    assert_eq!(
        (
            one.set_name.as_deref(),
            one.dhcp4_overrides.get("route-metric")
        ),
        (None, Some(&json!(100)))
    );
    assert_eq!(two.dhcp4_overrides.get("route-metric"), Some(&json!(200)));
    assert_eq!(
        (two.routes[0].table, two.routes[0].via),
        (Some(101), "10.0.16.1".parse().ok())
    );
    assert_eq!(two.rules.len(), 1);
}

#[test]
fn a_service_without_the_newest_version_or_tokens_is_asked_for_an_older_one() {
    let mut service = Service::new(
        BASE,
        &[
            ("/2009-04-04/meta-data/instance-id", "i-1"),
            ("/2009-04-04/meta-data/", "instance-id"),
        ],
    );
    let (source, _) = ask(&mut service);
    let source = source.unwrap();
    assert_eq!(
        (source.instance_id.as_str(), source.user_data),
        ("i-1", None)
    );
}

#[test]
fn a_service_that_refuses_or_never_ends_is_an_error() {
    let mut refusing = service();
    refusing.requires = Some(("X".into(), "y".into()));
    assert_eq!(
        ask(&mut refusing).0,
        Err(
            "http://169.254.169.254/2021-03-23/meta-data/instance-id answers with status 401"
                .into()
        )
    );
    let mut endless = service();
    let mut url = format!("{BASE}/2021-03-23/meta-data/placement/");
    for _ in 0..20 {
        endless.documents.insert(url.clone(), "more/".into());
        url.push_str("more/");
    }
    assert!(
        ask(&mut endless)
            .0
            .unwrap_err()
            .contains("nested more than 8 deep")
    );
    let mut wide = service();
    let names: String = (0..600).map(|number| format!("n{number}\n")).collect();
    wide.documents
        .insert(format!("{BASE}/2021-03-23/meta-data/placement/"), names);
    assert!(
        ask(&mut wide)
            .0
            .unwrap_err()
            .contains("more than 512 documents")
    );
}
