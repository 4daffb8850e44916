//! Boots a system and reads its figures.

use std::fmt;
use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

use super::System;
use crate::harness::serial::Serial;
use crate::harness::{disk, process};

/// What systems print when Docker has answered and 20 s have passed: `@@bench docker_s=N total_kib=N available_kib=N@@`.
const MARKER: &str = "@@bench docker_s=";
const DEADLINE: Duration = Duration::from_secs(1200);
const TOOL_DEADLINE: Duration = Duration::from_secs(60);

/// Prints the marker; run in the guest once it is up. `docker version` needs the daemon's answer; without its socket it
/// would only fail, over and over, and slow down what is measured.
pub const ASK: &str = include_str!("../../bench-services/asker/ask.sh");

/// What time is measured with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Clock {
    /// Guest instructions, 1 ns each, on one processor: hardly moves with the host's load.
    Instructions,
    /// The host's clock, on two processors: from QEMU's start to the marker.
    Wall,
}

impl fmt::Display for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Clock::Instructions => "instructions",
            Clock::Wall => "wall",
        })
    }
}

/// What was measured in one boot.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Figures {
    /// From the kernel's start (instructions) or QEMU's (wall) to the first answer of Docker, in seconds.
    pub docker_answers_s: f64,
    /// Memory not available for programs, 20 s of the guest's time later.
    pub memory_used_mib: f64,
}

/// A machine that ends with its measurement.
struct Machine(Child);

impl Drop for Machine {
    fn drop(&mut self) {
        // Both fail only when it has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A system whose disks are in memory: where QEMU waits for the host's disk, the guest's clock jumps.
pub struct Ready<'a> {
    system: &'a System,
    disks: Vec<PathBuf>,
    memory: TempDir,
}

impl<'a> Ready<'a> {
    /// Copies the disks of `system` to memory.
    ///
    /// # Errors
    /// When they do not fit.
    pub fn prepare(system: &'a System) -> Result<Self> {
        let memory = tempfile::tempdir().context("making a folder in memory")?;
        let mut disks = Vec::new();
        for (index, disk) in system.disks.iter().enumerate() {
            let copy = memory.path().join(format!("base{index}"));
            disks.push(disk::copy(&disk.path, &copy)?);
        }
        Ok(Ready {
            system,
            disks,
            memory,
        })
    }

    /// Boots it once. Logs go to `dir`.
    ///
    /// # Errors
    /// When it does not come up; shows the console's last lines.
    pub fn measure(&self, clock: Clock, dir: &Path) -> Result<Figures> {
        let mut disks = Vec::new();
        for (index, (base, disk)) in self.disks.iter().zip(&self.system.disks).enumerate() {
            let overlay = self.memory.path().join(format!("disk{index}.qcow2"));
            make_overlay(base, disk.format, &overlay)?;
            disks.push(overlay);
        }
        measure(self.system, &disks, clock, dir)
    }
}

fn measure(system: &System, disks: &[PathBuf], clock: Clock, dir: &Path) -> Result<Figures> {
    fs::create_dir_all(dir).with_context(|| format!("making {}", dir.display()))?;
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(options(clock));
    command.args([
        "-nodefaults",
        "-no-user-config",
        "-display",
        "none",
        "-machine",
        "q35",
        "-m",
        "2048",
    ]);
    command.args([
        "-serial",
        "stdio",
        "-device",
        "virtio-rng-pci",
        "-no-reboot",
    ]);
    command
        .arg("-kernel")
        .arg(&system.kernel)
        .arg("-initrd")
        .arg(&system.initrd);
    command.args(["-append", &system.cmdline]);
    command.args([
        "-netdev",
        &format!(
            "user,id=net0,restrict=on,hostfwd=tcp:127.0.0.1:{}-:22",
            free_port()?
        ),
    ]);
    command.args(["-device", "virtio-net-pci,netdev=net0"]);
    for (index, overlay) in disks.iter().enumerate() {
        command.args([
            "-drive",
            &format!(
                "if=none,id=disk{index},format=qcow2,cache=unsafe,file={}",
                overlay.display()
            ),
        ]);
        command.args(["-device", &format!("virtio-blk-pci,drive=disk{index}")]);
    }
    let complaints = fs::File::create(dir.join("qemu.log")).context("making qemu.log")?;
    let began = Instant::now();
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(complaints)
        .spawn()
        .context("starting qemu-system-x86_64")?;
    let (Some(output), Some(input)) = (child.stdout.take(), child.stdin.take()) else {
        bail!("QEMU has no console")
    };
    let machine = Machine(child);
    let serial = Serial::new(output, input, &dir.join(format!("serial-{clock}.log")))?;
    let figures = read(clock, &serial, began).with_context(|| format!("measuring {}", system.name));
    drop(machine);
    figures
}

fn options(clock: Clock) -> Vec<&'static str> {
    match clock {
        Clock::Instructions => {
            vec![
                "-accel",
                "tcg,thread=single",
                "-icount",
                "shift=0,sleep=off",
                "-cpu",
                "max",
                "-smp",
                "1",
            ]
        }
        Clock::Wall => vec!["-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2"],
    }
}

fn read(clock: Clock, serial: &Serial, began: Instant) -> Result<Figures> {
    serial.wait_for("@@bench answered@@", DEADLINE)?;
    let wall_s = began.elapsed().as_secs_f64();
    serial.wait_for(MARKER, DEADLINE)?;
    serial.wait_for("@@", TOOL_DEADLINE)?;
    let mut figures = parse(&serial.text()).context("the system printed no figures")?;
    if clock == Clock::Wall {
        figures.docker_answers_s = wall_s;
    }
    Ok(figures)
}

fn parse(text: &str) -> Option<Figures> {
    let line = text.rsplit(MARKER).next()?.split("@@").next()?;
    let mut words = line.split_whitespace();
    let docker_answers_s = words.next()?.parse().ok()?;
    let mut kib = |name| words.next()?.strip_prefix(name)?.parse::<f64>().ok();
    let (total, available) = (kib("total_kib=")?, kib("available_kib=")?);
    Some(Figures {
        docker_answers_s,
        memory_used_mib: (total - available) / 1024.0,
    })
}

/// A port that nobody listens on now.
fn free_port() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).context("looking for a free port")?;
    Ok(listener.local_addr()?.port())
}

fn make_overlay(base: &Path, format: &str, overlay: &Path) -> Result<()> {
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2", "-F", format, "-b"]);
    command.arg(base.canonicalize()?).arg(overlay).arg("8G");
    process::check(&mut command, TOOL_DEADLINE).map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_last_marker() {
        let text = "@@bench answered@@\nsomething\n@@bench docker_s=6.52 total_kib=2048000 available_kib=1843200@@\nmore";
        assert_eq!(
            parse(text),
            Some(Figures {
                docker_answers_s: 6.52,
                memory_used_mib: 200.0
            })
        );
        assert_eq!(parse("nothing"), None);
    }
}
