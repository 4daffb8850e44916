//! Services come and go while the system is up.

use crate::PATIENT;
use crate::world::World;
use keelson_engine::api::{Reloaded, Service, State};
use std::fs;

const FILE: &str = "/keelson/v1/service-files/web";

fn put(world: &World, text: &str) -> Reloaded {
    let (status, body) = world.send("PUT", FILE, text);
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

fn post(world: &World, service: &str, verb: &str) -> (u16, String) {
    world.request("POST", &format!("/keelson/v1/services/{service}/{verb}"))
}

/// What a service has in its environment. The kernel shows none for a moment: it closes what closes at `execve`, which
/// the engine takes for the start, before it lays out the new program's.
fn variable(world: &World, service: &Service) -> String {
    let file = format!("/proc/{}/environ", service.pid.unwrap());
    world.wait("the program's environment", || {
        let environment = fs::read(&file).unwrap();
        let mut all = environment.split(|byte| *byte == 0);
        let found = all.find_map(|pair| pair.strip_prefix(b"WHAT="))?;
        Some(String::from_utf8(found.to_owned()).unwrap())
    })
}

fn web(what: &str) -> String {
    format!(
        "services:\n  web:\n    image: keelson/box\n    command: {PATIENT}\n    environment: {{WHAT: \"{what}\"}}\n    depends_on: [base]\n"
    )
}

#[test]
fn a_file_is_taken_in_changed_and_removed_while_the_engine_runs() {
    let base =
        format!("services:\n  base: {{image: keelson/box, command: {PATIENT}, restart: always}}\n");
    let Some(world) = World::start(&[("base", &base)], true) else {
        return;
    };
    fs::write(world.own_services().join(".env"), "NAME=oak\n").unwrap();
    world.wait_running("base");
    let before = world.service("base");
    assert_eq!(put(&world, &web("${NAME}")).added, ["web"]);
    let added = world.service("web");
    assert_eq!(
        (added.state, added.own, added.enabled),
        (State::Stopped, true, true)
    );
    assert_eq!(post(&world, "web", "up").0, 204);
    let first = world.service("web");
    assert_eq!(
        (first.state, variable(&world, &first)),
        (State::Ready, "oak".into())
    );

    // It goes on as it is until somebody wants it otherwise.
    assert_eq!(put(&world, &web("elm")).changed, ["web"]);
    let outdated = world.service("web");
    assert_eq!((outdated.outdated, outdated.pid), (true, first.pid));
    assert_eq!(post(&world, "web", "up").0, 204);
    let second = world.service("web");
    assert_eq!(
        (second.outdated, variable(&world, &second)),
        (false, "elm".into())
    );
    assert_ne!(second.pid, first.pid);
    assert_eq!(post(&world, "web", "up").0, 204);
    assert_eq!(world.service("web").pid, second.pid, "nothing had changed");

    // What cannot be used changes nothing, and says where it is wrong.
    for (wrong, part) in [
        (web("x").replace("image", "imgae"), "web.yml:3:5: "),
        (web("x").replace("  web:", "  base:"), "already defined"),
        (web("x").replace("[base]", "[web]"), "web -> web"),
        (web("${NAME:?}${NO:?say it}"), "say it"),
    ] {
        let (status, body) = world.send("PUT", FILE, &wrong);
        assert_eq!(status, 400, "{body}");
        assert!(body.contains(part), "{part}: {body}");
    }
    assert_eq!(world.service("web").pid, second.pid);
    let file = world.own_services().join("web.yml");
    assert_eq!(fs::read_to_string(&file).unwrap(), web("elm"));

    // A file that somebody has broken by hand stops nothing either.
    fs::write(&file, "services: [").unwrap();
    let (status, body) = world.request("POST", "/keelson/v1/reload");
    assert_eq!(status, 200);
    let reloaded: Reloaded = serde_json::from_str(&body).unwrap();
    assert_eq!((reloaded.removed.len(), reloaded.failures.len()), (0, 1));
    assert_eq!(world.service("web").pid, second.pid);

    let (status, body) = world.request("DELETE", FILE);
    assert_eq!(status, 200, "{body}");
    world.wait_gone(second.pid.unwrap());
    world.wait("the service to be gone", || {
        let services: Vec<Service> = world.get("/keelson/v1/services");
        (!services.iter().any(|service| service.name == "web")).then_some(())
    });
    assert_eq!(world.request("DELETE", FILE).0, 404);
    assert_eq!(world.service("base").pid, before.pid);
}

#[test]
fn a_service_that_is_down_has_lost_its_root_and_a_disabled_one_stays_down() {
    let file = "services:
  writes: {image: keelson/box, command: [sh, -c, 'ls /mark || touch /mark; sleep 1000'], stop_signal: KILL}
  other: {image: keelson/box, command: [sleep, '1000'], stop_signal: KILL}
";
    let Some(mut world) = World::start(&[("all", file)], true) else {
        return;
    };
    let mark = |world: &World| {
        let root = world.run().join("containers/writes/rootfs/mark");
        root.exists()
    };
    world.wait("the mark", || mark(&world).then_some(()));
    assert_eq!(post(&world, "writes", "stop").0, 204);
    assert!(mark(&world));
    assert_eq!(post(&world, "writes", "down").0, 204);
    world.wait("its root to go", || (!mark(&world)).then_some(()));
    assert_eq!(post(&world, "writes", "up").0, 204);
    world.wait("a new mark", || mark(&world).then_some(()));

    assert_eq!(post(&world, "other", "disable").0, 204);
    let running = world.service("other");
    assert_eq!((running.state, running.enabled), (State::Ready, false));
    assert_eq!(post(&world, "nothing", "disable").0, 404);
    assert_eq!(post(&world, "other", "frobnicate").0, 404);
    // The next start of the machine: nothing is left in /run.
    world.kill_engine();
    for name in ["writes", "other"] {
        fs::remove_file(world.run().join("engine").join(format!("{name}.json"))).unwrap();
    }
    world.start_engine();
    world.wait("the engine", || {
        (world.service("other").state == State::Stopped).then_some(())
    });
    assert_eq!(post(&world, "other", "enable").0, 204);
    assert!(world.service("other").enabled);
}

#[test]
fn a_service_with_rancheros_label_has_the_definitions_read_again() {
    let Some(world) = World::new(&[], true) else {
        return;
    };
    let own = world.own_services();
    let file = format!(
        "services:
  configures:
    image: keelson/box
    command: [sh, -c, \"echo 'services: {{later: {{image: keelson/box, command: [sleep, 1000], stop_signal: KILL}}}}' > /own/later.yml\"]
    volumes: [\"{}:/own\"]
    labels: {{io.rancher.os.detach: \"false\", io.rancher.os.reloadconfig: \"true\"}}
  holds: {{image: keelson/box, command: ['false'], labels: {{io.rancher.os.createonly: \"true\"}}}}
",
        own.display()
    );
    fs::write(own.join("all.yml"), file).unwrap();
    let mut world = world;
    world.start_engine();
    world.wait_for("service later is ready");
    assert_eq!(world.service("configures").state, State::Finished);
    let holds = world.service("holds");
    assert_eq!((holds.state, holds.created_us), (State::Finished, None));
}
