//! The keys of cloud-init's network-config version 1.

use serde_json::{Map, Value as Json, json};

use super::parameters::{BOND, BRIDGE};
use crate::yaml::{Setting, Shape, Table};

/// The top.
pub(super) static TOP: Table = Table::new(
    "network-config-1",
    &[
        ("version", Shape::Integer(1, 1), "Version of the format"),
        (
            "config",
            CONFIG,
            "Interfaces, name servers and routes, or `disabled`",
        ),
    ],
);
const CONFIG: Shape = Shape::AnyOf(&[
    Shape::List(&Shape::By("type", ENTRIES)),
    Shape::Words(&["disabled"]),
]);

type Entries = &'static [(&'static [&'static str], &'static Table)];
/// Entries by their type.
pub(super) static ENTRIES: Entries = &[
    (&["physical", "infiniband", "loopback", "dummy"], &PHYSICAL),
    (&["bond"], &BOND_ENTRY),
    (&["bridge"], &BRIDGE_ENTRY),
    (&["vlan"], &VLAN),
    (&["nameserver"], &NAMESERVER),
    (&["route"], &ROUTE),
];

/// The keys of entries of a type; `None` when there is none of that name.
pub(super) fn entry(kind: &str) -> Option<&'static Table> {
    let mut all = ENTRIES.iter();
    let found = all.find(|(kinds, _)| kinds.contains(&kind));
    found.map(|(_, table)| *table)
}

static PHYSICAL: Table = Table::new("physical-1", COMMON)
    .unsupported(&IGNORED)
    .required(&["name"]);
static BOND_ENTRY: Table = Table::new(
    "bond-1",
    &[
        ("bond_interfaces", Shape::TEXTS, "Its interfaces"),
        ("params", Shape::Schema(bond_parameters), "Its settings"),
    ],
)
.with(&PHYSICAL)
.required(&["name"]);
static BRIDGE_ENTRY: Table = Table::new(
    "bridge-1",
    &[
        ("bridge_interfaces", Shape::TEXTS, "Its interfaces"),
        ("params", Shape::Schema(bridge_parameters), "Its settings"),
    ],
)
.with(&PHYSICAL)
.required(&["name"]);
static VLAN: Table = Table::new(
    "vlan-1",
    &[
        ("vlan_link", Shape::Text, "The interface that it is on"),
        ("vlan_id", Shape::Integer(0, 4094), "Its tag"),
    ],
)
.with(&PHYSICAL)
.required(&["name"]);

/// Keys that each interface may have.
const COMMON: &[Setting] = &[
    ("type", Shape::Text, "What it is"),
    ("name", Shape::Text, "Its name"),
    ("mac_address", Shape::Text, "Its hardware address"),
    ("mtu", Shape::NUMBER, "Largest packet, in bytes"),
    ("subnets", Shape::List(&Shape::Table(&SUBNET)), "Addresses"),
    (
        "accept-ra",
        Shape::Boolean,
        "Whether router advertisements are heeded",
    ),
    (
        "keep_configuration",
        Shape::Hint(&Shape::Boolean),
        "Says nothing here",
    ),
    (
        "wakeonlan",
        Shape::Boolean,
        "Whether a packet wakes the machine",
    ),
];
/// What Debian's ifupdown knew and nothing of cloud-init's renderers heeds.
const IGNORED: [(&str, &str); 2] = [
    ("ipv4_conf", "set it with `keelson.sysctl`"),
    ("ipv6_conf", "set it with `keelson.sysctl`"),
];

static NAMESERVER: Table = Table::new(
    "nameserver-1",
    &[
        ("type", Shape::Text, "What it is"),
        ("name", Shape::Any, "Says nothing here"),
        ("address", Shape::TEXTS, "Addresses of name servers"),
        ("search", Shape::TEXTS, "Domains that are searched"),
        (
            "interface",
            Shape::Text,
            "Interface that they are reached over; all without",
        ),
    ],
);

pub(super) static SUBNET: Table = Table::new(
    "subnet-1",
    &[
        (
            "type",
            Shape::Words(&SUBNET_TYPES),
            "Where the address comes from",
        ),
        (
            "address",
            Shape::Text,
            "Address, with or without the length of its prefix",
        ),
        ("netmask", Shape::Text, "Mask, or length of the prefix"),
        ("broadcast", Shape::Any, "Says nothing here"),
        ("gateway", Shape::Text, "Next hop of the default route"),
        ("metric", Shape::NUMBER, "Of the default route"),
        ("dns_nameservers", Shape::TEXTS, "Addresses of name servers"),
        ("dns_search", Shape::TEXTS, "Domains that are searched"),
        (
            "routes",
            Shape::List(&Shape::Table(&ROUTE)),
            "Routes over the interface",
        ),
        ("control", Shape::Any, "Says nothing here"),
        ("mtu", Shape::NUMBER, "Largest packet, in bytes"),
        ("scope", Shape::Any, "Says nothing here"),
        ("pointopoint", Shape::Any, "Says nothing here"),
        ("ipv4", Shape::Any, "Says nothing here"),
        ("ipv6", Shape::Any, "Says nothing here"),
    ],
);
const SUBNET_TYPES: [&str; 9] = [
    "dhcp",
    "dhcp4",
    "dhcp6",
    "static",
    "static6",
    "manual",
    "ipv6_slaac",
    "ipv6_dhcpv6-stateful",
    "ipv6_dhcpv6-stateless",
];

pub(super) static ROUTE: Table = Table::new(
    "route-1",
    &[
        ("type", Shape::Any, "What it is"),
        ("id", Shape::Any, "Says nothing here"),
        (
            "destination",
            Shape::Text,
            "Where it leads, with the length of the prefix",
        ),
        ("network", Shape::Text, "Where it leads"),
        ("netmask", Shape::Text, "Mask of where it leads"),
        (
            "prefix",
            Shape::Text,
            "Length of the prefix of where it leads",
        ),
        ("gateway", Shape::Text, "Next hop"),
        ("metric", Shape::NUMBER, "Of two the lower one counts"),
        ("mtu", Shape::NUMBER, "Largest packet, in bytes"),
        ("table", Shape::NUMBER, "Number of the table"),
        ("scope", Shape::Any, "Says nothing here"),
    ],
);

pub(super) fn bond_parameters() -> Json {
    parameters("bond", &BOND)
}

fn bridge_parameters() -> Json {
    parameters("bridge", &BRIDGE)
}

/// Settings with what they are about in front or without it, and either hyphens or underscores.
fn parameters(prefix: &str, names: &[(&str, &str)]) -> Json {
    let names = names.iter().map(|(name, _)| *name);
    let shown: Map<String, Json> = names
        .clone()
        .map(|name| (format!("{prefix}-{name}"), json!({})))
        .collect();
    let either: Vec<String> = names.map(|name| name.replace('-', "[-_]")).collect();
    let pattern = format!("^({prefix}[-_])?({})$", either.join("|"));
    json!({"type": ["object", "null"], "properties": shown, "patternProperties": {pattern: {}},
        "additionalProperties": false})
}
