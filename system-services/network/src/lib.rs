//! Addresses, routes, DHCP and resolv.conf of the machine's wired interfaces.
//!
//! Declared state goes in ([`config`] and what DHCP servers say), kernel state comes out ([`kernel`]).
//!
//! - [`config`]: which interfaces are ours and how they get their addresses
//! - `matching`: which interface of the configuration a link is
//! - [`links`]: network interfaces as the kernel describes them; which are wired
//! - [`dhcp4`]: the DHCPv4 client: codec, state machine, sockets, saved leases
//! - [`ipv6`]: router advertisements, the DHCPv6 client
//! - [`firewall`]: what may come in
//! - [`link_local`]: IPv4 addresses that an interface chooses itself
//! - [`ipv4`]: what an interface should look like that has a lease, and what to change to get there; pure
//! - [`declared`]: the same for what the configuration says
//! - [`kernel`]: the same over rtnetlink
//! - [`resolver`]: resolv.conf and lists of time servers
//! - [`service`]: the event loop that ties the above together
//! - [`bridge`]: bridges of the system engine's containers, for which the engine runs this program
//! - [`files`], [`log`], [`watched`]: atomic writes, messages on standard error, descriptors in the event loop

pub mod bridge;
pub mod config;
pub mod declared;
pub mod dhcp4;
pub mod files;
pub mod firewall;
pub mod ipv4;
pub mod ipv6;
pub mod kernel;
pub mod link_local;
pub mod links;
#[macro_use]
pub mod log;
mod matching;
pub mod resolver;
pub mod service;
pub mod watched;
