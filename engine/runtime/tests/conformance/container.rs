//! Makes bundles and drives a runtime by the OCI command line.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::{Value, json};

/// How long a container, or a command of a runtime, may take to end by itself.
const END_DEADLINE: Duration = Duration::from_secs(60);

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &[&str] = &[
    "sh", "cat", "cp", "dd", "echo", "env", "grep", "hostname", "id", "ip", "kill", "ls", "mkdir",
    "mknod", "mount", "nice", "readlink", "sleep", "stat", "test", "touch", "true", "umount", "wc",
    "chmod", "stty", "tty",
];

/// A runtime under test.
#[derive(Clone)]
pub(crate) struct Runtime {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
}

/// Where one case runs: a directory of its own with a root file system.
pub(crate) struct Workplace {
    pub(crate) runtime: Runtime,
    pub(crate) directory: PathBuf,
}

/// A container made by `create`; removed when dropped.
pub(crate) struct Container<'a> {
    place: &'a Workplace,
    pub(crate) id: String,
    pub(crate) pid: i32,
}

/// How a container ended and what it printed.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Exit status, or 128 + signal.
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// A runtime's command on its way.
pub(crate) struct Call {
    what: String,
    child: Child,
    out: PathBuf,
    err: PathBuf,
}

/// What a runtime's command answered.
pub(crate) struct Answer {
    pub(crate) ok: bool,
    pub(crate) code: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Workplace {
    pub(crate) fn make(parent: &Path, runtime: Runtime) -> anyhow::Result<Self> {
        let directory = parent.join(&runtime.name);
        if directory.exists() {
            fs::remove_dir_all(&directory)
                .with_context(|| format!("clear {}", directory.display()))?;
        }
        let place = Self { runtime, directory };
        let root = place.rootfs();
        for name in ["bin", "dev", "proc", "sys", "tmp", "etc", "run"] {
            fs::create_dir_all(root.join(name))?;
        }
        fs::copy(BUSYBOX, root.join("bin/busybox")).with_context(|| format!("copy {BUSYBOX}"))?;
        for applet in APPLETS {
            std::os::unix::fs::symlink("busybox", root.join("bin").join(applet))?;
        }
        Ok(place)
    }

    /// The containers' root file system, writable from here.
    pub(crate) fn rootfs(&self) -> PathBuf {
        self.directory.join("bundle/rootfs")
    }

    /// The cgroup of a container, below the cgroup file system.
    pub(crate) fn cgroup(&self, id: &str) -> String {
        format!("/conformance/{}-{id}", self.runtime.name)
    }

    /// A file of a container's cgroup.
    pub(crate) fn cgroup_file(&self, id: &str, name: &str) -> anyhow::Result<String> {
        let path = format!("/sys/fs/cgroup{}/{name}", self.cgroup(id));
        Ok(fs::read_to_string(&path)
            .with_context(|| format!("read {path}"))?
            .trim()
            .to_owned())
    }

    /// A confined container that runs a shell script.
    pub(crate) fn config(&self, script: &str) -> Value {
        json!({
            "ociVersion": "1.1.0",
            "root": { "path": "rootfs" },
            "process": {
                "args": ["sh", "-c", script], "env": ["PATH=/bin", "HOME=/"], "cwd": "/",
                "user": { "uid": 0, "gid": 0 }, "noNewPrivileges": true,
                "capabilities": { "bounding": [], "effective": [], "permitted": [], "inheritable": [], "ambient": [] },
            },
            "mounts": [
                { "destination": "/proc", "type": "proc", "source": "proc" },
                { "destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755", "size=64k"] },
                { "destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"] },
                { "destination": "/tmp", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid"] },
            ],
            "linux": {
                "cgroupsPath": self.cgroup("c"),
                "resources": { "devices": [{ "allow": false, "access": "rwm" }] },
                "namespaces": [
                    { "type": "mount" }, { "type": "pid" }, { "type": "ipc" }, { "type": "uts" },
                    { "type": "network" }, { "type": "cgroup" }],
            },
        })
    }

    /// Runs a command of the runtime to its end, which must come within the deadline.
    pub(crate) fn call(&self, arguments: &[&str]) -> anyhow::Result<Answer> {
        self.spawn("call", arguments, Stdio::null())?.finish()
    }

    /// Starts a command of the runtime; `name` tells its output from that of others at the same time.
    ///
    /// What it prints goes to files: with pipes, a process that outlives the command and holds them would be waited for.
    pub(crate) fn spawn(
        &self,
        name: &str,
        arguments: &[&str],
        stdin: Stdio,
    ) -> anyhow::Result<Call> {
        let (out, err) = (self.output(name, "out"), self.output(name, "err"));
        let child = self
            .command(arguments)
            .stdin(stdin)
            .stdout(File::create(&out)?)
            .stderr(File::create(&err)?)
            .spawn()
            .with_context(|| format!("run {}", self.runtime.path.display()))?;
        Ok(Call {
            what: format!("{arguments:?}"),
            child,
            out,
            err,
        })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.runtime.path);
        command
            .arg("--root")
            .arg(self.directory.join("records"))
            .args(arguments);
        command
    }

    fn output(&self, id: &str, stream: &str) -> PathBuf {
        self.directory.join(format!("{id}.{stream}"))
    }

    /// Creates container `id` from `config`; `Err` with what the runtime said when it refuses.
    pub(crate) fn create(&self, id: &str, config: &Value) -> anyhow::Result<Container<'_>> {
        self.create_with(id, config, &[], Stdio::null())
    }

    /// Like [`Self::create`], with more options and a standard input.
    pub(crate) fn create_with(
        &self,
        id: &str,
        config: &Value,
        options: &[&str],
        stdin: Stdio,
    ) -> anyhow::Result<Container<'_>> {
        let bundle = self.directory.join("bundle");
        fs::write(bundle.join("config.json"), config.to_string())?;
        let pid_file = self.directory.join(format!("{id}.pid"));
        let bundle_text = bundle.to_string_lossy();
        let pid_text = pid_file.to_string_lossy();
        let mut arguments = vec!["create", "--bundle", &bundle_text, "--pid-file", &pid_text];
        arguments.extend(options);
        arguments.push(id);
        let status = self
            .command(&arguments)
            .stdin(stdin)
            .stdout(File::create(self.output(id, "out"))?)
            .stderr(File::create(self.output(id, "err"))?)
            .status()?;
        if !status.success() {
            let said = fs::read_to_string(self.output(id, "err"))?;
            bail!("create failed: {}", said.trim());
        }
        let pid = fs::read_to_string(&pid_file).context("read the pid file")?;
        Ok(Container {
            place: self,
            id: id.to_owned(),
            pid: pid.trim().parse().context("parse the pid file")?,
        })
    }

    /// Creates and starts a container and waits for its end.
    pub(crate) fn run(&self, config: &Value) -> anyhow::Result<Ended> {
        let container = self.create("c", config)?;
        container.start()?;
        container.wait()
    }

    /// Like [`Self::run`]; the container must end well. Returns what it printed.
    pub(crate) fn print(&self, config: &Value) -> anyhow::Result<String> {
        let ended = self.run(config)?;
        if ended.code != 0 {
            bail!(
                "the container ended with {}: {} {}",
                ended.code,
                ended.stdout,
                ended.stderr
            );
        }
        Ok(ended.stdout)
    }

    /// The runtime must refuse to create this; returns its reason.
    pub(crate) fn refusal(&self, config: &Value) -> anyhow::Result<String> {
        match self.create("c", config) {
            Ok(_) => bail!("the runtime created the container"),
            Err(error) => Ok(error.to_string()),
        }
    }
}

impl Call {
    /// Its standard input, when that is a pipe.
    pub(crate) fn stdin(&mut self) -> anyhow::Result<ChildStdin> {
        self.child.stdin.take().context("its input is not a pipe")
    }

    /// Waits for its end, which must come within the deadline.
    pub(crate) fn finish(mut self) -> anyhow::Result<Answer> {
        let deadline = Instant::now() + END_DEADLINE;
        let status = loop {
            if let Some(status) = self.child.try_wait()? {
                break status;
            }
            if Instant::now() > deadline {
                self.child.kill()?;
                self.child.wait()?;
                let (what, said) = (&self.what, fs::read_to_string(&self.err)?);
                bail!("{what} did not end within {END_DEADLINE:?}; it said {said:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        };
        let read =
            |path| fs::read(path).map(|text| String::from_utf8_lossy(&text).trim().to_owned());
        Ok(Answer {
            ok: status.success(),
            code: status.code().unwrap_or(-1),
            stdout: read(&self.out)?,
            stderr: read(&self.err)?,
        })
    }
}

impl Container<'_> {
    pub(crate) fn start(&self) -> anyhow::Result<()> {
        let answer = self.place.call(&["start", &self.id])?;
        if !answer.ok {
            bail!("start failed: {}", answer.stderr);
        }
        Ok(())
    }

    /// `exec` of a command.
    pub(crate) fn exec(&self, command: &[&str]) -> anyhow::Result<Answer> {
        let mut arguments = vec!["exec", self.id.as_str()];
        arguments.extend(command);
        self.place.call(&arguments)
    }

    pub(crate) fn state(&self) -> anyhow::Result<Value> {
        let answer = self.place.call(&["state", &self.id])?;
        if !answer.ok {
            bail!("state failed: {}", answer.stderr);
        }
        serde_json::from_str(&answer.stdout)
            .with_context(|| format!("parse the state {:?}", answer.stdout))
    }

    /// Waits for the container's first process, which is a child of this one by now.
    pub(crate) fn wait(&self) -> anyhow::Result<Ended> {
        let deadline = Instant::now() + END_DEADLINE;
        let code = loop {
            match waitpid(Pid::from_raw(self.pid), Some(WaitPidFlag::WNOHANG))
                .context("wait for the container")?
            {
                WaitStatus::Exited(_, code) => break code,
                WaitStatus::Signaled(_, signal, _) => break 128 + signal as i32,
                _ if Instant::now() > deadline => {
                    bail!("the container did not end within {END_DEADLINE:?}")
                }
                _ => std::thread::sleep(Duration::from_millis(2)),
            }
        };
        let read = |stream| fs::read_to_string(self.place.output(&self.id, stream));
        Ok(Ended {
            code,
            stdout: read("out")?.trim().to_owned(),
            stderr: read("err")?.trim().to_owned(),
        })
    }

    /// Waits until the container's output has this line.
    pub(crate) fn wait_for(&self, line: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + END_DEADLINE;
        loop {
            let text = fs::read_to_string(self.place.output(&self.id, "out"))?;
            if text.lines().any(|printed| printed == line) {
                return Ok(());
            }
            if Instant::now() > deadline {
                bail!("the container printed {text:?}, never {line:?}");
            }
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

impl Drop for Container<'_> {
    fn drop(&mut self) {
        // A case that has deleted its container gets an error here, which is as it should be.
        let _ = self.place.call(&["delete", "--force", &self.id]);
        // Its first process ends only when every process of its PID namespace was waited for, orphans that a runtime
        // has left to this process too.
        let deadline = Instant::now() + END_DEADLINE;
        let own = Pid::from_raw(self.pid);
        while waitpid(own, Some(WaitPidFlag::WNOHANG)) == Ok(WaitStatus::StillAlive) {
            if Instant::now() > deadline {
                println!(
                    "container {} did not end within {END_DEADLINE:?} after its removal",
                    self.id
                );
                return;
            }
            let _ = waitpid(None, Some(WaitPidFlag::WNOHANG));
            std::thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Fails with both values when they differ.
pub(crate) fn same<T: PartialEq + std::fmt::Debug>(
    what: &str,
    found: T,
    expected: T,
) -> anyhow::Result<()> {
    if found != expected {
        bail!("{what} is {found:?}, expected {expected:?}");
    }
    Ok(())
}

/// Fails when `text` lacks `part`.
pub(crate) fn contains(what: &str, text: &str, part: &str) -> anyhow::Result<()> {
    if !text.contains(part) {
        bail!("{what} lacks {part:?}: {text:?}");
    }
    Ok(())
}

/// The value of a line `key value` or `key: value`.
pub(crate) fn field<'a>(text: &'a str, key: &str) -> anyhow::Result<&'a str> {
    text.lines()
        .find_map(|line| line.strip_prefix(key))
        .map(|rest| rest.trim_start_matches(':').trim())
        .with_context(|| format!("no {key} in {text:?}"))
}
