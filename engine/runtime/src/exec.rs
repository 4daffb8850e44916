//! `exec`: one more process in a running container, confined as the container is.

use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use libcontainer::container::ContainerStatus;
use libcontainer::container::builder::ContainerBuilder;
use libcontainer::oci_spec::runtime::Process;
use libcontainer::syscall::syscall::SyscallType;
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use serde_json::{Value, json};

use crate::arguments::{ExecOptions, ExecProcess, User};
use crate::cgroup::Cgroup;
use crate::config;
use crate::first_error::FirstError;
use crate::program::{Confinement, Program};
use crate::record::{
    Existing, bundle_directory, container_directory, load, saved_config, start_ticks,
    write_pid_file,
};
use crate::terminal::{self, Wanted};

/// What a process without no_new_privs needs to load a seccomp profile and to drop its bounding set after it.
const TO_CONFINE_ITSELF: [&str; 2] = ["CAP_SYS_ADMIN", "CAP_SETPCAP"];

/// Runs a process in the container; returns its exit status (128 + n after signal n), or 0 with `--detach`.
///
/// # Errors
/// When the container does not run, or the process cannot be set up.
pub(crate) fn exec(root: &Path, options: &ExecOptions) -> anyhow::Result<ExitCode> {
    let existing = load(root, &options.id)?;
    let status = existing.container.status();
    if status != ContainerStatus::Running {
        bail!("the container is {status}, not running");
    }
    let config = saved_config(root, &options.id)?;
    let pid = Added::prepare(root, options, &existing, &config)?.run()?;
    if options.detach {
        Ok(ExitCode::SUCCESS)
    } else {
        wait(pid)
    }
}

/// A process on its way into a container.
struct Added<'a> {
    root: &'a Path,
    options: &'a ExecOptions,
    existing: &'a Existing,
    cgroup: Cgroup,
    /// As libcontainer gets it.
    process: Value,
    program: Program,
    terminal: Option<Wanted>,
}

impl<'a> Added<'a> {
    fn prepare(
        root: &'a Path,
        options: &'a ExecOptions,
        existing: &'a Existing,
        config: &Value,
    ) -> anyhow::Result<Self> {
        let mut process = requested_process(config, &options.process)?;
        config::process(&mut process)?;
        let terminal = Wanted::read(&process, options.console_socket.as_deref())?;
        // The terminal is opened here: libcontainer would want a /dev/ptmx that leads to a devpts, and not set its size.
        process["terminal"] = false.into();
        if process["oomScoreAdj"].is_null() {
            process["oomScoreAdj"] = config["process"]["oomScoreAdj"].clone();
        }
        let confinement = confine(&config["linux"]["seccomp"], &mut process)?;
        let _: Process = serde_json::from_value(process.clone()).context("process")?;
        let program = Program {
            confinement,
            controlling_terminal: terminal.is_some(),
        };
        Ok(Self {
            root,
            options,
            existing,
            cgroup: Cgroup::of(config)?,
            process,
            program,
            terminal,
        })
    }

    fn run(self) -> anyhow::Result<Pid> {
        let id = &self.options.id;
        let directory = container_directory(self.root, id);
        let process_file = directory.join(format!("exec-{}.json", std::process::id()));
        fs::write(&process_file, self.process.to_string())
            .with_context(|| format!("write {}", process_file.display()))?;
        // One process at a time is added, so that what libcontainer leaves behind can be told from what it needs.
        let config_path = bundle_directory(self.root, id).join("config.json");
        let only = fs::File::open(&config_path)
            .and_then(|file| file.lock().map(|()| file))
            .with_context(|| format!("lock {}", config_path.display()))?;
        let pid = self.build(&process_file);
        let removed = fs::remove_file(&process_file)
            .with_context(|| format!("remove {}", process_file.display()))
            .and_then(|()| remove_start_sockets(&directory));
        drop(only);
        let pid = pid?;
        removed?;
        Ok(pid)
    }

    fn build(self, process_file: &Path) -> anyhow::Result<Pid> {
        let options = self.options;
        let init = self.existing.container.pid();
        let init = init.context("the container has no init")?.as_raw();
        let cgroup = self.cgroup.place_for_another(init)?;
        let terminal = self.open_terminal(init)?;
        let first_error = FirstError::collect()?;
        let mut builder = ContainerBuilder::new(options.id.clone(), SyscallType::Linux)
            .with_executor(self.program)
            .with_root_path(self.root)?;
        if let Some(terminal) = terminal {
            builder = terminal::connect(builder, &terminal)?;
        }
        let pid = builder
            .as_tenant()
            .with_process(Some(process_file))
            .with_detach(options.detach)
            .with_sub_cgroup(cgroup)
            .build()
            .map_err(|error| first_error.explain(error.into()))?;
        let pid = Pid::from_raw(pid.as_raw()).context("the process has no number")?;
        if let Some(pid_file) = &options.pid_file
            && let Err(error) = write_pid_file(pid_file, pid.as_raw_nonzero().get())
        {
            // The caller could never name it.
            let _ = kill_process(pid, Signal::KILL);
            return Err(error);
        }
        Ok(pid)
    }

    fn open_terminal(&self, init: i32) -> anyhow::Result<Option<OwnedFd>> {
        let (Some(wanted), Some(socket)) = (&self.terminal, &self.options.console_socket) else {
            return Ok(None);
        };
        let dev = terminal::dev_of(init)?;
        // The directory is held now: what it belongs to cannot change between this look and its use.
        if start_ticks(init)? != Some(self.existing.record.init_start_ticks) {
            bail!("the container is stopped, not running");
        }
        terminal::open_and_send(dev, wanted, socket).map(Some)
    }
}

/// Removes the sockets over which added processes were told to begin: libcontainer leaves one behind each time.
fn remove_start_sockets(directory: &Path) -> anyhow::Result<()> {
    let failed = || format!("clear {}", directory.display());
    for entry in fs::read_dir(directory).with_context(failed)? {
        let entry = entry.with_context(failed)?;
        if entry
            .file_name()
            .as_encoded_bytes()
            .starts_with(b"tenant-notify-")
        {
            fs::remove_file(entry.path()).with_context(failed)?;
        }
    }
    Ok(())
}

/// The process asked for: from a file, or the container's own with another command.
fn requested_process(config: &Value, requested: &ExecProcess) -> anyhow::Result<Value> {
    let command = match requested {
        ExecProcess::File(path) => {
            let text =
                fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
            return serde_json::from_str(&text)
                .with_context(|| format!("parse {}", path.display()));
        }
        ExecProcess::Command(command) => command,
    };
    let mut process = config["process"].clone();
    process["args"] = json!(command.arguments);
    process["terminal"] = command.tty.into();
    if let Some(cwd) = &command.cwd {
        process["cwd"] = cwd.as_str().into();
    }
    if !command.env.is_empty() {
        // The last of several entries of one name counts.
        let own = process["env"].as_array().into_iter().flatten().cloned();
        let given = command.env.iter().map(|entry| Value::from(entry.as_str()));
        process["env"] = own.chain(given).collect();
    }
    if let Some(User { uid, gid }) = command.user {
        let user = &mut process["user"];
        user["uid"] = uid.into();
        if let Some(gid) = gid {
            user["gid"] = gid.into();
        }
        // Groups of the container's own user are none of this one's.
        user["additionalGids"] = json!([]);
    }
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
    use crate::arguments::exec::ExecCommand;

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

    #[test]
    fn a_command_is_the_containers_process_but_for_what_is_said() {
        let config = json!({ "process": { "args": ["web"], "cwd": "/", "terminal": true, "env": ["A=1", "PATH=/bin"],
            "user": { "uid": 0, "gid": 5, "additionalGids": [7], "umask": 18 }, "noNewPrivileges": true } });
        let command = ExecCommand {
            arguments: vec!["ls".to_owned()],
            ..ExecCommand::default()
        };
        let process = requested_process(&config, &ExecProcess::Command(command)).unwrap();
        let mut expected = config["process"].clone();
        expected["args"] = json!(["ls"]);
        expected["terminal"] = false.into();
        assert_eq!(process, expected);

        let command = ExecCommand {
            arguments: vec!["ls".to_owned()],
            tty: true,
            cwd: Some("/tmp".to_owned()),
            env: vec!["A=2".to_owned()],
            user: Some(User { uid: 9, gid: None }),
        };
        let process = requested_process(&config, &ExecProcess::Command(command)).unwrap();
        let expected = json!({ "args": ["ls"], "cwd": "/tmp", "terminal": true, "env": ["A=1", "PATH=/bin", "A=2"],
            "user": { "uid": 9, "gid": 5, "additionalGids": [], "umask": 18 }, "noNewPrivileges": true });
        assert_eq!(process, expected);
    }
}
