//! The DHCPv4 client (RFC 2131, RFC 2132).
//!
//! - [`machine`]: the client's states; pure: events and the time go in, actions come out
//! - [`client`]: one task per interface that feeds the machine and carries its actions out
//! - [`message`]: DHCP messages: what we send, what we accept
//! - [`options`]: values of DHCP options, read with suspicion
//! - [`lease`]: what a server granted, and for how long
//! - [`store`]: leases kept over restarts
//! - [`datagram`]: IPv4 and UDP headers around a message, for when there is no address yet
//! - [`arp`]: asking whether somebody has an address already (RFC 5227)
//! - [`timer`]: the clock that the above live by
//! - [`random`]: numbers that keep machines from doing things at the same moment

pub mod arp;
pub mod client;
pub mod datagram;
pub mod lease;
pub mod machine;
pub mod message;
pub mod options;
pub mod random;
pub mod store;
pub mod timer;
