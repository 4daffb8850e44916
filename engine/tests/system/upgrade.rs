//! Services get other images, and their old ones back.

use crate::PATIENT;
use crate::world::World;
use keelson_engine::api::State;
use std::fs;

fn path(image: &str) -> String {
    format!("/keelson/v1/services/net/upgrade?image={image}")
}

fn upgrade(world: &World, image: &str) -> (u16, String) {
    world.request("POST", &path(image))
}

/// `net` runs `/bin/serve`, which each image has of its own.
fn world() -> Option<World> {
    let file = format!(
        "services:
  net:
    image: keelson/box
    command: [/bin/serve]
    restart: always
    stop_signal: KILL
    x-keelson: {{ready: health, start_timeout: 3s}}
    healthcheck: {{test: [CMD, test, -e, /tmp/up], interval: 100ms, start_interval: 100ms}}
    tmpfs: /tmp
  other: {{image: keelson/box, command: {PATIENT}}}
"
    );
    let world = World::new(&[("all", &file)], true)?;
    let serve = |image: &str, script: &str| {
        let path = world.image(image).join("bin/serve");
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    };
    serve("box", "touch /tmp/up; exec sleep 1000");
    serve("new", "touch /tmp/up; exec sleep 2000");
    serve("ends", "exit 3");
    serve("hangs", "exec sleep 3000");
    Some(world)
}

#[test]
fn a_service_goes_back_by_itself_when_its_new_image_does_not_come_up() {
    let Some(mut world) = world() else { return };
    world.start_engine();
    let is_ready = |world: &World, image: &str| {
        let net = world.service("net");
        (net.state == State::Ready && net.image == image).then_some(net)
    };
    let first = world.wait("the old one", || is_ready(&world, "keelson/box"));
    let other = world.service("other");

    let (status, body) = upgrade(&world, "keelson/nothing");
    assert_eq!(status, 400, "{body}");
    assert_eq!(world.service("net").pid, first.pid);
    for (image, why) in [
        ("keelson/ends", "ended with exit status 3"),
        ("keelson/hangs", "not ready"),
    ] {
        let (status, body) = upgrade(&world, image);
        assert_eq!(status, 500, "{body}");
        assert!(
            body.contains(why) && body.contains("back on keelson/box"),
            "{body}"
        );
        is_ready(&world, "keelson/box").expect("the old one is ready again");
    }
    assert!(!world.state().join("services.json").exists());

    let (status, body) = upgrade(&world, "keelson/new");
    assert_eq!(status, 204, "{body}");
    let new = is_ready(&world, "keelson/new").expect("the new one");
    let decided = fs::read_to_string(world.state().join("services.json")).unwrap();
    assert!(decided.contains("keelson/new"), "{decided}");
    // The old one by name is the definition's own: nothing stays decided.
    assert_eq!(upgrade(&world, "keelson/box").0, 204);
    assert_ne!(
        is_ready(&world, "keelson/box").expect("the old one").pid,
        new.pid
    );
    let decided = fs::read_to_string(world.state().join("services.json")).unwrap();
    assert_eq!(decided, "{}");
    assert_eq!(world.service("other").pid, other.pid);
}

#[test]
fn a_trial_goes_on_when_the_engine_is_killed() {
    let Some(mut world) = world() else { return };
    world.start_engine();
    let image_is = |world: &World, image: &str| {
        let net = world.service("net");
        (net.state == State::Ready && net.image == image).then_some(())
    };
    world.wait("the old one", || image_is(&world, "keelson/box"));
    for (image, after) in [
        ("keelson/hangs", "keelson/box"),
        ("keelson/new", "keelson/new"),
    ] {
        // The answer is lost with the engine.
        let asked = world.ask("POST", &path(image), "").unwrap();
        world.wait("the trial to begin", || {
            (world.service("net").image == image).then_some(())
        });
        drop(asked);
        world.kill_engine();
        world.start_engine();
        world.wait("the trial to end", || image_is(&world, after));
    }
    let decided = fs::read_to_string(world.state().join("services.json")).unwrap();
    assert!(decided.contains("keelson/new"), "{decided}");
}
