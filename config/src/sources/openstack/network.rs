//! `network_data.json`.

use serde_json::Value as Json;

use crate::diagnostic::Diagnostics;
use crate::network::{Bond, Cidr, Dns, Interface, Kind, Match, Network, Route, Vlan};

/// Links, addresses and name servers of `network_data.json`.
pub fn network(data: &Json, diagnostics: &mut Diagnostics) -> Network {
    let mut network = Network::default();
    let list = |name: &str| data[name].as_array().into_iter().flatten();
    let links: Vec<&Json> = list("links").collect();
    for link in &links {
        network
            .interfaces
            .extend(interface(link, &links, diagnostics));
    }
    for part in list("networks") {
        let link = part["link"].as_str().unwrap_or_default();
        let index = links.iter().position(|other| other["id"] == link);
        let name = index
            .and_then(|index| links.get(index))
            .map(|link| name_of(link, &links));
        let found = network
            .interfaces
            .iter_mut()
            .find(|interface| Some(&interface.name) == name.as_ref());
        match found {
            Some(interface) => subnet(interface, part, diagnostics),
            None => diagnostics.warning(
                None,
                format!("a network is on the link `{link}`, which is not there; it is left out"),
            ),
        }
    }
    for service in list("services") {
        if service["type"] == "dns"
            && let Some(address) = service["address"]
                .as_str()
                .and_then(|text| text.parse().ok())
        {
            network.global_dns.servers.push(address);
            network.global_dns.search.extend(texts(&service["search"]));
        }
    }
    for interface in &mut network.interfaces {
        if !interface.addresses.is_empty() && interface.dns.is_empty() {
            interface.dns.clone_from(&network.global_dns);
        }
    }
    network
}

/// What a link is called here: by its own name, or as its kind says.
fn name_of(link: &Json, links: &[&Json]) -> String {
    if let Some(name) = link["name"].as_str() {
        return name.to_owned();
    }
    let id = link["id"].as_str().unwrap_or_default();
    match link["type"].as_str() {
        Some("bond") => {
            let bonds = links.iter().filter(|other| other["type"] == "bond");
            let number = bonds.take_while(|other| other["id"] != link["id"]).count();
            format!("bond{number}")
        }
        Some("vlan") => {
            let below = link["vlan_link"].as_str().unwrap_or_default();
            let below = links.iter().find(|other| other["id"] == below);
            let below = below.map_or_else(|| id.to_owned(), |below| name_of(below, &[]));
            format!("{below}.{}", link["vlan_id"])
        }
        _ => id.to_owned(),
    }
}

fn interface(link: &Json, links: &[&Json], diagnostics: &mut Diagnostics) -> Option<Interface> {
    let text = |key: &str| link[key].as_str().map(str::to_ascii_lowercase);
    let mac = text("ethernet_mac_address");
    let name = name_of(link, links);
    let mtu = link["mtu"].as_u64().and_then(|mtu| u32::try_from(mtu).ok());
    let below = |id: &Json| {
        let found = links.iter().find(|other| other["id"] == *id);
        found.map(|found| name_of(found, links))
    };
    let mut interface = Interface {
        name,
        mtu,
        ..Interface::default()
    };
    match link["type"].as_str() {
        Some("bond") => {
            let members = link["bond_links"].as_array().into_iter().flatten();
            let mut bond = Bond {
                members: members.filter_map(below).collect(),
                ..Bond::default()
            };
            let names = [
                ("bond_mode", "mode"),
                ("bond_miimon", "mii-monitor-interval"),
                ("bond_xmit_hash_policy", "transmit-hash-policy"),
                ("bond_lacp_rate", "lacp-rate"),
            ];
            for (theirs, ours) in names {
                if !link[theirs].is_null() {
                    bond.params.insert(ours.to_owned(), link[theirs].clone());
                }
            }
            interface.kind = Kind::Bond(bond);
            interface.mac = mac;
        }
        Some("vlan") => {
            let id = link["vlan_id"]
                .as_u64()
                .and_then(|id| u16::try_from(id).ok());
            let (Some(id), Some(link)) = (id, below(&link["vlan_link"])) else {
                let message = format!(
                    "the VLAN `{}` has no number or no link; it is left out",
                    link["id"]
                );
                diagnostics.warning(None, message);
                return None;
            };
            interface.kind = Kind::Vlan(Vlan { id, link });
            interface.mac = text("vlan_mac_address");
        }
        _ => {
            // Whatever is behind it in the cloud, here it is a card.
            let Some(mac) = mac else {
                let message = format!(
                    "the link `{}` has no hardware address; it is left out",
                    link["id"]
                );
                diagnostics.warning(None, message);
                return None;
            };
            interface.matches = Match {
                mac: Some(mac),
                ..Match::default()
            };
            interface.set_name = link["name"].as_str().map(str::to_owned);
        }
    }
    Some(interface)
}

/// A text, or a list of texts.
fn texts(json: &Json) -> Vec<String> {
    let one = json.as_str().into_iter();
    let many = json
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str);
    one.chain(many).map(str::to_owned).collect()
}

/// One of `networks`.
fn subnet(interface: &mut Interface, part: &Json, diagnostics: &mut Diagnostics) {
    match part["type"].as_str().unwrap_or_default() {
        "ipv4_dhcp" | "dhcp" | "dhcp4" => interface.dhcp4 = true,
        "ipv6_dhcp" | "dhcp6" | "ipv6_dhcpv6-stateful" | "ipv6_dhcpv6-stateless" | "ipv6_slaac" => {
            interface.dhcp6 = true;
        }
        "ipv4" | "ipv6" => {
            let mask = part["netmask"].as_str().filter(|mask| !mask.is_empty());
            let address = part["ip_address"].as_str().unwrap_or_default();
            let default = |version_6| if version_6 { 64 } else { 24 };
            match crate::network::address_with_mask(address, mask, default) {
                Ok(cidr) => {
                    if cidr.address.is_ipv6() {
                        interface.accept_ra.get_or_insert(false);
                    }
                    interface.addresses.push(cidr);
                }
                Err(error) => {
                    diagnostics.error(None, format!("ip_address: {error}; it is left out"))
                }
            }
        }
        _ => {}
    }
    for route in part["routes"].as_array().into_iter().flatten() {
        let text = |key: &str| route[key].as_str().filter(|text| !text.is_empty());
        let via = text("gateway").and_then(|text| text.parse().ok());
        let default = |version_6| if version_6 { 64 } else { 24 };
        let to = crate::network::address_with_mask(
            text("network").unwrap_or_default(),
            text("netmask"),
            default,
        );
        match to {
            Ok(to) => interface.routes.push(Route {
                to: to.network(),
                via,
                ..Route::default()
            }),
            Err(error) => diagnostics.error(None, format!("routes: {error}; it is left out")),
        }
    }
    if let Some(via) = part["gateway"]
        .as_str()
        .and_then(|text| text.parse::<std::net::IpAddr>().ok())
    {
        interface.routes.push(Route {
            to: Cidr::everything(via.is_ipv6()),
            via: Some(via),
            ..Route::default()
        });
    }
    let mut dns = Dns::default();
    for server in part["dns_nameservers"].as_array().into_iter().flatten() {
        dns.servers.extend(
            server
                .as_str()
                .and_then(|text| text.parse::<std::net::IpAddr>().ok()),
        );
    }
    dns.search.extend(texts(&part["dns_search"]));
    for service in part["services"].as_array().into_iter().flatten() {
        if service["type"] == "dns" {
            let address = service["address"].as_str();
            dns.servers
                .extend(address.and_then(|text| text.parse::<std::net::IpAddr>().ok()));
        }
    }
    interface.dns.servers.extend(dns.servers);
    interface.dns.search.extend(dns.search);
}
