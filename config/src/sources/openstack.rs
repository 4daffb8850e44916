//! OpenStack's documents, on a config drive or from the metadata service: `meta_data.json`, `network_data.json`,
//! `vendor_data.json` (OpenStack Nova documentation, "Metadata").

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::http::{Client, LINK_LOCAL};
use super::{Source, http, meta_data};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::network::{Bond, Cidr, Dns, Interface, Kind, Match, Network, Route, Vlan};
use crate::yaml;

/// Versions of the documents that are understood, the newest first; `latest` is taken when none of them is there.
pub const VERSIONS: [&str; 9] = [
    "2018-08-27",
    "2017-02-22",
    "2016-10-06",
    "2016-06-30",
    "2015-10-15",
    "2013-10-17",
    "2013-04-04",
    "2012-08-10",
    "latest",
];

/// The documents. One that is not there is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `meta_data.json`.
    pub meta_data: Vec<u8>,
    /// `user_data`.
    pub user_data: Option<Vec<u8>>,
    /// `vendor_data.json`.
    pub vendor_data: Option<Vec<u8>>,
    /// `vendor_data2.json`.
    pub vendor_data_2: Option<Vec<u8>>,
    /// `network_data.json`.
    pub network_data: Option<Vec<u8>>,
}

/// Asks OpenStack's metadata service for the documents of the newest version that both know.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(client: &mut Client<'_>, diagnostics: &mut Diagnostics) -> Result<Source, String> {
    let base = format!("{LINK_LOCAL}/openstack");
    let listing = client.require(&base)?;
    let listing = String::from_utf8_lossy(&listing).into_owned();
    let offered: Vec<&str> = listing
        .lines()
        .map(|line| line.trim().trim_end_matches('/'))
        .collect();
    let version = VERSIONS
        .into_iter()
        .find(|version| offered.contains(version));
    let version = version.unwrap_or("latest");
    let mut file = |name: &str| client.get(&format!("{base}/{version}/{name}"));
    let files = Files {
        meta_data: file("meta_data.json")?
            .ok_or_else(|| format!("{base}/{version} has no meta_data.json"))?,
        user_data: file("user_data")?,
        vendor_data: file("vendor_data.json")?,
        vendor_data_2: file("vendor_data2.json")?,
        network_data: file("network_data.json")?,
    };
    let place = format!("the metadata service {LINK_LOCAL}");
    read(files, "openstack", &place, diagnostics)
        .ok_or_else(|| format!("{base}/{version}/meta_data.json cannot be used"))
}

/// What the documents say; `platform` and `place` are what they were found as. `None`, and an error, without an instance.
pub fn read(
    files: Files,
    platform: &str,
    place: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Source> {
    let mut meta = json("meta_data.json", &files.meta_data, diagnostics)?;
    let Some(id) = http::text(&meta["uuid"]) else {
        diagnostics.error(None, "there is no `uuid`; nothing of it is applied");
        return None;
    };
    let node = yaml::from_json(&meta, Position::default());
    let fields = yaml::mapping("meta_data.json", &node, diagnostics)?;
    let hostname = meta_data::hostname(
        &fields,
        &["hostname", "local-hostname", "name"],
        diagnostics,
    );
    let keys = fields.get("public_keys");
    let public_keys = keys
        .map(|node| authorized_keys("public_keys", node, diagnostics))
        .unwrap_or_default();
    // Another one each time, and nobody else's business.
    let random_seed = meta
        .as_object_mut()
        .and_then(|all| all.remove("random_seed"));
    let random_seed = random_seed.as_ref().and_then(Json::as_str);
    let network = files
        .network_data
        .and_then(|bytes| json("network_data.json", &bytes, diagnostics))
        .map(|data| network(&data, diagnostics))
        .filter(|network| !network.interfaces.is_empty());
    let vendor_data = [
        ("vendor_data.json", files.vendor_data),
        ("vendor_data2.json", files.vendor_data_2),
    ];
    Some(Source {
        platform: platform.to_owned(),
        place: place.to_owned(),
        instance_id: id,
        hostname,
        public_keys,
        network,
        user_data: files.user_data,
        vendor_data: vendor_data
            .into_iter()
            .filter_map(|(name, bytes)| vendor_data_of(name, &bytes?, diagnostics))
            .collect(),
        random_seed: random_seed.map(|text| STANDARD.decode(text).unwrap_or_else(|_| text.into())),
        meta_data: meta,
        ..Source::default()
    })
}

/// Reads a document; `None`, and an error with the place, when it is no JSON.
fn json(name: &str, bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<Json> {
    let source = diagnostics.add_source(name);
    match serde_json::from_slice(bytes) {
        Ok(json) => Some(json),
        Err(error) => {
            let at = Position {
                source,
                line: error.line().max(1),
                column: error.column().max(1),
            };
            diagnostics.error(
                at,
                format!("not valid JSON, nothing of it is applied: {error}"),
            );
            None
        }
    }
}

/// The user-data in vendor data: a text, what stands under `cloud-init`, or a list of such.
fn vendor_data_of(name: &str, bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<Vec<u8>> {
    let text = match json(name, bytes, diagnostics)? {
        Json::String(text) => text,
        Json::Object(fields) => match fields.get("cloud-init")? {
            Json::String(text) => text.clone(),
            Json::Array(items) => items
                .iter()
                .filter_map(Json::as_str)
                .collect::<Vec<_>>()
                .join("\n"),
            _ => return None,
        },
        _ => return None,
    };
    (!text.trim().is_empty()).then(|| text.into_bytes())
}

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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::Request;
    use crate::sources::http::fake::Service;

    #[test]
    fn a_config_drive_says_who_the_machine_is() {
        let mut diagnostics = Diagnostics::new("");
        let files = Files {
            meta_data: br#"{"uuid": "u-1", "hostname": "node.example", "public_keys": {"mine": "ssh-rsa AAAA me\n"}, "random_seed": "aGVsbG8="}"#.to_vec(),
            vendor_data: Some(br##"{"cloud-init": "#cloud-config\n"}"##.to_vec()),
            network_data: Some(br#"{"links": [{"id": "l", "type": "phy", "ethernet_mac_address": "FA:16:3E:00:00:01"}, {"id": "v", "type": "vlan", "vlan_id": 7, "vlan_link": "l"}],
                "networks": [{"link": "l", "type": "ipv4", "ip_address": "192.0.2.5", "netmask": "255.255.255.0", "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}]}],
                "services": [{"type": "dns", "address": "192.0.2.53"}]}"#.to_vec()),
            ..Files::default()
        };
        let source = read(files, "configdrive", "vdb", &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(source.public_keys, ["ssh-rsa AAAA me"]);
        assert_eq!(source.random_seed.as_deref(), Some(&b"hello"[..]));
        assert_eq!(source.vendor_data, [b"#cloud-config\n"]);
        let network = source.network.unwrap();
        assert_eq!(
            network.interfaces[0].matches.mac.as_deref(),
            Some("fa:16:3e:00:00:01")
        );
        assert_eq!(network.interfaces[0].routes[0].to.prefix, 0);
        assert_eq!(network.interfaces[1].name, "l.7");
    }

    #[test]
    fn the_service_is_asked_for_the_newest_version_that_both_know() {
        let documents = [
            ("", "2012-08-10\n2018-08-27\n2025-04-04\nlatest"),
            ("/2018-08-27/meta_data.json", r#"{"uuid": "u-1"}"#),
            ("/2018-08-27/user_data", "#!/bin/sh"),
        ];
        let mut service = Service::new("http://169.254.169.254/openstack", &documents);
        let mut exchange = |request: &Request| service.answer(request);
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(source.instance_id, "u-1");
        assert_eq!(source.user_data.as_deref(), Some(&b"#!/bin/sh"[..]));
        service.documents.clear();
        let mut exchange = |request: &Request| service.answer(request);
        let error = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap_err();
        assert!(error.contains("status 404"), "{error}");
    }

    #[test]
    fn without_an_instance_there_is_nothing_to_apply() {
        let mut diagnostics = Diagnostics::new("");
        for bytes in [&b"{}"[..], b"{", b"[]"] {
            let files = Files {
                meta_data: bytes.to_vec(),
                ..Files::default()
            };
            assert!(read(files, "configdrive", "vdb", &mut diagnostics).is_none());
        }
        assert_eq!(diagnostics.into_sorted().len(), 3);
    }
}
