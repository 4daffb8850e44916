//! What an event means in each state.

use super::policy::later;
use super::stopping::{kill, stop};
use super::{Action, Ending, Event, Lifecycle, Policy, Process, State, Then};
use crate::compose::Ready;
use std::time::Duration;

/// What a step may look at, and what it asks for.
pub(super) struct Context<'a> {
    pub(super) policy: &'a Policy,
    pub(super) now: u64,
    pub(super) actions: Vec<Action>,
}

impl Lifecycle {
    /// Changes the state as `event` says and tells what has to be done. An event that means nothing in the present
    /// state (a late answer, a word from a process that is gone) changes nothing.
    pub fn transition(&mut self, event: Event, policy: &Policy, now_us: u64) -> Vec<Action> {
        let mut cx = Context {
            policy,
            now: now_us,
            actions: Vec::new(),
        };
        let state = std::mem::take(&mut self.state);
        self.state = self.next(state, event, &mut cx);
        cx.actions
    }

    fn next(&mut self, state: State, event: Event, cx: &mut Context<'_>) -> State {
        match state {
            State::Waiting => self.waiting(event, cx),
            State::Creating => self.creating(event, cx),
            State::Starting {
                process,
                launched,
                until_us,
            } => match event {
                Event::Launched => self.launched(process, until_us, cx),
                Event::Extend(by) => {
                    let until_us = until_us.map(|until| until.max(later(cx.now, by)));
                    State::Starting {
                        process,
                        launched,
                        until_us,
                    }
                }
                Event::Ready if cx.policy.ready == Ready::Notify => self.ready(process, cx),
                Event::Health(true) if cx.policy.ready == Ready::Health => self.ready(process, cx),
                // Who may take for ever to be healthy runs without being so.
                Event::Health(false)
                    if cx.policy.ready == Ready::Health && cx.policy.start_timeout.is_none() =>
                {
                    note_health(true, false, cx);
                    State::Ready {
                        process,
                        healthy: false,
                        until_us: watchdog(cx),
                    }
                }
                Event::LaunchFailed { why, .. } => kill(process, Then::Fail(why), cx),
                Event::Timeout => {
                    let after = cx.policy.start_timeout.unwrap_or_default();
                    stop(
                        process,
                        Then::Fail(format!("was not ready within {after:?}")),
                        cx,
                    )
                }
                Event::Exited(ending) => self.ended_early(ending, cx),
                Event::Stop => stop(process, Then::Stop, cx),
                Event::Restart => stop(process, Then::Restart, cx),
                _ => State::Starting {
                    process,
                    launched,
                    until_us,
                },
            },
            State::Ready {
                process,
                healthy,
                until_us,
            } => match event {
                Event::Health(now_healthy) => {
                    note_health(healthy, now_healthy, cx);
                    State::Ready {
                        process,
                        healthy: now_healthy,
                        until_us,
                    }
                }
                Event::Alive => State::Ready {
                    process,
                    healthy,
                    until_us: watchdog(cx),
                },
                Event::Timeout => {
                    let after = cx.policy.watchdog.unwrap_or_default();
                    stop(
                        process,
                        Then::Fail(format!("gave no sign of life for {after:?}")),
                        cx,
                    )
                }
                Event::Exited(ending) => {
                    cx.actions.push(Action::Delete);
                    self.note_end(ending, cx.now);
                    let succeeded = ending == Ending::Code(0);
                    self.ended(succeeded, ending.to_string(), cx)
                }
                Event::Stop => stop(process, Then::Stop, cx),
                Event::Restart => stop(process, Then::Restart, cx),
                _ => State::Ready {
                    process,
                    healthy,
                    until_us,
                },
            },
            State::Backoff { until_us, why } => match event {
                Event::Timeout | Event::Restart | Event::Start => self.again(cx),
                Event::Stop => State::Stopped,
                _ => State::Backoff { until_us, why },
            },
            State::Stopping {
                process,
                then,
                until_us,
            } => self.stopping(process, then, until_us, event, cx),
            State::Failed {
                why,
                blocked_by: Some(by),
            } => match event {
                Event::Unblocked => self.create(cx),
                Event::Restart | Event::Start => State::Waiting,
                Event::Listen => State::Listening,
                _ => State::Failed {
                    why,
                    blocked_by: Some(by),
                },
            },
            State::Listening => match event {
                Event::Stop => State::Stopped,
                // It cannot be listened for.
                Event::LaunchFailed { why, .. } => {
                    cx.actions.push(Action::Error(why.clone()));
                    State::Failed {
                        why,
                        blocked_by: None,
                    }
                }
                Event::Start | Event::Restart => {
                    self.streak = 0;
                    State::Waiting
                }
                _ => State::Listening,
            },
            down @ (State::Failed { .. } | State::Finished | State::Stopped) => match event {
                Event::Listen => State::Listening,
                Event::Restart => {
                    self.restarts = self.restarts.saturating_add(1);
                    self.streak = 0;
                    State::Waiting
                }
                Event::Start => {
                    self.streak = 0;
                    self.started_us = None;
                    State::Waiting
                }
                _ => down,
            },
        }
    }

    pub(super) fn note_end(&mut self, ending: Ending, now: u64) {
        self.last = Some(ending);
        self.ended_us = Some(now);
    }

    fn waiting(&mut self, event: Event, cx: &mut Context<'_>) -> State {
        match event {
            Event::Unblocked => self.create(cx),
            Event::Blocked { by, why } => {
                cx.actions.push(Action::Error(why.clone()));
                State::Failed {
                    why,
                    blocked_by: Some(by),
                }
            }
            Event::Stop => State::Stopped,
            _ => State::Waiting,
        }
    }

    fn creating(&mut self, event: Event, cx: &mut Context<'_>) -> State {
        match event {
            Event::Created(process) => {
                cx.actions.push(Action::Launch);
                let until_us = cx.policy.start_timeout.map(|limit| later(cx.now, limit));
                State::Starting {
                    process,
                    launched: false,
                    until_us,
                }
            }
            Event::LaunchFailed { why, permanent } => self.not_made(why, permanent, cx),
            Event::Stop => State::Stopping {
                process: None,
                then: Then::Stop,
                until_us: None,
            },
            _ => State::Creating,
        }
    }

    fn create(&mut self, cx: &mut Context<'_>) -> State {
        self.created_us = Some(cx.now);
        self.started_us = None;
        self.ready_us = None;
        cx.actions.push(Action::Create);
        State::Creating
    }

    pub(super) fn again(&mut self, cx: &mut Context<'_>) -> State {
        self.restarts = self.restarts.saturating_add(1);
        self.create(cx)
    }

    fn launched(&mut self, process: Process, until_us: Option<u64>, cx: &mut Context<'_>) -> State {
        self.started_us = Some(cx.now);
        if cx.policy.ready == Ready::Started {
            return self.ready(process, cx);
        }
        State::Starting {
            process,
            launched: true,
            until_us,
        }
    }

    fn ready(&mut self, process: Process, cx: &mut Context<'_>) -> State {
        // The word of the service may overtake the answer of the runtime.
        self.started_us.get_or_insert(cx.now);
        self.ready_us = Some(cx.now);
        cx.actions.push(Action::Info("is ready".to_owned()));
        State::Ready {
            process,
            healthy: true,
            until_us: watchdog(cx),
        }
    }

    /// It has ended, so it was started, though nobody said when: no earlier than it was made, and not when it ended.
    pub(super) fn has_run(&mut self, now: u64) {
        self.started_us
            .get_or_insert(self.created_us.unwrap_or(now));
    }

    /// It ended before it was ready: well only for a one-shot.
    fn ended_early(&mut self, ending: Ending, cx: &mut Context<'_>) -> State {
        cx.actions.push(Action::Delete);
        self.note_end(ending, cx.now);
        if cx.policy.ready == Ready::Exit {
            if ending == Ending::Code(0) {
                self.has_run(cx.now);
                self.ready_us = Some(cx.now);
                cx.actions.push(Action::Info("has finished".to_owned()));
                return finished(cx);
            }
            return self.ended(false, ending.to_string(), cx);
        }
        // `started` is ready as soon as the runtime has answered; its program may be quicker.
        if cx.policy.ready == Ready::Started {
            self.has_run(cx.now);
        }
        let succeeded = cx.policy.ready == Ready::Started && ending == Ending::Code(0);
        let why = match cx.policy.ready {
            Ready::Started => ending.to_string(),
            _ => format!("{ending} before it was ready"),
        };
        self.ended(succeeded, why, cx)
    }

    fn not_made(&mut self, why: String, permanent: bool, cx: &mut Context<'_>) -> State {
        if permanent {
            cx.actions.push(Action::Error(why.clone()));
            return State::Failed {
                why,
                blocked_by: None,
            };
        }
        cx.actions.push(Action::Delete);
        self.ended(false, why, cx)
    }

    /// The restart policy decides.
    pub(super) fn ended(&mut self, succeeded: bool, why: String, cx: &mut Context<'_>) -> State {
        let run = Duration::from_micros(
            self.started_us
                .map_or(0, |started| cx.now.saturating_sub(started)),
        );
        if cx.policy.is_stable(run) {
            self.streak = 0;
        }
        let attempts = self.streak;
        self.streak = self.streak.saturating_add(1);
        if cx.policy.starts_again(succeeded, attempts) {
            let pause = cx.policy.backoff(attempts);
            cx.actions.push(Action::Error(format!(
                "{why}; it is started again in {pause:?}"
            )));
            return State::Backoff {
                until_us: later(cx.now, pause),
                why,
            };
        }
        if succeeded {
            cx.actions.push(Action::Info("has finished".to_owned()));
            return finished(cx);
        }
        cx.actions.push(Action::Error(why.clone()));
        State::Failed {
            why,
            blocked_by: None,
        }
    }
}

fn finished(cx: &Context<'_>) -> State {
    match cx.policy.starts_when_called {
        true => State::Listening,
        false => State::Finished,
    }
}

fn watchdog(cx: &Context<'_>) -> Option<u64> {
    cx.policy.watchdog.map(|limit| later(cx.now, limit))
}

fn note_health(before: bool, after: bool, cx: &mut Context<'_>) {
    match (before, after) {
        (true, false) => cx.actions.push(Action::Error(
            "is unhealthy: its health check fails".to_owned(),
        )),
        (false, true) => cx.actions.push(Action::Info("is healthy again".to_owned())),
        _ => {}
    }
}
