//! Who starts when, and who stops when.

use crate::PATIENT;
use crate::world::World;
use keelson_engine::api::{Boot, BootKind, State};
use keelson_sys::control::{Action, ToEngine, ToInit};
use std::time::Duration;

fn chain() -> String {
    format!(
        "services:
  base: {{image: keelson/box, command: {PATIENT}, x-keelson: {{ready: notify}}}}
  middle: {{image: keelson/box, command: {PATIENT}, depends_on: [base]}}
  top: {{image: keelson/box, command: {PATIENT}, x-keelson: {{after: [middle]}}}}
  alone: {{image: keelson/box, command: {PATIENT}}}
  log: {{image: keelson/box, command: {PATIENT}, restart: always}}
"
    )
}

/// Where in what was told each of these comes.
fn places(lines: &[String], texts: &[&str]) -> Vec<usize> {
    let place = |text: &&str| lines.iter().position(|line| line.contains(*text));
    texts
        .iter()
        .map(|text| place(text).unwrap_or_else(|| panic!("no `{text}` in {lines:#?}")))
        .collect()
}

#[test]
fn a_service_starts_when_what_it_waits_for_says_that_it_is_ready() {
    let Some(world) = World::start(&[("chain", &chain())], false) else {
        return;
    };
    world.wait_for("service alone is ready");
    let middle = world.service("middle");
    assert_eq!(
        (middle.state, middle.detail.as_deref()),
        (State::Waiting, Some("waits for base"))
    );
    world.wait_running("base");
    world.notify("base", "STATUS=warm\nREADY=1");
    let lines = world.wait_for("service top is ready");
    assert!(
        places(
            &lines,
            &[
                "service base is ready",
                "service middle is ready",
                "service top is ready"
            ]
        )
        .is_sorted()
    );
    let base = world.service("base");
    assert_eq!(
        (base.state, base.detail.as_deref()),
        (State::Ready, Some("warm"))
    );
    assert!(
        base.created_us <= base.started_us
            && base.started_us <= base.ready_us
            && base.pid.is_some()
    );
    let boot: Boot = world.get("/keelson/v1/boot");
    assert_eq!(
        boot.entries
            .iter()
            .filter(|entry| entry.kind == BootKind::Service)
            .count(),
        5
    );
}

#[test]
fn a_one_shot_and_a_health_check_hold_back_those_who_need_them() {
    let file = format!(
        "services:
  once: {{image: keelson/box, command: [sh, -c, 'echo made > /shared/made'], volumes: ['RUN/shared:/shared'], x-keelson: {{ready: exit}}}}
  checked:
    image: keelson/box
    command: {PATIENT}
    volumes: ['RUN/shared:/shared']
    depends_on: {{once: {{condition: service_completed_successfully}}}}
    healthcheck: {{test: test -e /shared/healthy, interval: 50ms, start_interval: 50ms, retries: 2}}
    x-keelson: {{ready: health}}
  needs: {{image: keelson/box, command: {PATIENT}, depends_on: [checked]}}
"
    );
    let Some(mut world) = World::new(&[], false) else {
        return;
    };
    let shared = world.run().join("shared");
    let text = file.replace("RUN", &world.run().display().to_string());
    std::fs::write(world.run().join("../services/all.yml"), text).unwrap();
    world.start_engine();
    world.wait_for("service once has finished");
    assert!(shared.join("made").exists());
    world.wait_running("checked");
    assert_eq!(world.service("needs").state, State::Waiting);
    std::fs::write(shared.join("healthy"), "").unwrap();
    let lines = world.wait_for("service needs is ready");
    assert!(
        places(
            &lines,
            &["service checked is ready", "service needs is ready"]
        )
        .is_sorted()
    );
    std::fs::remove_file(shared.join("healthy")).unwrap();
    world.wait_for("service checked: is unhealthy");
    assert_eq!(world.service("checked").state, State::Running);
}

#[test]
fn services_stop_in_reverse_order_and_the_log_last() {
    let Some(world) = World::start(&[("chain", &chain())], true) else {
        return;
    };
    world.wait_for("service alone is ready");
    world.wait_running("base");
    world.notify("base", "READY=1");
    world.wait_for("service top is ready");
    world.is_up();
    let shutdown = ToEngine::Shutdown {
        action: Action::Reboot,
        deadline: Duration::from_secs(30),
    };
    crate::pid1::say(world.init(), &shutdown);
    let lines = world.wait_for("all services are down");
    let order = ["top", "middle", "base", "log"].map(|name| format!("service {name} has stopped"));
    assert!(
        places(&lines, &order.each_ref().map(String::as_str)).is_sorted(),
        "{lines:#?}"
    );
    assert_eq!(world.said(), ToInit::Stopped);
}

#[test]
fn one_that_does_not_end_is_killed_before_the_time_limit() {
    let deaf = "services:\n  deaf: {image: keelson/box, command: [sleep, '1000'], stop_grace_period: 1h}\n";
    let Some(world) = World::start(&[("deaf", deaf)], true) else {
        return;
    };
    world.wait_for("service deaf is ready");
    world.is_up();
    let shutdown = ToEngine::Shutdown {
        action: Action::Poweroff,
        deadline: Duration::from_secs(3),
    };
    crate::pid1::say(world.init(), &shutdown);
    world.wait_for("service deaf did not end in time: killed");
    world.wait_for("all services are down");
    assert_eq!(world.said(), ToInit::Stopped);
}

#[test]
fn started_by_hand_it_ends_with_its_services() {
    let Some(world) = World::start(&[("chain", &chain())], false) else {
        return;
    };
    world.wait_for("service alone is ready");
    world.terminate_engine();
    world.wait_for("all services are down");
    world.wait("its mounts to go", || {
        let left = std::fs::read_dir(world.run().join("containers"))
            .unwrap()
            .count();
        (left == 0).then_some(())
    });
}
