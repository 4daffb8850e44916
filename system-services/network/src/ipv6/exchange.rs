//! A question that is asked until it is answered (RFC 8415 15).

use std::net::Ipv6Addr;
use std::time::Duration;

use super::message::{Kind, Reply, Request};
use crate::dhcp4::random::Random;

const SECOND: Duration = Duration::from_secs(1);

/// The question, and what came of it so far.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) kind: Kind,
    pub(super) xid: [u8; 3],
    pub(super) server: Option<Vec<u8>>,
    addresses: Vec<Ipv6Addr>,
    begun: Duration,
    /// When it is sent next.
    pub(super) next: Duration,
    /// The pause after that.
    pause: Duration,
    pub(super) sent: u32,
    /// The best offer so far.
    pub(super) offer: Option<Reply>,
    /// When something else is tried.
    pub(super) given_up_at: Option<Duration>,
}

/// The first pause, the longest, and how often it is sent at most (RFC 8415 7.6).
fn timing(kind: Kind) -> (Duration, Duration, Option<u32>) {
    match kind {
        Kind::Solicit | Kind::Information => (SECOND, 3600 * SECOND, None),
        Kind::Request => (SECOND, 30 * SECOND, Some(10)),
        Kind::Renew | Kind::Rebind => (10 * SECOND, 600 * SECOND, None),
        Kind::Decline => (SECOND, 8 * SECOND, Some(4)),
    }
}

impl Exchange {
    /// A question that is sent for the first time at `at`.
    pub(super) fn new(
        kind: Kind,
        server: Option<Vec<u8>>,
        addresses: Vec<Ipv6Addr>,
        at: Duration,
        random: &mut Random,
    ) -> Self {
        let [_, a, b, c] = random.next_xid().to_be_bytes();
        let (first, _, _) = timing(kind);
        // The first pause of a Solicit is longer than that, so that preferred servers are heard.
        let jitter = random.below(first / 10);
        Exchange {
            kind,
            xid: [a, b, c],
            server,
            addresses,
            begun: at,
            next: at,
            pause: first + jitter,
            sent: 0,
            offer: None,
            given_up_at: None,
        }
    }

    /// Whether it was sent as often as it may be.
    pub(super) fn is_spent(&self) -> bool {
        let (_, _, most) = timing(self.kind);
        most.is_some_and(|most| self.sent >= most)
    }

    /// What is sent now; the next time is later each time.
    pub(super) fn send(&mut self, now: Duration, random: &mut Random) -> Request {
        let (_, longest, _) = timing(self.kind);
        self.sent += 1;
        self.next = now + self.pause;
        // Twice as long, a tenth more or less.
        let jitter = random.below(self.pause / 5);
        self.pause = (self.pause * 2 + jitter)
            .saturating_sub(self.pause / 10)
            .min(longest);
        Request {
            kind: self.kind,
            xid: self.xid,
            elapsed: now.saturating_sub(self.begun),
            server: self.server.clone(),
            addresses: self.addresses.clone(),
        }
    }
}
