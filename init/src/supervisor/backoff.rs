//! When a dead engine is started again. Pure: the clock is handed in.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between one end and the next start, in milliseconds; the last one stays.
const DELAYS_MS: [u64; 7] = [0, 500, 1000, 2000, 4000, 8000, 10_000];
/// This many ends without a `ready` between them, within this time, are one too many.
const FAILURES_MAX: usize = 5;
const FAILURES_WINDOW: Duration = Duration::from_secs(60);

/// What to do about an engine that ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Start it again after this time.
    Restart(Duration),
    /// It cannot be started: somebody has to look.
    GiveUp,
}

/// Counts the engine's failures.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: VecDeque<Instant>,
    in_a_row: usize,
}

impl Backoff {
    /// The engine is up.
    pub(super) fn ready(&mut self) {
        *self = Self::default();
    }

    /// The engine has ended.
    pub(super) fn failed(&mut self, now: Instant) -> Verdict {
        self.failures.push_back(now);
        self.failures
            .retain(|failure| now.saturating_duration_since(*failure) <= FAILURES_WINDOW);
        if self.failures.len() >= FAILURES_MAX {
            self.ready();
            return Verdict::GiveUp;
        }
        let delay = DELAYS_MS
            .get(self.in_a_row)
            .or(DELAYS_MS.last())
            .copied()
            .unwrap_or(0);
        self.in_a_row = self.in_a_row.saturating_add(1);
        Verdict::Restart(Duration::from_millis(delay))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn restarts(
        backoff: &mut Backoff,
        times: usize,
        apart: Duration,
        start: Instant,
    ) -> Vec<Verdict> {
        (0..times)
            .map(|number| backoff.failed(start + apart * number as u32))
            .collect()
    }

    #[test]
    fn delays_grow_and_the_fifth_failure_in_a_minute_is_the_last() {
        let verdicts = restarts(
            &mut Backoff::default(),
            5,
            Duration::from_secs(3),
            Instant::now(),
        );
        let delays = [0, 500, 1000, 2000].map(|ms| Verdict::Restart(Duration::from_millis(ms)));
        assert_eq!(verdicts, [&delays[..], &[Verdict::GiveUp]].concat());
    }

    #[test]
    fn slow_failures_go_on_with_the_longest_delay() {
        let verdicts = restarts(
            &mut Backoff::default(),
            9,
            Duration::from_secs(20),
            Instant::now(),
        );
        assert_eq!(verdicts[8], Verdict::Restart(Duration::from_secs(10)));
    }

    #[test]
    fn readiness_starts_the_count_afresh() {
        let mut backoff = Backoff::default();
        for _ in 0..20 {
            assert_eq!(
                backoff.failed(Instant::now()),
                Verdict::Restart(Duration::ZERO)
            );
            backoff.ready();
        }
    }
}
