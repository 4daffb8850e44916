//! What an event means to a service that is being brought to its end.

use super::policy::{KILL_PATIENCE, later};
use super::transition::Context;
use super::{Action, Event, Lifecycle, Process, State, Then};

impl Lifecycle {
    pub(super) fn stopping(
        &mut self,
        process: Option<Process>,
        then: Then,
        until_us: Option<u64>,
        event: Event,
        cx: &mut Context<'_>,
    ) -> State {
        let process_is_none = process.is_none();
        match event {
            // The answer of the runtime is late; its program has run all the same.
            Event::Launched if !process_is_none => {
                self.started_us.get_or_insert(cx.now);
                State::Stopping {
                    process,
                    then,
                    until_us,
                }
            }
            Event::Exited(ending) if !process_is_none => {
                self.has_run(cx.now);
                self.note_end(ending, cx.now);
                self.stopped(then, cx)
            }
            Event::LaunchFailed { .. } if process_is_none => self.stopped(then, cx),
            // Nothing of the service has run yet: there is nothing to end politely.
            Event::Created(process) if process_is_none => kill(process, then, cx),
            Event::Timeout => match process {
                Some(process) => kill(process, then, cx),
                None => State::Stopping {
                    process,
                    then,
                    until_us: None,
                },
            },
            Event::Within(limit) if !process_is_none => State::Stopping {
                process,
                then,
                until_us: Some(later(cx.now, limit)),
            },
            Event::Stop => State::Stopping {
                process,
                then: Then::Stop,
                until_us,
            },
            Event::Restart => State::Stopping {
                process,
                then: Then::Restart,
                until_us,
            },
            _ => State::Stopping {
                process,
                then,
                until_us,
            },
        }
    }

    fn stopped(&mut self, then: Then, cx: &mut Context<'_>) -> State {
        cx.actions.push(Action::Delete);
        match then {
            Then::Stop => {
                cx.actions.push(Action::Info("has stopped".to_owned()));
                State::Stopped
            }
            Then::Restart => {
                self.streak = 0;
                self.again(cx)
            }
            Then::Fail(why) => self.ended(false, why, cx),
        }
    }
}

pub(super) fn stop(process: Process, then: Then, cx: &mut Context<'_>) -> State {
    cx.actions.push(Action::Signal(cx.policy.stop_signal));
    State::Stopping {
        process: Some(process),
        then,
        until_us: Some(later(cx.now, cx.policy.stop_grace_period)),
    }
}

pub(super) fn kill(process: Process, then: Then, cx: &mut Context<'_>) -> State {
    cx.actions.push(Action::Signal(nix::libc::SIGKILL));
    State::Stopping {
        process: Some(process),
        then,
        until_us: Some(later(cx.now, KILL_PATIENCE)),
    }
}
