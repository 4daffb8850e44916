//! The keys of network-config version 2.

use serde_json::{Map, Value as Json, json};

use super::made::MODES;
use super::parameters::{BOND, BRIDGE};
use crate::yaml::{Setting, Shape, Table};

/// The top. What is a mapping of tables is a section: interfaces of one kind, by name.
pub(super) static TOP: Table = Table::new(
    "network-config-2",
    &[
        (
            "ethernets",
            Shape::Map(&Shape::Table(&ETHERNET)),
            "Interfaces that the machine has",
        ),
        (
            "bonds",
            Shape::Map(&Shape::Table(&BOND_2)),
            "Several interfaces as one",
        ),
        ("bridges", Shape::Map(&Shape::Table(&BRIDGE_2)), "Switches"),
        (
            "vlans",
            Shape::Map(&Shape::Table(&VLAN)),
            "Tagged parts of other interfaces",
        ),
        (
            "dummy-devices",
            Shape::Map(&Shape::Table(&ANY)),
            "Interfaces with nothing behind them",
        ),
        ("tunnels", Shape::Map(&Shape::Table(&TUNNEL)), "Tunnels"),
        (
            "vrfs",
            Shape::Map(&Shape::Table(&VRF)),
            "Routing tables of their own",
        ),
        ("version", Shape::Integer(2, 2), "Version of the format"),
        ("renderer", Shape::Any, "Says nothing here"),
    ],
)
.unsupported(&[
    ("wifis", "there is no wireless network here"),
    ("modems", "there are no modems here"),
    ("nm-devices", "there is no NetworkManager here"),
    ("openvswitch", "there is no Open vSwitch here"),
])
.required(&["version"]);

static ANY: Table = Table::new("interface", COMMON);
static ETHERNET: Table = Table::new(
    "ethernet",
    &[
        (
            "match",
            Shape::Table(&MATCH),
            "Which interface of the machine it is",
        ),
        ("set-name", Shape::Text, "The name that it gets"),
        ("virtual-function-count", Shape::Any, "Says nothing here"),
        ("link", Shape::Any, "Says nothing here"),
        ("emit-lldp", Shape::Any, "Says nothing here"),
    ],
)
.with(&ANY);
static BOND_2: Table = Table::new(
    "bond",
    &[
        ("interfaces", Shape::TEXTS, "Its interfaces"),
        ("parameters", Shape::Schema(bond_parameters), "Its settings"),
    ],
)
.with(&ANY);
static BRIDGE_2: Table = Table::new(
    "bridge",
    &[
        ("interfaces", Shape::TEXTS, "Its interfaces"),
        (
            "parameters",
            Shape::Schema(bridge_parameters),
            "Its settings",
        ),
    ],
)
.with(&ANY);
static VLAN: Table = Table::new(
    "vlan",
    &[
        ("id", Shape::Integer(0, 4094), "Its tag"),
        ("link", Shape::Text, "The interface that it is on"),
    ],
)
.with(&ANY)
.required(&["id", "link"]);
static VRF: Table = Table::new(
    "vrf",
    &[
        ("table", Shape::NUMBER, "Number of its table"),
        ("interfaces", Shape::TEXTS, "Its interfaces"),
    ],
)
.with(&ANY)
.required(&["table"]);
static TUNNEL: Table = Table::new(
    "tunnel",
    &[
        ("mode", Shape::Schema(modes), "Kind of the tunnel"),
        ("local", Shape::Text, "Address here"),
        ("remote", Shape::Text, "Address there"),
        (
            "ttl",
            Shape::Integer(0, 255),
            "How many hops its packets live",
        ),
        (
            "type-of-service",
            Shape::Integer(0, 255),
            "Type of service of its packets",
        ),
        ("key", KEY, "Key, of both directions"),
        (
            "keys",
            KEY,
            "Keys, of each direction; of WireGuard: `private`",
        ),
        ("port", Shape::Integer(0, u16::MAX as i64), "UDP port"),
        ("mark", Shape::NUMBER, "Mark of WireGuard's packets"),
        (
            "peers",
            Shape::List(&Shape::Table(&PEER)),
            "Those at the other end of WireGuard",
        ),
        ("id", Shape::NUMBER, "Network of VXLAN"),
        ("link", Shape::Text, "The interface below"),
        (
            "mac-learning",
            Shape::Boolean,
            "Whether VXLAN learns where others are",
        ),
    ],
)
.with(&ANY)
.required(&["mode"]);
const KEY: Shape = Shape::AnyOf(&[Shape::Text, Shape::Map(&Shape::Any)]);
pub(super) static PEER: Table = Table::new(
    "peer",
    &[
        ("keys", Shape::Table(&PEER_KEYS), "Its keys"),
        ("endpoint", Shape::Text, "host:port"),
        (
            "keepalive",
            Shape::Integer(0, u16::MAX as i64),
            "Seconds between packets that keep the way open",
        ),
        (
            "allowed-ips",
            ADDRESSES,
            "Whose packets come from it and go to it",
        ),
    ],
);
pub(super) static PEER_KEYS: Table = Table::new(
    "peer.keys",
    &[
        ("public", Shape::Text, "Public key, base64"),
        ("shared", Shape::Text, "Shared key, base64"),
    ],
);
/// Addresses, or mappings from an address to what is said of it.
const ADDRESSES: Shape = Shape::List(&Shape::AnyOf(&[Shape::Text, Shape::Map(&Shape::Any)]));

/// Keys of any interface.
const COMMON: &[Setting] = &[
    ("renderer", Shape::Any, "Says nothing here"),
    ("dhcp4", Shape::Boolean, "Asks DHCP for an address"),
    (
        "dhcp6",
        Shape::Boolean,
        "Asks DHCP for an address of version 6",
    ),
    (
        "dhcp4-overrides",
        Shape::Table(&OVERRIDES),
        "What of DHCP's answer is used",
    ),
    (
        "dhcp6-overrides",
        Shape::Table(&OVERRIDES_6),
        "What of DHCPv6's answer is used",
    ),
    (
        "dhcp6-prefix",
        Shape::Table(&PREFIX),
        "A part of the prefix that another interface is delegated",
    ),
    ("dhcp-identifier", Shape::Any, "Says nothing here"),
    (
        "addresses",
        ADDRESSES,
        "Addresses with the lengths of their prefixes",
    ),
    ("gateway4", Shape::Text, "Next hop of the default route"),
    (
        "gateway6",
        Shape::Text,
        "Next hop of the default route of version 6",
    ),
    ("nameservers", Shape::Table(&NAMESERVERS), "Name servers"),
    ("macaddress", Shape::Text, "Hardware address that it gets"),
    ("mtu", Shape::NUMBER, "Largest packet, in bytes"),
    (
        "accept-ra",
        Shape::Boolean,
        "Whether router advertisements are heeded",
    ),
    (
        "ipv6-privacy",
        Shape::Boolean,
        "Addresses of version 6 change",
    ),
    (
        "link-local",
        Shape::OneOrMore(&LINK_LOCAL),
        "Versions that it has link-local addresses of",
    ),
    ("optional", Shape::Boolean, "Nothing waits for it"),
    ("optional-addresses", Shape::Any, "Says nothing here"),
    (
        "critical",
        Shape::Hint(&Shape::Boolean),
        "Says nothing here",
    ),
    (
        "routes",
        Shape::List(&Shape::Table(&ROUTE)),
        "Routes over it",
    ),
    (
        "routing-policy",
        Shape::List(&Shape::Table(&RULE)),
        "Policy rules",
    ),
    (
        "wakeonlan",
        Shape::Boolean,
        "Whether a packet wakes the machine",
    ),
    ("ipv6-mtu", Shape::Hint(&Shape::NUMBER), "Says nothing here"),
];
const LINK_LOCAL: Shape = Shape::AnyOf(&[Shape::Words(&["ipv4", "ipv6"]), Shape::Text]);
pub(super) static MATCH: Table = Table::new(
    "match",
    &[
        ("name", Shape::Text, "Its name, with * as in a shell"),
        ("macaddress", Shape::Text, "Its hardware address"),
        ("driver", Shape::TEXTS, "The kernel's driver"),
        ("path", Shape::Any, "Says nothing here"),
    ],
);
pub(super) static NAMESERVERS: Table = Table::new(
    "nameservers",
    &[
        ("addresses", Shape::TEXTS, "Their addresses"),
        ("search", Shape::TEXTS, "Domains that are searched"),
    ],
);
const SWITCH: Shape = Shape::Hint(&Shape::Boolean);
pub(super) static OVERRIDES: Table = Table::new(
    "dhcp-overrides",
    &[
        (
            "hostname",
            Shape::Any,
            "The name that is told to the server",
        ),
        ("route-metric", Shape::Hint(&Shape::NUMBER), "Of the routes"),
        (
            "send-hostname",
            SWITCH,
            "The machine's name is told to the server",
        ),
        ("use-dns", SWITCH, "Its name servers are used"),
        ("use-domains", SWITCH, "Its domains are used"),
        ("use-hostname", SWITCH, "Its name for the machine is used"),
        ("use-mtu", SWITCH, "Its MTU is used"),
        ("use-ntp", SWITCH, "Its time servers are used"),
        ("use-routes", SWITCH, "Its routes are used"),
    ],
);
pub(super) static OVERRIDES_6: Table = Table::new(
    "dhcp6-overrides",
    &[(
        "request-prefix",
        Shape::AnyOf(&[Shape::Boolean, Shape::Integer(1, 64)]),
        "A prefix is asked for, perhaps of this length",
    )],
)
.with(&OVERRIDES);
pub(super) static PREFIX: Table = Table::new(
    "dhcp6-prefix",
    &[
        (
            "from",
            Shape::Text,
            "The interface that asks for the prefix",
        ),
        (
            "subnet-id",
            Shape::Integer(0, i64::MAX),
            "Number of the /64 in the prefix",
        ),
        (
            "token",
            Shape::Text,
            "The host's part of the address, as ::1",
        ),
    ],
)
.required(&["from"]);
pub(super) static ROUTE: Table = Table::new(
    "route",
    &[
        ("to", Shape::Text, "Where it leads: `default`, or a network"),
        ("via", Shape::Text, "Next hop"),
        ("from", Shape::Text, "Source address"),
        ("metric", Shape::NUMBER, "Of two the lower one counts"),
        (
            "on-link",
            Shape::Boolean,
            "The next hop is on the link whatever the addresses say",
        ),
        ("table", Shape::NUMBER, "Number of the table"),
        (
            "type",
            Shape::Text,
            "unicast, blackhole, unreachable, prohibit, throw",
        ),
        ("scope", Shape::Text, "global, link, host"),
        ("mtu", Shape::NUMBER, "Largest packet, in bytes"),
        (
            "advertised-mss",
            Shape::Hint(&Shape::NUMBER),
            "Says nothing here",
        ),
        (
            "congestion-window",
            Shape::Hint(&Shape::NUMBER),
            "Says nothing here",
        ),
        (
            "advertised-receive-window",
            Shape::Hint(&Shape::NUMBER),
            "Says nothing here",
        ),
    ],
);
pub(super) static RULE: Table = Table::new(
    "routing-policy",
    &[
        ("from", Shape::Text, "Source"),
        ("to", Shape::Text, "Destination"),
        ("table", Shape::NUMBER, "The table that is looked up"),
        (
            "priority",
            Shape::NUMBER,
            "Of two the lower one is tried first",
        ),
        ("mark", Shape::NUMBER, "Mark of the packets"),
        (
            "type-of-service",
            Shape::Integer(0, 255),
            "Type of service of the packets",
        ),
    ],
);

fn modes() -> Json {
    let modes: Vec<&str> = MODES
        .iter()
        .map(|(mode, _)| *mode)
        .chain(["wireguard"])
        .collect();
    json!({"enum": modes})
}

fn bond_parameters() -> Json {
    parameters(&BOND)
}

fn bridge_parameters() -> Json {
    parameters(&BRIDGE)
}

/// Settings by netplan's names, which are proposed; others are handed on as well.
fn parameters(names: &[(&str, &str)]) -> Json {
    let shown: Map<String, Json> = names
        .iter()
        .map(|(_, name)| ((*name).to_owned(), json!({})))
        .collect();
    json!({"type": ["object", "null"], "properties": shown})
}
