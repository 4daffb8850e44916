//! Interfaces that are made, in version 2: who is part of them, and what is set of them.

use std::net::{IpAddr, Ipv4Addr};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::model::{Kind, Peer, Tunnel, Vlan, WireGuard};
use super::{keys_2, values};
use crate::diagnostic::{Diagnostics, nearest};
use crate::names;
use crate::yaml::{self, Fields, Node, Value};

pub(super) fn members(
    what: &str,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) -> Vec<String> {
    let node = fields.get("interfaces");
    node.map(|node| yaml::strings(&format!("{what}.interfaces"), node, diagnostics))
        .unwrap_or_default()
}

/// Settings of a bond or a bridge, by netplan's names. A slip of netplan's own is a second name.
pub(super) fn parameters(
    what: &str,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) -> std::collections::BTreeMap<String, Json> {
    let node = fields.get("parameters");
    let all = node.and_then(|node| yaml::mapping(&format!("{what}.parameters"), node, diagnostics));
    let entries = all.iter().flat_map(Fields::iter);
    entries
        .map(|(key, node)| {
            let name = match key.text.as_str() {
                "gratuitious-arp" => "gratuitous-arp",
                name => name,
            };
            (name.to_owned(), yaml::to_json(node))
        })
        .collect()
}

pub(super) fn vlan(
    what: &str,
    fields: &Fields<'_>,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<Kind> {
    let id = values::number::<u16>(what, fields, "id", diagnostics).filter(|id| *id <= 4094);
    let link = fields
        .get("link")
        .and_then(|node| yaml::string("link", node, diagnostics));
    let (Some(id), Some(link)) = (id, link) else {
        let message = format!("{what}: `id` (0 to 4094) and `link` are needed; it is left out");
        diagnostics.error(node.position, message);
        return None;
    };
    Some(Kind::Vlan(Vlan { id, link }))
}

pub(super) fn tunnel(
    what: &str,
    fields: &Fields<'_>,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<Kind> {
    let text = |key: &str, diagnostics: &mut Diagnostics| {
        let node = fields.get(key)?;
        yaml::string(&format!("{what}.{key}"), node, diagnostics)
    };
    let Some(mode) = text("mode", diagnostics) else {
        diagnostics.error(
            node.position,
            format!("{what}: `mode` is missing; it is left out"),
        );
        return None;
    };
    if mode == "wireguard" {
        return wireguard(what, fields, node, diagnostics);
    }
    if !MODES.iter().any(|(known, _)| *known == mode) {
        let hint = nearest(&mode, MODES.map(|(known, _)| known))
            .map(|near| format!("; did you mean `{near}`?"))
            .unwrap_or_default();
        let message =
            format!("{what}.mode: there are no tunnels of mode `{mode}`{hint}; it is left out");
        diagnostics.error(node.position, message);
        return None;
    }
    let (local, remote) = (
        end(what, &mode, "local", fields, diagnostics)?,
        end(what, &mode, "remote", fields, diagnostics)?,
    );
    let id: Option<u32> = values::number(what, fields, "id", diagnostics);
    if mode == "vxlan" && id.is_none_or(|id| id >= 1 << 24) {
        let message = format!("{what}: a VXLAN needs `id`, 0 to 16777215; it is left out");
        diagnostics.error(node.position, message);
        return None;
    }
    let (input_key, output_key) = keys(what, fields, diagnostics)?;
    let learning = fields.get("mac-learning");
    let tos: Option<u8> = values::number(what, fields, "type-of-service", diagnostics);
    if tos.is_some()
        && ["ip6", "ipip6", "vti"]
            .iter()
            .any(|start| mode.starts_with(start))
    {
        let message =
            format!("{what}: tunnels of mode {mode} have no `type-of-service`; it is left out");
        diagnostics.warning(node.position, message);
    }
    Some(Kind::Tunnel(Tunnel {
        local,
        remote,
        id,
        input_key,
        output_key,
        ttl: values::number(what, fields, "ttl", diagnostics),
        tos,
        port: values::number(what, fields, "port", diagnostics),
        learning: learning
            .and_then(|node| yaml::boolean(&format!("{what}.mac-learning"), node, diagnostics)),
        link: text("link", diagnostics),
        mode,
    }))
}

/// Kinds of tunnels, and whether their ends have addresses of version 6; VXLAN's may have either.
pub(super) const MODES: [(&str, Option<bool>); 12] = [
    ("gre", Some(false)),
    ("gretap", Some(false)),
    ("ip6gre", Some(true)),
    ("ip6gretap", Some(true)),
    ("ip6ip6", Some(true)),
    ("ipip", Some(false)),
    ("ipip6", Some(true)),
    ("isatap", Some(false)),
    ("sit", Some(false)),
    ("vti", Some(false)),
    ("vti6", Some(true)),
    ("vxlan", None),
];

/// The address of one end, of the version that the mode wants; `Some(None)` when it is not said.
fn end(
    what: &str,
    mode: &str,
    key: &str,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Option<IpAddr>> {
    let Some(node) = fields.get(key).filter(|node| !node.is_null()) else {
        return Some(None);
    };
    let address = values::address(&format!("{what}.{key}"), node, diagnostics)?;
    let wanted = MODES.iter().find(|(known, _)| *known == mode);
    let wanted = wanted.and_then(|(_, version_6)| *version_6);
    if wanted.is_some_and(|version_6| version_6 != address.is_ipv6()) {
        let message = format!(
            "{what}.{key}: {address} is of the other version of IP than the ends of {mode} are; the tunnel is left out"
        );
        diagnostics.error(node.position, message);
        return None;
    }
    Some(Some(address))
}

/// `key` or `keys`: one for both directions, or a mapping with `input` and `output`. Each is a number, or written as an IPv4
/// address.
fn keys(
    what: &str,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<(Option<u32>, Option<u32>)> {
    let Some(node) = key_node(fields) else {
        return Some((None, None));
    };
    let mut number = |node: &Node| {
        let text = yaml::string(&format!("{what}.key"), node, diagnostics)?;
        let dotted = || text.parse::<Ipv4Addr>().ok().map(u32::from);
        let found = text.parse().ok().or_else(dotted);
        if found.is_none() {
            let message = format!(
                "{what}: the key `{text}` is no number and not written as an IPv4 address; the tunnel is left out"
            );
            diagnostics.error(node.position, message);
        }
        found
    };
    let Value::Mapping(entries) = &node.value else {
        let key = number(node)?;
        return Some((Some(key), Some(key)));
    };
    let mut of = |name: &str| match entries.iter().find(|(key, _)| key.text == name) {
        Some((_, node)) => number(node).map(Some),
        None => Some(None),
    };
    Some((of("input")?, of("output")?))
}

/// netplan takes either name for either form.
fn key_node<'a>(fields: &Fields<'a>) -> Option<&'a Node> {
    let mut given = ["key", "keys"]
        .into_iter()
        .filter_map(|key| fields.get(key));
    given.find(|node| !node.is_null())
}

/// A key of WireGuard's (Curve25519, or shared): 32 bytes in base64.
fn wireguard_key(what: &str, text: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<()> {
    let is_key = STANDARD.decode(text).is_ok_and(|bytes| bytes.len() == 32);
    if !is_key {
        let why = match text.starts_with('/') {
            true => "a file is not read here: the key itself stands in the configuration",
            false => "a key is 32 bytes in base64, 44 letters",
        };
        diagnostics.error(node.position, format!("{what}: {why}; it is not used"));
    }
    is_key.then_some(())
}

pub(super) fn wireguard(
    what: &str,
    fields: &Fields<'_>,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<Kind> {
    let key_node = key_node(fields).and_then(|node| match &node.value {
        Value::Mapping(entries) => {
            let private = entries.iter().find(|(key, _)| key.text == "private");
            private.map(|(_, node)| node)
        }
        _ => Some(node),
    });
    let key = key_node.and_then(|node| yaml::string(&format!("{what}.key"), node, diagnostics));
    let (Some(key), Some(key_node)) = (key, key_node) else {
        diagnostics.error(
            node.position,
            format!("{what}: `key` is missing; it is left out"),
        );
        return None;
    };
    // The interface is made all the same: what stands on it is not in the way of anything.
    let _ = wireguard_key(&format!("{what}.key"), &key, key_node, diagnostics);
    let mut peers = Vec::new();
    if let Some(list) = fields.get("peers") {
        for item in yaml::list("peers", list, diagnostics).unwrap_or_default() {
            let Some(fields) = yaml::mapping("peers", item, diagnostics) else {
                continue;
            };
            fields.check(&format!(" of {what}.peers"), &keys_2::PEER, diagnostics);
            let keys = fields
                .get("keys")
                .and_then(|node| yaml::mapping("keys", node, diagnostics));
            if let Some(keys) = &keys {
                keys.check(
                    &format!(" of {what}.peers.keys"),
                    &keys_2::PEER_KEYS,
                    diagnostics,
                );
            }
            let mut text = |fields: &Fields<'_>, key: &str| {
                let node = fields.get(key)?;
                yaml::string(key, node, diagnostics)
            };
            let public = keys.and_then(|keys| text(&keys, "public"));
            let shared = keys.and_then(|keys| text(&keys, "shared"));
            let endpoint = text(&fields, "endpoint");
            let Some(public) = public else {
                let message = format!("{what}: a peer needs `keys.public`; it is left out");
                diagnostics.error(item.position, message);
                continue;
            };
            let peer = format!("{what}.peers");
            if wireguard_key(&peer, &public, item, diagnostics).is_none() {
                continue;
            }
            if let Some(shared) = &shared
                && wireguard_key(&peer, shared, item, diagnostics).is_none()
            {
                continue;
            }
            if let Some(endpoint) = &endpoint
                && !is_endpoint(endpoint)
            {
                let message =
                    format!("{peer}: `{endpoint}` is no `host:port`; the peer is left out");
                diagnostics.error(item.position, message);
                continue;
            }
            let allowed = fields.get("allowed-ips");
            peers.push(Peer {
                public,
                shared,
                endpoint,
                keepalive: values::number(what, &fields, "keepalive", diagnostics),
                allowed: allowed
                    .map(|node| values::cidrs("allowed-ips", node, diagnostics))
                    .unwrap_or_default(),
            });
        }
    }
    Some(Kind::WireGuard(WireGuard {
        key,
        port: values::number(what, fields, "port", diagnostics),
        mark: values::number(what, fields, "mark", diagnostics),
        peers,
    }))
}

/// `host:port`, `address:port`, `[address]:port`.
fn is_endpoint(text: &str) -> bool {
    let Some((host, port)) = text.rsplit_once(':') else {
        return false;
    };
    let is_host = match host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
    {
        Some(address) => address.parse::<std::net::Ipv6Addr>().is_ok(),
        None => names::is_host(host),
    };
    is_host && port.parse::<u16>().is_ok_and(|port| port > 0)
}
