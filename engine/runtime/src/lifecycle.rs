//! `start`, `state`, `pause`, `resume`, `kill`, `delete`.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use anyhow::{Context as _, bail};
use libcontainer::container::ContainerStatus;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use serde_json::{Value, json};

use crate::cgroup::Cgroup;
use crate::first_error::FirstError;
use crate::record::{bundle_directory, container_directory, load, saved_config, start_ticks};

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

/// Stops all processes of a running container where they are.
///
/// # Errors
/// When the container does not run, or its processes do not stand still in time; then they go on.
pub(crate) fn pause(root: &Path, id: &str) -> anyhow::Result<()> {
    set_frozen(root, id, ContainerStatus::Running, ContainerStatus::Paused)
}

/// Lets the processes of a paused container go on.
///
/// # Errors
/// When the container is not paused.
pub(crate) fn resume(root: &Path, id: &str) -> anyhow::Result<()> {
    set_frozen(root, id, ContainerStatus::Paused, ContainerStatus::Running)
}

fn set_frozen(
    root: &Path,
    id: &str,
    from: ContainerStatus,
    to: ContainerStatus,
) -> anyhow::Result<()> {
    let mut existing = load(root, id)?;
    let status = existing.container.status();
    if status != from {
        bail!(
            "the container is {status}, not {}",
            from.to_string().to_lowercase()
        );
    }
    Cgroup::of(&saved_config(root, id)?)?.set_frozen(to == ContainerStatus::Paused)?;
    existing
        .container
        .set_status(to)
        .save()
        .context("write the container's state")
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
    // A container that was never made has no configuration, and no cgroup.
    if bundle.join("config.json").exists() {
        Cgroup::of(&saved_config(root, id)?)?.remove()?;
    }
    remove_directory(&directory)?;
    remove_directory(&bundle)
}

fn remove_directory(path: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}
