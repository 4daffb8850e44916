//! Vultr's metadata service (Vultr documentation, "Instance Metadata").

use serde_json::{Value as Json, json};

use super::Source;
use super::http::{Client, LINK_LOCAL, some, text};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::yaml;

/// Vultr's own name servers, which the service does not say.
const NAME_SERVERS: [&str; 2] = ["108.61.10.10", "2001:19f0:300:1704::6"];

/// Asks the service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(client: &mut Client<'_>, diagnostics: &mut Diagnostics) -> Result<Source, String> {
    client.with_header("Metadata-Token", "cloudinit");
    let all = client.json(&format!("{LINK_LOCAL}/v1.json"))?;
    let id = text(&all["instance-v2-id"]).or_else(|| text(&all["instance-id"]));
    let id = id.ok_or("the metadata service names no instance")?;
    let keys = match all["public-keys"].is_null() {
        true => Vec::new(),
        false => {
            let keys = yaml::from_json(&all["public-keys"], Position::default());
            authorized_keys("public-keys", &keys, diagnostics)
        }
    };
    // A list where there is none.
    let bytes = |key: &str| text(&all[key]).map(String::into_bytes).and_then(some);
    let network =
        network(&all["interfaces"]).and_then(|network| super::synthesised(&network, diagnostics));
    Ok(Source {
        platform: "vultr".to_owned(),
        place: "the metadata service of Vultr".to_owned(),
        instance_id: id,
        hostname: text(&all["hostname"]).map(|name| name.replace('_', "-")),
        public_keys: keys,
        region: text(&all["region"]["regioncode"]),
        network,
        user_data: bytes("user-data"),
        vendor_data: bytes("vendor-data").into_iter().collect(),
        meta_data: all,
        ..Source::default()
    })
}

/// The network in version 1 of network-config, as cloud-init makes it: the public card asks, a private one has what the service
/// says. `None` without cards.
pub fn network(interfaces: &Json) -> Option<Json> {
    let mut config = vec![json!({"type": "nameserver", "address": NAME_SERVERS})];
    for (index, card) in interfaces.as_array()?.iter().enumerate() {
        let is_public = card["network-type"] == "public";
        let (version_4, version_6) = (&card["ipv4"], &card["ipv6"]);
        let mut subnets = match is_public {
            true => vec![json!({"type": "dhcp"}), json!({"type": "ipv6_slaac"})],
            false => vec![
                json!({"type": "static", "address": version_4["address"], "netmask": version_4["netmask"]}),
            ],
        };
        for address in version_4["additional"].as_array().into_iter().flatten() {
            subnets.push(json!({"type": "static", "address": address["address"], "netmask": address["netmask"]}));
        }
        for address in version_6["additional"].as_array().into_iter().flatten() {
            let prefix = text(&address["prefix"]).unwrap_or_default();
            let network = text(&address["network"]).unwrap_or_default();
            subnets.push(json!({"type": "static6", "address": format!("{network}/{prefix}")}));
        }
        let mut device = json!({
            "type": "physical",
            "name": format!("eth{index}"),
            "mac_address": card["mac"],
            "subnets": subnets,
        });
        if is_public {
            device["accept-ra"] = json!(true);
        }
        config.push(device);
    }
    (config.len() > 1).then(|| json!({"version": 1, "config": config}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::Request;
    use crate::sources::http::fake::Service;

    #[test]
    fn a_private_card_has_what_the_service_says() {
        let document = r##"{"instance-v2-id": "u-1", "instanceid": "42", "hostname": "CLOUD_1", "region": {"regioncode": "EWR"}, "public-keys": ["ssh-rsa AAAA me"], "user-data": [], "vendor-data": "#cloud-config\n",
            "interfaces": [{"mac": "56:00:00:00:00:01", "network-type": "public", "ipv4": {"address": "192.0.2.2", "additional": []}, "ipv6": {"additional": []}},
                {"mac": "5a:00:00:00:00:02", "network-type": "private", "ipv4": {"address": "10.1.112.3", "netmask": "255.255.240.0", "additional": []}, "ipv6": {"additional": []}}]}"##;
        let mut service = Service::new(LINK_LOCAL, &[("/v1.json", document)]);
        service.requires = Some(("Metadata-Token".into(), "cloudinit".into()));
        let mut exchange = |request: &Request| service.answer(request);
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(
            (source.hostname.as_deref(), source.user_data),
            (Some("CLOUD-1"), None)
        );
        assert_eq!(source.vendor_data, [b"#cloud-config\n"]);
        let interfaces = source.network.unwrap().interfaces;
        assert!(interfaces[0].dhcp4 && !interfaces[1].dhcp4);
        assert_eq!(
            (
                interfaces[1].addresses[0].to_string().as_str(),
                interfaces[1].set_name.as_deref()
            ),
            ("10.1.112.3/20", None)
        );
    }
}
