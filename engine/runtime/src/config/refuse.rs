//! Settings that libcontainer 0.7 reads and does not enforce: an error instead of a false sense of safety.
//! Unknown properties are ignored, as the specification demands.

use anyhow::{Context as _, bail};
use libseccomp::ScmpSyscall;
use serde_json::{Value, json};

/// Settings that must be absent, null, false, 0 or empty, and why.
const NOT_ENFORCED: &[(&str, &str)] = &[
    ("/hooks", "hooks are not supported"),
    ("/vm", "not a virtual machine runtime"),
    ("/windows", "not a Windows runtime"),
    ("/linux/uidMappings", "user namespaces are not supported"),
    ("/linux/gidMappings", "user namespaces are not supported"),
    ("/linux/timeOffsets", "time namespaces are not supported"),
    ("/linux/netDevices", "network devices are not supported"),
    ("/linux/intelRdt", "Intel RDT is not supported"),
    ("/linux/memoryPolicy", "memory policies are not supported"),
    ("/linux/mountLabel", "SELinux is not supported"),
    (
        "/linux/seccomp/listenerPath",
        "seccomp notification is not supported",
    ),
    (
        "/linux/resources/network",
        "cgroup v2 has no network controller",
    ),
    ("/linux/resources/rdma", "RDMA limits are not enforced"),
    (
        "/linux/resources/memory/kernel",
        "cgroup v2 has no kernel memory limit of its own",
    ),
    (
        "/linux/resources/memory/kernelTCP",
        "cgroup v2 has no TCP memory limit of its own",
    ),
    (
        "/linux/resources/memory/swappiness",
        "cgroup v2 has no swappiness of its own",
    ),
    (
        "/linux/resources/memory/disableOOMKiller",
        "cgroup v2 cannot disable the OOM killer",
    ),
    ("/linux/resources/memory/checkBeforeUpdate", "not enforced"),
    (
        "/linux/resources/cpu/realtimeRuntime",
        "cgroup v2 has no realtime limits",
    ),
    (
        "/linux/resources/cpu/realtimePeriod",
        "cgroup v2 has no realtime limits",
    ),
];

/// Device numbers that libcontainer always allows: a rule that denies one would have no effect.
const ACCESS_LETTERS: &str = "rwm";

/// Checks a whole configuration except its mounts.
///
/// # Errors
/// Names the first setting that would not be enforced.
pub(super) fn unsupported(config: &Value) -> anyhow::Result<()> {
    for part in ["root", "process", "linux"] {
        if !config[part].is_object() {
            bail!("{part} is missing");
        }
    }
    refuse_present(config, NOT_ENFORCED)?;
    namespaces(&config["linux"]["namespaces"])?;
    let rules = config["linux"]["resources"]["devices"].as_array();
    for (index, rule) in rules.into_iter().flatten().enumerate() {
        device_rule(rule).with_context(|| format!("linux.resources.devices[{index}]"))?;
    }
    for (index, device) in config["linux"]["devices"]
        .as_array()
        .into_iter()
        .flatten()
        .enumerate()
    {
        if !matches!(device["type"].as_str(), Some("b" | "c" | "u" | "p")) {
            bail!("linux.devices[{index}].type must be one of b, c, u, p");
        }
    }
    seccomp(&config["linux"]["seccomp"])
}

/// Checks a `process` object.
///
/// # Errors
/// Names the first setting that would not be enforced.
pub(super) fn unsupported_process(process: &Value) -> anyhow::Result<()> {
    if process["args"].as_array().is_none_or(Vec::is_empty) {
        bail!("process.args is missing or empty");
    }
    if !process["cwd"]
        .as_str()
        .is_some_and(|cwd| cwd.starts_with('/'))
    {
        bail!("process.cwd is not an absolute path");
    }
    refuse_present(process, &[("/selinuxLabel", "SELinux is not supported")]).context("process")
}

/// Checks the resources that `update` is given.
///
/// # Errors
/// Names the first setting that would not be changed.
pub(crate) fn unsupported_update(resources: &Value) -> anyhow::Result<()> {
    let config = json!({ "linux": { "resources": resources } });
    refuse_present(&config, NOT_ENFORCED)?;
    let devices = (
        "/linux/resources/devices",
        "device rules stay as they were created",
    );
    refuse_present(&config, &[devices])
}

fn refuse_present(object: &Value, settings: &[(&str, &str)]) -> anyhow::Result<()> {
    for (pointer, reason) in settings {
        if object.pointer(pointer).is_some_and(is_set) {
            bail!(
                "{}: {reason}",
                pointer.trim_start_matches('/').replace('/', ".")
            );
        }
    }
    Ok(())
}

fn is_set(value: &Value) -> bool {
    match value {
        Value::Null => false,
        Value::Bool(value) => *value,
        Value::Number(value) => value.as_f64() != Some(0.0),
        Value::String(value) => !value.is_empty(),
        Value::Array(values) => !values.is_empty(),
        Value::Object(values) => values.values().any(is_set),
    }
}

fn namespaces(namespaces: &Value) -> anyhow::Result<()> {
    let namespaces = namespaces
        .as_array()
        .context("linux.namespaces is missing")?;
    let has_path = |namespace: &Value| {
        namespace["path"]
            .as_str()
            .is_some_and(|path| !path.is_empty())
    };
    let mut own_mounts = false;
    for namespace in namespaces {
        match namespace["type"].as_str() {
            Some("user" | "time") => {
                bail!("linux.namespaces: user and time namespaces are not supported")
            }
            Some("mount") if has_path(namespace) => {
                bail!("linux.namespaces: joining a mount namespace is not supported")
            }
            Some("mount") => own_mounts = true,
            _ => {}
        }
    }
    if !own_mounts {
        bail!("linux.namespaces: a mount namespace is required");
    }
    Ok(())
}

/// The device filter takes the last rule that matches *all* of the access asked for, and rules of type `a`
/// for everything whatever numbers they carry. So a rule that denies `w` would let `rw` pass, and `a` with
/// numbers would open every device: only "deny all", "allow all" and allowed devices are exact.
fn device_rule(rule: &Value) -> anyhow::Result<()> {
    let all = matches!(rule["type"].as_str(), None | Some("a"));
    let number = |key: &str| rule[key].as_i64().is_some_and(|number| number >= 0);
    let access = rule["access"].as_str();
    if all {
        if number("major") || number("minor") {
            bail!("a rule for all types must not name a device number: give its type");
        }
        if access
            .is_some_and(|access| !ACCESS_LETTERS.chars().all(|letter| access.contains(letter)))
        {
            bail!("a rule for all devices must be for all access (rwm)");
        }
        return Ok(());
    }
    if rule["allow"] != Value::Bool(true) {
        bail!("only \"deny all\" followed by allowed devices can be enforced");
    }
    match access {
        Some(access) if !access.is_empty() => Ok(()),
        _ => bail!("access is missing"),
    }
}

/// libcontainer skips system calls it does not know. In a rule that allows this is harmless; in one that
/// forbids, on top of a default that allows, it would be a hole.
fn seccomp(profile: &Value) -> anyhow::Result<()> {
    let permits =
        |action: &Value| matches!(action.as_str(), Some("SCMP_ACT_ALLOW" | "SCMP_ACT_LOG"));
    let default_permits = permits(&profile["defaultAction"]);
    for rule in profile["syscalls"].as_array().into_iter().flatten() {
        if rule["action"] == "SCMP_ACT_NOTIFY" {
            bail!("linux.seccomp: SCMP_ACT_NOTIFY is not supported");
        }
        if !default_permits || permits(&rule["action"]) {
            continue;
        }
        for name in rule["names"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
        {
            if ScmpSyscall::from_name(name).is_err() {
                bail!("linux.seccomp: unknown system call {name:?} cannot be forbidden");
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(pointer: &[&str], value: Value) -> Value {
        let mut config = json!({
            "root": {}, "process": {}, "linux": { "namespaces": [{ "type": "mount" }] },
        });
        let mut place = &mut config;
        for part in pointer {
            place = &mut place[*part];
        }
        *place = value;
        config
    }

    #[test]
    fn settings_that_would_be_ignored_are_refused_by_name() {
        for (pointer, value, expected) in [
            (
                &["hooks"][..],
                json!({ "poststop": [{ "path": "/x" }] }),
                "hooks",
            ),
            (
                &["linux", "resources", "memory", "swappiness"],
                json!(60),
                "linux.resources.memory.swappiness",
            ),
            (
                &["linux", "resources", "network", "classID"],
                json!(1),
                "linux.resources.network",
            ),
            (
                &["linux", "namespaces"],
                json!([{ "type": "pid" }]),
                "mount namespace is required",
            ),
            (
                &["linux", "namespaces"],
                json!([{ "type": "mount" }, { "type": "user" }]),
                "user and time",
            ),
            (
                &["linux", "seccomp"],
                json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls":
                [{ "names": ["no_such_call"], "action": "SCMP_ACT_ERRNO" }] }),
                "no_such_call",
            ),
            (
                &["linux", "resources", "devices"],
                json!([{ "allow": true, "major": 10, "minor": 229 }]),
                "give its type",
            ),
            (
                &["linux", "resources", "devices"],
                json!([{ "allow": false, "type": "c", "access": "w" }]),
                "deny all",
            ),
            (
                &["linux", "resources", "devices"],
                json!([{ "allow": false, "access": "w" }]),
                "all access",
            ),
            (
                &["linux", "resources", "devices"],
                json!([{ "allow": true, "type": "c" }]),
                "access is missing",
            ),
        ] {
            let error = format!("{:#}", unsupported(&with(pointer, value)).unwrap_err());
            assert!(error.contains(expected), "{pointer:?}: {error}");
        }
    }

    #[test]
    fn neutral_values_and_what_is_enforced_pass() {
        for (pointer, value) in [
            (&["hooks"][..], json!({ "prestart": [] })),
            (
                &["linux", "resources", "memory"],
                json!({ "limit": 1, "swappiness": null, "disableOOMKiller": false }),
            ),
            (
                &["linux", "resources", "devices"],
                json!([
                { "allow": false, "access": "rwm" }, { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }]),
            ),
            (
                &["linux", "seccomp"],
                json!({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls":
                [{ "names": ["no_such_call"], "action": "SCMP_ACT_ALLOW" }] }),
            ),
            (&["somethingNew"], json!(true)),
        ] {
            unsupported(&with(pointer, value)).unwrap();
        }
    }
}
