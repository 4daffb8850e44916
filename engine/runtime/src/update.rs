//! `update`: other limits for a container that exists.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, bail};
use libcgroups::common::{CgroupConfig, CgroupManager as _, ControllerOpt, create_cgroup_manager};
use libcontainer::container::ContainerStatus;
use libcontainer::oci_spec::runtime::LinuxResources;
use serde_json::Value;

use crate::arguments::UpdateOptions;
use crate::cgroup::Cgroup;
use crate::config;
use crate::record::{load, saved_config};

/// Sets the limits that are given, and leaves the others as they are.
///
/// # Errors
/// Names the limit that is not supported or that the kernel refuses; limits before it may be set by then.
pub(crate) fn update(root: &Path, options: &UpdateOptions) -> anyhow::Result<()> {
    let existing = load(root, &options.id)?;
    let status = existing.container.status();
    if matches!(status, ContainerStatus::Stopped | ContainerStatus::Creating) {
        bail!("the container is {status}, not running");
    }
    let saved = saved_config(root, &options.id)?;
    let resources = explicit(read(&options.resources)?, &saved)
        .with_context(|| options.resources.display().to_string())?;
    let manager = create_cgroup_manager(CgroupConfig {
        cgroup_path: Cgroup::of(&saved)?.path().into(),
        systemd_cgroup: false,
        container_name: options.id.clone(),
    })
    .context("open the container's cgroup")?;
    manager
        .apply(&ControllerOpt {
            resources: &resources,
            freezer_state: None,
            oom_score_adj: None,
            disable_oom_killer: false,
        })
        .context("change the container's cgroup")
}

/// From a file, or from standard input when that is `-`.
fn read(path: &Path) -> anyhow::Result<Value> {
    let mut text = String::new();
    if path == Path::new("-") {
        std::io::stdin()
            .read_to_string(&mut text)
            .context("read standard input")?;
    } else {
        text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    }
    serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

fn explicit(mut resources: Value, saved: &Value) -> anyhow::Result<LinuxResources> {
    if !resources.is_object() {
        bail!("it is not an object with resources");
    }
    config::unsupported_update(&resources)?;
    // The manager puts the device filter on anew each time: without rules it would be a stricter one.
    resources["devices"] = saved["linux"]["resources"]["devices"].clone();
    Ok(serde_json::from_value(resources)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn saved() -> Value {
        json!({ "linux": { "resources": { "memory": { "limit": 5 }, "devices": [
            { "allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw" }] } } })
    }

    #[test]
    fn limits_are_those_given_and_device_rules_stay() {
        let resources = explicit(json!({ "pids": { "limit": 7 } }), &saved()).unwrap();
        assert_eq!(resources.pids().as_ref().unwrap().limit(), 7);
        assert_eq!(resources.devices().as_ref().unwrap().len(), 1);
        assert!(resources.memory().is_none());
    }

    #[test]
    fn what_cannot_be_changed_is_refused_by_name() {
        for (resources, expected) in [
            (json!([]), "not an object"),
            (
                json!({ "devices": [{ "allow": true, "access": "rwm" }] }),
                "linux.resources.devices",
            ),
            (
                json!({ "memory": { "swappiness": 5 } }),
                "linux.resources.memory.swappiness",
            ),
            (json!({ "pids": { "limit": "many" } }), "\"many\""),
        ] {
            let error = format!("{:#}", explicit(resources, &saved()).unwrap_err());
            assert!(error.contains(expected), "{error}");
        }
    }
}
