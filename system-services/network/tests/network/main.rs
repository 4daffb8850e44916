//! The service against a real DHCP server, in network namespaces. Needs root and dnsmasq: `./mkimage.sh tools`.
//!
//! - `declared`: what a configuration says
//! - `leases`: leases had, renewed, lost, refused, and what the machine looks like then
//! - `links`: cables, interfaces that come and go, hostile neighbours
//! - `made`: addresses that are chosen, tunnels, parts of bridges
//! - `parts`: parts of prefixes when links and configurations change
//! - `peers`: the same with other servers and routers
//! - `prefixes`: prefixes that are delegated, and leases of DHCPv6 over restarts
//! - `support`: the laboratory

mod declared;
mod ipv6;
mod leases;
mod links;
mod made;
mod parts;
mod peers;
mod prefixes;
mod support;
