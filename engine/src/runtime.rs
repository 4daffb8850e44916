//! Drives an OCI runtime by its command line, as child processes: libcontainer must not run inside this process, and
//! any runtime (crun, runc) can take its place.
//!
//! After `create` the runtime ends and the container's first process becomes PID 1's child.

use anyhow::{Context, bail};
use command_fds::{CommandFdExt, FdMapping};
use serde_json::Value;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::Command;

/// Standard streams of a container.
#[derive(Debug)]
pub struct Streams {
    /// Becomes descriptor 0; `/dev/null` when there is none.
    pub stdin: Option<OwnedFd>,
    /// Becomes descriptor 1.
    pub stdout: OwnedFd,
    /// Becomes descriptor 2.
    pub stderr: OwnedFd,
    /// Become descriptors 3 and so on, and are told to the program as sd_listen_fds(3) has it.
    pub sockets: Vec<OwnedFd>,
}

/// What a container is doing, by the runtime's word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Its first process waits for `start`.
    Created,
    /// Its program runs.
    Running,
    /// Its first process has ended.
    Stopped,
    /// The runtime does not know it, or did not say.
    Absent,
}

/// An OCI runtime.
#[derive(Clone, Debug)]
pub struct Runtime {
    program: PathBuf,
    root: PathBuf,
    timeout: Duration,
}

impl Runtime {
    /// Drives `program`, which keeps its records below `root`. No call may take longer than `timeout`.
    pub fn new(program: PathBuf, root: PathBuf, timeout: Duration) -> Self {
        Self {
            program,
            root,
            timeout,
        }
    }

    /// Makes a container from a bundle; its first process waits. Returns that process's number. With a terminal it
    /// is sent to `console_socket` instead of using the streams.
    ///
    /// # Errors
    /// With what the runtime said.
    pub async fn create(
        &self,
        id: &str,
        bundle: &Path,
        streams: Streams,
        console_socket: Option<&Path>,
    ) -> anyhow::Result<i32> {
        let pid_file = bundle.join("pid");
        let log = bundle.join("runtime.log");
        for stale in [&pid_file, &log] {
            let _ = std::fs::remove_file(stale);
        }
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).arg("--log").arg(&log);
        command
            .arg("create")
            .arg("--bundle")
            .arg(bundle)
            .arg("--pid-file")
            .arg(&pid_file);
        if let Some(socket) = console_socket {
            command.arg("--console-socket").arg(socket);
        }
        command.arg(id);
        command
            .stdin(streams.stdin.map_or_else(Stdio::null, Stdio::from))
            .stdout(streams.stdout)
            .stderr(streams.stderr);
        hand_over(&mut command, streams.sockets)?;
        if let Err(error) = self.finish(command, "create").await {
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            bail!(
                "{}",
                last_message(&said).unwrap_or_else(|| format!("{error:#}"))
            );
        }
        let text = std::fs::read_to_string(&pid_file)
            .with_context(|| format!("cannot read {}", pid_file.display()))?;
        text.trim()
            .parse()
            .with_context(|| format!("{} holds no process number", pid_file.display()))
    }

    /// Lets a created container run its program.
    ///
    /// # Errors
    /// With what the runtime said.
    pub async fn start(&self, id: &str) -> anyhow::Result<()> {
        self.call(&["start", id]).await.map(drop)
    }

    /// Removes a container, killing what still runs in it.
    ///
    /// # Errors
    /// With what the runtime said.
    pub async fn delete(&self, id: &str) -> anyhow::Result<()> {
        if !self.knows(id) {
            return Ok(());
        }
        self.call(&["delete", "--force", id]).await.map(drop)
    }

    /// Stops every process of a container where it is, or lets them go on.
    ///
    /// # Errors
    /// With what the runtime said.
    pub async fn freeze(&self, id: &str, frozen: bool) -> anyhow::Result<()> {
        let verb = if frozen { "pause" } else { "resume" };
        self.call(&[verb, id]).await.map(drop)
    }

    /// Changes limits of a container that runs, as a `linux.resources` object of the runtime specification has them.
    ///
    /// # Errors
    /// With what the runtime said.
    pub async fn update(&self, id: &str, bundle: &Path, resources: &Value) -> anyhow::Result<()> {
        let file = bundle.join("resources.json");
        std::fs::write(&file, resources.to_string())
            .with_context(|| format!("cannot write {}", file.display()))?;
        let path = file.to_string_lossy();
        self.call(&["update", "--resources", &path, id])
            .await
            .map(drop)
    }

    /// What a container is doing.
    pub async fn status(&self, id: &str) -> Status {
        if !self.knows(id) {
            return Status::Absent;
        }
        let Ok(output) = self.call(&["state", id]).await else {
            return Status::Absent;
        };
        let state: Value = serde_json::from_slice(&output).unwrap_or_default();
        match state["status"].as_str() {
            Some("created") => Status::Created,
            // Its program stands still when it is paused, and is there.
            Some("running" | "paused") => Status::Running,
            Some("stopped") => Status::Stopped,
            _ => Status::Absent,
        }
    }

    /// Runs a program in a container; `Ok(true)` when it ended with exit status 0.
    ///
    /// # Errors
    /// When it could not be run, or not within `timeout`.
    pub async fn exec(
        &self,
        id: &str,
        program: &[String],
        timeout: Duration,
    ) -> anyhow::Result<bool> {
        let mut command = Command::new(&self.program);
        command
            .arg("--root")
            .arg(&self.root)
            .arg("exec")
            .arg(id)
            .args(program);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = command
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        match tokio::time::timeout(timeout, child.wait()).await {
            Ok(status) => Ok(status?.success()),
            Err(_) => bail!("the check did not end within {timeout:?}"),
        }
    }

    /// Every runtime keeps a directory of that name for each container.
    fn knows(&self, id: &str) -> bool {
        self.root.join(id).exists()
    }

    async fn call(&self, arguments: &[&str]) -> anyhow::Result<Vec<u8>> {
        let mut command = Command::new(&self.program);
        command.arg("--root").arg(&self.root).args(arguments);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        self.finish(command, arguments[0]).await
    }

    async fn finish(&self, mut command: Command, what: &str) -> anyhow::Result<Vec<u8>> {
        let program = self.program.display();
        let child = command
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {program}"))?;
        let Ok(output) = tokio::time::timeout(self.timeout, child.wait_with_output()).await else {
            bail!(
                "{program} {what} did not end within {:?} and was killed",
                self.timeout
            );
        };
        let output = output.with_context(|| format!("cannot wait for {program}"))?;
        if output.status.success() {
            return Ok(output.stdout);
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let said = last_message(&said).unwrap_or_else(|| output.status.to_string());
        bail!("{program} {what}: {said}")
    }
}

/// Runtimes pass on what `LISTEN_FDS` counts, and say so to the container's first process.
fn hand_over(command: &mut Command, sockets: Vec<OwnedFd>) -> anyhow::Result<()> {
    if sockets.is_empty() {
        return Ok(());
    }
    command.env("LISTEN_FDS", sockets.len().to_string());
    let mappings = (3..).zip(sockets).map(|(child_fd, parent_fd)| FdMapping {
        parent_fd,
        child_fd,
    });
    command
        .fd_mappings(mappings.collect())
        .context("cannot hand its sockets over")?;
    Ok(())
}

/// The last line of what a runtime said; from JSON lines, their `msg`.
pub(crate) fn last_message(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty())?;
    let json: Option<Value> = serde_json::from_str(line).ok();
    let message = json
        .as_ref()
        .and_then(|json| json["msg"].as_str())
        .unwrap_or(line);
    Some(message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_runtime_says_is_read_from_plain_and_json_lines() {
        assert_eq!(last_message("a\nb\n\n").unwrap(), "b");
        assert_eq!(
            last_message("{\"msg\":\"no such file\",\"level\":\"error\"}").unwrap(),
            "no such file"
        );
        assert_eq!(last_message(" \n"), None);
    }

    #[tokio::test]
    async fn a_runtime_that_hangs_is_killed() {
        let directory = tempfile::tempdir().unwrap();
        let program = directory.path().join("runtime");
        std::fs::write(&program, "#!/bin/sh\nexec sleep 60\n").unwrap();
        std::fs::set_permissions(
            &program,
            std::os::unix::fs::PermissionsExt::from_mode(0o755),
        )
        .unwrap();
        let runtime = Runtime::new(
            program,
            directory.path().to_owned(),
            Duration::from_millis(50),
        );
        let error = runtime.start("x").await.unwrap_err().to_string();
        assert!(error.contains("did not end within 50ms"), "{error}");
    }
}
