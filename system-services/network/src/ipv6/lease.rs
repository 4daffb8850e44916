//! What a DHCPv6 server granted, and for how long.

use std::net::Ipv6Addr;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::message::{Association, Information, MOST, Reply};
use super::prefix::Prefix;

/// A lifetime that never ends (RFC 8415 7.7).
pub const INFINITE_S: u32 = u32::MAX;
/// A server's identifier is at most as long, in bytes (RFC 8415 11.1).
pub const LONGEST_DUID: usize = 130;

/// Nobody is asked more than once in this time.
const LEAST_PAUSE_S: u32 = 10;

/// An address or a prefix, and how long it holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leased<T> {
    /// The address or the prefix.
    pub what: T,
    /// Until when new connections use it, on the clock of [`crate::dhcp4::timer`]; `None` is for good.
    pub preferred_until: Option<Duration>,
    /// Until when it may be used at all.
    pub valid_until: Option<Duration>,
}

/// An address.
pub type Address = Leased<Ipv6Addr>;
/// A delegated prefix.
pub type Delegated = Leased<Prefix>;

impl<T> Leased<T> {
    fn has_ended(&self, now: Duration) -> bool {
        self.valid_until.is_some_and(|until| until <= now)
    }
}

/// What a server granted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lease {
    /// The server's identifier.
    pub server: Vec<u8>,
    /// The addresses.
    pub addresses: Vec<Address>,
    /// The prefixes.
    pub prefixes: Vec<Delegated>,
    /// When to ask that server to go on (T1); `None` is never.
    pub renew_at: Option<Duration>,
    /// When to ask any server (T2).
    pub rebind_at: Option<Duration>,
}

/// What an interface has from a server, as it is kept over restarts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Addresses and prefixes.
    pub lease: Lease,
    /// What else the server said.
    pub information: Information,
}

impl Lease {
    /// Reads an answer to a question of the time `asked`; `None` when it grants nothing.
    pub fn from_reply(reply: &Reply, asked: Duration) -> Option<Self> {
        let addresses = granted(&reply.addresses, asked);
        let prefixes = granted(&reply.prefixes, asked);
        if addresses.is_empty() && prefixes.is_empty() {
            return None;
        }
        // One exchange for both, at the earlier of their times (RFC 8415 18.2.4).
        let times = [times(&reply.addresses), times(&reply.prefixes)];
        let times = times.into_iter().flatten();
        let (renew, rebind) =
            times.reduce(|(renew, rebind), other| (renew.min(other.0), rebind.min(other.1)))?;
        let renew = renew.max(LEAST_PAUSE_S);
        let rebind = rebind.max(renew.saturating_add(renew / 2));
        Some(Lease {
            server: reply.server.clone(),
            addresses,
            prefixes,
            renew_at: until(renew, asked),
            rebind_at: until(rebind, asked),
        })
    }

    /// Keeps what an answer says nothing of: it holds until its end, and is asked about again before that.
    pub fn keep(&mut self, old: &Lease, reply: &Reply, now: Duration) {
        let addresses = unnamed(&old.addresses, &reply.addresses);
        let prefixes = unnamed(&old.prefixes, &reply.prefixes);
        let ends = addresses.iter().map(|it| it.valid_until);
        let ends = ends.chain(prefixes.iter().map(|it| it.valid_until));
        // At the half of what is left of it; what ends soon was asked about often enough.
        let pause = Duration::from_secs(LEAST_PAUSE_S.into());
        let ends = ends.flatten().filter(|end| *end >= now + 2 * pause);
        if let Some(end) = ends.min() {
            let half = now + end.saturating_sub(now) / 2;
            self.renew_at = Some(self.renew_at.map_or(half, |at| at.min(half)));
        }
        self.addresses.extend(addresses);
        self.prefixes.extend(prefixes);
    }

    /// Takes away what an answer takes back: its lifetime is zero. Says whether that was any.
    pub fn take_back(&mut self, reply: &Reply) -> bool {
        let before = self.addresses.len() + self.prefixes.len();
        let kept = |answer: &Association<Ipv6Addr>, what: Ipv6Addr| !answer.takes_back(&what);
        self.addresses.retain(|it| kept(&reply.addresses, it.what));
        self.prefixes
            .retain(|it| !reply.prefixes.takes_back(&it.what));
        self.addresses.len() + self.prefixes.len() < before
    }

    /// Forgets what has ended. Says whether that was any.
    pub fn drop_ended(&mut self, now: Duration) -> bool {
        let before = self.addresses.len() + self.prefixes.len();
        self.addresses.retain(|it| !it.has_ended(now));
        self.prefixes.retain(|it| !it.has_ended(now));
        self.addresses.len() + self.prefixes.len() < before
    }

    /// Whether nothing is left of it.
    pub fn is_empty(&self) -> bool {
        self.addresses.is_empty() && self.prefixes.is_empty()
    }

    /// When the next address or prefix ends; `None` is never.
    pub fn next_end(&self) -> Option<Duration> {
        let addresses = self.addresses.iter().filter_map(|it| it.valid_until);
        let prefixes = self.prefixes.iter().filter_map(|it| it.valid_until);
        addresses.chain(prefixes).min()
    }

    /// Its addresses alone.
    pub fn plain_addresses(&self) -> Vec<Ipv6Addr> {
        self.addresses.iter().map(|it| it.what).collect()
    }

    /// Its prefixes alone.
    pub fn plain_prefixes(&self) -> Vec<Prefix> {
        self.prefixes.iter().map(|it| it.what).collect()
    }

    /// Changes every time in it.
    pub fn map_times(&mut self, change: impl Fn(Duration) -> Duration) {
        let all = |it: &mut Option<Duration>| *it = it.map(&change);
        for address in &mut self.addresses {
            all(&mut address.preferred_until);
            all(&mut address.valid_until);
        }
        for prefix in &mut self.prefixes {
            all(&mut prefix.preferred_until);
            all(&mut prefix.valid_until);
        }
        all(&mut self.renew_at);
        all(&mut self.rebind_at);
    }

    /// Whether a server can have granted it: what is read from a file may be anything.
    pub fn is_possible(&self) -> bool {
        let mut addresses = self.addresses.iter();
        let mut prefixes = self.prefixes.iter();
        (1..=LONGEST_DUID).contains(&self.server.len())
            && self.addresses.len() <= MOST
            && self.prefixes.len() <= MOST
            && addresses.all(|it| super::is_reachable(it.what))
            && prefixes.all(|it| Prefix::new(it.what.address, it.what.length) == Some(it.what))
    }
}

fn until(seconds: u32, asked: Duration) -> Option<Duration> {
    (seconds != INFINITE_S).then(|| asked + Duration::from_secs(seconds.into()))
}

fn granted<T: Copy>(answer: &Association<T>, asked: Duration) -> Vec<Leased<T>> {
    let leases = answer.granted();
    leases
        .map(|(what, preferred, valid)| Leased {
            what: *what,
            preferred_until: until(*preferred, asked),
            valid_until: until(*valid, asked),
        })
        .collect()
}

/// T1 and T2 in seconds; `None` when nothing is granted. Half and four fifths of the shortest, when the server leaves it to us
/// (RFC 8415 14.2).
fn times<T>(answer: &Association<T>) -> Option<(u32, u32)> {
    let preferred = answer
        .granted()
        .map(|(_, preferred, valid)| match preferred {
            0 => *valid,
            preferred => *preferred,
        });
    let shortest = preferred.min()?;
    let part = |given: u32, tenths: u64| match (given, shortest) {
        (0, INFINITE_S) => INFINITE_S,
        (0, _) => u32::try_from(u64::from(shortest) * tenths / 10).unwrap_or(INFINITE_S),
        (given, _) => given,
    };
    Some((part(answer.renew_s, 5), part(answer.rebind_s, 8)))
}

fn unnamed<T: Copy + PartialEq>(old: &[Leased<T>], answer: &Association<T>) -> Vec<Leased<T>> {
    let is_named = |it: &&Leased<T>| answer.leases.iter().any(|(what, ..)| *what == it.what);
    let unnamed = old.iter().filter(|it| !is_named(it));
    unnamed.copied().collect()
}
