//! The engine dies at each step of a container's life: the next one finds the state before that step or after it.

use crate::kills::Client;
use crate::world::World;
use keelson_engine::failpoint::NAMES;
use serde_json::{Value, json};
use std::fs;
use std::time::Duration;

/// A program that ends with status 7 when it is asked to, and says when it can be asked.
const PROGRAM: &str = "trap 'exit 7' TERM; touch /armed; while :; do sleep 1000 & wait $!; done";

#[test]
fn wherever_the_engine_dies_a_container_is_as_it_was_before_or_after() {
    for name in NAMES {
        let Some(mut world) = World::new(&[], true) else {
            return;
        };
        world.failpoint = Some(name);
        world.start_engine();
        let deaths = live(&mut world, name);
        assert_eq!(deaths, 1, "{name} is passed once");
        nothing_is_left(&world, name);
    }
}

/// A container's whole life. Whoever gets no answer asks again when there is an engine. How often it died.
fn live(world: &mut World, what: &str) -> u32 {
    let body = json!({
        "Image": "keelson/box", "Cmd": ["sh", "-c", PROGRAM], "HostConfig": {"NetworkMode": "none"},
    });
    let mut deaths = 0;
    let client = Client {
        socket: world.run().join("system.sock"),
    };
    let mut ask =
        |world: &mut World, method: &str, path: &str, body: &str, good: &[u16]| -> Value {
            world.wait("the API", || client.socket.exists().then_some(()));
            for _ in 0..2 {
                match client.try_ask(method, path, body) {
                    Ok((status, answer)) => {
                        assert!(good.contains(&status), "{method} {path}: {status} {answer}");
                        return answer;
                    }
                    Err(_) => {
                        world.engine_dies();
                        deaths += 1;
                        world.start_engine();
                        let (_, all) = client.ask("GET", "/containers/json?all=1", "");
                        is_whole(&all);
                    }
                }
            }
            panic!("{method} {path}: no answer");
        };
    let body = body.to_string();
    ask(
        world,
        "POST",
        "/containers/create?name=x1",
        &body,
        &[201, 409],
    );
    ask(world, "POST", "/containers/x1/start", "", &[204, 304]);
    let seen = ask(world, "GET", "/containers/x1/json", "", &[200]);
    assert_eq!(seen["State"]["Status"], "running", "{seen}");
    let key = &seen["Id"].as_str().unwrap()[..12];
    let armed = world
        .state()
        .join("containers")
        .join(key)
        .join("upper/armed");
    world.wait("the program to be armed", || armed.exists().then_some(()));
    ask(world, "POST", "/containers/x1/stop", "", &[204, 304]);
    let seen = ask(world, "GET", "/containers/x1/json", "", &[200]);
    let state = &seen["State"];
    assert_eq!(
        (&state["Status"], &state["ExitCode"]),
        (&json!("exited"), &json!(7)),
        "{what}: {state}"
    );
    assert!(
        state["FinishedAt"].as_str() > state["StartedAt"].as_str(),
        "{seen}"
    );
    ask(world, "DELETE", "/containers/x1", "", &[204, 404]);
    let all = ask(world, "GET", "/containers/json?all=1", "", &[200]);
    assert_eq!(all, json!([]));
    deaths
}

/// There is one container or none, and it is in no state between two.
fn is_whole(all: &Value) {
    let all = all.as_array().unwrap();
    assert!(all.len() <= 1, "{all:?}");
    for container in all {
        let state = container["State"].as_str().unwrap();
        assert!(
            ["created", "running", "exited"].contains(&state),
            "{container}"
        );
    }
}

/// No cgroup, no mount, no directory.
pub(crate) fn nothing_is_left(world: &World, what: &str) {
    let names = |directory: std::path::PathBuf| -> Vec<String> {
        let entries = fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names.filter(|name| !name.starts_with('.')).collect()
    };
    let remains = || {
        let mounts = fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let bundles = world.run().join("containers");
        let mounted = mounts.matches(&*bundles.to_string_lossy()).count();
        let cgroups = fs::read_dir("/sys/fs/cgroup/user")
            .into_iter()
            .flatten()
            .flatten();
        let cgroups = cgroups.filter(|entry| entry.path().is_dir()).count();
        let places = [
            bundles,
            world.state().join("containers"),
            world.run().join("runtime"),
            world.run().join("engine"),
        ];
        (mounted, cgroups, places.map(names))
    };
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while remains() != (0, 0, Default::default()) {
        assert!(
            std::time::Instant::now() < deadline,
            "{what}: {:?}",
            remains()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
}
