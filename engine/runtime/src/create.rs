//! `create`: everything up to the point where the container's init waits for its start.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;

use anyhow::{Context as _, bail};
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use serde_json::Value;

use crate::arguments::CreateOptions;
use crate::cgroup::Cgroup;
use crate::config::mounts::LateMount;
use crate::config::{self, Explicit};
use crate::first_error::FirstError;
use crate::init_namespace;
use crate::lifecycle;
use crate::program::Program;
use crate::record::{Record, bundle_directory, container_directory, start_ticks, write_pid_file};
use crate::terminal::{self, Wanted};

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
    let mut explicit = config::read(&bundle, id)?;
    let terminal = Terminal::prepare(&mut explicit, options.console_socket.as_deref())?;
    refuse_populated_cgroup(&explicit.config)?;
    save_config(root, id, &explicit.config)?;

    let first_error = FirstError::collect()?;
    let created = build(root, options, &explicit, &bundle, terminal)
        .map_err(|error| first_error.explain(error));
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
    terminal: Option<Terminal>,
) -> anyhow::Result<()> {
    let id = &options.id;
    let hosts = match &terminal {
        Some(Terminal::Hosts(terminal)) => Some(terminal),
        _ => None,
    };
    let mut builder = ContainerBuilder::new(id.clone(), SyscallType::Linux)
        .with_executor(Program {
            controlling_terminal: hosts.is_some(),
            ..Program::default()
        })
        .with_root_path(root)?;
    if let Some(terminal) = hosts {
        builder = terminal::connect(builder, terminal)?;
    } else {
        builder = builder.with_console_socket(options.console_socket.as_ref());
    }
    let container = builder
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
        // libcontainer's own way is not to fail when it cannot be written.
        write_pid_file(pid_file, pid)?;
    }
    if let Some(Terminal::Own(wanted)) = &terminal {
        // libcontainer gives it neither a size nor an owner.
        wanted.apply(terminal::input_of(pid)?)?;
    }
    init_namespace::finish(pid, &explicit.late_mounts, hosts)
}

/// The terminal of a container's init.
enum Terminal {
    /// Of the container's own devpts, opened by libcontainer.
    Own(Wanted),
    /// Of the host's, which the container sees at `/dev`: libcontainer would find none there.
    Hosts(OwnedFd),
}

impl Terminal {
    fn prepare(
        explicit: &mut Explicit,
        console_socket: Option<&Path>,
    ) -> anyhow::Result<Option<Self>> {
        let process = &mut explicit.config["process"];
        let wanted = Wanted::read(process, console_socket)?;
        let (Some(wanted), Some(socket)) = (wanted, console_socket) else {
            return Ok(None);
        };
        let Some(dev) = explicit
            .late_mounts
            .iter()
            .find_map(LateMount::dev_with_terminals)
        else {
            return Ok(Some(Self::Own(wanted)));
        };
        process["terminal"] = false.into();
        let terminal = terminal::open_and_send(terminal::directory(dev)?, &wanted, socket)?;
        Ok(Some(Self::Hosts(terminal)))
    }
}

/// A cgroup that still has processes belongs to somebody else: its limits and its fate would be shared.
fn refuse_populated_cgroup(config: &Value) -> anyhow::Result<()> {
    let cgroup = Cgroup::of(config)?;
    if cgroup.is_populated() {
        bail!("the cgroup {} still has processes", cgroup.path());
    }
    Ok(())
}

fn save_config(root: &Path, id: &str, config: &Value) -> anyhow::Result<()> {
    let directory = bundle_directory(root, id);
    let path = directory.join("config.json");
    fs::create_dir_all(&directory)
        .and_then(|()| fs::write(&path, config.to_string()))
        .with_context(|| format!("write {}", path.display()))
}
