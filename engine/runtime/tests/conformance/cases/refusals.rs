//! What keelson-runtime cannot enforce it refuses, by name, and leaves nothing behind.

use std::fs;

use serde_json::json;

use crate::container::{Workplace, contains, same};
use crate::suite::{Case, Need};

pub(super) const CASES: &[Case] = &[
    Case {
        name: "what-cannot-be-enforced-is-refused-by-name",
        needs: &[Need::Keelson],
        run: refusals,
    },
    Case {
        name: "a-broken-configuration-is-an-error-with-its-place",
        needs: &[Need::Keelson],
        run: broken,
    },
    Case {
        name: "errors-are-one-line-on-stderr-or-in-the-log",
        needs: &[Need::Keelson],
        run: one_line,
    },
];

fn refusals(place: &Workplace) -> anyhow::Result<()> {
    for (pointer, value, reason) in [
        (
            "/hooks",
            json!({ "poststop": [{ "path": "/bin/true" }] }),
            "hooks",
        ),
        (
            "/linux/namespaces/6",
            json!({ "type": "user" }),
            "user and time namespaces",
        ),
        (
            "/linux/resources/memory",
            json!({ "swappiness": 10 }),
            "swappiness",
        ),
        (
            "/linux/resources/network",
            json!({ "classID": 7 }),
            "linux.resources.network",
        ),
        (
            "/linux/resources/devices",
            json!([{ "allow": true, "major": 7, "minor": 0 }]),
            "devices[0]",
        ),
        ("/linux/cgroupsPath", json!("../escape"), "cgroupsPath"),
        ("/process/selinuxLabel", json!("label"), "SELinux"),
        (
            "/process/capabilities",
            json!({ "bounding": ["CAP_FLY"] }),
            "CAP_FLY",
        ),
        (
            "/mounts/0/uidMappings",
            json!([{ "containerID": 0, "hostID": 1, "size": 1 }]),
            "idmapped",
        ),
        ("/process/terminal", json!(true), "--console-socket"),
    ] {
        let mut config = place.config("true");
        if let Some((parent, index)) = pointer.rsplit_once('/') {
            match config
                .pointer_mut(parent)
                .map(|parent| (parent.is_array(), parent))
            {
                Some((true, parent)) => parent
                    .as_array_mut()
                    .into_iter()
                    .for_each(|all| all.push(value.clone())),
                Some((false, parent)) => parent[index] = value.clone(),
                None => anyhow::bail!("no {parent} in the configuration"),
            }
        }
        let said = place.refusal(&config)?;
        contains(pointer, &said.to_lowercase(), &reason.to_lowercase())?;
        same(
            &format!("records after {pointer}"),
            fs::exists(place.directory.join("records/c"))?,
            false,
        )?;
    }
    Ok(())
}

fn broken(place: &Workplace) -> anyhow::Result<()> {
    let bundle = place.directory.join("bundle");
    fs::write(bundle.join("config.json"), "{\n  \"root\": oops\n}")?;
    let answer = place.call(&["create", "--bundle", &bundle.to_string_lossy(), "c"])?;
    contains("the message", &answer.stderr, "config.json")?;
    contains("the message", &answer.stderr, "line 2")
}

fn one_line(place: &Workplace) -> anyhow::Result<()> {
    let bundle = place.directory.join("bundle");
    let mut config = place.config("true");
    config["root"]["path"] = "no-such-root".into();
    fs::write(bundle.join("config.json"), config.to_string())?;
    let log = place.directory.join("log");
    let bundle = bundle.to_string_lossy();
    let answer = place.call(&["create", "--bundle", &bundle, "c"])?;
    same("exit status", answer.code, 1)?;
    same("lines", answer.stderr.lines().count(), 1)?;
    let message = answer
        .stderr
        .strip_prefix("keelson-runtime: ")
        .unwrap_or_default();
    contains("the message", message, "create c: ")?;
    // With a log, stderr is left to the container.
    let logged = place.call(&[
        "--log",
        &log.to_string_lossy(),
        "create",
        "--bundle",
        &bundle,
        "c",
    ])?;
    same("exit status with a log", logged.code, 1)?;
    same("stderr with a log", logged.stderr.as_str(), "")?;
    let entry: serde_json::Value = serde_json::from_str(fs::read_to_string(&log)?.trim())?;
    same("the log", entry["msg"].as_str(), Some(message))
}
