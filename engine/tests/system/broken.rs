//! Broken definitions: a clear message with its place, and everything else boots.

use crate::PATIENT;
use crate::world::World;
use keelson_engine::api::{State, Status};

#[test]
fn what_is_wrong_is_told_with_its_place_and_the_rest_boots() {
    let good = format!("services:\n  good: {{image: keelson/box, command: {PATIENT}}}\n");
    let noimage = "services:\n  noimage:\n    command: [sh]\n    image: keelson/nonexistent\n    restart: always\n";
    let needs = "services:\n  needs: {image: keelson/box, command: [sh], depends_on: [noimage]}\n";
    let key = "services:\n  key:\n    image: keelson/box\n    comand: [sh]\n";
    let cycle = "services:\n  x: {image: keelson/box, command: [sh], depends_on: ['y']}\n  y:\n    image: keelson/box\n    command: [sh]\n    depends_on: [x]\n";
    let files = [
        ("good", good.as_str()),
        ("noimage", noimage),
        ("needs", needs),
        ("key", key),
        ("cycle", cycle),
    ];
    let Some(world) = World::start(&files, false) else {
        return;
    };
    let status = world.wait("everything to come to something", || {
        let status: Status = world.get("/keelson/v1/status");
        status.boot_complete_us.is_some().then_some(status)
    });
    let lines = world.told();
    let told = |text: &str| {
        assert!(
            lines.iter().any(|line| line.contains(text)),
            "no `{text}` in {lines:#?}"
        )
    };
    told("noimage.yml:4:5: service noimage: there is no image `keelson/nonexistent`");
    told("key.yml:4:5: service key: services.key: unknown field `comand`");
    told("cycle.yml:6:5: service y: it waits for itself: y -> x -> y");
    let states: Vec<_> = status
        .services
        .iter()
        .map(|service| (service.name.as_str(), service.state))
        .collect();
    let failed = State::Failed;
    assert_eq!(
        states,
        [
            ("good", State::Ready),
            ("key", failed),
            ("needs", failed),
            ("noimage", failed),
            ("x", failed),
            ("y", failed)
        ]
    );
    let failure = status
        .failures
        .iter()
        .find(|failure| failure.source == "noimage")
        .unwrap();
    assert_eq!((failure.line, failure.column), (Some(4), Some(5)));
    assert!(failure.file.as_ref().unwrap().ends_with("noimage.yml"));
    let (code, body) = world.request("POST", "/keelson/v1/services/key/restart");
    assert_eq!(code, 500, "{body}");
}

#[test]
fn a_program_that_does_not_exist_is_told_in_the_runtimes_words() {
    let file = "services:\n  gone: {image: keelson/box, command: [/bin/nonexistent]}\n";
    let Some(world) = World::start(&[("gone", file)], false) else {
        return;
    };
    world.wait_for("service gone: cannot make its container: ");
    let gone = world.wait("it to be given up", || {
        let gone = world.service("gone");
        (gone.state == State::Failed).then_some(gone)
    });
    assert!(gone.detail.unwrap().contains("/bin/nonexistent"));
}
