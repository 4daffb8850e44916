//! pause and resume.

use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::cases::exec::running;
use crate::container::{Container, Workplace, contains, field, same};
use crate::suite::{Case, Need};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a-paused-container-stands-still-and-goes-on-when-resumed",
        needs: &[],
        run: stands_still,
    },
    Case {
        name: "pause-and-resume-go-with-the-state",
        needs: &[Need::Keelson], // crun pauses what is paused already
        run: wrong_states,
    },
    Case {
        name: "exec-does-not-enter-a-paused-container",
        needs: &[],
        run: no_exec,
    },
    Case {
        name: "a-paused-container-can-be-killed",
        needs: &[],
        run: killed,
    },
    Case {
        name: "delete-force-ends-a-paused-container-with-all-its-processes",
        needs: &[],
        run: force,
    },
];

fn frozen(place: &Workplace) -> anyhow::Result<String> {
    let events = place.cgroup_file("c", "cgroup.events")?;
    Ok(field(&events, "frozen")?.to_owned())
}

fn well(place: &Workplace, command: &str) -> anyhow::Result<()> {
    let answer = place.call(&[command, "c"])?;
    same(&format!("{command}'s message"), answer.stderr.as_str(), "")?;
    same(&format!("{command}'s success"), answer.ok, true)
}

fn status(container: &Container<'_>) -> anyhow::Result<Value> {
    Ok(container.state()?["status"].take())
}

fn stands_still(place: &Workplace) -> anyhow::Result<()> {
    let (read, mut write) = std::io::pipe()?;
    let config = place.config("echo up; while read line; do echo got-$line; done");
    let container = place.create_with("c", &config, &[], read.into())?;
    container.start()?;
    container.wait_for("up")?;
    well(place, "pause")?;
    same("frozen", frozen(place)?.as_str(), "1")?;
    same("status", status(&container)?.as_str(), Some("paused"))?;
    write.write_all(b"line\n")?;
    well(place, "resume")?;
    same("frozen", frozen(place)?.as_str(), "0")?;
    same("status", status(&container)?.as_str(), Some("running"))?;
    container.wait_for("got-line")?;
    drop(write);
    same("exit status", container.wait()?.code, 0)
}

fn wrong_states(place: &Workplace) -> anyhow::Result<()> {
    let refused = |command: &str, reason: &str| {
        let answer = place.call(&[command, "c"])?;
        same(&format!("{command}'s success"), answer.ok, false)?;
        contains("the reason", &answer.stderr, reason)
    };
    refused("pause", "no such container")?;
    let container = running(place, |_| {})?;
    refused("resume", "Running, not paused")?;
    well(place, "pause")?;
    refused("pause", "Paused, not running")?;
    refused("start", "Paused, not created")?;
    refused("delete", "Paused")?;
    well(place, "resume")?;
    place.call(&["kill", "c", "KILL"])?;
    container.wait()?;
    refused("pause", "Stopped, not running")
}

fn no_exec(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    well(place, "pause")?;
    same("exec's success", container.exec(&["true"])?.ok, false)?;
    well(place, "resume")?;
    same("exec's success", container.exec(&["true"])?.ok, true)
}

fn killed(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    well(place, "pause")?;
    same(
        "kill's success",
        place.call(&["kill", "c", "KILL"])?.ok,
        true,
    )?;
    same("exit status", container.wait()?.code, 128 + 9)?;
    same("status", status(&container)?.as_str(), Some("stopped"))?;
    same("delete's success", place.call(&["delete", "c"])?.ok, true)
}

fn force(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("sleep 1000 & sleep 1001 & echo up; wait");
    // In the host's pid namespace nothing but the cgroup ties the children to the container.
    if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
        all.retain(|one| one["type"] != "pid");
    }
    let container = place.create_with("c", &config, &[], Stdio::null())?;
    container.start()?;
    container.wait_for("up")?;
    well(place, "pause")?;
    let answer = place.call(&["delete", "--force", "c"])?;
    same("delete's message", answer.stderr.as_str(), "")?;
    same("exit status", container.wait()?.code, 128 + 9)?;
    let cgroup = format!("/sys/fs/cgroup{}", place.cgroup("c"));
    same("existence of the cgroup", std::fs::exists(cgroup)?, false)
}
