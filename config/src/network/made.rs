//! Interfaces that are made, in version 2: who is part of them, and what is set of them.

use serde_json::Value as Json;

use super::model::{Kind, Peer, Tunnel, Vlan, WireGuard};
use super::values;
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node};

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
    let address = |key: &str, diagnostics: &mut Diagnostics| {
        let node = fields.get(key)?;
        values::address(&format!("{what}.{key}"), node, diagnostics)
    };
    let id = values::number(what, fields, "id", diagnostics);
    Some(Kind::Tunnel(Tunnel {
        local: address("local", diagnostics),
        remote: address("remote", diagnostics),
        id: id.or_else(|| values::number(what, fields, "key", diagnostics)),
        ttl: values::number(what, fields, "ttl", diagnostics),
        port: values::number(what, fields, "port", diagnostics),
        link: text("link", diagnostics),
        mode,
    }))
}

pub(super) fn wireguard(
    what: &str,
    fields: &Fields<'_>,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<Kind> {
    let keys = fields
        .get("keys")
        .and_then(|node| yaml::mapping("keys", node, diagnostics));
    let key = fields
        .get("key")
        .or_else(|| keys.and_then(|keys| keys.get("private")));
    let key = key.and_then(|node| yaml::string(&format!("{what}.key"), node, diagnostics));
    let Some(key) = key else {
        diagnostics.error(
            node.position,
            format!("{what}: `key` is missing; it is left out"),
        );
        return None;
    };
    let mut peers = Vec::new();
    if let Some(list) = fields.get("peers") {
        for item in yaml::list("peers", list, diagnostics).unwrap_or_default() {
            let Some(fields) = yaml::mapping("peers", item, diagnostics) else {
                continue;
            };
            let keys = fields
                .get("keys")
                .and_then(|node| yaml::mapping("keys", node, diagnostics));
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
