//! What the network is: written by the network service at each change, read by `keelson network status`.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::{Deserialize, Serialize};

use super::Cidr;

/// Name of the file in the network service's directory.
pub const STATUS_FILE: &str = "status.json";

/// All links that there are, in the order of the kernel's numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The links.
    pub links: Vec<LinkStatus>,
}

/// One link.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LinkStatus {
    /// Its name.
    pub name: String,
    /// What the kernel calls its kind (`bond`, `vlan`); empty for a card.
    pub kind: String,
    /// Hardware address.
    pub mac: String,
    /// Bytes of payload in one frame.
    pub mtu: u32,
    /// It was brought up.
    pub up: bool,
    /// There is somebody at the other end of the cable.
    pub carrier: bool,
    /// The bond, bridge or VRF that it is a part of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub part_of: Option<String>,
    /// Whether the network service looks after it.
    pub managed: bool,
    /// Addresses that the configuration gives it.
    pub addresses: Vec<Cidr>,
    /// Whether it asks for an address with DHCP.
    pub dhcp4: bool,
    /// Addresses that a DHCPv6 server granted.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dhcp6: Vec<Ipv6Addr>,
    /// Prefixes that a DHCPv6 server delegated by it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub prefixes: Vec<PrefixStatus>,
    /// Addresses that it has from a prefix of another link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub delegated: Vec<DelegatedStatus>,
    /// What a DHCP server granted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lease: Option<LeaseStatus>,
}

/// A prefix that a DHCPv6 server delegated.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PrefixStatus {
    /// The prefix.
    pub prefix: Cidr,
    /// When it ends, in seconds since the machine's start (`CLOCK_BOOTTIME`); never without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at_s: Option<u64>,
}

/// An address from a delegated prefix.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DelegatedStatus {
    /// The address.
    pub address: Cidr,
    /// The name of the link that the prefix was delegated by.
    pub from: String,
}

/// What a DHCP server granted.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LeaseStatus {
    /// The address.
    pub address: Cidr,
    /// The server.
    pub server: Ipv4Addr,
    /// Routers of default routes.
    pub routers: Vec<Ipv4Addr>,
    /// When it ends, in seconds since the machine's start (`CLOCK_BOOTTIME`); never without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ends_at_s: Option<u64>,
}
