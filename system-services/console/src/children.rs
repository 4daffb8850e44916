//! Programs that are started again when they end.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::log;

/// A program that ran at least this long is started again at once.
const GOOD_RUN: Duration = Duration::from_secs(5);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// What a program is doing.
enum State {
    Running { pid: Pid, since: Instant },
    Paused { until: Instant },
}

/// A program that is kept running.
pub(crate) struct Child {
    name: String,
    command: Vec<String>,
    state: State,
    pause: Duration,
}

impl Child {
    /// Starts `command` and keeps it running; `name` is for messages.
    pub(crate) fn start(name: &str, command: Vec<String>, now: Instant) -> Self {
        let mut child = Child {
            name: name.to_owned(),
            command,
            state: State::Paused { until: now },
            pause: FIRST_PAUSE,
        };
        child.start_if_due(now);
        child
    }

    /// Starts it again when its pause is over.
    pub(crate) fn start_if_due(&mut self, now: Instant) {
        if !matches!(self.state, State::Paused { until } if until <= now) {
            return;
        }
        self.state = match spawn(&self.command) {
            Ok(pid) => State::Running { pid, since: now },
            Err(error) => {
                log::error(&format!("start {}: {error}", self.name));
                self.paused(now)
            }
        };
    }

    /// When it is due to be started again; `None` while it runs.
    pub(crate) fn due(&self) -> Option<Instant> {
        match self.state {
            State::Paused { until } => Some(until),
            State::Running { .. } => None,
        }
    }

    /// Takes note that the process `pid` has ended; gives whether it was this one's.
    pub(crate) fn ended(&mut self, pid: Pid, how: &str, now: Instant) -> bool {
        let State::Running { pid: own, since } = self.state else {
            return false;
        };
        if own != pid {
            return false;
        }
        if now.duration_since(since) >= GOOD_RUN {
            self.pause = FIRST_PAUSE;
            self.state = State::Paused { until: now };
        } else {
            log::warning(&format!(
                "{} ended early: {how}; it is started again in {} s",
                self.name,
                self.pause.as_secs()
            ));
            self.state = self.paused(now);
        }
        true
    }

    /// Sends it a signal, when it runs.
    pub(crate) fn signal(&self, signal: Signal) {
        if let State::Running { pid, .. } = self.state
            && let Err(error) = kill(pid, signal)
        {
            log::warning(&format!("send {signal} to {}: {error}", self.name));
        }
    }

    fn paused(&mut self, now: Instant) -> State {
        let until = now + self.pause;
        self.pause = (self.pause * 2).min(LONGEST_PAUSE);
        State::Paused { until }
    }
}

/// Starts a program without a terminal, in a clean environment; its output goes where ours goes.
pub(crate) fn spawn(command: &[String]) -> std::io::Result<Pid> {
    let (program, arguments) = command
        .split_first()
        .ok_or(std::io::ErrorKind::InvalidInput)?;
    let mut command = Command::new(program);
    command
        .args(arguments)
        .stdin(Stdio::null())
        .current_dir("/");
    // Our supervisor is ours alone.
    command.env_remove(keelson_sys::notify::SOCKET_VARIABLE);
    let child = command.spawn()?;
    // The loop reaps by number: the handle is not needed.
    Ok(Pid::from_raw(
        i32::try_from(child.id()).map_err(|_| std::io::ErrorKind::InvalidData)?,
    ))
}

#[cfg(test)]
mod tests {
    use nix::sys::wait::waitpid;

    use super::*;

    fn pid(child: &Child) -> Pid {
        match child.state {
            State::Running { pid, .. } => pid,
            State::Paused { .. } => panic!("does not run"),
        }
    }

    #[test]
    fn a_program_that_ends_early_is_started_again_after_longer_and_longer_pauses() {
        let mut now = Instant::now();
        let mut child = Child::start("true", vec!["/bin/true".into()], now);
        for expected in [1, 2, 4] {
            let running = pid(&child);
            waitpid(running, None).unwrap();
            assert!(child.ended(running, "exit 0", now));
            assert_eq!(child.due().unwrap() - now, Duration::from_secs(expected));
            child.start_if_due(now);
            assert!(child.due().is_some(), "not before its time");
            now = child.due().unwrap();
            child.start_if_due(now);
        }
        waitpid(pid(&child), None).unwrap();
        assert!(child.ended(pid(&child), "exit 0", now + GOOD_RUN));
        assert_eq!(
            child.due(),
            Some(now + GOOD_RUN),
            "after a good run at once"
        );
    }

    #[test]
    fn a_program_that_is_not_there_is_tried_again() {
        let now = Instant::now();
        let child = Child::start("x", vec!["/nonexistent".into()], now);
        assert_eq!(child.due(), Some(now + FIRST_PAUSE));
    }
}
