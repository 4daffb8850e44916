//! What a DHCPv6 server granted, and for how long.

use std::net::Ipv6Addr;
use std::time::Duration;

use super::message::Reply;

/// A lifetime that never ends (RFC 8415 7.7).
pub const INFINITE_S: u32 = u32::MAX;

/// An address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub address: Ipv6Addr,
    /// Until when new connections use it, on the clock of [`crate::dhcp4::timer`]; `None` is for good.
    pub preferred_until: Option<Duration>,
    /// Until when it may be used at all.
    pub valid_until: Option<Duration>,
}

/// What a server granted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// The server's identifier.
    pub server: Vec<u8>,
    /// The addresses.
    pub addresses: Vec<Address>,
    /// When to ask that server to go on (T1); `None` is never.
    pub renew_at: Option<Duration>,
    /// When to ask any server (T2).
    pub rebind_at: Option<Duration>,
}

impl Lease {
    /// Reads an answer to a question of the time `asked`; `None` when it grants no address.
    pub fn from_reply(reply: &Reply, asked: Duration) -> Option<Self> {
        let until = |seconds: u32| {
            (seconds != INFINITE_S).then(|| asked + Duration::from_secs(seconds.into()))
        };
        let granted: Vec<_> = reply
            .addresses
            .iter()
            .filter(|(_, preferred, valid)| *valid > 0 && preferred <= valid)
            .collect();
        // Half and four fifths of the shortest, when the server leaves it to us (RFC 8415 14.2).
        let preferred = granted.iter().map(|(_, preferred, valid)| match preferred {
            0 => *valid,
            preferred => *preferred,
        });
        let shortest = preferred.min()?;
        let part = |given: u32, fifths: u64| match (given, shortest) {
            (0, INFINITE_S) => INFINITE_S,
            (0, _) => u32::try_from(u64::from(shortest) * fifths / 10).unwrap_or(INFINITE_S),
            (given, _) => given,
        };
        let (renew, rebind) = (part(reply.renew_s, 5), part(reply.rebind_s, 8));
        // Nobody is asked more than once in ten seconds.
        let renew = renew.max(10);
        let rebind = rebind.max(renew.saturating_add(renew / 2));
        Some(Lease {
            server: reply.server.clone(),
            addresses: granted
                .iter()
                .map(|(address, preferred, valid)| Address {
                    address: *address,
                    preferred_until: until(*preferred),
                    valid_until: until(*valid),
                })
                .collect(),
            renew_at: until(renew),
            rebind_at: until(rebind),
        })
    }

    /// Keeps what an answer says nothing of: it holds until its end.
    pub fn keep(&mut self, old: &Lease, reply: &Reply) {
        let is_named = |address: &Address| {
            let mut named = reply.addresses.iter();
            named.any(|(other, ..)| *other == address.address)
        };
        let kept = old.addresses.iter().filter(|address| !is_named(address));
        self.addresses.extend(kept);
    }

    /// When the last address ends; `None` is never.
    pub fn ends_at(&self) -> Option<Duration> {
        let mut ends = self.addresses.iter().map(|address| address.valid_until);
        ends.try_fold(Duration::ZERO, |last, end| end.map(|end| last.max(end)))
    }
}
