//! `rancher.network` of RancherOS: interfaces by name, glob or hardware address.

use std::collections::BTreeMap;

use super::cidr::Cidr;
use super::model::{Bond, Bridge, Interface, Kind, Match, Network, Route, Vlan};
use super::values;
use super::{keys_1, parameters};
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node, Shape, Table, Value};

/// `rancher.network`
pub(crate) static RANCHER: Table = Table::new(
    "rancher.network",
    &[
        (
            "interfaces",
            Shape::Map(&Shape::Table(&INTERFACE)),
            "Interfaces by name, glob or match",
        ),
        ("dns", Shape::Table(&DNS), "Name servers"),
        ("pre_cmds", Shape::TEXTS, "Commands at each boot"),
        (
            "post_cmds",
            Shape::TEXTS,
            "Commands at each boot, after those of the interfaces",
        ),
        (
            "http_proxy",
            Shape::Text,
            "Proxy for http:, as http://host:port",
        ),
        ("https_proxy", Shape::Text, "Proxy for https:"),
        (
            "no_proxy",
            Shape::Text,
            "Hosts that are reached without, with commas",
        ),
        ("dhcp_timeout", Shape::Any, "Says nothing here"),
    ],
)
.unsupported(&[
    ("modify_hosts", "the host's name is in /etc/hosts by itself"),
    ("wifi_networks", "there is no wireless network here"),
    ("modem_networks", "there are no modems here"),
]);
static DNS: Table = Table::new(
    "rancher.network.dns",
    &[
        ("nameservers", Shape::TEXTS, "Addresses of name servers"),
        ("search", Shape::TEXTS, "Domains that are searched"),
    ],
);
static INTERFACE: Table = Table::new(
    "rancher.network.interfaces",
    &[
        ("match", Shape::Text, "Name or glob, or mac=ADDRESS"),
        ("dhcp", Shape::Boolean, "Asks DHCP for an address"),
        (
            "address",
            Shape::TEXTS,
            "Address with the length of its prefix",
        ),
        (
            "addresses",
            Shape::TEXTS,
            "Addresses with the lengths of their prefixes",
        ),
        ("ipv4ll", Shape::Boolean, "An address of RFC 3927"),
        ("gateway", Shape::Text, "Next hop of the default route"),
        (
            "gateway_ipv6",
            Shape::Text,
            "Next hop of the default route of version 6",
        ),
        ("mtu", Shape::NUMBER, "Largest packet, in bytes"),
        (
            "bridge",
            Shape::Text,
            "The bridge that it is part of, or true for a bridge",
        ),
        ("bond", Shape::Text, "The bond that it is part of"),
        (
            "bond_opts",
            Shape::Schema(keys_1::bond_parameters),
            "It is a bond, with these settings",
        ),
        ("vlans", Shape::Text, "Its VLANs: 100,200:name"),
        ("pre_up", Shape::TEXTS, "Commands at each boot"),
        (
            "post_up",
            Shape::TEXTS,
            "Commands at each boot, after all `pre_up`",
        ),
        ("pre_down", Shape::Any, "Says nothing here"),
        ("post_down", Shape::Any, "Says nothing here"),
    ],
)
.unsupported(&[
    ("dhcp_args", "the DHCP client is another one"),
    ("wifi_network", "there is no wireless network here"),
]);

/// Reads the mapping below `rancher.network`.
pub fn parse(root: &Node, diagnostics: &mut Diagnostics) -> Option<Network> {
    let top = yaml::mapping("rancher.network", root, diagnostics)?;
    top.check(" of rancher.network", &RANCHER, diagnostics);
    let mut network = Network {
        pre_commands: lines(&top, "pre_cmds", diagnostics),
        post_commands: lines(&top, "post_cmds", diagnostics),
        ..Network::default()
    };
    if let Some(node) = top.get("dns")
        && let Some(dns) = yaml::mapping("rancher.network.dns", node, diagnostics)
    {
        dns.check(" of rancher.network.dns", &DNS, diagnostics);
        let (servers, search) = (dns.get("nameservers"), dns.get("search"));
        values::dns(&mut network.global_dns, servers, search, diagnostics);
    }
    let interfaces = top
        .get("interfaces")
        .and_then(|node| yaml::mapping("rancher.network.interfaces", node, diagnostics));
    let mut members: Vec<(String, String)> = Vec::new();
    for (key, node) in interfaces.iter().flat_map(Fields::iter) {
        let what = format!("rancher.network.interfaces.{}", key.text);
        let Some(fields) = yaml::mapping(&what, node, diagnostics) else {
            continue;
        };
        fields.check(&format!(" of {what}"), &INTERFACE, diagnostics);
        interface(
            &mut network,
            &mut members,
            &key.text,
            &what,
            &fields,
            diagnostics,
        );
    }
    for (member, master) in members {
        let found = network
            .interfaces
            .iter_mut()
            .find(|interface| interface.name == master);
        let interface = match found {
            Some(interface) => interface,
            None => {
                // A bridge may be named by its ports alone.
                network.interfaces.push(Interface {
                    name: master,
                    kind: Kind::Bridge(Bridge::default()),
                    ..Interface::default()
                });
                let Some(last) = network.interfaces.last_mut() else {
                    continue;
                };
                last
            }
        };
        match &mut interface.kind {
            Kind::Bond(bond) => bond.members.push(member),
            Kind::Bridge(bridge) => bridge.members.push(member),
            other => {
                *other = Kind::Bridge(Bridge {
                    members: vec![member],
                    params: BTreeMap::new(),
                });
            }
        }
    }
    Some(network)
}

/// Reads one interface, the VLANs on it, and what it is a part of.
fn interface(
    network: &mut Network,
    members: &mut Vec<(String, String)>,
    name: &str,
    what: &str,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) {
    let text = |key: &str, diagnostics: &mut Diagnostics| {
        let node = fields.get(key)?;
        yaml::string(&format!("{what}.{key}"), node, diagnostics)
    };
    let truth = |key: &str, diagnostics: &mut Diagnostics| {
        let node = fields.get(key)?;
        yaml::boolean(&format!("{what}.{key}"), node, diagnostics)
    };
    let matched = text("match", diagnostics).unwrap_or_else(|| name.to_owned());
    let mac = matched
        .strip_prefix("mac=")
        .or_else(|| matched.strip_prefix("mac:"));
    let mut interface = Interface {
        name: name.to_owned(),
        matches: match mac {
            Some(mac) => Match {
                mac: Some(mac.to_ascii_lowercase()),
                ..Match::default()
            },
            None => Match {
                name: Some(matched.clone()),
                ..Match::default()
            },
        },
        dhcp4: truth("dhcp", diagnostics).unwrap_or(false),
        link_local_ipv4: truth("ipv4ll", diagnostics).unwrap_or(false),
        mtu: values::number(what, fields, "mtu", diagnostics),
        pre_up: lines(fields, "pre_up", diagnostics),
        post_up: lines(fields, "post_up", diagnostics),
        ..Interface::default()
    };
    if name == "lo" {
        interface.kind = Kind::Loopback;
    }
    let addresses = ["address", "addresses"]
        .into_iter()
        .filter_map(|key| fields.get(key));
    for node in addresses {
        for text in yaml::strings(what, node, diagnostics) {
            match values::cidr(&text, None, |version_6| if version_6 { 64 } else { 32 }) {
                Ok(cidr) if !interface.addresses.contains(&cidr) => interface.addresses.push(cidr),
                Ok(_) => {}
                Err(error) => {
                    diagnostics.error(node.position, format!("{what}: {error}; it is left out"))
                }
            }
        }
    }
    for key in ["gateway", "gateway_ipv6"] {
        let Some(node) = fields.get(key).filter(|node| !is_empty(node)) else {
            continue;
        };
        if let Some(via) = values::address(&format!("{what}.{key}"), node, diagnostics) {
            interface.routes.push(Route {
                to: Cidr::everything(via.is_ipv6()),
                via: Some(via),
                ..Route::default()
            });
        }
    }
    if let Some(node) = fields.get("bond_opts") {
        interface.kind = Kind::Bond(Bond {
            members: Vec::new(),
            params: parameters::bond(node, diagnostics),
        });
        interface.matches = Match::default();
    }
    match text("bridge", diagnostics).as_deref() {
        Some("true") => {
            interface.kind = Kind::Bridge(Bridge::default());
            interface.matches = Match::default();
        }
        Some("" | "false") | None => {}
        Some(bridge) => members.push((name.to_owned(), bridge.to_owned())),
    }
    if let Some(bond) = text("bond", diagnostics).filter(|bond| !bond.is_empty()) {
        members.push((name.to_owned(), bond));
    }
    let vlans = text("vlans", diagnostics).unwrap_or_default();
    add(network, interface);
    for word in vlans
        .split(',')
        .map(str::trim)
        .filter(|word| !word.is_empty())
    {
        let (id, own) = word.split_once(':').unwrap_or((word, ""));
        let Some(id) = id.trim().parse().ok().filter(|id| *id <= 4094) else {
            let at = fields.get("vlans").map(|node| node.position);
            diagnostics.error(
                at,
                format!("{what}.vlans: `{word}` is no number of a VLAN (0 to 4094)"),
            );
            continue;
        };
        let own = match own.trim() {
            "" => format!("{name}.{id}"),
            own => own.to_owned(),
        };
        add_vlan(
            network,
            own,
            Vlan {
                id,
                link: name.to_owned(),
            },
        );
    }
}

/// Adds an interface, which may stand there already as a VLAN of another one.
fn add(network: &mut Network, mut interface: Interface) {
    let mut all = network.interfaces.iter_mut();
    match all.find(|other| other.name == interface.name) {
        Some(other) => {
            interface.kind = other.kind.clone();
            interface.matches = Match::default();
            *other = interface;
        }
        None => network.interfaces.push(interface),
    }
}

/// A VLAN that is configured under its own name as well is the same one.
fn add_vlan(network: &mut Network, name: String, vlan: Vlan) {
    let found = network
        .interfaces
        .iter_mut()
        .find(|interface| interface.name == name);
    match found {
        Some(interface) => {
            interface.kind = Kind::Vlan(vlan);
            interface.matches = Match::default();
        }
        None => network.interfaces.push(Interface {
            name,
            kind: Kind::Vlan(vlan),
            ..Interface::default()
        }),
    }
}

fn is_empty(node: &Node) -> bool {
    matches!(&node.value, Value::Scalar(scalar) if scalar.text.trim().is_empty())
}

/// Lines for a shell, as RancherOS splits them.
fn lines(fields: &Fields<'_>, key: &str, diagnostics: &mut Diagnostics) -> Vec<String> {
    let node = fields.get(key);
    node.map(|node| yaml::strings(key, node, diagnostics))
        .unwrap_or_default()
}
