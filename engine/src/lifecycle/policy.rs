//! What a definition says about restarts and time limits.

use crate::compose::socket::Start;
use crate::compose::{Definition, Ready, Restart};
use std::time::Duration;

/// The first pause before a service is started again.
const BACKOFF_FIRST: Duration = Duration::from_millis(100);
/// The longest.
const BACKOFF_LONGEST: Duration = Duration::from_secs(60);
/// A run of this length counts as stable: the next pause is the first again.
const STABLE_RUN: Duration = Duration::from_secs(10);
/// How long a killed process may take to be gone before it is mentioned.
pub(super) const KILL_PATIENCE: Duration = Duration::from_secs(10);

/// The part of a definition that its life depends on.
#[derive(Clone, Debug)]
pub struct Policy {
    /// When it is started again.
    pub restart: Restart,
    /// When it counts as ready.
    pub ready: Ready,
    /// How long it may take until then.
    pub start_timeout: Option<Duration>,
    /// How long it may take to end.
    pub stop_grace_period: Duration,
    /// What asks it to.
    pub stop_signal: i32,
    /// How long it may be silent.
    pub watchdog: Option<Duration>,
    /// It is started by who connects to one of its sockets.
    pub starts_when_called: bool,
}

impl Policy {
    /// The policy of a definition.
    pub fn of(definition: &Definition) -> Self {
        Self {
            restart: definition.service.restart,
            ready: definition.ready(),
            start_timeout: definition.start_timeout(),
            stop_grace_period: definition.stop_grace_period(),
            stop_signal: definition
                .service
                .stop_signal
                .map_or(nix::libc::SIGTERM, |signal| signal.0),
            watchdog: definition.service.keelson.watchdog.map(|span| span.0),
            starts_when_called: definition.service.keelson.start == Start::Socket,
        }
    }

    /// The pause after so many ends in a row: 0.1 s, doubled each time, at most 60 s.
    pub fn backoff(&self, streak: u32) -> Duration {
        BACKOFF_FIRST
            .saturating_mul(2_u32.saturating_pow(streak))
            .min(BACKOFF_LONGEST)
    }

    /// Whether a run of this length wipes the slate clean.
    pub fn is_stable(&self, run: Duration) -> bool {
        run >= STABLE_RUN
    }

    /// Whether it is started again after an end, `attempts` ends having come in a row before this one.
    pub fn starts_again(&self, succeeded: bool, attempts: u32) -> bool {
        match self.restart {
            Restart::No => false,
            Restart::Always | Restart::UnlessStopped => true,
            Restart::OnFailure(limit) => !succeeded && limit.is_none_or(|limit| attempts < limit),
        }
    }
}

/// `at` plus a duration, in microseconds.
pub(super) fn later(at_us: u64, by: Duration) -> u64 {
    at_us.saturating_add(u64::try_from(by.as_micros()).unwrap_or(u64::MAX))
}
