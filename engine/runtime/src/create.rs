//! `create`: everything up to the point where the container's init waits for its start.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use serde_json::Value;

use crate::arguments::CreateOptions;
use crate::config::{self, Explicit};
use crate::first_error::FirstError;
use crate::init_namespace;
use crate::lifecycle;
use crate::program::Program;
use crate::record::{Record, bundle_directory, container_directory, start_ticks};

/// Creates a container; its init is this process's child and outlives it.
///
/// # Errors
/// Names what could not be set up; then nothing of the container is left.
pub(crate) fn create(root: &Path, options: &CreateOptions) -> anyhow::Result<()> {
    let id = &options.id;
    if container_directory(root, id).exists() || bundle_directory(root, id).exists() {
        bail!("a container of this name exists already");
    }
    let bundle = fs::canonicalize(&options.bundle)
        .with_context(|| format!("open the bundle {}", options.bundle.display()))?;
    let explicit = config::read(&bundle, id)?;
    refuse_populated_cgroup(&explicit.config)?;
    save_config(root, id, &explicit.config)?;

    let first_error = FirstError::collect()?;
    let created =
        build(root, options, &explicit, &bundle).map_err(|error| first_error.explain(error));
    if created.is_err() {
        // What led here is the error to report; what cannot be cleaned up is found by the next create.
        let _ = lifecycle::delete(root, id, true);
    }
    created
}

fn build(
    root: &Path,
    options: &CreateOptions,
    explicit: &Explicit,
    bundle: &Path,
) -> anyhow::Result<()> {
    let id = &options.id;
    let container = ContainerBuilder::new(id.clone(), SyscallType::Linux)
        .with_executor(Program::default())
        .with_root_path(root)?
        .with_pid_file(options.pid_file.as_ref())?
        .with_console_socket(options.console_socket.as_ref())
        .as_init(bundle_directory(root, id))
        .with_systemd(false)
        .with_detach(true)
        .build()?;
    let pid = container
        .pid()
        .context("libcontainer names no init process")?
        .as_raw();
    let init_start_ticks = start_ticks(pid)?.context("init ended at once")?;
    Record {
        bundle: bundle.to_owned(),
        init_start_ticks,
    }
    .save(root, id)?;
    if let Some(pid_file) = &options.pid_file {
        // libcontainer writes it too, but does not fail when it cannot.
        fs::write(pid_file, pid.to_string())
            .with_context(|| format!("write {}", pid_file.display()))?;
    }
    init_namespace::finish(pid, &explicit.late_mounts)
}

/// A cgroup that still has processes belongs to somebody else: its limits and its fate would be shared.
fn refuse_populated_cgroup(config: &Value) -> anyhow::Result<()> {
    let path = config["linux"]["cgroupsPath"].as_str().unwrap_or_default();
    let directory = PathBuf::from(format!("/sys/fs/cgroup{path}"));
    match fs::read_to_string(directory.join("cgroup.events")) {
        Ok(events) if events.lines().any(|line| line == "populated 1") => {
            bail!("the cgroup {path} still has processes")
        }
        _ => Ok(()),
    }
}

fn save_config(root: &Path, id: &str, config: &Value) -> anyhow::Result<()> {
    let directory = bundle_directory(root, id);
    let path = directory.join("config.json");
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&path, config.to_string()))
        .with_context(|| format!("write {}", path.display()))
}
