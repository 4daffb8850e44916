//! Device nodes and the rules about them.

use serde_json::{Value, json};

use crate::container::{Workplace, contains, same};
use crate::suite::{Case, Need};

/// A loop device: without its driver opening it is ENXIO, when it is not allowed EPERM.
const OPEN_LOOP: &str = "mknod /tmp/loop b 7 0 && dd if=/tmp/loop of=/dev/null count=0 2>&1; dd if=/dev/zero of=/tmp/loop count=1 conv=notrunc 2>&1; true";
const FORBIDDEN: &str = "Operation not permitted";
const NO_DEVICE: &str = "No such device";

pub(super) const CASES: &[Case] = &[
    Case {
        name: "a-device-that-is-not-allowed-cannot-be-opened",
        needs: &[],
        run: denied,
    },
    Case {
        name: "without-rules-only-the-standard-devices-can-be-opened",
        needs: &[Need::Keelson],
        run: no_rules,
    },
    Case {
        name: "an-allowed-device-can-be-opened",
        needs: &[],
        run: allowed,
    },
    Case {
        name: "a-device-allowed-for-reading-cannot-be-written",
        needs: &[],
        run: read_only,
    },
    Case {
        name: "allowing-all-devices-allows-all",
        needs: &[],
        run: all_allowed,
    },
    Case {
        name: "the-standard-devices-and-links-are-there",
        needs: &[],
        run: standard,
    },
    Case {
        name: "device-nodes-have-the-mode-and-owner-asked-for",
        needs: &[],
        run: nodes,
    },
    Case {
        name: "a-node-without-a-mode-can-be-used",
        needs: &[],
        run: default_mode,
    },
    Case {
        name: "the-hosts-dev-is-left-as-it-is",
        needs: &[],
        run: host_dev,
    },
    Case {
        name: "a-read-only-dev-cannot-be-written",
        needs: &[],
        run: read_only_dev,
    },
];

fn with_rules(place: &Workplace, script: &str, rules: Value) -> Value {
    let mut config = place.config(script);
    let some = ["CAP_MKNOD", "CAP_DAC_OVERRIDE"];
    config["process"]["capabilities"] = json!({ "bounding": some, "effective": some, "permitted": some, "inheritable": [], "ambient": [] });
    config["linux"]["resources"]["devices"] = rules;
    config
}

fn denied(place: &Workplace) -> anyhow::Result<()> {
    let text = place.print(&with_rules(
        place,
        OPEN_LOOP,
        json!([{ "allow": false, "access": "rwm" }]),
    ))?;
    contains("opening", &text, FORBIDDEN)?;
    same(
        "it got as far as the device",
        text.contains(NO_DEVICE),
        false,
    )
}

fn no_rules(place: &Workplace) -> anyhow::Result<()> {
    for resources in [json!({}), json!(null)] {
        let mut config = with_rules(place, OPEN_LOOP, json!(null));
        config["linux"]["resources"] = resources;
        contains("opening", &place.print(&config)?, FORBIDDEN)?;
    }
    Ok(())
}

fn allowed(place: &Workplace) -> anyhow::Result<()> {
    let rules = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "b", "major": 7, "minor": 0, "access": "rwm" }]);
    let text = place.print(&with_rules(place, OPEN_LOOP, rules))?;
    same("opening is forbidden", text.contains(FORBIDDEN), false)?;
    contains("opening", &text, NO_DEVICE)
}

fn read_only(place: &Workplace) -> anyhow::Result<()> {
    let rules = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "b", "major": 7, "access": "rm" }]);
    let text = place.print(&with_rules(place, OPEN_LOOP, rules))?;
    contains("reading", &text, NO_DEVICE)?;
    contains("writing", &text, FORBIDDEN)
}

fn all_allowed(place: &Workplace) -> anyhow::Result<()> {
    let text = place.print(&with_rules(
        place,
        OPEN_LOOP,
        json!([{ "allow": true, "access": "rwm" }]),
    ))?;
    same("opening is forbidden", text.contains(FORBIDDEN), false)?;
    contains("opening", &text, NO_DEVICE)
}

fn standard(place: &Workplace) -> anyhow::Result<()> {
    let script = "for n in null zero full random urandom tty; do test -c /dev/$n && echo $n; done; \
        for l in fd stdin stdout stderr ptmx; do echo $l=$(readlink /dev/$l); done; \
        echo x >/dev/null && echo null-works; dd if=/dev/zero bs=3 count=1 2>/dev/null | wc -c; dd if=/dev/urandom bs=4 count=1 2>/dev/null | wc -c";
    let mut config = place.config(script);
    config["process"]["user"] = json!({ "uid": 1000, "gid": 1000 });
    let text = place.print(&config)?;
    for line in [
        "null",
        "zero",
        "full",
        "random",
        "urandom",
        "tty",
        "fd=/proc/self/fd",
        "stdin=/proc/self/fd/0",
        "stdout=/proc/self/fd/1",
        "stderr=/proc/self/fd/2",
        "ptmx=pts/ptmx",
        "null-works",
        "3",
        "4",
    ] {
        same(
            &format!("line {line}"),
            text.lines().any(|found| found == line),
            true,
        )?;
    }
    Ok(())
}

fn nodes(place: &Workplace) -> anyhow::Result<()> {
    let rules = json!([{ "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }]);
    let mut config = with_rules(place, "stat -c '%a %u %g %t %T %F' /dev/below/fuse", rules);
    config["linux"]["devices"] = json!([
        { "path": "/dev/below/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 432, "uid": 5, "gid": 6 }]);
    same(
        "the node",
        place.print(&config)?.as_str(),
        "660 5 6 a e5 character special file",
    )
}

fn default_mode(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("stat -c %a /dev/mine");
    config["linux"]["devices"] =
        json!([{ "path": "/dev/mine", "type": "c", "major": 1, "minor": 3 }]);
    same("mode", place.print(&config)?.as_str(), "666")
}

/// What `stat` says of the host's nodes that runtimes like to replace.
fn host_nodes() -> anyhow::Result<Vec<String>> {
    ["/dev/ptmx", "/dev/null", "/dev/fd", "/dev/console"]
        .iter()
        .map(|path| match std::fs::symlink_metadata(path) {
            Ok(data) => Ok(format!("{path} {:?}", data.file_type())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                Ok(format!("{path} missing"))
            }
            Err(error) => Err(error.into()),
        })
        .collect()
}

fn host_dev(place: &Workplace) -> anyhow::Result<()> {
    let before = host_nodes()?;
    let script = "test -c /dev/null && echo null; grep ' /dev/shm ' /proc/self/mountinfo; ls /dev; ls /dev/shm; touch /dev/shm/own && echo own";
    let mut config = place.config(script);
    std::fs::create_dir_all("/dev/shm")?;
    config["mounts"] = json!([
        { "destination": "/proc", "type": "proc", "source": "proc" },
        { "destination": "/dev", "type": "bind", "source": "/dev", "options": ["rbind", "rprivate"] },
        { "destination": "/dev/shm", "type": "tmpfs", "source": "shm", "options": ["size=64k"] }]);
    let text = place.print(&config)?;
    same("the host's nodes", host_nodes()?, before)?;
    contains("output", &text, "null")?;
    contains("the devices", &text, "urandom")?;
    contains("the own mount below", &text, "size=64k")?;
    same(
        "the file reached the host",
        std::fs::exists("/dev/shm/own")?,
        false,
    )
}

fn read_only_dev(place: &Workplace) -> anyhow::Result<()> {
    let mut config = place.config("touch /dev/new 2>&1; echo x >/dev/null && echo null-works");
    if let Some(options) = config["mounts"][1]["options"].as_array_mut() {
        options.push("ro".into());
    }
    let text = place.print(&config)?;
    contains("writing", &text, "Read-only file system")?;
    contains("output", &text, "null-works")
}
