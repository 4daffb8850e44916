//! One of the two daemons: its process, and when it is started again.

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Pauses before a daemon that goes on failing is started again: none, then ever longer.
const PAUSES: [Duration; 6] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];
/// Whoever has run for so long fails for the first time again.
const STABLE_AFTER: Duration = Duration::from_secs(60);

/// A daemon and what it is doing.
#[derive(Debug)]
pub struct Daemon {
    /// For messages.
    pub name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    /// `NOTIFY_SOCKET` for it; without one it has none.
    notify_socket: Option<PathBuf>,
    /// A socket of an earlier run, removed before each start: whoever connects waits for the new one then, instead of
    /// being refused by the old.
    socket: PathBuf,
    state: State,
    failures: usize,
    /// Its next end is meant to be, and no failure.
    restarting: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Running { pid: Pid, since: Instant },
    Waiting { until: Instant },
}

impl Daemon {
    /// Not started yet.
    #[must_use]
    pub fn new(name: &'static str, program: PathBuf, socket: PathBuf) -> Self {
        Self {
            name,
            program,
            arguments: Vec::new(),
            notify_socket: None,
            socket,
            state: State::Waiting {
                until: Instant::now(),
            },
            failures: 0,
            restarting: false,
        }
    }

    /// With these arguments.
    #[must_use]
    pub fn arguments(mut self, arguments: &[&str]) -> Self {
        self.arguments = arguments
            .iter()
            .map(|argument| (*argument).to_owned())
            .collect();
        self
    }

    /// It tells that it is ready here.
    #[must_use]
    pub fn notify_socket(mut self, path: PathBuf) -> Self {
        self.notify_socket = Some(path);
        self
    }

    /// Its process, while it has one.
    #[must_use]
    pub fn pid(&self) -> Option<Pid> {
        match self.state {
            State::Running { pid, .. } => Some(pid),
            State::Waiting { .. } => None,
        }
    }

    /// When it is to be started, if it does not run.
    #[must_use]
    pub fn due(&self) -> Option<Instant> {
        match self.state {
            State::Running { .. } => None,
            State::Waiting { until } => Some(until),
        }
    }

    /// Starts it if it is due. A start that fails counts as one that ended at once.
    ///
    /// # Errors
    /// The program cannot be run.
    pub fn start_if_due(&mut self, now: Instant) -> Result<()> {
        if self.due().is_none_or(|due| due > now) {
            return Ok(());
        }
        match self.spawn() {
            Ok(pid) => {
                self.state = State::Running { pid, since: now };
                Ok(())
            }
            Err(error) => {
                self.wait(now);
                Err(error)
            }
        }
    }

    fn spawn(&self) -> Result<Pid> {
        // Not there is what it should be.
        let _ = std::fs::remove_file(&self.socket);
        let mut command = Command::new(&self.program);
        command.args(&self.arguments).env_remove("NOTIFY_SOCKET");
        if let Some(path) = &self.notify_socket {
            command.env("NOTIFY_SOCKET", path);
        }
        // Its exit status comes with those of all orphans: see `Supervisor::reap`.
        let child = command
            .spawn()
            .with_context(|| format!("starting {}", self.program.display()))?;
        i32::try_from(child.id())
            .map(Pid::from_raw)
            .context("reading the process's number")
    }

    /// It has ended. Gives the pause until it is started again.
    pub fn ended(&mut self, now: Instant) -> Duration {
        if let State::Running { since, .. } = self.state
            && now.duration_since(since) >= STABLE_AFTER
        {
            self.failures = 0;
        }
        if std::mem::take(&mut self.restarting) {
            self.failures = 0;
            self.state = State::Waiting { until: now };
            return Duration::ZERO;
        }
        self.wait(now)
    }

    fn wait(&mut self, now: Instant) -> Duration {
        let pause = PAUSES[self.failures.min(PAUSES.len() - 1)];
        self.failures += 1;
        self.state = State::Waiting { until: now + pause };
        pause
    }

    /// The next end is meant to be: it is started again at once, and that is no failure.
    pub fn expect_end(&mut self) {
        self.restarting = self.pid().is_some();
    }

    /// Sends a signal, if it runs.
    ///
    /// # Errors
    /// What kill(2) reports, except that it has just ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        match self.pid().map(|pid| kill(pid, signal)) {
            Some(Err(error)) if error != Errno::ESRCH => {
                Err(error).with_context(|| format!("sending {signal} to {}", self.name))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn running(since: Instant) -> Daemon {
        let mut daemon = Daemon::new("test", "/bin/true".into(), "/nonexistent".into());
        daemon.state = State::Running {
            pid: Pid::from_raw(1),
            since,
        };
        daemon
    }

    #[test]
    fn pauses_grow_and_a_stable_run_makes_up_for_failures() {
        let start = Instant::now();
        let mut daemon = running(start);
        let mut pauses = Vec::new();
        for _ in 0..8 {
            pauses.push(daemon.ended(start).as_millis());
            daemon.state = running(start).state;
        }
        assert_eq!(pauses, [0, 500, 1000, 2000, 5000, 10_000, 10_000, 10_000]);
        assert_eq!(daemon.ended(start + STABLE_AFTER), Duration::ZERO);
    }

    #[test]
    fn an_intended_restart_is_no_failure() {
        let start = Instant::now();
        let mut daemon = running(start);
        daemon.ended(start);
        daemon.state = running(start).state;
        daemon.expect_end();
        assert_eq!(daemon.ended(start), Duration::ZERO);
        daemon.state = running(start).state;
        assert_eq!(daemon.ended(start), Duration::ZERO);
        assert_eq!(daemon.due(), Some(start));
    }
}
