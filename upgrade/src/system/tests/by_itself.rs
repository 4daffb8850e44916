//! What is done without being asked: which releases are taken, when the source is asked, and when the machine restarts.

use super::super::policy::Watch;
use super::origin::{Making, Origin};
use super::victim::victim;
use super::*;
use crate::journal::Restart;
use crate::policy::share::hundredth;
use crate::settings::Policy;

fn settings(world: &World, more: serde_json::Value) {
    let mut settings: serde_json::Value =
        serde_json::from_slice(&fs::read(world.path("settings.json")).unwrap()).unwrap();
    for (key, value) in more.as_object().unwrap() {
        settings[key] = value.clone();
    }
    fs::write(world.path("settings.json"), settings.to_string()).unwrap();
}

fn planned(world: &World) -> Option<i64> {
    let settings = world.system.settings().unwrap();
    world.system.restart_is_planned(&settings).unwrap()
}

#[test]
fn a_newer_version_is_taken_and_the_machine_restarts_for_it() {
    let origin = Origin::start();
    let mut world = victim(&origin);
    origin.publish(&Making::of("500"));
    let said = world.system.take_by_itself(Policy::Auto).unwrap();
    assert_eq!(said, "version 500 is the newest");
    origin.publish(&Making::of("400"));
    let error = world.system.take_by_itself(Policy::Auto).unwrap_err();
    assert!(error.to_string().contains("older than 500"), "{error}");
    assert_eq!(planned(&world), None);
    origin.publish(&Making::of("600"));
    let said = world.system.take_by_itself(Policy::Auto).unwrap();
    assert_eq!(said, "version 600 is on the disk");
    let said = world.system.take_by_itself(Policy::Auto).unwrap();
    assert_eq!(said, "version 600 is on the disk already");
    settings(&world, serde_json::json!({"jitter_s": 0}));
    let journal = world.system.journal().unwrap();
    let installed = journal.pending().unwrap().unwrap().time_us / 1_000_000;
    assert_eq!(planned(&world), Some(installed as i64));
    settings(&world, serde_json::json!({"jitter_s": 600}));
    let at = planned(&world).unwrap() - installed as i64;
    assert!((0..600).contains(&at), "{at}");
    // A minute that is over since long, and comes again.
    let minute = (installed / 60 + 720) % 1440;
    let window = serde_json::json!({"from_min": minute, "to_min": (minute + 1) % 1440});
    settings(&world, serde_json::json!({"window": window}));
    let at = planned(&world).unwrap() - installed as i64;
    assert!((11 * 3600..13 * 3600).contains(&at), "{at}");
    // Who does not want it any more says so.
    settings(&world, serde_json::json!({"policy": "download"}));
    assert_eq!(planned(&world), None);
    world.versions.push(("600".to_owned(), Worth::Good));
    assert_eq!(world.settle(), "600");
    settings(&world, serde_json::json!({"policy": "auto"}));
    assert_eq!(planned(&world), None);
}

#[test]
fn who_asks_for_a_restart_in_the_window_gets_it_whatever_the_policy() {
    let origin = Origin::start();
    let world = victim(&origin);
    settings(
        &world,
        serde_json::json!({"policy": "manual", "jitter_s": 0}),
    );
    origin.publish(&Making::of("600"));
    let asked = Some(Restart::Asked);
    world
        .system
        .upgrade(None, None, asked, &mut |_| Ok(()))
        .unwrap();
    assert!(planned(&world).is_some());
    world.system.rollback().unwrap();
    assert_eq!(planned(&world), None);
}

#[test]
fn what_was_given_up_or_is_for_others_is_taken_by_name_only() {
    let origin = Origin::start();
    let mut world = victim(&origin);
    let mut making = Making::of("600");
    let own = hundredth("0123456789abcdef0123456789abcdef", "600");
    making.description["staged"] = own.into();
    origin.publish(&making);
    let said = world.system.take_by_itself(Policy::Auto).unwrap();
    assert!(said.contains(&format!("number {own} from 0 on")), "{said}");
    making.description["staged"] = (own + 1).into();
    origin.publish(&making);
    world.system.take_by_itself(Policy::Auto).unwrap();
    world.versions.push(("600".to_owned(), Worth::Bad));
    assert_eq!(world.settle(), "500");
    let said = world.system.take_by_itself(Policy::Auto).unwrap();
    assert!(said.contains("given up on this machine"), "{said}");
    let taken = world
        .system
        .upgrade(None, Some("600"), None, &mut |_| Ok(()));
    assert_eq!(taken.unwrap().to, "600");
}

#[test]
fn the_source_is_asked_when_it_is_time_and_there_is_a_network() {
    let origin = Origin::start();
    let world = victim(&origin);
    origin.publish(&Making::of("500"));
    fs::create_dir(world.path("network")).unwrap();
    fs::write(world.path("network/addresses"), "").unwrap();
    settings(&world, serde_json::json!({"interval_s": 60}));
    let mut watch = Watch::default();
    world.system.turn(&mut watch).unwrap();
    let plan = world.system.plan();
    let now = crate::journal::now_us() as i64 / 1_000_000;
    assert!(
        (now..now + 65).contains(&plan.next_check.unwrap()),
        "{plan:?}"
    );
    // It is time, and there is no network: the thread waits for one.
    watch.next_check = Some(Duration::ZERO);
    assert_eq!(world.system.turn(&mut watch), None);
    let said = world.system.plan().last_check.unwrap();
    assert!(said.contains("there is no network"), "{said}");
    fs::write(world.path("network/addresses"), "192.0.2.1\n").unwrap();
    assert!(world.system.turn(&mut watch).is_some());
    watch.next_check = Some(Duration::ZERO);
    assert!(world.system.turn(&mut watch).is_some());
    let said = world.system.plan().last_check.unwrap();
    assert!(said.contains("500 is the newest"), "{said}");
    // A source that fails is asked again, less and less often.
    origin.play(|_, _, mut reply| {
        reply.status = 404;
        reply
    });
    watch.next_check = Some(Duration::ZERO);
    assert!(world.system.turn(&mut watch).is_some());
    let said = world.system.plan().last_check.unwrap();
    assert!(said.contains("there is no release `stable`"), "{said}");
    settings(&world, serde_json::json!({"policy": "manual"}));
    assert_eq!(world.system.turn(&mut watch), None);
    let status = world.system.status().unwrap();
    assert_eq!(
        (status.policy.as_str(), status.next_check),
        ("manual", None)
    );
    assert_eq!(status.floor.as_deref(), Some("500"));
}
