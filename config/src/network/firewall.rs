//! `keelson.firewall`: what may come in.

use serde::{Deserialize, Serialize};

use super::cidr::Cidr;
use super::values;
use crate::diagnostic::Diagnostics;
use crate::names;
use crate::yaml::{self, Node, Shape, Table, Value};

/// `keelson.firewall`: true or false, what is allowed, or the table.
pub(crate) const FIREWALL: Shape = Shape::AnyOf(&[
    Shape::Boolean,
    Shape::Table(&TABLE),
    Shape::List(&ENTRY),
    Shape::Text,
]);
static TABLE: Table = Table::new(
    "firewall",
    &[
        ("enabled", Shape::Boolean, "False: everything is let in"),
        (
            "allow",
            Shape::OneOrMore(&ENTRY),
            "What is let in: ports, or more about them",
        ),
    ],
);
const ENTRY: Shape = Shape::AnyOf(&[Shape::Text, Shape::Table(&ALLOW)]);
static ALLOW: Table = Table::new(
    "firewall.allow",
    &[
        ("port", Shape::TEXTS, "Port: 22, 53/udp, 8000-8100/tcp"),
        ("ports", Shape::TEXTS, "Ports"),
        ("from", Shape::TEXTS, "Networks that may"),
        ("interface", Shape::Text, "By this interface"),
    ],
);

/// What may come in: what is listed, and answers to what went out. What Docker publishes is Docker's to say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Firewall {
    /// What is let in.
    pub allow: Vec<Allow>,
}

/// Something that is let in; all that is said has to fit.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Allow {
    /// To these ports; to any without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ports: Vec<Ports>,
    /// From these networks; from anywhere without.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub from: Vec<Cidr>,
    /// By this interface; by any without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub interface: Option<String>,
}

/// Ports of one protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ports {
    /// Whose ports.
    pub protocol: Protocol,
    /// The first one.
    pub first: u16,
    /// The last one.
    pub last: u16,
}

/// A protocol with ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
    /// RFC 9260.
    Sctp,
}

impl Protocol {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Tcp => "tcp",
            Protocol::Udp => "udp",
            Protocol::Sctp => "sctp",
        }
    }
}

impl Firewall {
    fn read(&mut self, what: &str, node: &Node, diagnostics: &mut Diagnostics) {
        for item in yaml::list_or_single(node) {
            self.allow.extend(allow(what, item, diagnostics));
        }
    }

    /// Whether somebody, somewhere, gets through to a port of TCP.
    pub fn lets_in(&self, port: u16) -> bool {
        self.allow.iter().any(|allow| {
            let mut ports = allow.ports.iter();
            let of_tcp = |ports: &Ports| {
                ports.protocol == Protocol::Tcp && (ports.first..=ports.last).contains(&port)
            };
            allow.ports.is_empty() || ports.any(of_tcp)
        })
    }
}

/// Reads it; `None` when there is to be no packet filter. What is wrong with an entry costs that entry: nothing is let in by
/// mistake.
pub(crate) fn parse(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<Firewall> {
    if node.is_null() {
        let message =
            format!("{what}: nothing is said, and everything is let in; `true` lets nothing in");
        diagnostics.warning(node.position, message);
        return None;
    }
    if let Value::Scalar(scalar) = &node.value
        && let Some(enabled) = scalar.as_bool()
    {
        return enabled.then(Firewall::default);
    }
    let mut firewall = Firewall::default();
    let Value::Mapping(_) = &node.value else {
        // A list is what is allowed.
        firewall.read(what, node, diagnostics);
        return Some(firewall);
    };
    let fields = yaml::mapping(what, node, diagnostics)?;
    fields.check(&format!(" of {what}"), &TABLE, diagnostics);
    let enabled = fields.get("enabled");
    let enabled =
        enabled.and_then(|node| yaml::boolean(&format!("{what}.enabled"), node, diagnostics));
    if enabled == Some(false) {
        return None;
    }
    if let Some(node) = fields.get("allow") {
        firewall.read(&format!("{what}.allow"), node, diagnostics);
    }
    Some(firewall)
}

fn allow(what: &str, item: &Node, diagnostics: &mut Diagnostics) -> Option<Allow> {
    if let Value::Scalar(_) = &item.value {
        return Some(Allow {
            ports: vec![port(what, item, diagnostics)?],
            ..Allow::default()
        });
    }
    let fields = yaml::mapping(what, item, diagnostics)?;
    for (key, node) in fields.iter() {
        let is_known = ALLOW.all().any(|(known, ..)| *known == key.text);
        let says_nothing = yaml::list_or_single(node).is_empty();
        if !is_known || says_nothing {
            let why = match is_known {
                true => format!("`{}` says nothing", key.text),
                false => format!("unknown key `{}` (port, from, interface)", key.text),
            };
            let message = format!("{what}: {why}; nothing is let in by this entry");
            diagnostics.error(key.position, message);
            return None;
        }
    }
    let mut allow = Allow::default();
    for node in ["port", "ports"].iter().filter_map(|key| fields.get(key)) {
        for node in yaml::list_or_single(node) {
            allow.ports.push(port(what, node, diagnostics)?);
        }
    }
    if let Some(node) = fields.get("from") {
        let what = format!("{what}.from");
        for node in yaml::list_or_single(node) {
            let text = yaml::string(&what, node, diagnostics)?;
            let whole = |version_6| if version_6 { 128 } else { 32 };
            match values::cidr(&text, None, whole) {
                Ok(cidr) => allow.from.push(cidr.network()),
                Err(error) => {
                    let message = format!("{what}: {error}; nothing is let in by this entry");
                    diagnostics.error(node.position, message);
                    return None;
                }
            }
        }
    }
    if let Some(node) = fields.get("interface") {
        let what = format!("{what}.interface");
        let name = values::interface_name(&what, node, diagnostics)?;
        if !names::is_plain_interface(&name) {
            let message = format!(
                "{what}: `{name}` has letters that no interface has; nothing is let in by this entry"
            );
            diagnostics.error(node.position, message);
            return None;
        }
        allow.interface = Some(name);
    }
    if allow == Allow::default() {
        let message = format!(
            "{what}: an entry says at least one of `port`, `from`, `interface`; nothing is let in by this one"
        );
        diagnostics.error(item.position, message);
        return None;
    }
    Some(allow)
}

/// `22`, `53/udp`, `8000-8100/tcp`.
fn port(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<Ports> {
    let text = yaml::string(what, node, diagnostics)?;
    let (ports, protocol) = text.split_once('/').unwrap_or((&text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Some(Protocol::Tcp),
        "udp" => Some(Protocol::Udp),
        "sctp" => Some(Protocol::Sctp),
        _ => None,
    };
    let (first, last) = ports.split_once(['-', ':']).unwrap_or((ports, ports));
    let number = |text: &str| text.trim().parse::<u16>().ok().filter(|port| *port > 0);
    let found = protocol
        .zip(number(first).zip(number(last)))
        .filter(|(_, (first, last))| first <= last);
    let Some((protocol, (first, last))) = found else {
        let message = format!(
            "{what}: `{text}` is no port (22, 53/udp, 8000-8100/tcp); nothing is let in by this entry"
        );
        diagnostics.error(node.position, message);
        return None;
    };
    Some(Ports {
        protocol,
        first,
        last,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Firewall>, usize) {
        let mut diagnostics = Diagnostics::new("");
        let root = yaml::parse(text).unwrap().root;
        let firewall = parse("keelson.firewall", &root, &mut diagnostics);
        (firewall, diagnostics.into_sorted().len())
    }

    #[test]
    fn ports_networks_and_interfaces_are_read() {
        let (firewall, said) = read(
            "allow: [22, 53/udp, 8000-8100/tcp, {port: 5432, from: [10.0.0.0/8, '2001:db8::1']}, {interface: eth1}]",
        );
        let firewall = firewall.unwrap();
        assert_eq!((firewall.allow.len(), said), (5, 0));
        assert_eq!(
            firewall.allow[2].ports[0],
            Ports {
                protocol: Protocol::Tcp,
                first: 8000,
                last: 8100
            }
        );
        assert_eq!(firewall.allow[3].from[1].to_string(), "2001:db8::1/128");
        assert!(firewall.lets_in(8050) && firewall.lets_in(4), "by eth1");
        assert!(!Firewall::default().lets_in(22));
    }

    #[test]
    fn what_is_wrong_lets_nothing_in() {
        let (firewall, said) = read(
            "allow: [0, 70000, 22/icmp, 9-1, {port: 22, from: everywhere}, {}, {ports: [80, x]}]",
        );
        assert_eq!((firewall, said), (Some(Firewall::default()), 7));
        let (firewall, said) = read(
            "allow: [{port: 22, form: 10.0.0.0/8}, {port: 22, from: []}, {from: 10.0.0.0/8, port: }, {interface: 'eth+'}]",
        );
        assert_eq!((firewall, said), (Some(Firewall::default()), 4));
        assert_eq!(read("on please"), (Some(Firewall::default()), 1));
        assert_eq!(read("~"), (None, 1));
        assert_eq!(read("[22, 80]").0.unwrap().allow.len(), 2);
        assert_eq!(read("{enabled: no, allow: [22]}"), (None, 0));
        assert_eq!(read("yes"), (Some(Firewall::default()), 0));
        assert_eq!(read("no"), (None, 0));
    }
}
