use super::*;
use crate::compose::Environment;
use crate::compose::load::parse;
use std::path::PathBuf;

const PROFILE: &[u8] = br#"{"defaultAction": "SCMP_ACT_ERRNO", "archMap": [], "syscalls": []}"#;

fn config(body: &str) -> Config {
    let text = format!("services:\n  web:\n    image: keelson/web\n    command: [run]\n{body}");
    let definition = parse(Path::new("web.yml"), &text, &Environment::default())
        .unwrap()
        .remove(0);
    let host = Host {
        image: Path::new("/nonexistent"),
        rootfs: Path::new("/run/x/rootfs"),
        notify: Path::new("/run/x/notify"),
        network: None,
        files: &[],
        seccomp: Some(PROFILE),
        limits: true,
    };
    build(&definition, &host).unwrap()
}

fn mount_of<'a>(json: &'a Value, target: &str) -> Option<&'a Value> {
    json["mounts"]
        .as_array()
        .unwrap()
        .iter()
        .find(|mount| mount["destination"] == target)
}

fn kinds(json: &Value) -> Vec<String> {
    let list = json["linux"]["namespaces"].as_array().unwrap();
    list.iter()
        .map(|item| item["type"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn nothing_is_given_that_was_not_asked_for() {
    let json = config("").json;
    for set in [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ] {
        assert_eq!(json["process"]["capabilities"][set], json!([]), "{set}");
    }
    assert_eq!(json["process"]["noNewPrivileges"], true);
    assert_eq!(
        kinds(&json),
        ["mount", "pid", "ipc", "uts", "cgroup", "network"]
    );
    assert_eq!(
        json["linux"]["resources"]["devices"][0],
        json!({ "allow": false, "access": "rwm" })
    );
    assert!(json["linux"]["seccomp"].is_object());
    assert!(
        json["linux"]["maskedPaths"]
            .as_array()
            .unwrap()
            .contains(&json!("/proc/kcore"))
    );
    assert_eq!(json["linux"]["cgroupsPath"], "/system/web");
    assert_eq!(json["hostname"], "web");
    let options = &mount_of(&json, "/sys").unwrap()["options"];
    assert!(
        options.as_array().unwrap().contains(&json!("ro")),
        "{options}"
    );
}

#[test]
fn capabilities_are_the_same_in_every_set() {
    let json = config("    cap_add: [SYS_TIME, NET_ADMIN]\n").json;
    for set in [
        "bounding",
        "effective",
        "permitted",
        "inheritable",
        "ambient",
    ] {
        assert_eq!(
            json["process"]["capabilities"][set],
            json!(["CAP_NET_ADMIN", "CAP_SYS_TIME"]),
            "{set}"
        );
    }
}

#[test]
fn privileged_has_everything_and_still_its_own_namespaces() {
    let json =
        config("    privileged: true\n    network_mode: host\n    cgroup_parent: user\n").json;
    assert_eq!(
        json["process"]["capabilities"]["effective"]
            .as_array()
            .unwrap()
            .len(),
        CAPABILITIES.len()
    );
    assert_eq!(json["process"]["noNewPrivileges"], false);
    assert_eq!(
        json["linux"]["resources"]["devices"],
        json!([{ "allow": true, "access": "rwm" }])
    );
    assert!(json["linux"].get("seccomp").is_none() && json["linux"].get("maskedPaths").is_none());
    assert_eq!(kinds(&json), ["mount", "pid", "ipc", "uts", "cgroup"]);
    assert_eq!(json["linux"]["cgroupsPath"], "/user/web");
    let options = &mount_of(&json, "/sys/fs/cgroup").unwrap()["options"];
    assert!(
        options.as_array().unwrap().contains(&json!("rw")),
        "{options}"
    );
    assert_eq!(mount_of(&json, "/dev").unwrap()["type"], "bind");
}

#[test]
fn a_volume_takes_the_place_of_a_standard_mount() {
    let json = config("    volumes: [\"/dev:/dev\", \"/sys:/sys:ro\"]\n    tmpfs: [\"/run:size=1m,mode=700,exec\"]\n").json;
    assert_eq!(mount_of(&json, "/dev").unwrap()["source"], "/dev");
    assert!(mount_of(&json, "/dev/pts").is_none());
    assert_eq!(
        mount_of(&json, "/sys").unwrap()["options"],
        json!(["rbind", "rprivate", "ro"])
    );
    assert_eq!(mount_of(&json, "/sys/fs/cgroup").unwrap()["type"], "cgroup");
    assert_eq!(
        mount_of(&json, "/run").unwrap()["options"],
        json!(["nosuid", "nodev", "size=1m", "mode=700", "exec"])
    );
    let targets: Vec<PathBuf> = mounts::targets(&json)
        .into_iter()
        .map(|(path, _)| path.into())
        .collect();
    for (index, target) in targets.iter().enumerate() {
        let later = &targets[index..];
        assert!(
            !later
                .iter()
                .any(|other| target.starts_with(other) && target != other),
            "{target:?}: {targets:?}"
        );
    }
}

#[test]
fn devices_are_looked_up_and_a_missing_one_is_left_out() {
    let config = config(
        "    devices: [\"/dev/null:/dev/zero:r\", /dev/nonexistent]\n    device_cgroup_rules: [\"c 4:* rw\"]\n",
    );
    assert_eq!(config.json["linux"]["devices"].as_array().unwrap().len(), 1);
    assert_eq!(config.json["linux"]["devices"][0]["path"], "/dev/zero");
    let rules = config.json["linux"]["resources"]["devices"]
        .as_array()
        .unwrap();
    assert!(
        rules.contains(
            &json!({ "allow": true, "type": "c", "access": "r", "major": 1, "minor": 3 })
        )
    );
    assert!(rules.contains(&json!({ "allow": true, "type": "c", "access": "rw", "major": 4 })));
    assert_eq!(config.warnings.len(), 1);
    assert!(config.warnings[0].contains("/dev/nonexistent"));
}

#[test]
fn limits_become_resources() {
    let json = config("    mem_limit: 64m\n    pids_limit: 9\n    cpus: 1.5\n    ulimits: {nofile: 1024, nproc: -1}\n").json;
    let resources = &json["linux"]["resources"];
    assert_eq!(resources["memory"], json!({ "limit": 64 << 20 }));
    assert_eq!(resources["pids"]["limit"], 9);
    assert_eq!(
        resources["cpu"],
        json!({ "period": 100_000, "quota": 150_000 })
    );
    assert_eq!(
        json["process"]["rlimits"][1],
        json!({ "type": "RLIMIT_NPROC", "soft": u64::MAX, "hard": u64::MAX })
    );
}

#[test]
fn the_environment_is_what_was_given_and_a_few_defaults() {
    let json = config("    environment: [PATH=/x, A=b]\n    x-keelson: {watchdog: 2s}\n").json;
    let expected = json!([
        "NOTIFY_SOCKET=/run/keelson-notify/notify.sock",
        "WATCHDOG_USEC=2000000",
        "HOME=/root",
        "A=b",
        "PATH=/x"
    ]);
    assert_eq!(json["process"]["env"], expected);
}
