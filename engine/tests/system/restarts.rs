//! Restart policies, and restarts on request.

use crate::PATIENT;
use crate::world::World;
use keelson_engine::api::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

#[test]
fn a_failing_service_is_started_again_after_growing_pauses_and_then_given_up() {
    let file = "services:\n  bad: {image: keelson/box, command: [sh, -c, exit 3], restart: 'on-failure:3'}\n";
    let Some(world) = World::start(&[("bad", file)], false) else {
        return;
    };
    let lines =
        world.wait_for("service bad: ended with exit status 3; it is started again in 400ms");
    for pause in ["100ms", "200ms"] {
        assert!(
            lines
                .iter()
                .any(|line| line.ends_with(&format!("it is started again in {pause}"))),
            "{lines:#?}"
        );
    }
    world.wait("it to be given up", || {
        (world.service("bad").state == State::Failed).then_some(())
    });
    let bad = world.service("bad");
    assert_eq!((bad.restarts, bad.exit_code), (3, Some(3)));
    assert_eq!(bad.detail.as_deref(), Some("ended with exit status 3"));
}

#[test]
fn a_restart_on_request_is_answered_when_the_new_one_is_ready() {
    let file = format!(
        "services:\n  web: {{image: keelson/box, command: {PATIENT}}}\n  once: {{image: keelson/box, command: ['false'], x-keelson: {{ready: exit}}}}\n"
    );
    let Some(world) = World::start(&[("web", &file)], false) else {
        return;
    };
    world.wait_for("service web is ready");
    let before = world.service("web");
    assert_eq!(
        world.request("POST", "/keelson/v1/services/web/restart").0,
        204
    );
    let after = world.service("web");
    assert_eq!((after.state, after.restarts), (State::Ready, 1));
    assert_ne!(before.pid, after.pid);
    let (status, body) = world.request("POST", "/keelson/v1/services/wob/restart");
    assert_eq!(
        (status, body.as_str()),
        (404, "{\"message\":\"no such service: wob\"}")
    );
    let (status, body) = world.request("POST", "/keelson/v1/services/once/restart");
    assert_eq!(status, 500, "{body}");
    assert_eq!(
        world.request("GET", "/keelson/v1/services/web/restart").0,
        405
    );
    assert_eq!(world.request("GET", "/v1/x").0, 404);
}

#[test]
fn a_killed_service_comes_back_and_nothing_else_is_touched() {
    let file = format!(
        "services:\n  a: {{image: keelson/box, command: {PATIENT}, restart: always}}\n  b: {{image: keelson/box, command: {PATIENT}, depends_on: [a]}}\n"
    );
    let Some(world) = World::start(&[("ab", &file)], false) else {
        return;
    };
    world.wait_for("service b is ready");
    let (a, b) = (world.service("a"), world.service("b"));
    kill(Pid::from_raw(a.pid.unwrap()), Signal::SIGKILL).unwrap();
    world.wait_for("service a: was killed by SIGKILL; it is started again in 100ms");
    world.wait_for("service a is ready");
    assert_eq!(world.service("b").pid, b.pid);
    assert_eq!(world.service("a").exit_code, Some(137));
}

#[test]
fn what_is_written_to_a_writable_root_is_there_after_a_restart() {
    let file = format!(
        "services:\n  w: {{image: keelson/box, command: [sh, -c, \"test -e /mark && echo second || echo first; touch /mark; echo marked; exec sleep 1000\"], stop_signal: KILL}}\n  r: {{image: keelson/box, command: [sh, -c, 'touch /mark || echo refused; exec sleep 1000'], read_only: true}}\n  p: {{image: keelson/box, command: {PATIENT}}}\n"
    );
    let Some(world) = World::start(&[("w", &file)], false) else {
        return;
    };
    let lines = world.wait_for("w | marked");
    let lines = if lines.iter().any(|line| line == "r | refused") {
        lines
    } else {
        world.wait_for("r | refused")
    };
    assert!(!lines.iter().any(|line| line == "w | second"));
    assert_eq!(
        world.request("POST", "/keelson/v1/services/w/restart").0,
        204
    );
    world.wait_for("w | second");
}
