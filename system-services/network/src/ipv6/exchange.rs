//! A question that is asked until it is answered (RFC 8415 15).

use std::time::Duration;

use super::message::{Kind, Reply, Request, Subject};
use crate::dhcp4::random::Random;

const SECOND: Duration = Duration::from_secs(1);

/// The longest pauses between two questions that have no other end, which servers may change (RFC 8415 21.24, 21.25).
#[derive(Debug, Clone, Copy)]
pub(super) struct Limits {
    /// SOL_MAX_RT
    pub(super) solicit: Duration,
    /// INF_MAX_RT
    pub(super) information: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let hour = Duration::from_secs(3600);
        Self {
            solicit: hour,
            information: hour,
        }
    }
}

/// How often something is sent (RFC 8415 7.6).
#[derive(Debug, Clone, Copy)]
struct Timing {
    first: Duration,
    longest: Duration,
    /// How often at most.
    most: Option<u32>,
}

impl Timing {
    fn of(kind: Kind, limits: Limits) -> Self {
        let (first, longest, most) = match kind {
            Kind::Solicit => (SECOND, limits.solicit, None),
            Kind::Information => (SECOND, limits.information, None),
            Kind::Request => (SECOND, 30 * SECOND, Some(10)),
            Kind::Confirm => (SECOND, 4 * SECOND, None),
            Kind::Renew | Kind::Rebind => (10 * SECOND, 600 * SECOND, None),
            Kind::Decline | Kind::Release => (SECOND, 8 * SECOND, Some(4)),
        };
        Self {
            first,
            longest,
            most,
        }
    }
}

/// The question, and what came of it so far.
#[derive(Debug, Clone)]
pub(super) struct Exchange {
    pub(super) kind: Kind,
    pub(super) xid: [u8; 3],
    pub(super) server: Option<Vec<u8>>,
    subject: Subject,
    timing: Timing,
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
    /// It is about the lease that is held: what the answer says nothing of holds.
    pub(super) keeps: bool,
}

impl Exchange {
    /// A question that is sent for the first time at `at`.
    pub(super) fn new(
        kind: Kind,
        server: Option<Vec<u8>>,
        subject: Subject,
        at: Duration,
        limits: Limits,
        random: &mut Random,
    ) -> Self {
        let [_, a, b, c] = random.next_xid().to_be_bytes();
        let timing = Timing::of(kind, limits);
        // The first pause of a Solicit is longer than that, so that preferred servers are heard.
        let jitter = random.below(timing.first / 10);
        Exchange {
            kind,
            xid: [a, b, c],
            server,
            subject,
            timing,
            begun: at,
            next: at,
            pause: timing.first + jitter,
            sent: 0,
            offer: None,
            given_up_at: None,
            keeps: matches!(kind, Kind::Renew | Kind::Rebind),
        }
    }

    /// The same at the pace of a Confirm, and until then: after a change of the link (RFC 8415 18.2.12).
    pub(super) fn hurried(mut self, given_up_at: Duration) -> Self {
        let quick = Timing::of(Kind::Confirm, Limits::default());
        self.pause = quick.first
            + self
                .pause
                .saturating_sub(self.timing.first)
                .min(quick.first / 10);
        self.timing = quick;
        self.given_up_at = Some(given_up_at);
        self
    }

    /// Takes up another limit of the pauses.
    pub(super) fn limit(&mut self, limits: Limits) {
        self.timing.longest = Timing::of(self.kind, limits)
            .longest
            .min(match self.given_up_at {
                Some(_) => self.timing.longest,
                None => Duration::MAX,
            });
    }

    /// Whether it was sent as often as it may be.
    pub(super) fn is_spent(&self) -> bool {
        self.timing.most.is_some_and(|most| self.sent >= most)
    }

    /// What is sent now; the next time is later each time.
    pub(super) fn send(&mut self, now: Duration, random: &mut Random) -> Request {
        self.sent += 1;
        self.pause = self.pause.min(self.timing.longest);
        self.next = now + self.pause;
        // Twice as long, a tenth more or less.
        let jitter = random.below(self.pause / 5);
        self.pause = (self.pause * 2 + jitter)
            .saturating_sub(self.pause / 10)
            .min(self.timing.longest);
        Request {
            kind: self.kind,
            xid: self.xid,
            elapsed: now.saturating_sub(self.begun),
            server: self.server.clone(),
            subject: self.subject.clone(),
        }
    }
}
