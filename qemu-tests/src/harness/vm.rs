//! A running machine.

use std::fs;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use tempfile::TempDir;

use crate::harness::accel::Accel;
use crate::harness::machine::{Boot, FIRMWARE_VARIABLES, Machine};
use crate::harness::qmp::{self, Qmp};
use crate::harness::serial::Serial;

/// How long QEMU may take to read a saved machine.
const LOAD_DEADLINE: Duration = Duration::from_secs(90);

/// A running QEMU. It is killed when this is dropped, and by the kernel when our thread ends.
pub struct Vm {
    child: Child,
    started: Instant,
    /// The serial console.
    pub serial: Serial,
    /// QEMU's control socket.
    pub qmp: Qmp,
    forwards: Vec<(u16, u16)>,
    observer: Option<UnixStream>,
    // Sockets lie here, for paths short enough for sockaddr_un.
    _runtime: TempDir,
}

impl Vm {
    /// Starts `machine`; its logs go to `dir`.
    ///
    /// # Errors
    /// When QEMU cannot be started or does not speak; shows what it complained about.
    pub fn start(machine: &Machine, accel: Accel, dir: &Path) -> Result<Self> {
        let complaints = dir.join("qemu.log");
        Self::launch(machine, accel, dir).map_err(|error| {
            let text = fs::read_to_string(&complaints).unwrap_or_default();
            if text.is_empty() {
                error
            } else {
                error.context(format!("QEMU says: {}", text.trim()))
            }
        })
    }

    fn launch(machine: &Machine, accel: Accel, dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
        let runtime = tempfile::Builder::new()
            .prefix("keelson-vm-")
            .tempdir()
            .context("making a folder for sockets")?;
        if matches!(machine.boot, Boot::Uefi) {
            fs::copy(
                FIRMWARE_VARIABLES,
                runtime.path().join("firmware-variables"),
            )
            .context("copying UEFI variables")?;
        }
        let listener = UnixListener::bind(runtime.path().join("qmp"))
            .context("making QEMU's control socket")?;
        let observer = match machine.observer {
            true => Some(
                UnixListener::bind(runtime.path().join("observer"))
                    .context("making the observer's socket")?,
            ),
            false => None,
        };
        let log = next_log(dir);
        let started = Instant::now();
        let mut child = Command::new("setpriv")
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(machine.arguments(accel, runtime.path()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(dir.join("qemu.log")).context("making qemu.log")?)
            .spawn()
            .context("starting qemu-system-x86_64")?;
        let connected = connect(&mut child, &listener, observer.as_ref(), &log);
        let (serial, qmp, observer) = connected.inspect_err(|_| end(&mut child))?;
        let mut vm = Vm {
            child,
            started,
            serial,
            qmp,
            forwards: Vec::new(),
            observer,
            _runtime: runtime,
        };
        if !machine.network.forwards().is_empty() {
            vm.forwards = parse_forwards(&vm.qmp.human("info usernet")?);
        }
        if let Some(saved) = &machine.incoming {
            vm.resume(saved)?;
        }
        Ok(vm)
    }

    fn resume(&mut self, saved: &Path) -> Result<()> {
        let capability = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        self.qmp.execute("migrate-set-capabilities", capability)?;
        self.qmp.execute(
            "migrate-incoming",
            json!({ "uri": format!("file:{}", saved.display()) }),
        )?;
        let ended =
            |data: &serde_json::Value| data["status"] == "completed" || data["status"] == "failed";
        let event = self
            .qmp
            .wait_event_where("MIGRATION", LOAD_DEADLINE, ended)?;
        if event["data"]["status"] == "failed" {
            bail!("QEMU could not load {}", saved.display());
        }
        self.qmp.execute("cont", json!({}))?;
        Ok(())
    }

    /// The host's port that leads to `guest_port`.
    ///
    /// # Errors
    /// When that port is not forwarded.
    pub fn port(&self, guest_port: u16) -> Result<u16> {
        let found = self.forwards.iter().find(|(guest, _)| *guest == guest_port);
        found
            .map(|(_, host)| *host)
            .with_context(|| format!("port {guest_port} of the guest is not forwarded"))
    }

    /// The connection to the observer's port; can be taken once.
    ///
    /// # Errors
    /// When the machine has none.
    pub fn take_observer(&mut self) -> Result<UnixStream> {
        self.observer
            .take()
            .context("this machine has no observer port")
    }

    /// Time since QEMU was started.
    pub fn age(&self) -> Duration {
        self.started.elapsed()
    }

    /// QEMU's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits until the guest has switched the machine off and QEMU has ended.
    ///
    /// # Errors
    /// At the deadline, showing the console's last lines.
    pub fn wait_off(&mut self, deadline: Duration) -> Result<ExitStatus> {
        let event = self.qmp.wait_event("SHUTDOWN", deadline);
        event.with_context(|| {
            format!(
                "the machine did not switch off; its last lines:\n{}",
                self.serial.tail()
            )
        })?;
        self.child.wait().context("waiting for QEMU")
    }

    /// Ends QEMU at once, as a power cut does: nothing that it has not passed on to the file is written any more.
    pub fn cut_power(mut self) {
        end(&mut self.child);
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        end(&mut self.child);
    }
}

fn connect(
    child: &mut Child,
    listener: &UnixListener,
    observer: Option<&UnixListener>,
    log: &Path,
) -> Result<(Serial, Qmp, Option<UnixStream>)> {
    let output = child.stdout.take().context("QEMU has no output")?;
    let input = child.stdin.take().context("QEMU has no input")?;
    let serial = Serial::new(output, input, log)?;
    // QEMU connects its character devices before it answers on the control socket.
    let observer = match observer {
        Some(listener) => {
            Some(qmp::accept(listener, Duration::from_secs(30)).context("waiting for QEMU")?)
        }
        None => None,
    };
    Ok((serial, Qmp::accept(listener)?, observer))
}

fn end(child: &mut Child) {
    // Both fail only when it has ended already.
    let _ = child.kill();
    let _ = child.wait();
}

/// `serial.log`, `serial-2.log` ... for the boots of one test.
fn next_log(dir: &Path) -> std::path::PathBuf {
    let first = dir.join("serial.log");
    if !first.exists() {
        return first;
    }
    (2..)
        .map(|number| dir.join(format!("serial-{number}.log")))
        .find(|path| !path.exists())
        .unwrap_or(first)
}

/// Reads (guest port, host port) from `info usernet`.
fn parse_forwards(text: &str) -> Vec<(u16, u16)> {
    let lines = text.lines().filter(|line| line.contains("HOST_FORWARD"));
    lines
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            Some((words.get(5)?.parse().ok()?, words.get(3)?.parse().ok()?))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forwarded_ports_are_read_from_qemus_table() {
        let text = "Hub -1 (net0):\n  Protocol[State]    FD  Source Address  Port   Dest. Address  Port RecvQ SendQ\n  \
                    TCP[HOST_FORWARD]  13       127.0.0.1 40193       10.0.2.15    22     0     0\n  \
                    UDP[236 sec]       14       10.0.2.15 68          10.0.2.2     67     0     0\n";
        assert_eq!(parse_forwards(text), [(22, 40193)]);
    }
}
