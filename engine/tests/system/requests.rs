//! What services may ask of the engine.

use crate::PATIENT;
use crate::world::World;
use keelson_engine::api::State;
use keelson_sys::control::{Action, ToInit};

#[test]
fn a_service_gets_what_its_definition_allows_and_nothing_else() {
    let file = format!(
        "services:
  may: {{image: keelson/box, command: {PATIENT}, x-keelson: {{requests: [hostname, reboot]}}}}
  maynot: {{image: keelson/box, command: {PATIENT}}}
"
    );
    let Some(world) = World::start(&[("all", &file)], true) else {
        return;
    };
    world.wait("both to be ready", || {
        let ready = |name: &str| world.service(name).state == State::Ready;
        (ready("may") && ready("maynot")).then_some(())
    });
    world.is_up();
    world.notify(
        "maynot",
        "X_KEELSON_HOSTNAME=evil\nX_KEELSON_POWER=poweroff",
    );
    world.wait_for(
        "service maynot asked for a host name, which x-keelson.requests does not allow it",
    );
    world.wait_for("service maynot asked for poweroff, which x-keelson.requests does not allow it");
    world.notify("may", "X_KEELSON_POWER=poweroff");
    world.wait_for("service may asked for poweroff, which");
    world.notify("may", "X_KEELSON_HOSTNAME=not_a_name");
    world.wait_for("`not_a_name`, which is none");
    world.notify("may", "X_KEELSON_HOSTNAME=good.example");
    assert_eq!(
        world.said(),
        ToInit::Hostname {
            name: "good.example".into()
        }
    );
    world.notify("may", "X_KEELSON_POWER=reboot");
    assert_eq!(
        world.said(),
        ToInit::Power {
            action: Action::Reboot
        }
    );
}

#[test]
fn a_service_with_something_new_has_the_configuration_applied_anew() {
    let file = format!(
        "services:
  configures: {{image: keelson/box, command: [/bin/true], restart: \"no\", labels: {{io.rancher.os.reloadconfig: \"true\"}}, x-keelson: {{ready: exit}}}}
  other: {{image: keelson/box, command: [/bin/true], restart: \"no\", x-keelson: {{ready: exit}}}}
  may: {{image: keelson/box, command: {PATIENT}, x-keelson: {{requests: [configure]}}}}
  maynot: {{image: keelson/box, command: {PATIENT}}}
"
    );
    let Some(world) = World::start(&[("all", &file)], true) else {
        return;
    };
    world.is_up();
    let ended = |name: &str| {
        world.wait("a one-shot to end", || {
            let service = world.service(name);
            (service.state == State::Finished).then_some(service.started_us)
        })
    };
    let (first, other) = (ended("configures"), ended("other"));
    world.wait_running("may");
    world.wait_running("maynot");
    world.notify("maynot", "X_KEELSON_CONFIGURE=1");
    world.wait_for(
        "service maynot asked to configure the machine, which x-keelson.requests does not allow it",
    );
    assert_eq!(ended("configures"), first);
    world.notify("may", "X_KEELSON_CONFIGURE=1");
    world.wait("the configuration to be applied anew", || {
        (ended("configures") != first).then_some(())
    });
    assert_eq!(ended("other"), other);
}
