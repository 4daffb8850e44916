//! `config.json` (OCI runtime specification 1.2) made explicit before libcontainer reads it.
//!
//! - [`refuse`]: settings that libcontainer would accept and not enforce are errors
//! - [`mounts`]: the same for mounts, and which of them need work in the container's mount namespace
//!
//! What is left open in `config.json` is filled in where libcontainer's own default is unsafe or surprising.

pub(crate) mod mounts;
mod refuse;

pub(crate) use refuse::unsupported_update;

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context as _, bail};
use rustix::process::{Resource, getrlimit};
use serde_json::{Map, Value, json};

use mounts::LateMount;

/// A configuration that is safe to hand to libcontainer.
pub(crate) struct Explicit {
    pub(crate) config: Value,
    /// Mount work to be done once init waits for its start.
    pub(crate) late_mounts: Vec<LateMount>,
}

/// Reads and checks the configuration of `bundle`.
///
/// # Errors
/// Names the setting that is missing, wrong or not supported.
pub(crate) fn read(bundle: &Path, id: &str) -> anyhow::Result<Explicit> {
    let path = bundle.join("config.json");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let config =
        serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
    let explicit = make_explicit(config, bundle, id).with_context(|| path.display().to_string())?;
    // libcontainer's error does not say which directory it was.
    let root = explicit.config["root"]["path"].as_str().unwrap_or_default();
    fs::metadata(root).with_context(|| format!("root.path {root}"))?;
    Ok(explicit)
}

fn make_explicit(mut config: Value, bundle: &Path, id: &str) -> anyhow::Result<Explicit> {
    refuse::unsupported(&config)?;
    let root = config["root"]["path"]
        .as_str()
        .context("root.path is missing")?;
    config["root"]["path"] = path_text(&bundle.join(root))?.into();

    let linux = &mut config["linux"];
    let cgroup = cgroup_path(linux["cgroupsPath"].as_str(), id)?;
    linux["cgroupsPath"] = path_text(&cgroup)?.into();
    // libcontainer knows the kinds without the leading r; it always acts on the whole tree.
    if let Some(kind) = linux["rootfsPropagation"]
        .as_str()
        .and_then(|kind| kind.strip_prefix('r'))
    {
        linux["rootfsPropagation"] = kind.to_owned().into();
    }
    // Without resources libcontainer installs no device filter at all.
    if linux["resources"].is_null() {
        linux["resources"] = json!({});
    }
    for device in linux["devices"].as_array_mut().into_iter().flatten() {
        // libcontainer's default is mode 0: a device nobody can open.
        if device["fileMode"].is_null() {
            device["fileMode"] = 0o666.into();
        }
    }
    process(&mut config["process"])?;
    let late_mounts = mounts::take_late(&mut config)?;
    Ok(Explicit {
        config,
        late_mounts,
    })
}

/// Makes an OCI `process` object explicit; also for `exec --process`.
///
/// # Errors
/// Names the setting that is missing, wrong or not supported.
pub(crate) fn process(process: &mut Value) -> anyhow::Result<()> {
    refuse::unsupported_process(process)?;
    let process = process
        .as_object_mut()
        .context("process is not an object")?;
    // Set but false makes libcontainer load seccomp too late, without the privilege it needs.
    if process.get("noNewPrivileges") == Some(&Value::Bool(false)) {
        process.remove("noNewPrivileges");
    }
    // No set given must mean no capability, not all of them.
    let sets = process.entry("capabilities").or_insert_with(|| json!({}));
    let sets = sets
        .as_object_mut()
        .context("process.capabilities is not an object")?;
    for set in [
        "bounding",
        "effective",
        "inheritable",
        "permitted",
        "ambient",
    ] {
        sets.entry(set).or_insert_with(|| json!([]));
    }
    keep_memlock(process)
}

/// libcontainer raises RLIMIT_MEMLOCK to load its device filter and lets the container inherit that.
fn keep_memlock(process: &mut Map<String, Value>) -> anyhow::Result<()> {
    let limits = process.entry("rlimits").or_insert_with(|| json!([]));
    let limits = limits
        .as_array_mut()
        .context("process.rlimits is not a list")?;
    if limits.iter().any(|limit| limit["type"] == "RLIMIT_MEMLOCK") {
        return Ok(());
    }
    let now = getrlimit(Resource::Memlock);
    let number = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    limits.push(json!({
        "type": "RLIMIT_MEMLOCK", "soft": number(now.current), "hard": number(now.maximum),
    }));
    Ok(())
}

/// The cgroup below the mount point of cgroup v2: absolute, without `..`.
fn cgroup_path(given: Option<&str>, id: &str) -> anyhow::Result<PathBuf> {
    let Some(given) = given.filter(|given| !given.is_empty()) else {
        return Ok(Path::new("/keelson-runtime").join(id));
    };
    let path = Path::new(given);
    let plain = path
        .components()
        .all(|part| matches!(part, Component::RootDir | Component::Normal(_)));
    if !plain || given.contains(':') || path == Path::new("/") {
        bail!("linux.cgroupsPath {given:?} is not a plain path below the cgroup file system");
    }
    Ok(Path::new("/").join(path))
}

fn path_text(path: &Path) -> anyhow::Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn minimal() -> Value {
        json!({
            "ociVersion": "1.2.0",
            "root": { "path": "rootfs" },
            "process": { "args": ["sh"], "cwd": "/", "user": { "uid": 0, "gid": 0 } },
            "linux": { "namespaces": [{ "type": "mount" }, { "type": "pid" }] },
        })
    }

    #[test]
    fn what_is_left_open_becomes_explicit_and_safe() {
        let explicit = make_explicit(minimal(), Path::new("/bundle"), "web")
            .unwrap()
            .config;
        assert_eq!(explicit["root"]["path"], "/bundle/rootfs");
        assert_eq!(explicit["linux"]["cgroupsPath"], "/keelson-runtime/web");
        assert_eq!(explicit["linux"]["resources"], json!({}));
        for set in [
            "bounding",
            "effective",
            "inheritable",
            "permitted",
            "ambient",
        ] {
            assert_eq!(explicit["process"]["capabilities"][set], json!([]), "{set}");
        }
        assert_eq!(explicit["process"]["rlimits"][0]["type"], "RLIMIT_MEMLOCK");
    }

    #[test]
    fn given_values_stay() {
        let mut config = minimal();
        config["process"]["capabilities"] = json!({ "bounding": ["CAP_KILL"] });
        config["process"]["noNewPrivileges"] = true.into();
        config["process"]["rlimits"] = json!([{ "type": "RLIMIT_MEMLOCK", "soft": 1, "hard": 2 }]);
        config["linux"]["cgroupsPath"] = "system/web".into();
        let explicit = make_explicit(config, Path::new("/bundle"), "web")
            .unwrap()
            .config;
        assert_eq!(
            explicit["process"]["capabilities"]["bounding"],
            json!(["CAP_KILL"])
        );
        assert_eq!(explicit["process"]["noNewPrivileges"], true);
        assert_eq!(explicit["process"]["rlimits"].as_array().unwrap().len(), 1);
        assert_eq!(explicit["linux"]["cgroupsPath"], "/system/web");
    }

    #[test]
    fn no_new_privileges_false_is_the_same_as_absent() {
        let mut config = minimal();
        config["process"]["noNewPrivileges"] = false.into();
        let explicit = make_explicit(config, Path::new("/b"), "web")
            .unwrap()
            .config;
        assert!(explicit["process"].get("noNewPrivileges").is_none());
    }

    #[test]
    fn cgroup_paths_cannot_leave_their_place() {
        for path in ["../x", "/a/../b", "system.slice:keelson:web", "/"] {
            assert!(cgroup_path(Some(path), "web").is_err(), "{path}");
        }
    }
}
