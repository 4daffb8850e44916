//! Prefixes of version 6: `dhcp6-overrides.request-prefix` asks for one, `dhcp6-prefix` puts a part of it on another interface.
//!
//! netplan has no words for them. Asking is what systemd-networkd does with `PrefixDelegationHint=`, using what its
//! `[DHCPPrefixDelegation]` does (`UplinkInterface=`, `SubnetId=`, `Token=`).

use std::net::Ipv6Addr;

use serde_json::Value as Json;

use super::keys_2;
use super::model::{Interface, Network, PrefixPart};
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node};

/// The key that asks for a prefix.
pub(super) const REQUEST: &str = "request-prefix";
/// Length of the prefix that one link has (RFC 4291 2.5.1).
const LINK_PREFIX: u8 = 64;

/// Leaves out a wish that cannot be: it is `true`, `false`, or the length of the prefix that is hoped for.
pub(super) fn check_request(
    interface: &mut Interface,
    what: &str,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) {
    let Some(wish) = interface.dhcp6_overrides.get(REQUEST) else {
        return;
    };
    let overrides = fields.get("dhcp6-overrides").map(|node| &node.value);
    let position = match overrides {
        Some(yaml::Value::Mapping(entries)) => {
            let mut keys = entries.iter().map(|(key, _)| key);
            keys.find(|key| key.text == REQUEST).map(|key| key.position)
        }
        _ => None,
    };
    let length = wish.as_u64();
    let is_length = length.is_some_and(|length| (1..=LINK_PREFIX.into()).contains(&length));
    if !is_length && !matches!(wish, Json::Bool(_)) {
        let message = format!(
            "{what}.dhcp6-overrides.{REQUEST}: `true` or the length of a prefix (1 to {LINK_PREFIX}) is needed; none is asked for"
        );
        diagnostics.error(position, message);
        interface.dhcp6_overrides.remove(REQUEST);
    } else if *wish != Json::Bool(false) {
        let missing = match (interface.dhcp6, interface.accept_ra) {
            (false, _) => "without `dhcp6: true`",
            (true, Some(false)) => "with `accept-ra: false`",
            (true, _) => return,
        };
        let message = format!("{what}.dhcp6-overrides.{REQUEST}: no prefix is asked for {missing}");
        diagnostics.warning(position, message);
    }
}

/// Reads `dhcp6-prefix`.
pub(super) fn part(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<PrefixPart> {
    let what = format!("{what}.dhcp6-prefix");
    let fields = yaml::mapping(&what, node, diagnostics)?;
    fields.check(&format!(" of {what}"), &keys_2::PREFIX, diagnostics);
    let Some(from) = fields.get("from") else {
        let message =
            format!("{what}: `from`, the interface that asks, is missing; it is left out");
        diagnostics.error(node.position, message);
        return None;
    };
    let from = yaml::string(&format!("{what}.from"), from, diagnostics)?;
    let subnet_id = match fields.get("subnet-id") {
        None => None,
        Some(node) => {
            let id = yaml::integer(&format!("{what}.subnet-id"), node, diagnostics)?;
            match u64::try_from(id) {
                Ok(id) => Some(id),
                Err(_) => {
                    let message = format!("{what}.subnet-id: {id} is below zero; it is left out");
                    diagnostics.error(node.position, message);
                    return None;
                }
            }
        }
    };
    let token = match fields.get("token") {
        None => PrefixPart::TOKEN,
        Some(node) => token(&what, node, diagnostics)?,
    };
    Some(PrefixPart {
        from,
        subnet_id,
        token,
    })
}

/// The host's part of an address: `::1`.
fn token(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<Ipv6Addr> {
    let text = yaml::string(&format!("{what}.token"), node, diagnostics)?;
    let token = text.trim().parse::<Ipv6Addr>().ok();
    let token = token.filter(|token| token.to_bits() >> LINK_PREFIX == 0 && token.to_bits() != 0);
    if token.is_none() {
        let message = format!(
            "{what}.token: `{text}` is no address of which the last 64 bits alone are set (`::1`); it is left out"
        );
        diagnostics.error(node.position, message);
    }
    token
}

/// Says which interfaces shall have a part of a prefix that nobody asks for, or one that another interface has.
pub(super) fn check(network: &Network, top: &Fields<'_>, diagnostics: &mut Diagnostics) {
    let place = |name: &str| {
        let mut sections = top.iter().flat_map(|(_, node)| match &node.value {
            yaml::Value::Mapping(entries) => entries.as_slice(),
            _ => &[],
        });
        let found = sections.find(|(key, _)| key.text == name);
        found.map(|(key, _)| key.position)
    };
    let mut taken: Vec<(&str, u64, &str)> = Vec::new();
    for interface in &network.interfaces {
        let Some(part) = &interface.dhcp6_prefix else {
            continue;
        };
        let mut others = network.interfaces.iter();
        // It may be named by the name that it gets, or by one that only the machine knows.
        let uplink = others.find(|other| other.is_called(&part.from));
        let name = &interface.name;
        let problem = match uplink {
            Some(uplink) if uplink.name == interface.name => {
                "an interface cannot have a part of its own prefix".to_owned()
            }
            Some(uplink) if !uplink.requests_prefix() => format!(
                "`{}` asks for no prefix (`dhcp6: true`, `dhcp6-overrides: {{{REQUEST}: true}}`)",
                part.from
            ),
            _ => {
                // The one that asks has several names.
                let from = uplink.map_or(part.from.as_str(), |uplink| &uplink.name);
                let Some(id) = part.subnet_id else { continue };
                let mut others = taken.iter();
                if let Some((.., other)) = others.find(|it| (it.0, it.1) == (from, id)) {
                    let message = format!(
                        "{name}.dhcp6-prefix.subnet-id: `{other}` has network {id} of `{from}` already; hosts of the one do not reach those of the other"
                    );
                    diagnostics.warning(place(name), message);
                }
                taken.push((from, id, name));
                continue;
            }
        };
        let message = format!("{name}.dhcp6-prefix.from: {problem}; no address comes of it");
        diagnostics.warning(place(name), message);
    }
}

impl Interface {
    /// Whether DHCPv6 is asked for a prefix by it.
    pub fn requests_prefix(&self) -> bool {
        let wish = self.dhcp6_overrides.get(REQUEST);
        self.dhcp6 && wish.is_some_and(|wish| *wish != Json::Bool(false))
    }

    /// The length of the prefix that is hoped for; 0 leaves it to the server.
    pub fn prefix_hint(&self) -> u8 {
        let wish = self.dhcp6_overrides.get(REQUEST).and_then(Json::as_u64);
        wish.and_then(|length| u8::try_from(length).ok())
            .unwrap_or(0)
    }

    /// Whether this is its name in the document, or the one that it gets.
    pub fn is_called(&self, name: &str) -> bool {
        let names = [&self.set_name, &self.matches.name];
        self.name == name || names.iter().any(|other| other.as_deref() == Some(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Network, Vec<String>) {
        let mut diagnostics = Diagnostics::new("network-config");
        let root = yaml::parse(text).unwrap().root;
        let network = crate::network::parse(&root, &mut diagnostics).unwrap();
        let messages = diagnostics.into_sorted();
        (network, messages.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn a_prefix_is_asked_for_on_one_interface_and_used_on_others() {
        let (network, messages) = read(
            "version: 2\nethernets:\n  wan: {dhcp6: true, dhcp6-overrides: {request-prefix: 56}}\n  lan: {dhcp6-prefix: {from: wan}}\n  dmz: {dhcp6-prefix: {from: wan, subnet-id: 0x1f, token: '::53'}}\n",
        );
        assert_eq!(messages, [] as [&str; 0]);
        let [wan, lan, dmz] = &network.interfaces[..] else {
            panic!()
        };
        assert!(wan.requests_prefix() && wan.prefix_hint() == 56);
        assert!(!lan.requests_prefix());
        let part = lan.dhcp6_prefix.clone().unwrap();
        assert_eq!((part.subnet_id, part.token), (None, PrefixPart::TOKEN));
        let part = dmz.dhcp6_prefix.clone().unwrap();
        assert_eq!((part.subnet_id, part.token.segments()[7]), (Some(31), 0x53));
        let json = serde_json::to_string(&network).unwrap();
        assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
    }

    #[test]
    fn one_network_on_two_interfaces_is_warned_of_by_whatever_name_the_one_that_asks_is_called() {
        let (network, messages) = read(
            "version: 2\nethernets:\n  wan: {match: {name: e0}, dhcp6: true, dhcp6-overrides: {request-prefix: true}}\n  a: {dhcp6-prefix: {from: wan, subnet-id: 5}}\n  b: {dhcp6-prefix: {from: e0, subnet-id: 5}}\n  c: {dhcp6-prefix: {from: wan, subnet-id: 6}}\n  d: {dhcp6-prefix: {from: e1, subnet-id: 5}}\n  e: {dhcp6-prefix: {from: wan}}\n  f: {dhcp6-prefix: {from: wan}}\n",
        );
        assert_eq!(
            messages,
            [
                "network-config:5:3: b.dhcp6-prefix.subnet-id: `a` has network 5 of `wan` already; hosts of the one do not reach those of the other"
            ]
        );
        assert!(network.interfaces[2].dhcp6_prefix.is_some());
    }

    #[test]
    fn a_prefix_that_is_asked_for_where_no_router_is_heard_is_warned_of() {
        let wish = "version: 2\nethernets:\n  wan: {dhcp6: true, accept-ra: false, dhcp6-overrides: {request-prefix: true}}\n";
        let (_, messages) = read(wish);
        assert_eq!(
            messages,
            [
                "network-config:3:58: ethernets.wan.dhcp6-overrides.request-prefix: no prefix is asked for with `accept-ra: false`"
            ]
        );
        for (old, new) in [
            ("accept-ra: false", "accept-ra: true"),
            ("-prefix: true", "-prefix: false"),
        ] {
            assert_eq!(read(&wish.replace(old, new)).1, [] as [&str; 0], "{new}");
        }
    }

    #[test]
    fn what_cannot_be_delegated_is_named_and_has_its_place() {
        let (network, messages) = read(
            "version: 2\nethernets:\n  wan: {dhcp6: true, dhcp6-overrides: {request-prefix: 96}}\n  off: {dhcp6-overrides: {request-prefix: true}}\n  a: {dhcp6-prefix: {subnet-id: 1}}\n  b: {dhcp6-prefix: {from: off, token: '2001:db8::1'}}\n  c: {dhcp6-prefix: {from: off}}\n  d: {dhcp6-prefix: {from: d, subnet-id: -1}}\n  e: {dhcp6-prefix: {from: e}}\n  f: {dhcp6-prefix: {from: enp9s0, subnet-ids: 1}}\n",
        );
        let with_part = network.interfaces.iter();
        let with_part: Vec<&str> = with_part
            .filter(|one| one.dhcp6_prefix.is_some())
            .map(|one| one.name.as_str())
            .collect();
        assert_eq!(with_part, ["c", "e", "f"]);
        assert_eq!(
            messages,
            [
                "network-config:3:40: ethernets.wan.dhcp6-overrides.request-prefix: `true` or the length of a prefix (1 to 64) is needed; none is asked for",
                "network-config:4:27: ethernets.off.dhcp6-overrides.request-prefix: no prefix is asked for without `dhcp6: true`",
                "network-config:5:21: ethernets.a.dhcp6-prefix: `from`, the interface that asks, is missing; it is left out",
                "network-config:6:40: ethernets.b.dhcp6-prefix.token: `2001:db8::1` is no address of which the last 64 bits alone are set (`::1`); it is left out",
                "network-config:7:3: c.dhcp6-prefix.from: `off` asks for no prefix (`dhcp6: true`, `dhcp6-overrides: {request-prefix: true}`); no address comes of it",
                "network-config:8:42: ethernets.d.dhcp6-prefix.subnet-id: -1 is below zero; it is left out",
                "network-config:9:3: e.dhcp6-prefix.from: an interface cannot have a part of its own prefix; no address comes of it",
                "network-config:10:36: unknown key `subnet-ids` of ethernets.f.dhcp6-prefix is ignored; did you mean `subnet-id`?",
            ]
        );
    }
}
