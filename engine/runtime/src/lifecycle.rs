//! `start`, `state`, `kill`, `delete`.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use libcontainer::container::ContainerStatus;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::first_error::FirstError;
use crate::record::{bundle_directory, container_directory, load, start_ticks};

/// How long killed processes may take to leave their cgroup.
const CGROUP_EMPTY_DEADLINE: Duration = Duration::from_secs(5);

/// Lets the program of a created container run.
///
/// # Errors
/// When the container is not in the state `created`.
pub(crate) fn start(root: &Path, id: &str) -> anyhow::Result<()> {
    let mut existing = load(root, id)?;
    if existing.container.status() != ContainerStatus::Created {
        bail!(
            "the container is {}, not created",
            existing.container.status()
        );
    }
    let first_error = FirstError::collect()?;
    existing
        .container
        .start()
        .map_err(|error| first_error.explain(error.into()))
}

/// Stops every process of a running container where it is (cgroup-v2, "cgroup.freeze").
///
/// # Errors
/// When the container does not run, or does not stand still in time.
pub(crate) fn pause(root: &Path, id: &str) -> anyhow::Result<()> {
    let mut existing = load(root, id)?;
    let first_error = FirstError::collect()?;
    existing
        .container
        .pause()
        .map_err(|error| first_error.explain(error.into()))
}

/// Lets a paused container go on.
///
/// # Errors
/// When the container is not paused.
pub(crate) fn resume(root: &Path, id: &str) -> anyhow::Result<()> {
    let mut existing = load(root, id)?;
    let first_error = FirstError::collect()?;
    existing
        .container
        .resume()
        .map_err(|error| first_error.explain(error.into()))
}

/// The container's state as the specification has it (runtime.md, "State").
///
/// # Errors
/// When there is no such container.
pub(crate) fn state(root: &Path, id: &str) -> anyhow::Result<Value> {
    let existing = load(root, id)?;
    let status = existing.container.status();
    let mut state = json!({
        "ociVersion": libcontainer::oci_spec::runtime::VERSION,
        "id": id,
        "status": status.to_string().to_lowercase(),
        "bundle": existing.record.bundle,
        "annotations": existing.container.state.annotations.clone().unwrap_or_default(),
    });
    if let (Some(pid), false) = (existing.container.pid(), status == ContainerStatus::Stopped) {
        state["pid"] = pid.as_raw().into();
    }
    Ok(state)
}

/// Sends a signal to the container's init, and never to another process that has its number by now.
///
/// # Errors
/// When the container is neither created nor running.
pub(crate) fn kill(root: &Path, id: &str, signal: Signal) -> anyhow::Result<()> {
    let existing = load(root, id)?;
    let status = existing.container.status();
    if matches!(status, ContainerStatus::Stopped | ContainerStatus::Creating) {
        bail!("the container is {status}, not running");
    }
    let raw = existing
        .container
        .pid()
        .context("the container has no init")?
        .as_raw();
    let pid = Pid::from_raw(raw).context("the container's init has no number")?;
    let init = pidfd_open(pid, PidfdFlags::empty()).context("open init")?;
    // The handle is held now: what it refers to cannot change between this look and the signal.
    if start_ticks(raw)? != Some(existing.record.init_start_ticks) {
        bail!("the container is stopped, not running");
    }
    pidfd_send_signal(&init, signal).context("send the signal")
}

/// Removes a container that has ended, with its cgroup and whatever still runs in it.
/// With `force` also one that runs, is half made or does not exist.
///
/// # Errors
/// When the container runs, or its cgroup cannot be removed.
pub(crate) fn delete(root: &Path, id: &str, force: bool) -> anyhow::Result<()> {
    let directory = container_directory(root, id);
    let bundle = bundle_directory(root, id);
    match load(root, id) {
        Ok(existing) => {
            let status = existing.container.status();
            if !force && !matches!(status, ContainerStatus::Stopped | ContainerStatus::Created) {
                bail!("the container is {status}: stop it first, or use --force");
            }
        }
        Err(error) if !force => return Err(error),
        Err(_) => {}
    }
    remove_cgroup(&bundle)?;
    remove_directory(&directory)?;
    remove_directory(&bundle)
}

/// Kills what is in the container's cgroup and removes it with its descendants.
fn remove_cgroup(bundle: &Path) -> anyhow::Result<()> {
    let Ok(text) = fs::read_to_string(bundle.join("config.json")) else {
        return Ok(());
    };
    let cgroup = cgroup_of(&text)?;
    let path = cgroup.display();
    if !cgroup.exists() {
        return Ok(());
    }
    fs::write(cgroup.join("cgroup.kill"), "1")
        .with_context(|| format!("kill the cgroup {path}"))?;
    let deadline = Instant::now() + CGROUP_EMPTY_DEADLINE;
    loop {
        match remove_tree(&cgroup) {
            Ok(()) => return Ok(()),
            // Killed processes leave their cgroup when they end, not when they are reaped; there is no
            // event to wait for that does not cost more than this look.
            Err(error) if error.kind() == ErrorKind::ResourceBusy && Instant::now() < deadline => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(error) => return Err(error).with_context(|| format!("remove the cgroup {path}")),
        }
    }
}

/// The cgroup's directory, from the container's `config.json`.
///
/// # Errors
/// When it is not there.
pub(crate) fn cgroup_of(config: &str) -> anyhow::Result<PathBuf> {
    let config: Value =
        serde_json::from_str(config).context("parse the container's configuration")?;
    let path = config["linux"]["cgroupsPath"]
        .as_str()
        .context("the container's cgroup is not known")?;
    Ok(Path::new("/sys/fs/cgroup").join(path.trim_start_matches('/')))
}

fn remove_tree(cgroup: &Path) -> std::io::Result<()> {
    for entry in fs::read_dir(cgroup)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path())?;
        }
    }
    fs::remove_dir(cgroup)
}

fn remove_directory(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
