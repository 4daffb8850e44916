//! Amazon EC2's metadata service, IMDSv2 (Amazon EC2 User Guide, "Instance metadata and user data"), and services that speak the
//! same: Alibaba Cloud's (Elastic Compute Service, "Instance metadata"), Exoscale's, CloudStack's.

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json, json};

use super::Source;
use super::http::{Client, LINK_LOCAL, Method, Request, found, maybe_base64, some, text};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::network::Cidr;
use crate::yaml;

/// How deeply directories may be inside one another, and how much there may be in all of them.
const MAX_DEPTH: usize = 8;
const MAX_DOCUMENTS: usize = 512;
/// How long a token holds, in seconds; as in cloud-init.
const TOKEN_SECONDS: &str = "21600";
/// Secrets, and what changes while the machine runs: no configuration needs them.
const LEFT_OUT: [&str; 6] = [
    "iam/",
    "identity-credentials/",
    "security-credentials/",
    "events/",
    "spot/",
    "autoscaling/",
];
/// What stands for itself in a path (RFC 3986, section 3.3).
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/');

/// One of the services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// As cloud-init calls it in instance data.
    pub platform: &'static str,
    /// Addresses, of which the first one that answers counts.
    pub bases: Vec<String>,
    /// Versions, the newest first.
    pub versions: &'static [&'static str],
    /// What its header fields of tokens begin with, when it has tokens.
    pub token: Option<&'static str>,
}

impl Dialect {
    /// Amazon's.
    pub fn amazon() -> Self {
        Dialect {
            platform: "ec2",
            bases: vec![LINK_LOCAL.to_owned(), "http://[fd00:ec2::254]".to_owned()],
            versions: &["2021-03-23", "2018-09-24", "2016-09-02", "2009-04-04"],
            token: Some("X-aws-ec2-metadata-token"),
        }
    }

    /// Alibaba Cloud's.
    pub fn alibaba() -> Self {
        Dialect {
            platform: "aliyun",
            bases: vec!["http://100.100.100.200".to_owned()],
            versions: &["2016-01-01"],
            token: Some("X-aliyun-ecs-metadata-token"),
        }
    }

    /// Exoscale's.
    pub fn exoscale() -> Self {
        Dialect {
            platform: "exoscale",
            bases: vec![LINK_LOCAL.to_owned()],
            versions: &["1.0"],
            token: None,
        }
    }

    /// CloudStack's, on its virtual routers.
    pub fn cloudstack(bases: Vec<String>) -> Self {
        Dialect {
            platform: "cloudstack",
            bases,
            versions: &["latest"],
            token: None,
        }
    }
}

/// Asks the service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(
    dialect: &Dialect,
    client: &mut Client<'_>,
    diagnostics: &mut Diagnostics,
) -> Result<Source, String> {
    let mut first = None;
    for base in &dialect.bases {
        match fetch_from(dialect, base, client, diagnostics) {
            Ok(source) => return Ok(source),
            Err(error) => first = first.or(Some(error)),
        }
    }
    Err(first.unwrap_or_else(|| "no address of the service is known".to_owned()))
}

fn fetch_from(
    dialect: &Dialect,
    base: &str,
    client: &mut Client<'_>,
    diagnostics: &mut Diagnostics,
) -> Result<Source, String> {
    if let Some(name) = dialect.token {
        token(name, base, client)?;
    }
    let mut instance = None;
    for version in dialect.versions {
        let url = format!("{base}/{version}/meta-data/instance-id");
        if let Some(id) = client.get(&url)?.and_then(some) {
            instance = Some((version, String::from_utf8_lossy(&id).trim().to_owned()));
            break;
        }
    }
    let Some((version, instance_id)) = instance else {
        return Err(format!(
            "{base} has no instance-id in any version that is known"
        ));
    };
    let mut left = MAX_DOCUMENTS;
    let meta_data = walk(
        client,
        &format!("{base}/{version}/meta-data/"),
        0,
        &mut left,
    )?;
    let user_data = client.get(&format!("{base}/{version}/user-data"))?;
    let keys = yaml::from_json(&public_keys(&meta_data), Position::default());
    let place = &meta_data["placement"];
    let zone = text(&place["availability-zone"]).or_else(|| text(&meta_data["zone-id"]));
    // Earlier versions have the zone alone; a region's zones are the region and a letter.
    let region = text(&place["region"])
        .or_else(|| text(&meta_data["region-id"]))
        .or_else(|| {
            let zone = zone.as_deref().filter(|_| dialect.platform == "ec2")?;
            Some(zone.trim_end_matches(char::is_alphabetic).to_owned())
        });
    let network = network(&meta_data["network"])
        .and_then(|network| super::synthesised(&network, diagnostics));
    Ok(Source {
        platform: dialect.platform.to_owned(),
        place: format!("the metadata service {base}"),
        instance_id,
        hostname: text(&meta_data["local-hostname"]).or_else(|| text(&meta_data["hostname"])),
        public_keys: authorized_keys("public-keys", &keys, diagnostics),
        region,
        availability_zone: zone,
        network,
        user_data: user_data.and_then(some).map(maybe_base64),
        meta_data,
        ..Source::default()
    })
}

/// Gets a token and shows it from then on. A service that knows none does without.
fn token(name: &str, base: &str, client: &mut Client<'_>) -> Result<(), String> {
    let url = format!("{base}/latest/api/token");
    let request = Request {
        method: Method::Put,
        url: url.clone(),
        headers: vec![(format!("{name}-ttl-seconds"), TOKEN_SECONDS.to_owned())],
        ..Request::default()
    };
    let response = client.send(request)?;
    match response.status {
        200..=299 => {
            client.with_header(name, String::from_utf8_lossy(&response.body).trim());
            Ok(())
        }
        400 | 404 | 405 | 501 => Ok(()),
        403 => Err(format!(
            "{url} answers with status 403: the service is switched off for this machine"
        )),
        status => Err(format!("{url} answers with status {status}")),
    }
}

/// Reads a directory, whose lines are names; that of a directory ends with a slash.
fn walk(
    client: &mut Client<'_>,
    url: &str,
    depth: usize,
    left: &mut usize,
) -> Result<Json, String> {
    let listing = client.get(url)?.unwrap_or_default();
    let listing = String::from_utf8_lossy(&listing).into_owned();
    let mut all = Map::new();
    for line in listing.lines().map(str::trim) {
        // The one with keys lists `0=name of the key`, and each key is a directory.
        let (line, is_key) = match line.split_once('=') {
            Some((number, _)) if url.ends_with("/public-keys/") => (number, true),
            _ => (line, false),
        };
        if line.is_empty() || LEFT_OUT.contains(&line) || line.contains("..") {
            continue;
        }
        if *left == 0 {
            return Err(format!(
                "{url}: there are more than {MAX_DOCUMENTS} documents"
            ));
        }
        *left -= 1;
        let name = utf8_percent_encode(line, NAME);
        let value = match line.strip_suffix('/') {
            Some(_) if depth == MAX_DEPTH => {
                return Err(format!(
                    "{url}: directories are nested more than {MAX_DEPTH} deep"
                ));
            }
            Some(_) => walk(client, &format!("{url}{name}"), depth + 1, left)?,
            None if is_key => walk(client, &format!("{url}{name}/"), depth + 1, left)?,
            None => match document(client, &format!("{url}{name}"))? {
                Some(bytes) => leaf(&bytes),
                None => continue,
            },
        };
        all.insert(line.trim_end_matches('/').to_owned(), value);
    }
    Ok(Json::Object(all))
}

/// One document of many: what the service lists and then refuses is left out.
fn document(client: &mut Client<'_>, url: &str) -> Result<Option<Vec<u8>>, String> {
    let response = client.send(Request {
        url: url.to_owned(),
        ..Request::default()
    })?;
    match response.status {
        400 | 403 | 405 => Ok(None),
        _ => found(url, response),
    }
}

/// Several lines are a list.
fn leaf(bytes: &[u8]) -> Json {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [_, _, ..] => json!(lines),
        _ => Json::String(text.trim_end_matches('\n').to_owned()),
    }
}

/// All keys, however the service groups them.
fn public_keys(meta_data: &Json) -> Json {
    fn collect(json: &Json, all: &mut Vec<Json>) {
        match json {
            Json::String(_) => all.push(json.clone()),
            Json::Array(items) => items.iter().for_each(|item| collect(item, all)),
            Json::Object(fields) => match fields.get("openssh-key") {
                Some(key) => collect(key, all),
                None => fields.values().for_each(|item| collect(item, all)),
            },
            _ => {}
        }
    }
    let mut all = Vec::new();
    collect(&meta_data["public-keys"], &mut all);
    all.retain(|key| key.as_str().is_some_and(|text| !text.trim().is_empty()));
    Json::Array(all)
}

/// One text, or a list of them.
fn texts(json: &Json) -> Vec<&str> {
    match json {
        Json::String(one) if !one.is_empty() => vec![one],
        Json::Array(all) => all.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    }
}

/// The network in version 2 of network-config: DHCP on each card, the first of them first; further addresses of a card are
/// its own, and answers from a further card leave by it. `None` when nothing is said of cards.
pub fn network(network: &Json) -> Option<Json> {
    let cards = network["interfaces"]["macs"].as_object()?;
    let number =
        |card: &Json, key: &str| text(&card[key]).and_then(|text| text.parse::<u32>().ok());
    let mut cards: Vec<(&String, &Json)> = cards.iter().collect();
    cards.sort_by_key(|(mac, card)| {
        let key = |name| number(card, name).unwrap_or(u32::MAX);
        (
            number(card, "network-card").unwrap_or(0),
            key("device-number"),
            *mac,
        )
    });
    let mut ethernets = Map::new();
    for (index, (mac, card)) in cards.iter().enumerate() {
        let version_6 = !texts(&card["ipv6s"]).is_empty();
        let mut device = json!({
            "match": {"macaddress": mac.trim_end_matches('/')},
            "dhcp4": true,
            "dhcp6": version_6,
        });
        let addresses = further_addresses(card);
        if !addresses.is_empty() {
            device["addresses"] = json!(addresses);
        }
        if cards.len() > 1 {
            let overrides = json!({"route-metric": (index + 1) * 100});
            device["dhcp4-overrides"] = overrides.clone();
            if version_6 {
                device["dhcp6-overrides"] = overrides;
            }
        }
        if index > 0 && number(card, "device-number").is_some() {
            leaves_by_itself(&mut device, card, 100 + index);
        }
        ethernets.insert(format!("eth{index}"), device);
    }
    Some(json!({"version": 2, "ethernets": ethernets}))
}

/// Addresses beside the one that DHCP gives.
fn further_addresses(card: &Json) -> Vec<String> {
    let mut all = Vec::new();
    for (addresses, subnet, longest) in [
        ("local-ipv4s", "subnet-ipv4-cidr-block", 24),
        ("ipv6s", "subnet-ipv6-cidr-block", 128),
    ] {
        let subnet = texts(&card[subnet])
            .first()
            .and_then(|text| text.parse::<Cidr>().ok());
        let prefix = subnet.map_or(longest, |subnet| subnet.prefix);
        let further = texts(&card[addresses]).into_iter().skip(1);
        let mut further: Vec<String> = further
            .map(|address| format!("{address}/{prefix}"))
            .collect();
        further.sort();
        all.append(&mut further);
    }
    all
}

/// A further card's packets leave by it: its addresses have a table of routes of their own.
fn leaves_by_itself(device: &mut Json, card: &Json, table: usize) {
    let subnet = texts(&card["subnet-ipv4-cidr-block"])
        .first()
        .and_then(|text| text.parse::<Cidr>().ok());
    let Some((subnet, std::net::IpAddr::V4(first))) =
        subnet.map(|subnet| (subnet, subnet.network().address))
    else {
        return;
    };
    // The router has the first address of a subnet (Amazon VPC User Guide, "Subnet CIDR blocks").
    let router = std::net::Ipv4Addr::from(u32::from(first).saturating_add(1));
    device["routes"] = json!([
        {"to": "0.0.0.0/0", "via": router.to_string(), "table": table},
        {"to": subnet.network().to_string(), "table": table, "scope": "link"},
    ]);
    let rules = texts(&card["local-ipv4s"]).into_iter();
    let rules: Vec<Json> = rules
        .map(|address| json!({"from": address, "table": table}))
        .collect();
    device["routing-policy"] = json!(rules);
}

#[cfg(test)]
mod tests {
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
}
