use super::policy::later;
use super::*;
use crate::compose::{Ready, Restart};
use proptest::prelude::*;
use std::time::Duration;

const SECOND: u64 = 1_000_000;

fn policy(restart: Restart, ready: Ready) -> Policy {
    Policy {
        restart,
        ready,
        start_timeout: Some(Duration::from_secs(90)),
        stop_grace_period: Duration::from_secs(10),
        stop_signal: 15,
        watchdog: None,
        starts_when_called: false,
    }
}

fn process() -> Process {
    Process {
        pid: 7,
        start_ticks: 1,
    }
}

/// A life that has come as far as its program running.
fn launched(policy: &Policy, now: u64) -> Lifecycle {
    let mut life = Lifecycle::default();
    assert_eq!(
        life.transition(Event::Unblocked, policy, now),
        [Action::Create]
    );
    assert_eq!(
        life.transition(Event::Created(process()), policy, now),
        [Action::Launch]
    );
    life.transition(Event::Launched, policy, now);
    life
}

#[test]
fn a_service_is_ready_when_it_says_so_and_not_before() {
    let policy = policy(Restart::Always, Ready::Notify);
    let mut life = launched(&policy, 5);
    assert!(matches!(life.state, State::Starting { launched: true, .. }));
    life.transition(Event::Health(true), &policy, 6);
    assert_eq!(life.ready_us, None);
    life.transition(Event::Ready, &policy, 7);
    assert!(matches!(life.state, State::Ready { .. }));
    assert_eq!(
        (life.created_us, life.started_us, life.ready_us),
        (Some(5), Some(5), Some(7))
    );
}

#[test]
fn start_takes_what_is_down_and_is_nothing_to_what_is_not() {
    let policy = policy(Restart::No, Ready::Started);
    let mut life = launched(&policy, 1);
    let running = life.clone();
    assert_eq!(life.transition(Event::Start, &policy, 2), []);
    assert_eq!(life, running);
    life.transition(Event::Exited(Ending::Code(3)), &policy, 3);
    assert!(life.state.is_down());
    life.transition(Event::Start, &policy, 4);
    // It was not started again by a policy: that is what the count is about.
    assert_eq!((&life.state, life.restarts), (&State::Waiting, 0));
    assert_eq!((life.started_us, life.last), (None, Some(Ending::Code(3))));
}

#[test]
fn a_program_that_ends_before_the_runtime_has_answered_was_started() {
    let policy = policy(Restart::No, Ready::Started);
    let mut life = Lifecycle::default();
    life.transition(Event::Unblocked, &policy, 1);
    life.transition(Event::Created(process()), &policy, 2);
    life.transition(Event::Exited(Ending::Code(4)), &policy, 3);
    assert_eq!((life.started_us, life.ended_us), (Some(1), Some(3)));
    assert!(matches!(life.state, State::Failed { .. }));
    life.transition(Event::Launched, &policy, 4);
    assert!(matches!(life.state, State::Failed { .. }));
}

#[test]
fn who_may_take_for_ever_to_be_healthy_runs_unhealthy_meanwhile() {
    let mut policy = policy(Restart::No, Ready::Health);
    policy.start_timeout = None;
    let mut life = launched(&policy, 1);
    life.transition(Event::Health(false), &policy, 2);
    assert!(matches!(life.state, State::Ready { healthy: false, .. }));
    life.transition(Event::Health(true), &policy, 3);
    assert!(matches!(life.state, State::Ready { healthy: true, .. }));
}

#[test]
fn a_one_shot_finishes_or_fails_by_its_exit_status() {
    let policy = policy(Restart::No, Ready::Exit);
    let mut life = launched(&policy, 0);
    life.transition(Event::Exited(Ending::Code(0)), &policy, 9);
    assert_eq!((&life.state, life.ready_us), (&State::Finished, Some(9)));
    let mut life = launched(&policy, 0);
    life.transition(Event::Exited(Ending::Code(3)), &policy, 9);
    assert_eq!(
        life.state,
        State::Failed {
            why: "ended with exit status 3".into(),
            blocked_by: None
        }
    );
}

#[test]
fn one_that_is_started_by_who_connects_listens_again_when_it_has_ended_well() {
    let mut policy = policy(Restart::OnFailure(None), Ready::Started);
    policy.starts_when_called = true;
    let mut life = Lifecycle {
        state: State::Listening,
        ..Lifecycle::default()
    };
    assert!(life.state.is_down());
    assert_eq!(life.transition(Event::Unblocked, &policy, 1), []);
    life.transition(Event::Start, &policy, 1);
    assert_eq!(life.state, State::Waiting);
    life.transition(Event::Unblocked, &policy, 1);
    life.transition(Event::Created(process()), &policy, 1);
    life.transition(Event::Launched, &policy, 1);
    life.transition(Event::Exited(Ending::Code(0)), &policy, 2);
    assert_eq!(life.state, State::Listening);
    life.transition(Event::Stop, &policy, 3);
    assert_eq!(life.state, State::Stopped);
}

#[test]
fn the_pause_doubles_up_to_a_minute_and_a_stable_run_resets_it() {
    let policy = policy(Restart::Always, Ready::Started);
    let mut life = launched(&policy, 0);
    let (mut now, mut pauses) = (0, Vec::new());
    for _ in 0..12 {
        life.transition(Event::Exited(Ending::Code(1)), &policy, now);
        let State::Backoff { until_us, .. } = life.state else {
            panic!("{:?}", life.state)
        };
        pauses.push((until_us - now) / 1000);
        now = until_us;
        assert_eq!(
            life.transition(Event::Timeout, &policy, now),
            [Action::Create]
        );
        life.transition(Event::Created(process()), &policy, now);
        life.transition(Event::Launched, &policy, now);
    }
    assert_eq!(
        pauses,
        [
            100, 200, 400, 800, 1600, 3200, 6400, 12_800, 25_600, 51_200, 60_000, 60_000
        ]
    );
    assert_eq!(life.restarts, 12);
    now += 10 * SECOND;
    life.transition(Event::Exited(Ending::Code(1)), &policy, now);
    assert_eq!(life.state.deadline_us(), Some(now + 100_000));
}

#[test]
fn on_failure_gives_up_after_so_many_attempts_and_not_after_success() {
    let policy = policy(Restart::OnFailure(Some(2)), Ready::Started);
    let mut life = launched(&policy, 0);
    for _ in 0..2 {
        life.transition(Event::Exited(Ending::Signal(9)), &policy, 0);
        life.transition(Event::Timeout, &policy, 0);
        life.transition(Event::Created(process()), &policy, 0);
        life.transition(Event::Launched, &policy, 0);
    }
    life.transition(Event::Exited(Ending::Signal(9)), &policy, 0);
    assert_eq!(
        life.state,
        State::Failed {
            why: "was killed by SIGKILL".into(),
            blocked_by: None
        }
    );
    let mut life = launched(&policy, 0);
    life.transition(Event::Exited(Ending::Code(0)), &policy, 0);
    assert_eq!(life.state, State::Finished);
}

#[test]
fn one_that_is_not_ready_in_time_is_stopped_then_killed_then_restarted() {
    let policy = policy(Restart::Always, Ready::Notify);
    let mut life = launched(&policy, 0);
    let at = life.state.deadline_us().unwrap();
    assert_eq!(at, 90 * SECOND);
    assert_eq!(
        life.transition(Event::Timeout, &policy, at),
        [Action::Signal(15)]
    );
    assert_eq!(
        life.transition(Event::Timeout, &policy, at + 10 * SECOND),
        [Action::Signal(9)]
    );
    let actions = life.transition(Event::Exited(Ending::Signal(9)), &policy, at + 11 * SECOND);
    assert_eq!(actions[0], Action::Delete);
    assert!(matches!(&life.state, State::Backoff { why, .. } if why == "was not ready within 90s"));
}

#[test]
fn more_time_can_be_asked_for() {
    let policy = policy(Restart::Always, Ready::Notify);
    let mut life = launched(&policy, 0);
    life.transition(Event::Extend(Duration::from_secs(200)), &policy, SECOND);
    assert_eq!(life.state.deadline_us(), Some(201 * SECOND));
}

#[test]
fn a_stop_while_the_container_is_made_kills_it_as_soon_as_it_is_there() {
    let policy = policy(Restart::Always, Ready::Started);
    let mut life = Lifecycle::default();
    life.transition(Event::Unblocked, &policy, 0);
    assert_eq!(life.transition(Event::Stop, &policy, 0), []);
    assert_eq!(
        life.transition(Event::Created(process()), &policy, 0),
        [Action::Signal(9)]
    );
    life.transition(Event::Exited(Ending::Signal(9)), &policy, 0);
    assert_eq!(life.state, State::Stopped);
}

#[test]
fn a_restart_on_request_comes_up_again_at_once() {
    let policy = policy(Restart::No, Ready::Started);
    let mut life = launched(&policy, 0);
    assert_eq!(
        life.transition(Event::Restart, &policy, 0),
        [Action::Signal(15)]
    );
    let actions = life.transition(Event::Exited(Ending::Code(0)), &policy, 0);
    assert_eq!(actions, [Action::Delete, Action::Create]);
    assert_eq!((&life.state, life.restarts), (&State::Creating, 1));
}

#[test]
fn a_missing_image_is_final_and_a_missing_need_is_not() {
    let policy = policy(Restart::Always, Ready::Started);
    let mut life = Lifecycle::default();
    life.transition(Event::Unblocked, &policy, 0);
    life.transition(
        Event::LaunchFailed {
            why: "no image".into(),
            permanent: true,
        },
        &policy,
        0,
    );
    assert_eq!(
        life.state,
        State::Failed {
            why: "no image".into(),
            blocked_by: None
        }
    );
    assert_eq!(life.transition(Event::Unblocked, &policy, 0), []);
    let mut life = Lifecycle::default();
    life.transition(
        Event::Blocked {
            by: "db".into(),
            why: "needs db".into(),
        },
        &policy,
        0,
    );
    assert!(life.state.is_down());
    assert_eq!(
        life.transition(Event::Unblocked, &policy, 0),
        [Action::Create]
    );
}

#[test]
fn one_that_gives_no_sign_of_life_is_restarted() {
    let policy = Policy {
        watchdog: Some(Duration::from_secs(3)),
        ..policy(Restart::Always, Ready::Notify)
    };
    let mut life = launched(&policy, 0);
    life.transition(Event::Ready, &policy, 0);
    life.transition(Event::Alive, &policy, SECOND);
    assert_eq!(life.state.deadline_us(), Some(4 * SECOND));
    assert_eq!(
        life.transition(Event::Timeout, &policy, 4 * SECOND),
        [Action::Signal(15)]
    );
}

fn any_restart() -> impl Strategy<Value = Restart> {
    prop_oneof![
        Just(Restart::No),
        Just(Restart::Always),
        (0_u32..3).prop_map(|count| Restart::OnFailure(Some(count))),
        Just(Restart::UnlessStopped),
    ]
}

fn any_ready() -> impl Strategy<Value = Ready> {
    prop_oneof![
        Just(Ready::Notify),
        Just(Ready::Health),
        Just(Ready::Exit),
        Just(Ready::Started)
    ]
}

fn any_event() -> impl Strategy<Value = Event> {
    let text = || "[a-z]{0,3}";
    prop_oneof![
        Just(Event::Unblocked),
        (text(), text()).prop_map(|(by, why)| Event::Blocked { by, why }),
        (1_i32..5, 0_u64..3)
            .prop_map(|(pid, start_ticks)| Event::Created(Process { pid, start_ticks })),
        Just(Event::Launched),
        (text(), any::<bool>()).prop_map(|(why, permanent)| Event::LaunchFailed { why, permanent }),
        Just(Event::Ready),
        any::<bool>().prop_map(Event::Health),
        Just(Event::Alive),
        any::<u64>().prop_map(|us| Event::Extend(Duration::from_micros(us))),
        prop_oneof![
            Just(Ending::Code(0)),
            Just(Ending::Code(1)),
            Just(Ending::Signal(9)),
            Just(Ending::Unknown)
        ]
        .prop_map(Event::Exited),
        Just(Event::Timeout),
        Just(Event::Stop),
        Just(Event::Start),
        Just(Event::Listen),
        Just(Event::Restart),
        Just(Event::Within(Duration::ZERO)),
    ]
}

proptest! {
    /// Whatever happens in whatever order: containers are made one at a time, a process is only forgotten when it has
    /// ended, and what is stored comes back.
    #[test]
    fn no_order_of_events_loses_a_process(
        restart in any_restart(),
        ready in any_ready(),
        events in prop::collection::vec((any_event(), 0_u64..20 * SECOND), 0..40),
    ) {
        let policy = policy(restart, ready);
        let (mut life, mut now, mut being_made) = (Lifecycle::default(), 0, false);
        for (event, pause) in events {
            now += pause;
            let before = life.clone();
            let (exited, answered) = (
                matches!(event, Event::Exited(_)),
                matches!(event, Event::Created(_) | Event::LaunchFailed { .. }),
            );
            let actions = life.transition(event, &policy, now);
            if let Some(process) = before.state.process() {
                let after = life.state.process();
                prop_assert!(exited || after == Some(process), "{:?} -> {:?}", before.state, life.state);
            }
            let made = actions.iter().filter(|action| **action == Action::Create).count();
            prop_assert!(made <= 1);
            let waits_for_answer =
                |state: &State| matches!(state, State::Creating | State::Stopping { process: None, .. });
            if waits_for_answer(&before.state) && !answered {
                prop_assert!(waits_for_answer(&life.state) && made == 0);
            }
            if made == 1 {
                prop_assert!(before.state.process().is_none() || exited);
                being_made = true;
            }
            prop_assert!(being_made || life.state.process().is_none());
            if let State::Backoff { until_us, .. } = life.state {
                prop_assert!(until_us <= later(now, Duration::from_secs(60)));
            }
            let stored = serde_json::to_string(&life).unwrap();
            prop_assert_eq!(serde_json::from_str::<Lifecycle>(&stored).unwrap(), life.clone());
        }
    }

    /// From any state, a stop that is answered as the world answers it ends with the service down.
    #[test]
    fn a_stop_always_ends(
        restart in any_restart(),
        ready in any_ready(),
        events in prop::collection::vec(any_event(), 0..40),
    ) {
        let policy = policy(restart, ready);
        let mut life = Lifecycle::default();
        for event in events {
            life.transition(event, &policy, 0);
        }
        life.transition(Event::Stop, &policy, 0);
        if matches!(life.state, State::Stopping { process: None, .. }) {
            life.transition(Event::Created(process()), &policy, 0);
        }
        if life.state.process().is_some() {
            life.transition(Event::Exited(Ending::Signal(9)), &policy, 0);
        }
        prop_assert!(life.state.is_down(), "{:?}", life.state);
    }
}
