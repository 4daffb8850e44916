//! `kill -9` of the engine: no container notices and nothing is lost.

use crate::PATIENT;
use crate::world::World;
use keelson_engine::api::State;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;

#[test]
fn containers_outlive_the_engine_and_are_adopted() {
    let file = format!(
        "services:
  stays: {{image: keelson/box, command: {PATIENT}, restart: always}}
  dies: {{image: keelson/box, command: {PATIENT}, restart: always}}
  once: {{image: keelson/box, command: ['true'], x-keelson: {{ready: exit}}}}
  says: {{image: keelson/box, command: {PATIENT}, x-keelson: {{ready: notify}}}}
  waits: {{image: keelson/box, command: {PATIENT}, depends_on: [says]}}
"
    );
    let Some(mut world) = World::start(&[("all", &file)], true) else {
        return;
    };
    world.wait("all to start", || {
        let started = |name: &str, state: State| world.service(name).state == state;
        (started("stays", State::Ready)
            && started("dies", State::Ready)
            && started("once", State::Finished)
            && world.service("says").started_us.is_some())
        .then_some(())
    });
    let (stays, dies) = (world.service("stays"), world.service("dies"));
    world.kill_engine();
    kill(Pid::from_raw(dies.pid.unwrap()), Signal::SIGTERM).unwrap();
    world.wait_gone(dies.pid.unwrap());
    // Its word waits in the socket that PID 1 keeps.
    world.notify("says", "READY=1");
    world.start_engine();
    world.wait_for("going on with its services");
    world.wait_for("service waits is ready");
    world.wait("the one that died to come back", || {
        (world.service("dies").state == State::Ready).then_some(())
    });
    let again = world.service("stays");
    assert_eq!(
        (again.state, again.pid, again.restarts),
        (State::Ready, stays.pid, 0)
    );
    assert_eq!(
        (again.created_us, again.ready_us),
        (stays.created_us, stays.ready_us)
    );
    let back = world.service("dies");
    assert_eq!((back.restarts, back.exit_code), (1, Some(0)));
    assert_ne!(back.pid, dies.pid);
    assert_eq!(
        (world.service("once").state, world.service("once").restarts),
        (State::Finished, 0)
    );
    // What is adopted can still be stopped and watched.
    assert_eq!(
        world
            .request("POST", "/keelson/v1/services/stays/restart")
            .0,
        204
    );
    assert_ne!(world.service("stays").pid, stays.pid);
}

#[test]
fn no_line_of_output_is_lost_when_the_engine_is_killed() {
    // A log service that is never ready: this test reads the pipe in its place.
    let file = format!(
        "services:
  counts: {{image: keelson/box, command: [sh, -c, 'i=0; while :; do echo $$i; i=$$((i+1)); sleep 0.01; done']}}
  log: {{image: keelson/box, command: {PATIENT}, x-keelson: {{ready: notify}}}}
"
    );
    let Some(mut world) = World::start(&[("counts", &file)], true) else {
        return;
    };
    world.wait_for("service counts is ready");
    world.wait("the pipe to be stored", || {
        world
            .init()
            .lock()
            .unwrap()
            .stored
            .contains_key("counts.stdout")
            .then_some(())
    });
    let pipe = world.init().lock().unwrap().stored["counts.stdout"]
        .as_fd()
        .try_clone_to_owned()
        .unwrap();
    let mut lines = BufReader::new(File::from(pipe))
        .lines()
        .map(|line| line.unwrap().parse::<u32>().unwrap());
    assert_eq!(lines.next(), Some(0));
    world.kill_engine();
    for expected in 1..30 {
        assert_eq!(lines.next(), Some(expected));
    }
    world.start_engine();
    world.wait_for("going on with its services");
    for expected in 30..60 {
        assert_eq!(lines.next(), Some(expected));
    }
}

#[test]
fn an_engine_killed_again_and_again_while_it_starts_services_gets_there_in_the_end() {
    let names: Vec<String> = (0..4).map(|number| format!("s{number}")).collect();
    let mut file = "services:\n".to_owned();
    for name in &names {
        file.push_str(&format!(
            "  {name}: {{image: keelson/box, command: {PATIENT}, restart: always}}\n"
        ));
    }
    let Some(mut world) = World::new(&[("all", &file)], true) else {
        return;
    };
    for pause_ms in [0_u64, 5, 10, 20, 40] {
        world.start_engine();
        std::thread::sleep(std::time::Duration::from_millis(pause_ms));
        world.kill_engine();
    }
    world.start_engine();
    for name in &names {
        world.wait("each to be ready", || {
            let connected =
                std::os::unix::net::UnixStream::connect(world.run().join("system.sock")).is_ok();
            (connected && world.service(name).state == State::Ready).then_some(())
        });
    }
    // Each runs once: one process in its cgroup is the first of a PID namespace.
    for name in &names {
        let pid = world.service(name).pid.unwrap().to_string();
        let procs = format!("/sys/fs/cgroup/system/{name}/cgroup.procs");
        let members = std::fs::read_to_string(procs).unwrap();
        let is_first = |member: &&str| {
            let status =
                std::fs::read_to_string(format!("/proc/{member}/status")).unwrap_or_default();
            let numbers = status.lines().find(|line| line.starts_with("NSpid:"));
            numbers.is_some_and(|numbers| numbers.split_whitespace().next_back() == Some("1"))
        };
        assert_eq!(members.lines().filter(is_first).collect::<Vec<_>>(), [pid]);
    }
}
