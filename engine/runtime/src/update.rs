//! `update`: other limits for a container that runs.
//!
//! libcgroups could apply a `linux.resources` object too, but would add a device filter for the devices that it does not
//! name. The files and their units are those of the kernel's cgroup-v2 document.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, bail};
use serde_json::Value;

use crate::lifecycle::cgroup_of;
use crate::record::{bundle_directory, load};

/// The period of a quota when none is given, in microseconds.
const PERIOD_US: u64 = 100_000;

/// Changes the limits that `resources`, a file with an OCI `linux.resources` object, names.
///
/// # Errors
/// When there is no such container, a key is not known here, or the kernel refuses a value; what was written before
/// that stays.
pub(crate) fn update(root: &Path, id: &str, resources: &Path) -> anyhow::Result<()> {
    load(root, id)?;
    let text =
        fs::read_to_string(resources).with_context(|| format!("read {}", resources.display()))?;
    let resources: Value =
        serde_json::from_str(&text).with_context(|| format!("parse {}", resources.display()))?;
    let config = bundle_directory(root, id).join("config.json");
    let config =
        fs::read_to_string(&config).with_context(|| format!("read {}", config.display()))?;
    let cgroup = cgroup_of(&config)?;
    for (file, value) in writes(&resources)? {
        let path = cgroup.join(file);
        fs::write(&path, &value).with_context(|| format!("write {value} to {}", path.display()))?;
    }
    Ok(())
}

/// What is written to which file, in an order in which raising and lowering both work.
fn writes(resources: &Value) -> anyhow::Result<Vec<(&'static str, String)>> {
    let known = [
        "/memory/limit",
        "/memory/reservation",
        "/memory/swap",
        "/pids/limit",
        "/cpu/shares",
        "/cpu/quota",
        "/cpu/period",
        "/cpu/cpus",
        "/cpu/mems",
    ];
    for (group, keys) in resources
        .as_object()
        .context("the resources are not an object")?
    {
        for key in keys
            .as_object()
            .with_context(|| format!("{group} is not an object"))?
            .keys()
        {
            if !known.contains(&format!("/{group}/{key}").as_str()) {
                bail!("{group}.{key} cannot be changed");
            }
        }
    }
    let number = |path: &str| resources.pointer(path).and_then(Value::as_i64);
    let text = |path: &str| resources.pointer(path).and_then(Value::as_str);
    let limit = |value: i64| match value {
        ..=-1 => "max".to_owned(),
        value => value.to_string(),
    };
    let mut writes = Vec::new();
    // The runtime specification counts memory and swap together, the kernel swap alone.
    match (number("/memory/swap"), number("/memory/limit")) {
        (Some(-1), _) => writes.push(("memory.swap.max", "max".to_owned())),
        (Some(both), Some(memory)) if both >= memory => {
            writes.push(("memory.swap.max", (both - memory).to_string()));
        }
        (Some(both), Some(memory)) => bail!("memory.swap {both} is below memory.limit {memory}"),
        (Some(_), None) => bail!("memory.swap needs memory.limit"),
        (None, _) => {}
    }
    writes.extend(number("/memory/limit").map(|bytes| ("memory.max", limit(bytes))));
    writes.extend(number("/memory/reservation").map(|bytes| ("memory.low", limit(bytes.max(0)))));
    writes.extend(number("/pids/limit").map(|count| ("pids.max", limit(count))));
    writes.extend(number("/cpu/shares").map(|shares| ("cpu.weight", weight(shares).to_string())));
    if let Some(quota) = number("/cpu/quota") {
        let period = number("/cpu/period").and_then(|period| u64::try_from(period).ok());
        let period = period.unwrap_or(PERIOD_US);
        writes.push(("cpu.max", format!("{} {period}", limit(quota))));
    }
    writes.extend(text("/cpu/cpus").map(|set| ("cpuset.cpus", set.to_owned())));
    writes.extend(text("/cpu/mems").map(|set| ("cpuset.mems", set.to_owned())));
    Ok(writes)
}

/// From shares (2 to 262144, 1024 is usual) to a weight (1 to 10000), as every runtime converts them.
fn weight(shares: i64) -> i64 {
    let shares = shares.clamp(2, 262_144);
    1 + (shares - 2) * 9999 / 262_142
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn resources_become_the_kernels_files() {
        let resources = json!({
            "memory": {"limit": 100, "swap": 150, "reservation": 50}, "pids": {"limit": -1},
            "cpu": {"shares": 1024, "quota": 5000, "cpus": "0-1"},
        });
        let expected = [
            ("memory.swap.max", "50"),
            ("memory.max", "100"),
            ("memory.low", "50"),
            ("pids.max", "max"),
            ("cpu.weight", "39"),
            ("cpu.max", "5000 100000"),
            ("cpuset.cpus", "0-1"),
        ];
        let writes = writes(&resources).unwrap();
        let writes: Vec<_> = writes
            .iter()
            .map(|(file, value)| (*file, value.as_str()))
            .collect();
        assert_eq!(writes, expected);
    }

    #[test]
    fn what_cannot_be_changed_is_refused() {
        for (resources, words) in [
            (
                json!({ "devices": {"x": 1} }),
                "devices.x cannot be changed",
            ),
            (json!({ "memory": {"kernel": 1} }), "memory.kernel"),
            (json!({ "memory": {"swap": 1, "limit": 2} }), "below"),
            (json!([]), "not an object"),
        ] {
            let error = writes(&resources).unwrap_err().to_string();
            assert!(error.contains(words), "{error}");
        }
    }
}
