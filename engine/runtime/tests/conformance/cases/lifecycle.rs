//! create, start, state, kill, delete and the pid file.

use std::fs;

use anyhow::bail;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::container::{Workplace, contains, same};
use crate::suite::{Case, Need};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a-container-goes-from-created-to-running-to-stopped",
        needs: &[],
        run: states,
    },
    Case {
        name: "init-outlives-create-and-is-nobodys-child",
        needs: &[],
        run: orphan,
    },
    Case {
        name: "nothing-runs-before-start",
        needs: &[],
        run: waits,
    },
    Case {
        name: "exit-status-and-output-are-the-containers-own",
        needs: &[],
        run: output,
    },
    Case {
        name: "kill-sends-the-signal-asked-for",
        needs: &[],
        run: signals,
    },
    Case {
        name: "commands-that-do-not-fit-the-state-fail",
        needs: &[Need::Keelson], // crun lets programs into a container that was only created
        run: wrong_states,
    },
    Case {
        name: "a-name-is-given-once",
        needs: &[],
        run: unique,
    },
    Case {
        name: "delete-force-ends-a-running-container-with-all-its-processes",
        needs: &[],
        run: force,
    },
    Case {
        name: "delete-removes-the-cgroup-and-all-records",
        needs: &[],
        run: leftovers,
    },
    Case {
        name: "delete-force-of-what-does-not-exist-is-no-error",
        needs: &[Need::Keelson],
        run: force_nothing,
    },
    Case {
        name: "a-missing-program-is-named-by-create",
        needs: &[],
        run: missing_program,
    },
    Case {
        name: "a-failed-create-leaves-nothing-and-can-be-repeated",
        needs: &[],
        run: repeated,
    },
    Case {
        name: "a-stranger-with-inits-number-is-not-taken-for-init",
        needs: &[Need::Keelson],
        run: stranger,
    },
];

fn states(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("echo up; sleep 1000");
    config["annotations"] = json!({ "org.example": "kept" });
    let container = place.create("c", &config)?;
    let state = container.state()?;
    same("status", state["status"].as_str(), Some("created"))?;
    same("id", state["id"].as_str(), Some("c"))?;
    same("pid", state["pid"].as_i64(), Some(container.pid.into()))?;
    same(
        "annotation",
        state["annotations"]["org.example"].as_str(),
        Some("kept"),
    )?;
    same(
        "bundle",
        state["bundle"].as_str(),
        place.directory.join("bundle").to_str(),
    )?;
    contains(
        "ociVersion",
        state["ociVersion"].as_str().unwrap_or_default(),
        "1.",
    )?;
    container.start()?;
    container.wait_for("up")?;
    same(
        "status",
        container.state()?["status"].as_str(),
        Some("running"),
    )?;
    kill(Pid::from_raw(container.pid), Signal::SIGKILL)?;
    container.wait()?;
    same(
        "status",
        container.state()?["status"].as_str(),
        Some("stopped"),
    )
}

fn orphan(place: &Workplace) -> anyhow::Result<()> {
    let container = place.create("c", &place.config("true"))?;
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid))?;
    let parent = crate::container::field(&status, "PPid")?;
    same("init's parent", parent, &std::process::id().to_string())
}

fn waits(place: &Workplace) -> anyhow::Result<()> {
    let container = place.create("c", &place.config("echo ran"))?;
    same(
        "output before start",
        fs::read_to_string(place.directory.join("c.out"))?.as_str(),
        "",
    )?;
    container.start()?;
    same("output", container.wait()?.stdout.as_str(), "ran")
}

fn output(place: &Workplace) -> anyhow::Result<()> {
    let ended = place.run(&place.config("echo to-out; echo to-err >&2; exit 7"))?;
    same("exit status", ended.code, 7)?;
    same("stdout", ended.stdout.as_str(), "to-out")?;
    same("stderr", ended.stderr.as_str(), "to-err")
}

fn signals(place: &Workplace) -> anyhow::Result<()> {
    let container = place.create(
        "c",
        &place.config("trap 'echo got-usr1; exit 3' USR1; echo up; while :; do sleep 0.05; done"),
    )?;
    container.start()?;
    container.wait_for("up")?;
    let answer = place.call(&["kill", "c", "USR1"])?;
    same("kill's success", answer.ok, true)?;
    let ended = container.wait()?;
    same("exit status", ended.code, 3)?;
    contains("output", &ended.stdout, "got-usr1")
}

fn wrong_states(place: &Workplace) -> anyhow::Result<()> {
    for command in [
        &["start", "c"][..],
        &["state", "c"],
        &["kill", "c", "KILL"],
        &["delete", "c"],
    ] {
        let answer = place.call(command)?;
        same(
            &format!("success of {command:?} without a container"),
            answer.ok,
            false,
        )?;
    }
    let container = place.create("c", &place.config("echo up; sleep 1000"))?;
    same(
        "success of exec before start",
        container.exec(&["true"])?.ok,
        false,
    )?;
    container.start()?;
    container.wait_for("up")?;
    same(
        "success of a second start",
        place.call(&["start", "c"])?.ok,
        false,
    )?;
    same(
        "success of delete while it runs",
        place.call(&["delete", "c"])?.ok,
        false,
    )?;
    place.call(&["kill", "c", "KILL"])?;
    container.wait()?;
    same(
        "success of kill after the end",
        place.call(&["kill", "c", "KILL"])?.ok,
        false,
    )?;
    same(
        "success of start after the end",
        place.call(&["start", "c"])?.ok,
        false,
    )?;
    same(
        "success of delete after the end",
        place.call(&["delete", "c"])?.ok,
        true,
    )
}

fn unique(place: &Workplace) -> anyhow::Result<()> {
    let config = place.config("true");
    let _container = place.create("c", &config)?;
    let bundle = place.directory.join("bundle");
    let answer = place.call(&["create", "--bundle", &bundle.to_string_lossy(), "c"])?;
    same("success of a second create", answer.ok, false)?;
    same(
        "the first one's status",
        place.call(&["state", "c"])?.ok,
        true,
    )
}

fn force(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("sleep 1000 & sleep 1001 & echo up; wait");
    // In the host's pid namespace nothing but the cgroup ties the children to the container.
    if let Some(all) = config["linux"]["namespaces"].as_array_mut() {
        all.retain(|one| one["type"] != "pid");
    }
    let container = place.create("c", &config)?;
    container.start()?;
    container.wait_for("up")?;
    let members = place.cgroup_file("c", "cgroup.procs")?;
    let answer = place.call(&["delete", "--force", "c"])?;
    same("delete's message", answer.stderr.as_str(), "")?;
    for member in members.lines() {
        let status = fs::read_to_string(format!("/proc/{member}/status")).unwrap_or_default();
        if !status.is_empty() && !status.contains("State:\tZ") {
            bail!("process {member} still lives: {status}");
        }
    }
    same("number of processes that were", members.lines().count(), 3)
}

fn leftovers(place: &Workplace) -> anyhow::Result<()> {
    let container = place.create("c", &place.config("true"))?;
    container.start()?;
    container.wait()?;
    same("delete's success", place.call(&["delete", "c"])?.ok, true)?;
    let cgroup = format!("/sys/fs/cgroup{}", place.cgroup("c"));
    same("existence of the cgroup", fs::exists(cgroup)?, false)?;
    same(
        "existence of records",
        fs::exists(place.directory.join("records/c"))?,
        false,
    )?;
    same("success of state", place.call(&["state", "c"])?.ok, false)
}

fn force_nothing(place: &Workplace) -> anyhow::Result<()> {
    same(
        "delete's success",
        place.call(&["delete", "--force", "nobody"])?.ok,
        true,
    )
}

fn missing_program(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("true");
    config["process"]["args"] = json!(["/bin/no-such-program"]);
    contains("the reason", &place.refusal(&config)?, "no-such-program")
}

fn repeated(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("echo second");
    if let Some(all) = config["mounts"].as_array_mut() {
        all.push(json!({ "destination": "/mnt", "type": "bind", "source": "/no-such-source", "options": ["bind"] }));
    }
    contains("the reason", &place.refusal(&config)?, "no-such-source")?;
    same(
        "existence of the cgroup",
        fs::exists(format!("/sys/fs/cgroup{}", place.cgroup("c")))?,
        false,
    )?;
    if let Some(all) = config["mounts"].as_array_mut() {
        all.pop();
    }
    same("output", place.print(&config)?.as_str(), "second")
}

/// As after init's number was given to another process.
fn stranger(place: &Workplace) -> anyhow::Result<()> {
    let container = place.create("c", &place.config("sleep 1000"))?;
    container.start()?;
    let record = place.directory.join("records/c/keelson.json");
    let text = fs::read_to_string(&record)?;
    fs::write(
        &record,
        text.replace("initStartTicks\":", "initStartTicks\":9"),
    )?;
    same(
        "status",
        container.state()?["status"].as_str(),
        Some("stopped"),
    )?;
    same(
        "success of kill",
        place.call(&["kill", "c", "KILL"])?.ok,
        false,
    )?;
    let alive = fs::exists(format!("/proc/{}", container.pid))?;
    same("life of the stranger", alive, true)?;
    same("success of delete", place.call(&["delete", "c"])?.ok, true)
}
