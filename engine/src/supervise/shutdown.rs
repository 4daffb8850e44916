//! Everything down, in reverse order: a service is told to end when all that wait for it are down, the log service
//! after all others. Whoever does not end in time is killed.

use super::Engine;
use super::logs::LOG;
use super::worker::Job;
use crate::clock::now_us;
use crate::lifecycle::{Event, State};
use crate::rootfs;
use keelson_sys::control::ToInit;
use std::time::Duration;

/// A shutdown under way. Times are microseconds of `CLOCK_BOOTTIME`.
#[derive(Clone, Copy, Debug)]
pub(super) struct Shutdown {
    /// When all but the log service are killed.
    kill_us: u64,
    /// When the log service is killed.
    kill_log_us: u64,
    /// When the engine gives up waiting.
    end_us: u64,
    /// How many of these moments have passed.
    pressed: u8,
    /// PID 1 has been told that everything is down.
    told: bool,
}

impl Shutdown {
    /// Shares a time limit out: the last two seconds are for those who did not end, and for the log's last lines.
    fn within(limit: Duration, now: u64) -> Self {
        let limit = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX);
        let before_end = |seconds: u64, share: u64| {
            now.saturating_add(limit.saturating_sub(seconds.min(limit / share)))
        };
        Self {
            kill_us: before_end(2_000_000, 2),
            kill_log_us: before_end(1_000_000, 4),
            end_us: before_end(500_000, 8),
            pressed: 0,
            told: false,
        }
    }

    /// The next moment at which something is due.
    pub(super) fn next_us(&self) -> u64 {
        match self.pressed {
            0 => self.kill_us,
            1 => self.kill_log_us,
            2 => self.end_us,
            _ => u64::MAX,
        }
    }
}

impl Engine {
    /// Begins to stop everything, or goes on doing so.
    pub(super) fn begin_shutdown(&mut self, limit: Duration) {
        if self.shutdown.is_some() {
            return;
        }
        self.shared.console.info("stopping all services");
        self.shutdown = Some(Shutdown::within(limit, now_us()));
        for name in self.names(|state| matches!(state, State::Waiting | State::Backoff { .. })) {
            self.apply(&name, Event::Stop);
        }
    }

    /// Stops whatever may be stopped by now.
    pub(super) fn advance_shutdown(&mut self) {
        while self.shutdown.is_some() {
            let next = self.names(|state| !is_told(state));
            let next = next.into_iter().find(|name| self.nobody_waits_for(name));
            let Some(name) = next else { break };
            self.apply(&name, Event::Stop);
            // A state that knows no `Stop` would be asked for ever.
            debug_assert!(
                self.services
                    .get(&name)
                    .is_some_and(|entry| is_told(entry.state()))
            );
        }
        let is_done = |entry: &super::Entry| entry.state().is_down() && entry.unstored == 0;
        if self.services.values().all(is_done) {
            self.report_down("all services are down");
        }
    }

    /// Clears the mounts away and tells PID 1, once.
    fn report_down(&mut self, words: &str) {
        let Some(shutdown) = self.shutdown.as_mut().filter(|shutdown| !shutdown.told) else {
            return;
        };
        shutdown.told = true;
        for (name, entry) in &self.services {
            if self.shared.link.is_connected() {
                rootfs::unmount(&self.shared.options.container(name));
            } else {
                drop(entry.jobs.send(Job::Remove));
            }
        }
        self.shared.console.info(words);
        self.shared.link.say(ToInit::Stopped);
    }

    fn nobody_waits_for(&self, name: &str) -> bool {
        let is_down = |other: &str| {
            self.services
                .get(other)
                .is_none_or(|entry| entry.state().is_down())
        };
        if name == LOG {
            return self
                .services
                .keys()
                .all(|other| other == LOG || is_down(other));
        }
        let entry = self.services.get(name);
        entry.is_some_and(|entry| {
            entry
                .dependents
                .iter()
                .all(|other| other == LOG || is_down(other))
        })
    }

    /// Presses those who are late.
    pub(super) fn press_shutdown(&mut self, now: u64) {
        let Some(shutdown) = self
            .shutdown
            .as_mut()
            .filter(|shutdown| shutdown.next_us() <= now)
        else {
            return;
        };
        shutdown.pressed += 1;
        match shutdown.pressed {
            1 => self.kill_all(|name| name != LOG),
            2 => self.kill_all(|_| true),
            _ => {
                let late = self.names(|state| !state.is_down()).join(", ");
                self.report_down(&format!("still there after the time limit: {late}"));
            }
        }
    }

    fn kill_all(&mut self, which: impl Fn(&str) -> bool) {
        for name in self
            .names(|state| !state.is_down())
            .into_iter()
            .filter(|name| which(name))
        {
            self.apply(&name, Event::Stop);
            let Some(entry) = self.services.get(&name) else {
                continue;
            };
            if let Some(process) = &entry.pidfd {
                self.shared
                    .console
                    .info(&format!("service {name} did not end in time: killed"));
                let _ = keelson_sys::pidfd::send_signal(process, nix::libc::SIGKILL);
            }
        }
    }

    /// Without PID 1 the engine ends with its services; with it, PID 1 ends the engine.
    pub(super) fn is_shut_down(&self) -> bool {
        !self.shared.link.is_connected()
            && self
                .shutdown
                .is_some_and(|shutdown| shutdown.told || shutdown.pressed > 2)
    }

    fn names(&self, which: impl Fn(&State) -> bool) -> Vec<String> {
        let services = self
            .services
            .iter()
            .filter(|(_, entry)| which(entry.state()));
        services.map(|(name, _)| name.clone()).collect()
    }
}

fn is_told(state: &State) -> bool {
    use crate::lifecycle::Then;
    state.is_down()
        || matches!(
            state,
            State::Stopping {
                then: Then::Stop,
                ..
            }
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_moments_of_a_shutdown_come_in_order_whatever_the_limit() {
        for milliseconds in [0, 1, 100, 1000, 3000, 12_000, 90_000] {
            let limit = Duration::from_millis(milliseconds);
            let shutdown = Shutdown::within(limit, 5);
            let moments = [
                5,
                shutdown.kill_us,
                shutdown.kill_log_us,
                shutdown.end_us,
                5 + milliseconds * 1000,
            ];
            assert!(moments.is_sorted(), "{limit:?}: {moments:?}");
        }
        assert_eq!(
            Shutdown::within(Duration::from_secs(12), 0).kill_us,
            10_000_000
        );
    }
}
