//! DigitalOcean's metadata service (DigitalOcean documentation, "Droplet Metadata API"), and UpCloud's, whose one document says the
//! same by other names ("UpCloud metadata service").

use serde_json::{Map, Value as Json, json};

use super::Source;
use super::http::{Client, LINK_LOCAL, some, text};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::yaml;

/// Asks DigitalOcean's service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(client: &mut Client<'_>, diagnostics: &mut Diagnostics) -> Result<Source, String> {
    let all = client.json(&format!("{LINK_LOCAL}/metadata/v1.json"))?;
    let id = text(&all["droplet_id"]).ok_or("the metadata service names no droplet")?;
    let network = network(&all["interfaces"], &all["dns"]["nameservers"])
        .and_then(|network| super::synthesised(&network, diagnostics));
    let place = "the metadata service of DigitalOcean";
    Ok(Source {
        network,
        ..source("digitalocean", place, id, all, diagnostics)
    })
}

/// Asks UpCloud's service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch_upcloud(
    client: &mut Client<'_>,
    diagnostics: &mut Diagnostics,
) -> Result<Source, String> {
    let all = client.json(&format!("{LINK_LOCAL}/metadata/v1.json"))?;
    let id = text(&all["instance_id"]).ok_or("the metadata service names no instance")?;
    let place = "the metadata service of UpCloud";
    Ok(source("upcloud", place, id, all, diagnostics))
}

/// What both documents say in the same words.
fn source(
    platform: &str,
    place: &str,
    instance_id: String,
    all: Json,
    diagnostics: &mut Diagnostics,
) -> Source {
    let keys = yaml::from_json(&all["public_keys"], Position::default());
    let bytes = |key: &str| text(&all[key]).map(String::into_bytes).and_then(some);
    Source {
        platform: platform.to_owned(),
        place: place.to_owned(),
        instance_id,
        hostname: text(&all["hostname"]),
        public_keys: match all["public_keys"].is_null() {
            true => Vec::new(),
            false => authorized_keys("public_keys", &keys, diagnostics),
        },
        region: text(&all["region"]),
        user_data: bytes("user_data"),
        vendor_data: bytes("vendor_data").into_iter().collect(),
        meta_data: all,
        ..Source::default()
    }
}

/// The network in version 2 of network-config: cards with the addresses that the droplet has; the public one has the way out.
/// `None` without cards.
pub fn network(interfaces: &Json, name_servers: &Json) -> Option<Json> {
    let mut ethernets = Map::new();
    let cards = interfaces.as_object()?.values();
    for card in cards.filter_map(|cards| cards.get(0)) {
        let is_public = card["type"] == "public";
        let (mut addresses, mut routes) = (Vec::new(), Vec::new());
        for kind in ["ipv4", "ipv6", "anchor_ipv4", "anchor_ipv6"] {
            let part = &card[kind];
            let Some(address) = text(&part["ip_address"]) else {
                continue;
            };
            let version_6 = address.contains(':');
            let mask = text(&part[if version_6 { "cidr" } else { "netmask" }]);
            let default = |version_6| if version_6 { 64 } else { 24 };
            let Ok(cidr) = crate::network::address_with_mask(&address, mask.as_deref(), default)
            else {
                continue;
            };
            addresses.push(cidr.to_string());
            if is_public
                && !kind.starts_with("anchor")
                && let Some(via) = text(&part["gateway"])
            {
                routes
                    .push(json!({"to": if version_6 { "::/0" } else { "0.0.0.0/0" }, "via": via}));
            }
        }
        let mut device = json!({
            "match": {"macaddress": text(&card["mac"]).unwrap_or_default().to_ascii_lowercase()},
            "addresses": addresses,
            "routes": routes,
        });
        if name_servers.is_array() && is_public {
            device["nameservers"] = json!({"addresses": name_servers});
        }
        ethernets.insert(format!("eth{}", ethernets.len()), device);
    }
    (!ethernets.is_empty()).then(|| json!({"version": 2, "ethernets": ethernets}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::Request;
    use crate::sources::http::fake::Service;

    #[test]
    fn a_droplet_has_its_addresses_and_the_public_one_the_way_out() {
        let document = r##"{"droplet_id": 27, "hostname": "d", "region": "nyc3", "public_keys": ["ssh-rsa AAAA me"], "user_data": "#cloud-config\n", "vendor_data": "",
            "interfaces": {"public": [{"mac": "AE:00:00:00:00:01", "type": "public", "ipv4": {"ip_address": "192.0.2.9", "netmask": "255.255.192.0", "gateway": "192.0.2.1"},
                "anchor_ipv4": {"ip_address": "10.17.0.5", "netmask": "255.255.0.0", "gateway": "10.17.0.1"}, "ipv6": {"ip_address": "2001:db8::9", "cidr": 64, "gateway": "2001:db8::1"}}],
                "private": [{"mac": "ae:00:00:00:00:02", "type": "private", "ipv4": {"ip_address": "10.1.0.2", "netmask": "255.255.0.0", "gateway": "10.1.0.1"}}]},
            "dns": {"nameservers": ["192.0.2.53"]}}"##;
        let mut service = Service::new(LINK_LOCAL, &[("/metadata/v1.json", document)]);
        let mut exchange = |request: &Request| service.answer(request);
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(
            (source.instance_id.as_str(), source.region.as_deref()),
            ("27", Some("nyc3"))
        );
        assert_eq!(source.vendor_data, [b""; 0]);
        let interfaces = source.network.unwrap().interfaces;
        let public = interfaces
            .iter()
            .find(|one| one.matches.mac.as_deref() == Some("ae:00:00:00:00:01"))
            .unwrap();
        let addresses: Vec<_> = public.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(
            addresses,
            ["192.0.2.9/18", "2001:db8::9/64", "10.17.0.5/16"]
        );
        assert_eq!(
            (public.routes.len(), public.dns.servers.len(), public.dhcp4),
            (2, 1, false)
        );
        let private = interfaces
            .iter()
            .find(|one| one.matches.mac.as_deref() == Some("ae:00:00:00:00:02"))
            .unwrap();
        assert_eq!((private.routes.len(), private.addresses.len()), (0, 1));
    }
}
