//! Interfaces, addresses, routes.

use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, Ipv6Addr};

use serde::{Deserialize, Serialize};
use serde_json::Value as Json;

use super::cidr::Cidr;
use super::firewall::Firewall;

/// What the network shall be.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Network {
    /// Leave every interface alone.
    #[serde(skip_serializing_if = "is_default")]
    pub disabled: bool,
    /// Nothing is said of interfaces: they are as without a configuration, each wired one asks DHCP of both versions.
    #[serde(skip_serializing_if = "is_default")]
    pub untold: bool,
    /// Interfaces, in the order of the document.
    pub interfaces: Vec<Interface>,
    /// Name servers that no interface has of its own.
    #[serde(skip_serializing_if = "Dns::is_empty")]
    pub global_dns: Dns,
    /// Routes that no interface has of its own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub global_routes: Vec<Route>,
    /// What may come in; everything without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub firewall: Option<Firewall>,
    /// What RancherOS runs before and after: lines for a shell.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_commands: Vec<String>,
    /// And after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_commands: Vec<String>,
}

impl Network {
    /// What holds when nothing is said: every wired interface asks DHCP.
    pub fn dhcp_everywhere() -> Self {
        let interface = Interface {
            name: "wired".to_owned(),
            matches: Match {
                name: Some("*".to_owned()),
                ..Match::default()
            },
            dhcp4: true,
            ..Interface::default()
        };
        Network {
            interfaces: vec![interface],
            ..Network::default()
        }
    }
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Interface {
    /// Its name in the document; that of the interface itself unless `matches` says otherwise.
    pub name: String,
    /// What it is.
    pub kind: Kind,
    /// Which of the machine's interfaces it is.
    #[serde(rename = "match", skip_serializing_if = "is_default")]
    pub matches: Match,
    /// The name that it gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_name: Option<String>,
    /// Ask for an address with DHCP.
    pub dhcp4: bool,
    /// Ask for an address of version 6.
    pub dhcp6: bool,
    /// What of DHCP's answer is used.
    #[serde(skip_serializing_if = "is_default")]
    pub dhcp4_overrides: Overrides,
    /// And of DHCPv6's.
    #[serde(skip_serializing_if = "is_default")]
    pub dhcp6_overrides: Overrides,
    /// Addresses from a prefix that another interface is delegated.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub dhcp6_prefix: Option<PrefixPart>,
    /// Addresses of its own.
    pub addresses: Vec<Cidr>,
    /// Routes over it.
    pub routes: Vec<Route>,
    /// Policy rules (ip-rule(8)).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub rules: Vec<Rule>,
    /// Name servers that are reached over it.
    pub dns: Dns,
    /// Largest packet, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Hardware address that it gets.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// Whether router advertisements are heeded; the kernel's own rule otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub accept_ra: Option<bool>,
    /// Whether it has a link-local address of version 6; the kernel's own rule otherwise.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub link_local_ipv6: Option<bool>,
    /// Whether addresses of version 6 change for privacy (RFC 8981).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ipv6_privacy: Option<bool>,
    /// Address of RFC 3927 when there is no other.
    #[serde(skip_serializing_if = "is_default")]
    pub link_local_ipv4: bool,
    /// Whether a packet wakes the machine.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wakeonlan: Option<bool>,
    /// Nothing waits for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// Lines for a shell, before it is up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pre_up: Vec<String>,
    /// And after.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub post_up: Vec<String>,
}

/// What an interface is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// One that the machine has.
    #[default]
    Physical,
    /// The machine's own.
    Loopback,
    /// Several as one.
    Bond(Bond),
    /// A switch.
    Bridge(Bridge),
    /// A tagged part of another one.
    Vlan(Vlan),
    /// One with nothing behind it.
    Dummy,
    /// A routing table of its own.
    Vrf(Vrf),
    /// A tunnel without encryption.
    Tunnel(Tunnel),
    /// A tunnel with encryption.
    WireGuard(WireGuard),
}

/// Several interfaces as one.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bond {
    /// Its interfaces.
    pub members: Vec<String>,
    /// Settings by netplan's names.
    pub params: BTreeMap<String, Json>,
}

/// A switch.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Bridge {
    /// Its interfaces.
    pub members: Vec<String>,
    /// Settings by netplan's names.
    pub params: BTreeMap<String, Json>,
}

/// A tagged part of another interface (IEEE 802.1Q).
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vlan {
    /// Tag, 0 to 4094.
    pub id: u16,
    /// The other one.
    pub link: String,
}

/// A routing table of its own.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Vrf {
    /// The table's number.
    pub table: u32,
    /// Its interfaces.
    pub members: Vec<String>,
}

/// A tunnel without encryption.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Tunnel {
    /// One of netplan's: `gre`, `gretap`, `ip6gre`, `ip6gretap`, `ipip`, `ipip6`, `ip6ip6`, `isatap`, `sit`, `vti`, `vti6`,
    /// `vxlan`.
    pub mode: String,
    /// Address here.
    pub local: Option<IpAddr>,
    /// Address there; of VXLAN also a multicast group.
    pub remote: Option<IpAddr>,
    /// Network of VXLAN (RFC 7348), 0 to 2^24 - 1.
    pub id: Option<u32>,
    /// Key of GRE (RFC 2890) and VTI of packets that come in.
    pub input_key: Option<u32>,
    /// And of those that go out.
    pub output_key: Option<u32>,
    /// How many hops its packets live.
    pub ttl: Option<u8>,
    /// Their type of service.
    pub tos: Option<u8>,
    /// UDP port of VXLAN.
    pub port: Option<u16>,
    /// Whether VXLAN learns from packets where others are.
    pub learning: Option<bool>,
    /// The interface below.
    pub link: Option<String>,
}

/// A tunnel with encryption.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct WireGuard {
    /// Private key, base64.
    pub key: String,
    /// UDP port here.
    pub port: Option<u16>,
    /// Mark of its packets.
    pub mark: Option<u32>,
    /// Those at the other end.
    pub peers: Vec<Peer>,
}

impl fmt::Debug for WireGuard {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("WireGuard");
        shown.field("port", &self.port).field("peers", &self.peers);
        shown.finish_non_exhaustive()
    }
}

/// One at the other end of a WireGuard tunnel.
#[derive(Clone, PartialEq, Serialize, Deserialize)]
pub struct Peer {
    /// Public key, base64.
    pub public: String,
    /// Shared key, base64.
    pub shared: Option<String>,
    /// `host:port`.
    pub endpoint: Option<String>,
    /// Seconds between packets that keep the way open.
    pub keepalive: Option<u16>,
    /// Whose packets come from it and go to it.
    pub allowed: Vec<Cidr>,
}

impl fmt::Debug for Peer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = formatter.debug_struct("Peer");
        shown.field("public", &self.public);
        shown
            .field("endpoint", &self.endpoint)
            .finish_non_exhaustive()
    }
}

/// Which of the machine's interfaces is meant. All that is said has to fit.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Match {
    /// Its name, with `*`, `?` and `[...]` as in a shell.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its hardware address, in small letters; RancherOS allows `*`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mac: Option<String>,
    /// The kernel's driver, with `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub driver: Vec<String>,
}

/// What of a DHCP server's answer is used: netplan's `use-dns`, `route-metric` and so on.
pub type Overrides = BTreeMap<String, Json>;

/// A part of the prefixes that DHCPv6 delegates to another interface (RFC 8415 6.3): a /64 of each, with an address on it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixPart {
    /// The other interface, by its name in the document or its own.
    pub from: String,
    /// Which of the prefix's networks, from 0; without it the first one that no other interface names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<u64>,
    /// The last 64 bits of the address.
    #[serde(default = "first_host", skip_serializing_if = "is_first_host")]
    pub token: Ipv6Addr,
}

impl PrefixPart {
    /// The host's part of an address when nothing is said.
    pub const TOKEN: Ipv6Addr = Ipv6Addr::new(0, 0, 0, 0, 0, 0, 0, 1);
}

fn first_host() -> Ipv6Addr {
    PrefixPart::TOKEN
}

fn is_first_host(token: &Ipv6Addr) -> bool {
    *token == PrefixPart::TOKEN
}

/// Name servers and domains that are searched.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Dns {
    /// Name servers.
    pub servers: Vec<IpAddr>,
    /// Domains.
    pub search: Vec<String>,
}

impl Dns {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.servers.is_empty() && self.search.is_empty()
    }
}

/// A route.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Route {
    /// Where it leads.
    pub to: Cidr,
    /// The next hop.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub via: Option<IpAddr>,
    /// Of two the lower one counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub metric: Option<u32>,
    /// The next hop is on the link whatever the addresses say.
    #[serde(skip_serializing_if = "is_default")]
    pub on_link: bool,
    /// Source address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub from: Option<IpAddr>,
    /// Number of the table.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub table: Option<u32>,
    /// Largest packet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// `unicast`, `blackhole`, `unreachable`, `prohibit`, `throw`.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// `global`, `link`, `host`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<String>,
}

/// A policy rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Source.
    pub from: Option<Cidr>,
    /// Destination.
    pub to: Option<Cidr>,
    /// The table that is looked up.
    pub table: Option<u32>,
    /// Of two the lower one is tried first.
    pub priority: Option<u32>,
    /// Mark of the packets.
    pub mark: Option<u32>,
    /// Type of service of the packets.
    pub tos: Option<u8>,
}

fn is_default<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}
