//! Whether KVM works: `/dev/kvm` may be there and run no ordinary kernel, so one is booted for a few seconds.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{remember, remembered};
use crate::workspace::Workspace;

/// How long the kernel has for its first line; on working KVM it takes a fraction of a second.
const DEADLINE: Duration = Duration::from_secs(6);

/// What the kernel's first line holds.
const FIRST_WORDS: &[u8] = b"Linux version";

/// QEMU's arguments.
pub(crate) fn arguments(accelerated: bool) -> [&'static str; 4] {
    if accelerated {
        ["-accel", "kvm", "-cpu", "host"]
    } else {
        ["-accel", "tcg,thread=multi", "-cpu", "max"]
    }
}

/// Whether our kernel starts under KVM. The answer is kept until this machine boots again.
///
/// # Errors
/// When QEMU cannot be started or the answer not be kept.
pub(crate) fn works(workspace: &Workspace, folder: &Path) -> Result<bool> {
    if !Path::new("/dev/kvm").exists() {
        return Ok(false);
    }
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    let (yes, no) = (
        format!("kvm {}", boot.trim()),
        format!("tcg {}", boot.trim()),
    );
    if let Some(answer) = remembered(folder, "acceleration")
        && (answer == yes || answer == no)
    {
        return Ok(answer == yes);
    }
    let running = workspace.progress.begin("probe KVM");
    let works = boots(&workspace.out.join("vmlinuz"))?;
    running.done(if works { "works" } else { "does not work" });
    remember(folder, "acceleration", if works { &yes } else { &no })?;
    Ok(works)
}

fn boots(kernel: &Path) -> Result<bool> {
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args([
        "-machine",
        "q35",
        "-nodefaults",
        "-display",
        "none",
        "-m",
        "512",
        "-no-reboot",
        "-serial",
        "stdio",
    ]);
    qemu.args(arguments(true))
        .arg("-kernel")
        .arg(kernel)
        .args(["-append", "console=ttyS0 panic=-1"]);
    let mut machine = qemu
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .context("starting qemu-system-x86_64 to probe KVM")?;
    let (sender, answer) = mpsc::channel();
    if let Some(mut serial) = machine.stdout.take() {
        thread::spawn(move || sender.send(speaks(&mut serial)));
    }
    let works = answer.recv_timeout(DEADLINE).unwrap_or(false);
    // It may have ended by itself: without a root the kernel panics.
    drop(machine.kill());
    machine.wait().context("ending the probe of KVM")?;
    Ok(works)
}

/// Reads until the kernel's first line came (true) or the machine ended (false).
fn speaks(serial: &mut dyn Read) -> bool {
    let mut seen = Vec::new();
    let mut block = [0; 512];
    while let Ok(size @ 1..) = serial.read(&mut block) {
        seen.extend_from_slice(&block[..size]);
        if seen
            .windows(FIRST_WORDS.len())
            .any(|window| window == FIRST_WORDS)
        {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_is_found_across_reads_and_silence_is_not_taken_for_it() {
        assert!(speaks(
            &mut (&b"junk [0.0] Linux ver"[..]).chain(&b"sion 6.12"[..])
        ));
        assert!(!speaks(&mut &b"Linux"[..]));
    }
}
