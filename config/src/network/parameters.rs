//! Names of settings of bonds and bridges: cloud-init's version 1 as netplan calls them.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node};

/// Bonds, without `bond-` in front.
pub(super) const BOND: [(&str, &str); 23] = [
    ("ad-select", "ad-select"),
    ("all-slaves-active", "all-slaves-active"),
    ("arp-all-targets", "arp-all-targets"),
    ("arp-interval", "arp-interval"),
    ("arp-ip-target", "arp-ip-target"),
    ("arp-validate", "arp-validate"),
    ("downdelay", "down-delay"),
    ("fail-over-mac", "fail-over-mac-policy"),
    ("lacp-rate", "lacp-rate"),
    ("lp-interval", "learn-packet-interval"),
    ("miimon", "mii-monitor-interval"),
    ("min-links", "min-links"),
    ("mode", "mode"),
    ("num-grat-arp", "gratuitous-arp"),
    ("num-unsol-na", "gratuitous-arp"),
    ("packets-per-slave", "packets-per-slave"),
    ("primary", "primary"),
    ("primary-reselect", "primary-reselect-policy"),
    ("resend-igmp", "resend-igmp"),
    ("updelay", "up-delay"),
    ("xmit-hash-policy", "transmit-hash-policy"),
    ("ad-actor-sys-prio", "ad-actor-sys-prio"),
    ("tlb-dynamic-lb", "tlb-dynamic-lb"),
];

/// Bridges, without `bridge-` in front.
pub(super) const BRIDGE: [(&str, &str); 8] = [
    ("ageing", "ageing-time"),
    ("bridgeprio", "priority"),
    ("fd", "forward-delay"),
    ("hello", "hello-time"),
    ("maxage", "max-age"),
    ("pathcost", "path-cost"),
    ("portprio", "port-priority"),
    ("stp", "stp"),
];

/// Modes of bonds by number (bonding.rst of the kernel's documentation).
pub const BOND_MODES: [&str; 7] = [
    "balance-rr",
    "active-backup",
    "balance-xor",
    "broadcast",
    "802.3ad",
    "balance-tlb",
    "balance-alb",
];

/// Settings of a bond of version 1.
pub(super) fn bond(node: &Node, diagnostics: &mut Diagnostics) -> BTreeMap<String, Json> {
    let mut params = renamed(node, "bond", &BOND, diagnostics);
    if let Some(number) = params.get("mode").and_then(Json::as_u64) {
        let name = usize::try_from(number)
            .ok()
            .and_then(|index| BOND_MODES.get(index));
        if let Some(name) = name {
            params.insert("mode".to_owned(), Json::from(*name));
        }
    }
    params
}

/// Settings of a bridge of version 1.
pub(super) fn bridge(node: &Node, diagnostics: &mut Diagnostics) -> BTreeMap<String, Json> {
    let mut params = renamed(node, "bridge", &BRIDGE, diagnostics);
    for name in ["path-cost", "port-priority"] {
        if let Some(value) = params.get_mut(name) {
            *value = by_interface(value);
        }
    }
    if let Some(value) = params.get_mut("stp") {
        let truth = match &*value {
            Json::String(text) => matches!(text.as_str(), "on" | "yes" | "true" | "1"),
            Json::Number(number) => number.as_i64() != Some(0),
            other => other.as_bool().unwrap_or(true),
        };
        *value = Json::Bool(truth);
    }
    params
}

fn renamed(
    node: &Node,
    prefix: &str,
    names: &[(&str, &str)],
    diagnostics: &mut Diagnostics,
) -> BTreeMap<String, Json> {
    let mut params = BTreeMap::new();
    let all = yaml::mapping(&format!("settings of a {prefix}"), node, diagnostics);
    for (key, value) in all.iter().flat_map(Fields::iter) {
        let plain = key.text.replace('_', "-");
        let plain = plain
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix('-'))
            .unwrap_or(&plain);
        match names.iter().find(|(name, _)| *name == plain) {
            Some((_, name)) => {
                params.insert((*name).to_owned(), yaml::to_json(value));
            }
            None => diagnostics.warning(
                key.position,
                format!("unknown setting `{}` of a {prefix} is ignored", key.text),
            ),
        }
    }
    params
}

/// `eth0 50`, a list of such, or a mapping.
fn by_interface(value: &Json) -> Json {
    let lines: Vec<&str> = match value {
        Json::String(line) => vec![line],
        Json::Array(items) => items.iter().filter_map(Json::as_str).collect(),
        other => return other.clone(),
    };
    let pairs = lines.into_iter().filter_map(|line| {
        let (name, number) = line.trim().split_once(char::is_whitespace)?;
        let number: i64 = number.trim().parse().ok()?;
        Some((name.to_owned(), Json::from(number)))
    });
    Json::Object(pairs.collect::<Map<_, _>>())
}
