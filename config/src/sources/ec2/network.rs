//! The network of a machine in EC2, as its cards are described.

use serde_json::{Map, Value as Json, json};

use crate::network::Cidr;
use crate::sources::http::text;

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
