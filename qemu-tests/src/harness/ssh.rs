//! Commands in the guest's console container, with the system's own `ssh`.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;

use crate::harness::process::{self, Output};
use crate::harness::serial::Serial;
use crate::harness::vm::Vm;

/// Time between two attempts when the guest writes nothing meanwhile.
const RETRY: Duration = Duration::from_millis(250);
/// How long one command may take when nothing else is said.
pub const COMMAND_DEADLINE: Duration = Duration::from_secs(60);

/// A key pair made for this run.
pub struct Key {
    dir: TempDir,
}

impl Key {
    /// Makes one.
    ///
    /// # Errors
    /// When `ssh-keygen` fails.
    pub fn generate() -> Result<Self> {
        let dir = tempfile::tempdir().context("making a folder for the SSH key")?;
        let mut command = Command::new("ssh-keygen");
        command
            .args(["-q", "-t", "ed25519", "-N", "", "-C", "keelson-test", "-f"])
            .arg(dir.path().join("id"));
        process::check(&mut command, COMMAND_DEADLINE)?;
        Ok(Key { dir })
    }

    /// The private key's file.
    pub fn path(&self) -> PathBuf {
        self.dir.path().join("id")
    }

    /// The line for `authorized_keys`.
    ///
    /// # Errors
    /// When the file is gone.
    pub fn public(&self) -> Result<String> {
        Ok(fs::read_to_string(self.dir.path().join("id.pub"))
            .context("reading the public key")?
            .trim()
            .to_owned())
    }
}

/// A connection to the guest's sshd, over which each command has a channel of its own.
pub struct Ssh {
    port: u16,
    key: PathBuf,
    user: String,
    dir: TempDir,
}

impl Ssh {
    /// Waits until the guest's sshd answers and logs in as `keelson`.
    ///
    /// # Errors
    /// At the deadline, with the last reason and the console's last lines.
    pub fn connect(vm: &Vm, key: &Key, deadline: Duration) -> Result<Self> {
        let dir = tempfile::Builder::new()
            .prefix("keelson-ssh-")
            .tempdir()
            .context("making a folder for ssh")?;
        let ssh = Ssh {
            port: vm.port(22)?,
            key: key.path(),
            user: "keelson".into(),
            dir,
        };
        let until = Instant::now() + deadline;
        wait_for_banner(ssh.port, &vm.serial, until)?;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let Err(error) = ssh.start_master(left) else {
                return Ok(ssh);
            };
            // The key arrives with the seed, which may be read after sshd has started.
            if until <= Instant::now() || !vm.serial.wait_for_change(RETRY) {
                return Err(
                    error.context(format!("the console's last lines:\n{}", vm.serial.tail()))
                );
            }
        }
    }

    /// Runs a command line in the guest's shell.
    ///
    /// # Errors
    /// When ssh itself fails or the deadline passes; not when the command fails.
    pub fn run_with(&self, line: &str, input: &[u8], deadline: Duration) -> Result<Output> {
        let output = process::run(self.command().arg(line), input, deadline)?;
        ensure!(
            output.status.code() != Some(255),
            "ssh to the guest failed: {}",
            output.stderr.trim()
        );
        Ok(output)
    }

    /// Runs a command line within [`COMMAND_DEADLINE`].
    ///
    /// # Errors
    /// As [`Ssh::run_with`].
    pub fn run(&self, line: &str) -> Result<Output> {
        self.run_with(line, &[], COMMAND_DEADLINE)
    }

    /// Runs a command line that must succeed, and gives its output without the last line's end.
    ///
    /// # Errors
    /// As [`Ssh::run_with`], and when it fails, with what it wrote.
    pub fn check(&self, line: &str) -> Result<String> {
        self.check_within(line, COMMAND_DEADLINE)
    }

    /// As [`Ssh::check`], with a deadline of its own.
    ///
    /// # Errors
    /// As [`Ssh::check`].
    pub fn check_within(&self, line: &str, deadline: Duration) -> Result<String> {
        let output = self.run_with(line, &[], deadline)?;
        ensure!(
            output.status.success(),
            "`{line}` in the guest: {}: {}",
            output.status,
            output.text().trim()
        );
        Ok(output.stdout.trim_end().to_owned())
    }

    /// Runs a command line that must fail, and gives its exit status and both of its outputs.
    ///
    /// # Errors
    /// When it succeeds, and as [`Ssh::run_with`].
    pub fn check_fails(&self, line: &str) -> Result<(i32, String)> {
        let output = self.run(line)?;
        ensure!(
            !output.status.success(),
            "`{line}` in the guest should have failed, and said: {}",
            output.text()
        );
        Ok((output.status.code().unwrap_or(-1), output.text()))
    }

    /// Starts a command line that goes on by itself; its output can be read as it comes.
    ///
    /// # Errors
    /// When ssh cannot be started.
    pub fn follow(&self, line: &str) -> Result<Follow> {
        let mut command = self.command();
        command.arg(line);
        Follow::start(command)
    }

    /// Has the guest's `localhost:port` lead to the same port of this machine's, for as long as the answer lives.
    ///
    /// # Errors
    /// When ssh refuses.
    pub fn reverse(&self, port: u16) -> Result<Follow> {
        self.forward("-R", &format!("{port}:127.0.0.1:{port}"))
    }

    /// Has a socket of this machine lead to one of the guest's, for as long as the answer lives.
    ///
    /// # Errors
    /// When ssh refuses.
    pub fn forward_socket(&self, here: &Path, there: &str) -> Result<Follow> {
        self.forward("-L", &format!("{}:{there}", here.display()))
    }

    fn forward(&self, option: &str, way: &str) -> Result<Follow> {
        // sshd drops new connections while many are not logged in yet, and a busy machine may take long to let one in.
        self.try_forward(option, way).or_else(|error| {
            println!("    {error:#}; once more");
            self.try_forward(option, way)
        })
    }

    fn try_forward(&self, option: &str, way: &str) -> Result<Follow> {
        let mut command = Command::new("ssh");
        // A connection of its own: the shared one would keep it. The command says when the way is open.
        command
            .args(["-o", "ControlPath=none", "-o", "ExitOnForwardFailure=yes"])
            .args(self.options())
            .args([option, way])
            .arg(self.target())
            .arg("echo forwarded; exec sleep 100000");
        let follow = Follow::start(command)?;
        let said = follow.next(COMMAND_DEADLINE);
        ensure!(
            said.as_deref() == Some("forwarded"),
            "ssh does not forward {way}: {said:?}"
        );
        Ok(follow)
    }

    /// A connection of its own, not shared: shows that sshd still takes new ones.
    ///
    /// # Errors
    /// When it does not within the deadline.
    pub fn fresh(&self, line: &str, deadline: Duration) -> Result<String> {
        let mut command = Command::new("ssh");
        // The first value counts.
        command
            .args(["-o", "ControlPath=none"])
            .args(self.options())
            .arg(self.target())
            .arg(line);
        process::check(&mut command, deadline).map(|text| text.trim_end().to_owned())
    }

    /// The host key that the guest showed, as in `known_hosts`.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn host_key(&self) -> Result<String> {
        let text = fs::read_to_string(self.dir.path().join("known_hosts"))
            .context("reading known_hosts")?;
        let mut keys: Vec<&str> = text
            .lines()
            .filter_map(|line| line.split_once(' '))
            .map(|(_, key)| key)
            .collect();
        keys.sort_unstable();
        Ok(keys.join("\n"))
    }

    fn start_master(&self, deadline: Duration) -> Result<()> {
        let log = self.dir.path().join("log");
        // It stays in the background, where it must not hold the pipes that tell us of the end.
        let mut command = Command::new("sh");
        command
            .args(["-c", "\"$@\" <&- >/dev/null 2>&1", "sh", "ssh"])
            .args(self.options());
        let output = process::run(
            command
                .args(["-M", "-N", "-f", "-E"])
                .arg(&log)
                .arg(self.target()),
            &[],
            deadline,
        )?;
        let said = fs::read_to_string(&log).unwrap_or_default();
        ensure!(
            output.status.success(),
            "logging in by ssh: {}",
            said.trim()
        );
        Ok(())
    }

    fn command(&self) -> Command {
        let mut command = Command::new("ssh");
        command
            .args(self.options())
            .args(["-o", "ControlMaster=no"])
            .arg(self.target());
        command
    }

    fn target(&self) -> String {
        format!("{}@127.0.0.1", self.user)
    }

    fn options(&self) -> Vec<String> {
        let file = |name: &str| self.dir.path().join(name).display().to_string();
        let mut options: Vec<String> = ["-F", "none", "-T", "-p", &self.port.to_string()]
            .map(String::from)
            .into();
        options.extend(["-i".into(), self.key.display().to_string()]);
        for option in [
            "BatchMode=yes",
            "IdentitiesOnly=yes",
            "StrictHostKeyChecking=accept-new",
            "ConnectTimeout=30",
            &format!("UserKnownHostsFile={}", file("known_hosts")),
            &format!("ControlPath={}", file("master")),
        ] {
            options.extend(["-o".into(), option.to_owned()]);
        }
        options
    }
}

impl Drop for Ssh {
    fn drop(&mut self) {
        // The background process ends with its connection anyway.
        let mut command = Command::new("ssh");
        command
            .args(self.options())
            .args(["-O", "exit"])
            .arg(self.target());
        let _ = process::run(&mut command, &[], Duration::from_secs(5));
    }
}

/// QEMU takes the connection itself and drops it when nobody listens in the guest.
fn wait_for_banner(port: u16, serial: &Serial, until: Instant) -> Result<()> {
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let error = match read_banner(port, left) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if until <= Instant::now() || !serial.wait_for_change(RETRY) {
            return Err(error.context(format!(
                "sshd never answered; the console's last lines:\n{}",
                serial.tail()
            )));
        }
    }
}

fn read_banner(port: u16, left: Duration) -> Result<()> {
    let mut stream =
        TcpStream::connect(("127.0.0.1", port)).context("connecting to the forwarded port")?;
    // A segment sent before the guest had an address is lost: try again rather than wait for its repetition.
    let limit = left.clamp(Duration::from_millis(1), Duration::from_secs(2));
    stream
        .set_read_timeout(Some(limit))
        .context("setting a time limit")?;
    let mut banner = [0; 4];
    stream
        .read_exact(&mut banner)
        .context("sshd does not greet")?;
    if &banner == b"SSH-" {
        Ok(())
    } else {
        Err(anyhow!("what answers is not sshd"))
    }
}

/// A command that goes on in the guest, and the lines it writes.
pub struct Follow {
    child: Child,
    lines: Receiver<String>,
}

impl Follow {
    fn start(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting ssh")?;
        let stdout = child.stdout.take().context("ssh has no output")?;
        let (sender, lines) = mpsc::channel();
        thread::spawn(move || {
            let lines = BufReader::new(stdout).lines().map_while(Result::ok);
            lines.for_each(|line| drop(sender.send(line)));
        });
        Ok(Follow { child, lines })
    }

    /// The next line, or `None` when there is none within `limit` or the command has ended.
    pub fn next(&self, limit: Duration) -> Option<String> {
        self.lines.recv_timeout(limit).ok()
    }
}

impl Drop for Follow {
    fn drop(&mut self) {
        // It may have ended with its machine.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
