//! Equinix Metal's metadata service (Equinix Metal documentation, "Metadata").

use serde_json::{Map, Value as Json, json};

use super::Source;
use super::http::{Client, some, text};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::yaml;

/// Where it is.
const BASE: &str = "https://metadata.platformequinix.com";
/// The bond of all cards has this name there.
const BOND: &str = "bond0";

/// Asks the service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(client: &mut Client<'_>, diagnostics: &mut Diagnostics) -> Result<Source, String> {
    let all = client.json(&format!("{BASE}/metadata"))?;
    let id = text(&all["id"]).ok_or("the metadata service names no instance")?;
    let user_data = client.get(&format!("{BASE}/userdata"))?.and_then(some);
    let keys = all["ssh_keys"].as_array().cloned().unwrap_or_default();
    let keys = yaml::from_json(&Json::from(keys), Position::default());
    let network =
        network(&all["network"]).and_then(|network| super::synthesised(&network, diagnostics));
    Ok(Source {
        platform: "equinix".to_owned(),
        place: "the metadata service of Equinix Metal".to_owned(),
        instance_id: id,
        hostname: text(&all["hostname"]),
        public_keys: authorized_keys("ssh_keys", &keys, diagnostics),
        region: text(&all["metro"]),
        availability_zone: text(&all["facility"]),
        network,
        user_data,
        meta_data: all,
        ..Source::default()
    })
}

/// The network in version 2 of network-config: all cards are one bond, which has the addresses. `None` without cards.
pub fn network(network: &Json) -> Option<Json> {
    let (mut ethernets, mut members) = (Map::new(), Vec::new());
    for card in network["interfaces"].as_array()? {
        let (Some(name), Some(mac)) = (text(&card["name"]), text(&card["mac"])) else {
            continue;
        };
        ethernets.insert(
            name.clone(),
            json!({"match": {"macaddress": mac.to_ascii_lowercase()}}),
        );
        members.push(name);
    }
    let (mut addresses, mut routes) = (Vec::new(), Vec::new());
    for address in network["addresses"].as_array().into_iter().flatten() {
        let (Some(ip), Some(prefix), Some(via)) = (
            text(&address["address"]),
            text(&address["cidr"]),
            text(&address["gateway"]),
        ) else {
            continue;
        };
        addresses.push(json!(format!("{ip}/{prefix}")));
        let is_public = address["public"] == true;
        match (address["address_family"].as_u64(), is_public) {
            (Some(6), true) => routes.push(json!({"to": "::/0", "via": via})),
            (Some(4), true) => routes.push(json!({"to": "0.0.0.0/0", "via": via})),
            // Private addresses of the project are in it.
            (Some(4), false) => routes.push(json!({"to": "10.0.0.0/8", "via": via})),
            _ => {}
        }
    }
    if members.is_empty() || addresses.is_empty() {
        return None;
    }
    let mode = network["bonding"]["mode"]
        .as_u64()
        .filter(|mode| *mode != 4);
    let mode = match mode {
        Some(1) => "active-backup",
        Some(5) => "balance-tlb",
        _ => "802.3ad",
    };
    let bond = json!({
        "interfaces": members,
        "parameters": {"mode": mode, "mii-monitor-interval": 100, "down-delay": 200, "up-delay": 200},
        "addresses": addresses,
        "routes": routes,
        "nameservers": {"addresses": ["147.75.207.207", "147.75.207.208"]},
    });
    Some(json!({"version": 2, "ethernets": ethernets, "bonds": {BOND: bond}}))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Kind;
    use crate::sources::http::Request;
    use crate::sources::http::fake::Service;

    #[test]
    fn all_cards_are_one_bond() {
        let document = r#"{"id": "u-1", "hostname": "metal", "metro": "am", "ssh_keys": ["ssh-rsa AAAA a"], "network": {"bonding": {"mode": 4},
            "interfaces": [{"name": "eth0", "mac": "B8:00:00:00:00:01", "bond": "bond0"}, {"name": "eth1", "mac": "b8:00:00:00:00:02", "bond": "bond0"}],
            "addresses": [{"address_family": 4, "public": true, "address": "192.0.2.2", "cidr": 31, "gateway": "192.0.2.3"}, {"address_family": 4, "public": false, "address": "10.2.0.1", "cidr": 31, "gateway": "10.2.0.0"}]}}"#;
        let mut service = Service::new(BASE, &[("/metadata", document)]);
        let mut exchange = |request: &Request| service.answer(request);
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        let interfaces = source.network.unwrap().interfaces;
        let bond = interfaces
            .iter()
            .find(|one| matches!(one.kind, Kind::Bond(_)))
            .unwrap();
        assert_eq!((bond.addresses.len(), bond.routes.len()), (2, 2));
    }
}
