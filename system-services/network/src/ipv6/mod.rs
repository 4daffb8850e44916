//! What an interface hears by IPv6: router advertisements and a DHCPv6 client. Addresses by SLAAC are the kernel's own work.
//!
//! - [`router`]: router advertisements (RFC 4861) with name servers (RFC 8106)
//! - [`message`]: DHCPv6 messages (RFC 8415)
//! - [`machine`]: the DHCPv6 client's states; pure: events and the time go in, actions come out
//! - `exchange`: a question that is asked until it is answered
//! - [`lease`]: what a server granted, and for how long; [`store`]: kept over restarts
//! - [`prefix`]: prefixes that are delegated, and how they are divided
//! - [`client`]: one task per interface that feeds the machine and carries its actions out

pub mod client;
mod exchange;
pub mod lease;
pub mod machine;
pub mod message;
pub mod prefix;
pub mod router;
pub mod store;

use std::net::Ipv6Addr;

/// What an interface was told.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Told {
    /// Addresses by DHCPv6; `None` as long as no server was heard: what is there stays.
    pub addresses: Option<Vec<lease::Address>>,
    /// Prefixes that are delegated; `None` as above.
    pub prefixes: Option<Vec<lease::Delegated>>,
    /// Name servers, those of DHCPv6 first (RFC 8106 5.3.1).
    pub name_servers: Vec<Ipv6Addr>,
    /// Domains to search, in the same order.
    pub search: Vec<String>,
    /// Time servers.
    pub time_servers: Vec<Ipv6Addr>,
}

/// Whether a host can have this address: no multicast, not the machine's own, not unspecified.
fn is_host(address: Ipv6Addr) -> bool {
    !address.is_multicast() && !address.is_unspecified() && !address.is_loopback()
}

/// Whether all containers can reach it: an address of one link needs the link's name, which resolv.conf of another network
/// does not know.
fn is_reachable(address: Ipv6Addr) -> bool {
    is_host(address) && !address.is_unicast_link_local()
}
