//! `exec`: one more process in a running container, confined as the container is.

use std::fs;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use libcontainer::container::ContainerStatus;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::syscall::syscall::SyscallType;
use rustix::process::{Pid, WaitOptions, waitpid};
use serde_json::{Value, json};

use crate::arguments::ExecOptions;
use crate::config;
use crate::first_error::FirstError;
use crate::program::{Confinement, Program};
use crate::record::{bundle_directory, container_directory, load};

/// What a process without no_new_privs needs to load a seccomp profile and to drop its bounding set after it.
const TO_CONFINE_ITSELF: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];

/// Runs a process in the container; returns its exit status (128 + n after signal n), or 0 with `--detach`.
///
/// # Errors
/// When the container does not run, or the process cannot be set up.
pub(crate) fn exec(root: &Path, options: &ExecOptions) -> anyhow::Result<ExitCode> {
    let id = &options.id;
    let existing = load(root, id)?;
    if existing.container.status() != ContainerStatus::Running {
        bail!(
            "the container is {}, not running",
            existing.container.status()
        );
    }
    let config_path = bundle_directory(root, id).join("config.json");
    let text = fs::read_to_string(&config_path)
        .with_context(|| format!("read {}", config_path.display()))?;
    let config: Value =
        serde_json::from_str(&text).with_context(|| format!("parse {}", config_path.display()))?;

    let mut process = requested_process(&config, options)?;
    config::process(&mut process)?;
    let terminal = process["terminal"] == true;
    if terminal != options.console_socket.is_some() {
        bail!("process.terminal and --console-socket need each other");
    }
    let confinement = confine(&config["linux"]["seccomp"], &mut process)?;

    let directory = container_directory(root, id);
    let process_file = directory.join(format!("exec-{}.json", std::process::id()));
    fs::write(&process_file, process.to_string())
        .with_context(|| format!("write {}", process_file.display()))?;
    // One process at a time is added, so that what libcontainer leaves behind can be told from what it needs.
    let only = fs::File::open(&config_path)
        .and_then(|file| file.lock().map(|()| file))
        .with_context(|| format!("lock {}", config_path.display()))?;
    // libcontainer sends a terminal for detached processes only; whoever wants the end waits for it below.
    let detach = options.detach || terminal;
    let pid = build(root, options, &process_file, confinement, detach);
    let removed = fs::remove_file(&process_file)
        .with_context(|| format!("remove {}", process_file.display()))
        .and_then(|()| remove_start_sockets(&directory));
    drop(only);
    let pid = pid?;
    removed?;
    if options.detach {
        Ok(ExitCode::SUCCESS)
    } else {
        wait(pid)
    }
}

fn build(
    root: &Path,
    options: &ExecOptions,
    process_file: &Path,
    confinement: Option<Confinement>,
    detach: bool,
) -> anyhow::Result<Pid> {
    let first_error = FirstError::collect()?;
    let pid = ContainerBuilder::new(options.id.clone(), SyscallType::Linux)
        .with_executor(Program { confinement })
        .with_root_path(root)?
        .with_pid_file(options.pid_file.as_ref())?
        .with_console_socket(options.console_socket.as_ref())
        .as_tenant()
        .with_process(Some(process_file))
        .with_detach(detach)
        .build()
        .map_err(|error| first_error.explain(error.into()))?;
    if let Some(pid_file) = &options.pid_file {
        fs::write(pid_file, pid.as_raw().to_string())
            .with_context(|| format!("write {}", pid_file.display()))?;
    }
    Pid::from_raw(pid.as_raw()).context("the process has no number")
}

/// Removes the sockets over which added processes were told to begin, and the links to those that terminals were sent
/// by: libcontainer leaves one behind each time.
fn remove_start_sockets(directory: &Path) -> anyhow::Result<()> {
    let failed = || format!("clear {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        let name = entry.file_name();
        let name = name.as_encoded_bytes();
        if name.starts_with(b"tenant-notify-") || name.starts_with(b"tenant-tty-") {
            fs::remove_file(entry.path()).with_context(failed)?;
        }
    }
    Ok(())
}

/// The process asked for: from a file, or the container's own with another command.
fn requested_process(config: &Value, options: &ExecOptions) -> anyhow::Result<Value> {
    if let Some(path) = &options.process {
        let text = fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        return serde_json::from_str(&text).with_context(|| format!("parse {}", path.display()));
    }
    let mut process = config["process"].clone();
    process["args"] = json!(options.arguments);
    process["terminal"] = false.into();
    Ok(process)
}

/// libcontainer starts added processes without the container's seccomp profile. They put it on themselves
/// as their last step; without no_new_privs that takes two capabilities, which they drop right after it.
fn confine(seccomp: &Value, process: &mut Value) -> anyhow::Result<Option<Confinement>> {
    if seccomp.is_null() {
        return Ok(None);
    }
    let confinement = Confinement {
        seccomp: serde_json::from_value(seccomp.clone()).context("read the seccomp profile")?,
        capabilities: serde_json::from_value(process["capabilities"].clone())
            .context("process.capabilities")?,
    };
    if process["noNewPrivileges"] != true {
        for set in ["bounding", "effective", "permitted"] {
            let set = process["capabilities"][set]
                .as_array_mut()
                .context("process.capabilities")?;
            for capability in TO_CONFINE_ITSELF {
                if !set.iter().any(|present| present == capability) {
                    set.push(capability.into());
                }
            }
        }
    }
    Ok(Some(confinement))
}

fn wait(pid: Pid) -> anyhow::Result<ExitCode> {
    loop {
        match waitpid(Some(pid), WaitOptions::empty()) {
            Ok(Some((_, status))) => {
                let code = match (status.exit_status(), status.terminating_signal()) {
                    (Some(code), _) => code,
                    (None, Some(signal)) => 128 + signal,
                    (None, None) => continue,
                };
                return Ok(ExitCode::from(u8::try_from(code).unwrap_or(u8::MAX)));
            }
            Ok(None) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error).context("wait for the process"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_added_process_gets_the_containers_profile_and_keeps_its_own_capabilities() {
        let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        let sets = json!({ "bounding": ["CAP_KILL"], "effective": [], "permitted": [], "inheritable": [], "ambient": [] });
        let mut process = json!({ "capabilities": sets });
        let confinement = confine(&seccomp, &mut process).unwrap().unwrap();
        assert_eq!(
            confinement.capabilities.bounding().as_ref().unwrap().len(),
            1
        );
        assert_eq!(
            process["capabilities"]["bounding"],
            json!(["CAP_KILL", "CAP_SYS_ADMIN", "CAP_SETPCAP"])
        );

        let mut process = json!({ "capabilities": sets, "noNewPrivileges": true });
        confine(&seccomp, &mut process).unwrap().unwrap();
        assert_eq!(process["capabilities"], sets);
    }
}
