//! Where a container's records lie, and which process its init is.
//!
//! libcontainer keeps its own state in `ROOT/ID/`. Beside it lie `ROOT/ID/keelson.json` ([`Record`]) and
//! `ROOT/.bundles/ID/config.json`, the explicit configuration that the container really runs with.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use libcontainer::container::{Container, ContainerStatus};
use serde_json::{Value, json};

/// What libcontainer does not remember about a container.
#[derive(Debug, PartialEq)]
pub(crate) struct Record {
    /// The bundle that `create` was given.
    pub(crate) bundle: PathBuf,
    /// Start time of init in clock ticks since boot: tells init from a later process with its number.
    pub(crate) init_start_ticks: u64,
}

/// Directory of libcontainer's records of a container.
pub(crate) fn container_directory(root: &Path, id: &str) -> PathBuf {
    root.join(id)
}

/// Directory of the configuration that a container really runs with.
pub(crate) fn bundle_directory(root: &Path, id: &str) -> PathBuf {
    root.join(".bundles").join(id)
}

impl Record {
    /// Writes the record of a container that has just been created.
    pub(crate) fn save(&self, root: &Path, id: &str) -> anyhow::Result<()> {
        let path = container_directory(root, id).join("keelson.json");
        let text =
            json!({ "bundle": self.bundle, "initStartTicks": self.init_start_ticks }).to_string();
        let temporary = path.with_extension("new");
        fs::write(&temporary, text)
            .and_then(|()| fs::rename(&temporary, &path))
            .with_context(|| format!("write {}", path.display()))
    }

    fn load(root: &Path, id: &str) -> anyhow::Result<Self> {
        let path = container_directory(root, id).join("keelson.json");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let value: Value =
            serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))?;
        match (value["bundle"].as_str(), value["initStartTicks"].as_u64()) {
            (Some(bundle), Some(init_start_ticks)) => Ok(Self {
                bundle: bundle.into(),
                init_start_ticks,
            }),
            _ => bail!("{} is not a container's record", path.display()),
        }
    }
}

/// The configuration that a container really runs with.
///
/// # Errors
/// When it cannot be read.
pub(crate) fn saved_config(root: &Path, id: &str) -> anyhow::Result<Value> {
    let path = bundle_directory(root, id).join("config.json");
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()))
}

/// A container that exists, with its status as of now.
pub(crate) struct Existing {
    pub(crate) container: Container,
    pub(crate) record: Record,
}

/// Loads a container and finds out its status.
///
/// # Errors
/// `no such container`, or records that cannot be read.
pub(crate) fn load(root: &Path, id: &str) -> anyhow::Result<Existing> {
    let directory = container_directory(root, id);
    if !directory.exists() {
        bail!("no such container");
    }
    let record = Record::load(root, id)?;
    let mut container = Container::load(directory).context("read the container's state")?;
    if let Some(pid) = container.pid()
        && start_ticks(pid.as_raw())? != Some(record.init_start_ticks)
    {
        // Init is gone; what has its number now is another process and must not be touched.
        container.state.pid = None;
        container.set_status(ContainerStatus::Stopped);
    }
    Ok(Existing { container, record })
}

/// Writes a process's number where the caller asked for it. Who waits for the file never sees it half written.
pub(crate) fn write_pid_file(path: &Path, pid: i32) -> anyhow::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    fs::write(&temporary, pid.to_string())
        .and_then(|()| fs::rename(&temporary, path))
        .with_context(|| format!("write {}", path.display()))
}

/// When a process started, in clock ticks since boot (field 22 of `/proc/PID/stat`); `None` when there is none.
pub(crate) fn start_ticks(pid: i32) -> anyhow::Result<Option<u64>> {
    let path = format!("/proc/{pid}/stat");
    match fs::read_to_string(&path) {
        Ok(text) => parse_start_ticks(&text)
            .with_context(|| format!("parse {path}"))
            .map(Some),
        Err(error) if error.kind() == ErrorKind::NotFound || error.raw_os_error() == Some(3) => {
            Ok(None)
        }
        Err(error) => Err(error).with_context(|| format!("read {path}")),
    }
}

/// The command name in field 2 may hold spaces and brackets: fields are counted after its last bracket.
fn parse_start_ticks(stat: &str) -> Option<u64> {
    let (_, rest) = stat.rsplit_once(')')?;
    rest.split_whitespace().nth(19)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn start_ticks_survive_a_strange_command_name() {
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 4711 1 2 3";
        assert_eq!(parse_start_ticks(stat), Some(4711));
        assert_eq!(parse_start_ticks("garbage"), None);
    }

    #[test]
    fn this_process_has_a_start_and_a_missing_one_has_none() {
        assert!(start_ticks(std::process::id() as i32).unwrap().is_some());
        assert_eq!(start_ticks(i32::MAX).unwrap(), None);
    }
}
