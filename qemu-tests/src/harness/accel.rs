//! Which accelerator really works here.
//!
//! `/dev/kvm` may exist, open, and create machines, and a stock kernel may still hang under it before its first line.
//! So the answer comes from booting one.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::harness::serial::Serial;

/// How long an accelerated kernel may take to its first line.
const PROBE_DEADLINE: Duration = Duration::from_secs(6);

/// How QEMU runs the guest's instructions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Accel {
    /// The host's virtualisation.
    Kvm,
    /// QEMU's own translator, one thread a CPU.
    Tcg,
}

impl Accel {
    /// Boots `kernel` for a few seconds with each accelerator that could work.
    pub fn probe(kernel: &Path, scratch: &Path) -> Accel {
        let opens = std::fs::OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok();
        if opens && boots_under_kvm(kernel, scratch) {
            Accel::Kvm
        } else {
            Accel::Tcg
        }
    }

    /// QEMU's options.
    pub fn options(self) -> [&'static str; 4] {
        match self {
            Accel::Kvm => ["-accel", "kvm", "-cpu", "host"],
            Accel::Tcg => ["-accel", "tcg,thread=multi", "-cpu", "max"],
        }
    }
}

fn boots_under_kvm(kernel: &Path, scratch: &Path) -> bool {
    let mut command = Command::new("setpriv");
    command
        .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
        .args(Accel::Kvm.options());
    command.args([
        "-nodefaults",
        "-display",
        "none",
        "-machine",
        "q35",
        "-m",
        "512",
        "-serial",
        "stdio",
        "-no-reboot",
    ]);
    command
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", "console=ttyS0 panic=-1"]);
    let Ok(mut child) = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
    else {
        return false;
    };
    let works = match (child.stdout.take(), child.stdin.take()) {
        (Some(output), Some(input)) => Serial::new(output, input, &scratch.join("accel-probe.log"))
            .and_then(|serial| serial.wait_for("Linux version", PROBE_DEADLINE))
            .is_ok(),
        _ => false,
    };
    // It may have ended by itself: the kernel panics without a root.
    let _ = child.kill();
    let _ = child.wait();
    works
}
