//! update: other limits for a running container.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use anyhow::Context as _;
use serde_json::{Value, json};

use crate::cases::exec::running;
use crate::container::{Answer, Workplace, contains, same};
use crate::suite::{Case, Need};

const ALL: &[Need] = &[
    Need::Controller("memory"),
    Need::Controller("pids"),
    Need::Controller("cpu"),
    Need::Controller("cpuset"),
];

pub(super) const CASES: &[Case] = &[
    Case {
        name: "update-sets-the-limits-that-are-given-and-no-others",
        needs: ALL,
        run: given,
    },
    Case {
        name: "update-lifts-limits",
        needs: ALL,
        run: lifted,
    },
    Case {
        name: "update-reads-standard-input",
        needs: &[Need::Controller("pids")],
        run: standard_input,
    },
    Case {
        name: "update-keeps-the-device-rules",
        needs: &[Need::Controller("pids")],
        run: devices,
    },
    Case {
        name: "what-update-cannot-change-is-refused-by-name",
        needs: &[Need::Keelson, Need::Controller("memory")],
        run: refused,
    },
];

const MIB: u64 = 1 << 20;

fn update(place: &Workplace, resources: &Value) -> anyhow::Result<Answer> {
    let file = place.directory.join("resources.json");
    fs::write(&file, resources.to_string())?;
    place.call(&["update", "--resources", &file.to_string_lossy(), "c"])
}

fn well(answer: &Answer) -> anyhow::Result<()> {
    same("update's message", answer.stderr.as_str(), "")?;
    same("update's success", answer.ok, true)
}

/// Compares files of the cgroup.
fn files(place: &Workplace, expected: &[(&str, &str)]) -> anyhow::Result<()> {
    for (name, expected) in expected {
        same(name, place.cgroup_file("c", name)?.as_str(), *expected)?;
    }
    Ok(())
}

fn given(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 64 * MIB });
        config["linux"]["resources"]["pids"] = json!({ "limit": 50 });
    })?;
    let memory = json!({ "limit": 96 * MIB, "reservation": 16 * MIB, "swap": 128 * MIB });
    well(&update(place, &json!({ "memory": memory }))?)?;
    let limit = (96 * MIB).to_string();
    let reservation = (16 * MIB).to_string();
    files(
        place,
        &[
            ("memory.max", &limit),
            ("memory.low", &reservation),
            ("pids.max", "50"),
            ("cpu.max", "max 100000"),
        ],
    )?;
    let cpu = json!({ "quota": 20000, "period": 50000, "shares": 2, "cpus": "0", "mems": "0" });
    well(&update(
        place,
        &json!({ "pids": { "limit": 60 }, "cpu": cpu }),
    )?)?;
    files(
        place,
        &[
            ("memory.max", &limit),
            ("memory.low", &reservation),
            ("pids.max", "60"),
            ("cpu.max", "20000 50000"),
            ("cpu.weight", "1"),
            ("cpuset.cpus", "0"),
            ("cpuset.mems", "0"),
        ],
    )?;
    let swap = format!("/sys/fs/cgroup{}/memory.swap.max", place.cgroup("c"));
    if fs::exists(swap)? {
        files(place, &[("memory.swap.max", &(32 * MIB).to_string())])?;
    }
    Ok(())
}

fn lifted(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |config| {
        config["linux"]["resources"]["memory"] = json!({ "limit": 64 * MIB });
        config["linux"]["resources"]["pids"] = json!({ "limit": 50 });
        config["linux"]["resources"]["cpu"] = json!({ "quota": 20000, "period": 50000 });
    })?;
    let resources = json!({ "memory": { "limit": -1 }, "pids": { "limit": -1 }, "cpu": { "quota": -1, "period": 100_000 } });
    well(&update(place, &resources)?)?;
    files(
        place,
        &[
            ("memory.max", "max"),
            ("pids.max", "max"),
            ("cpu.max", "max 100000"),
        ],
    )
}

fn standard_input(place: &Workplace) -> anyhow::Result<()> {
    let _container = running(place, |_| {})?;
    let mut call = place.spawn(
        "update",
        &["update", "--resources", "-", "c"],
        Stdio::piped(),
    )?;
    call.stdin()?
        .write_all(br#"{ "pids": { "limit": 70 } }"#)
        .context("write the resources")?;
    well(&call.finish()?)?;
    files(place, &[("pids.max", "70")])
}

/// Loop devices: without their driver opening one is ENXIO, when it is not allowed EPERM.
fn devices(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |config| {
        config["linux"]["resources"]["devices"] = json!([{ "allow": false, "access": "rwm" },
            { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "rw" }]);
        let some = ["CAP_MKNOD", "CAP_DAC_OVERRIDE"];
        config["process"]["capabilities"] =
            json!({ "bounding": some, "effective": some, "permitted": some });
    })?;
    let script = "for n in 0 1; do test -b /tmp/$n || mknod /tmp/$n b 7 $n; \
        dd if=/tmp/$n of=/dev/null count=0 2>&1; done; true";
    let rules_hold = || {
        let answer = container.exec(&["sh", "-c", script])?.stdout;
        contains(
            "opening what is allowed",
            &answer,
            "/tmp/0': No such device",
        )?;
        contains(
            "opening what is not",
            &answer,
            "/tmp/1': Operation not permitted",
        )
    };
    rules_hold()?;
    well(&update(place, &json!({ "pids": { "limit": 50 } }))?)?;
    rules_hold()
}

fn refused(place: &Workplace) -> anyhow::Result<()> {
    let container = running(place, |_| {})?;
    for (resources, reason) in [
        (
            json!({ "memory": { "swappiness": 10 } }),
            "linux.resources.memory.swappiness",
        ),
        (
            json!({ "devices": [{ "allow": true, "access": "rwm" }] }),
            "linux.resources.devices",
        ),
        (
            json!({ "memory": { "swap": MIB } }),
            "swap limit without memory limit",
        ),
        (json!({ "pids": { "limit": "many" } }), "resources.json"),
        (
            json!({ "unified": { "no.such.file": "1" } }),
            "no.such.file",
        ),
        (json!(7), "not an object"),
    ] {
        let answer = update(place, &resources)?;
        same(&format!("success of {resources}"), answer.ok, false)?;
        contains("the reason", &answer.stderr, reason)?;
    }
    place.call(&["kill", "c", "KILL"])?;
    container.wait()?;
    let answer = update(place, &json!({ "memory": { "limit": 64 * MIB } }))?;
    contains("the reason", &answer.stderr, "Stopped, not running")
}
