//! DHCPv6 messages (RFC 8415).
//!
//! - `request`: what we send
//! - `reply`: what we accept
//! - `options`: the options of a message, one by one

mod options;
mod reply;
mod request;

use std::net::Ipv6Addr;

pub use reply::{Association, Information, Refusal, Reply};
pub use request::{Identity, Kind, Request, Subject};

/// The port that clients listen on.
pub const CLIENT_PORT: u16 = 546;
/// The port that servers listen on.
pub const SERVER_PORT: u16 = 547;
/// All servers and relays on the link (RFC 8415 7.1).
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// More of anything from one server are a mistake or an attack.
pub const MOST: usize = 16;

#[cfg(test)]
mod tests;
