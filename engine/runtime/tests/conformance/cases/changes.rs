//! What is done with a container while it runs.

use std::fs;

use serde_json::{Value, json};

use crate::container::{Container, Workplace, contains, same};
use crate::suite::{Case, Need};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a-paused-container-stands-still-until-it-is-resumed",
        needs: &[],
        run: paused,
    },
    Case {
        name: "a-paused-container-can-be-killed",
        needs: &[],
        run: killed,
    },
    Case {
        name: "a-container-that-does-not-run-cannot-be-paused-or-resumed",
        needs: &[Need::Keelson], // crun takes resume for one that is not paused
        run: not_running,
    },
    Case {
        name: "limits-of-a-running-container-can-be-changed",
        needs: &[
            Need::Controller("memory"),
            Need::Controller("pids"),
            Need::Controller("cpu"),
        ],
        run: updated,
    },
    Case {
        name: "an-update-leaves-the-containers-devices-alone",
        needs: &[Need::Controller("pids")],
        run: devices,
    },
    Case {
        name: "an-update-names-what-it-does-not-know",
        needs: &[Need::Keelson],
        run: unknown,
    },
];

fn running<'a>(place: &'a Workplace, config: &Value) -> anyhow::Result<Container<'a>> {
    let container = place.create("c", config)?;
    container.start()?;
    container.wait_for("up")?;
    Ok(container)
}

fn must(place: &Workplace, arguments: &[&str]) -> anyhow::Result<()> {
    let answer = place.call(arguments)?;
    same("the answer", answer.stderr.as_str(), "")?;
    same("success", answer.ok, true)
}

fn paused(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, &place.config("echo up; sleep 1000"))?;
    must(place, &["pause", "c"])?;
    same(
        "the status",
        container.state()?["status"].as_str(),
        Some("paused"),
    )?;
    contains(
        "its cgroup",
        &place.cgroup_file("c", "cgroup.events")?,
        "frozen 1",
    )?;
    must(place, &["resume", "c"])?;
    same(
        "the status",
        container.state()?["status"].as_str(),
        Some("running"),
    )?;
    contains(
        "its cgroup",
        &place.cgroup_file("c", "cgroup.events")?,
        "frozen 0",
    )?;
    same("exit status of exec", container.exec(&["true"])?.code, 0)
}

fn killed(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, &place.config("echo up; sleep 1000"))?;
    must(place, &["pause", "c"])?;
    must(place, &["kill", "c", "KILL"])?;
    same("how it ended", container.wait()?.code, 128 + 9)
}

fn not_running(place: &Workplace) -> anyhow::Result<()> {
    let _container = place.create("c", &place.config("true"))?;
    same("success of resume", place.call(&["resume", "c"])?.ok, false)?;
    same(
        "success without a container",
        place.call(&["pause", "none"])?.ok,
        false,
    )
}

fn update(place: &Workplace, resources: &Value) -> anyhow::Result<crate::container::Answer> {
    let file = place.directory.join("resources.json");
    fs::write(&file, resources.to_string())?;
    place.call(&["update", "--resources", &file.to_string_lossy(), "c"])
}

fn updated(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, &place.config("echo up; sleep 1000"))?;
    let answer = update(
        place,
        &json!({
            "memory": { "limit": 64 << 20, "swap": 96 << 20 },
            "pids": { "limit": 33 },
            "cpu": { "shares": 512, "quota": 20000, "period": 50000 },
        }),
    )?;
    same("the answer", answer.stderr.as_str(), "")?;
    for (file, expected) in [
        ("memory.max", "67108864"),
        ("memory.swap.max", "33554432"),
        ("pids.max", "33"),
        ("cpu.max", "20000 50000"),
    ] {
        same(file, place.cgroup_file("c", file)?.as_str(), expected)?;
    }
    Ok(())
}

fn devices(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("echo up; sleep 1000");
    // A number without a driver: whoever may open it is told that it is not there, the others that they may not.
    config["linux"]["resources"]["devices"] = json!([
        { "allow": false, "access": "rwm" },
        { "allow": true, "type": "c", "major": 60, "minor": 0, "access": "rw" },
    ]);
    config["linux"]["devices"] = json!([
        { "path": "/dev/none", "type": "c", "major": 60, "minor": 0, "fileMode": 0o600, "uid": 0, "gid": 0 },
    ]);
    let container = running(place, &config)?;
    let open = || container.exec(&["sh", "-c", "exec 3</dev/none"]);
    contains("before", &open()?.stderr, "No such device")?;
    update(place, &json!({ "pids": { "limit": 50 } }))?;
    contains("after", &open()?.stderr, "No such device")
}

fn unknown(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, &place.config("echo up; sleep 1000"))?;
    let answer = update(place, &json!({ "memory": { "kernel": 1 } }))?;
    same("success", answer.ok, false)?;
    contains(
        "the reason",
        &answer.stderr,
        "memory.kernel cannot be changed",
    )
}
