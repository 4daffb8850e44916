//! The engine's life: start, end, rescue, shutdown. Every change of [`Phase`] is made here.

use super::backoff::Verdict;
use super::engine::Engine;
use super::{Phase, STOP_DEADLINE, STOP_DEADLINE_TOLD, Supervisor, TOKEN_ENGINE};
use crate::root::cgroups;
use crate::{files, kmsg, rescue, shutdown};
use keelson_sys::control::{Action, Ending, ToEngine};
use nix::sys::epoll::{EpollEvent, EpollFlags};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

impl Supervisor {
    pub(super) fn start_engine(&mut self) {
        self.starts = self.starts.saturating_add(1);
        match Engine::start(self.output.as_fd()) {
            Ok(mut engine) => {
                let held = self.descriptors.names().map(|name| ToEngine::Stored {
                    name: name.to_owned(),
                });
                held.chain(self.exits.unacknowledged())
                    .chain([ToEngine::HelloEnd])
                    .for_each(|message| engine.queue(message));
                let event = EpollEvent::new(EpollFlags::EPOLLIN, TOKEN_ENGINE);
                kmsg::tolerate(
                    "watch the control socket",
                    self.epoll.add(engine.socket(), event),
                );
                kmsg::info(format_args!(
                    "engine started as process {} (start {})",
                    engine.pid(),
                    self.starts
                ));
                self.phase = Phase::Running(engine);
                self.flush_engine();
            }
            Err(error) => {
                kmsg::error(format_args!("{error:#}"));
                self.engine_failed();
            }
        }
    }

    pub(super) fn engine_failed(&mut self) {
        let now = Instant::now();
        match self.backoff.failed(now) {
            Verdict::Restart(delay) => {
                self.phase = Phase::Waiting(now.checked_add(delay).unwrap_or(now))
            }
            Verdict::GiveUp if self.trial.is_on() => {
                self.trial.passed();
                kmsg::error(
                    "the system engine of a version on trial cannot be started; restarting, the boot loader counts its tries",
                );
                self.begin_shutdown(Action::Reboot);
            }
            Verdict::GiveUp => self.open_rescue(
                "the system engine cannot be started; leave the rescue shell to try again",
            ),
        }
    }

    /// Nobody has said that this boot is good. That is nothing to act upon unless it was on trial.
    pub(super) fn trial_is_over(&mut self) {
        let is_on = self.trial.is_on();
        self.trial.passed();
        // Somebody at the rescue shell is not thrown out, and a machine on its way down is.
        if is_on && matches!(self.phase, Phase::Running(_) | Phase::Waiting(_)) {
            kmsg::error(
                "nobody has found this version good in time; restarting, the boot loader counts its tries",
            );
            self.begin_shutdown(Action::Reboot);
        }
    }

    pub(super) fn open_rescue(&mut self, reason: &str) {
        kmsg::error(reason);
        let start = |terminal: &std::path::PathBuf| {
            kmsg::tolerate(
                "going on without a rescue shell",
                rescue::start_shell(terminal),
            )
        };
        let shells: Vec<i32> = rescue::consoles().iter().filter_map(start).collect();
        self.phase = if shells.is_empty() {
            // Nobody can help: keep trying, slowly.
            let later = Instant::now().checked_add(Duration::from_secs(10));
            Phase::Waiting(later.unwrap_or_else(Instant::now))
        } else {
            Phase::Rescue(shells)
        };
    }

    /// The engine is gone: what is left of its helpers goes too, and a new one takes over.
    pub(super) fn engine_ended(&mut self, ending: Ending) {
        kmsg::error(format_args!(
            "the system engine ended ({ending}); containers go on, starting it again"
        ));
        kmsg::tolerate(
            "end the engine's helpers",
            files::set(cgroups::file(cgroups::ENGINE, "cgroup.kill"), "1"),
        );
        self.engine_failed();
    }

    pub(super) fn leave_rescue(&mut self, left: i32) {
        if let Phase::Rescue(shells) = &self.phase {
            for shell in shells.iter().filter(|shell| **shell != left) {
                // Gone already is as good.
                let _ = kill(Pid::from_raw(*shell), Signal::SIGKILL);
            }
        }
        self.phase = Phase::Waiting(Instant::now());
    }

    /// Asks the engine to stop everything; a second request while that is under way ends the wait.
    pub(super) fn begin_shutdown(&mut self, action: Action) {
        let now = Instant::now();
        let deadline = now.checked_add(STOP_DEADLINE).unwrap_or(now);
        match std::mem::replace(&mut self.phase, Phase::Waiting(deadline)) {
            Phase::Running(mut engine) => {
                kmsg::info(format_args!("{action}: stopping all services"));
                engine.queue(ToEngine::Shutdown {
                    action,
                    deadline: STOP_DEADLINE_TOLD,
                });
                self.phase = Phase::Stopping(Some(engine), action, deadline);
                self.flush_engine();
            }
            Phase::Stopping(engine, ..) => {
                kmsg::error(format_args!(
                    "{action} asked for again: not waiting for services any longer"
                ));
                self.phase = Phase::Stopping(engine, action, now);
            }
            Phase::Waiting(_) | Phase::Rescue(_) => {
                self.phase = Phase::Stopping(None, action, deadline);
                self.finish(action);
            }
        }
    }

    pub(super) fn finish(&mut self, action: Action) {
        shutdown::finish(action, self.watchdog.take())
    }
}
