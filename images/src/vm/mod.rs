//! `run`: boots the disk image in QEMU, with the serial console in the terminal.
//!
//! - `acceleration.rs`: whether KVM really works here
//! - `seed.rs`: the NoCloud seed that makes a login possible

mod acceleration;
mod seed;

use std::fs;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::arguments::Run;
use crate::command;
use crate::files;
use crate::workspace::Workspace;

const FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.fd";
/// The same with Secure Boot, which lets only code in system management mode write its variables.
const SECURE_FIRMWARE: &str = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const FIRMWARE_VARIABLES: &str = "/usr/share/OVMF/OVMF_VARS_4M.fd";

/// Boots the image that was built; only comes back when QEMU could not be started.
///
/// # Errors
/// When the disk or the seed cannot be made, or QEMU cannot be started.
pub(crate) fn run(workspace: &Workspace, options: &Run) -> Result<()> {
    let folder = workspace.out.join("run");
    files::make_directory(&folder)?;
    let disk = disk(workspace, &folder, options)?;
    let secure = options.sign.is_some();
    let variables = folder.join(if secure {
        "firmware-variables-secure.fd"
    } else {
        "firmware-variables.fd"
    });
    if options.fresh || !variables.exists() {
        files::replace_durably(&variables, |temporary| {
            fs::copy(FIRMWARE_VARIABLES, temporary)
                .map(drop)
                .context("copying the firmware's variables")
        })?;
    }
    let accelerated = acceleration::works(workspace, &folder)?;
    let seed = seed::prepare(workspace, &folder, options)?;
    let mut qemu = Command::new("qemu-system-x86_64");
    qemu.args(["-machine", if secure { "q35,smm=on" } else { "q35" }])
        .args(acceleration::arguments(accelerated));
    qemu.arg("-smp")
        .arg(options.cpus.to_string())
        .arg("-m")
        .arg(&options.memory);
    let firmware = if secure { SECURE_FIRMWARE } else { FIRMWARE };
    qemu.arg("-drive")
        .arg(format!("if=pflash,format=raw,readonly=on,file={firmware}"));
    if secure {
        qemu.args(["-global", "driver=cfi.pflash01,property=secure,value=on"]);
    }
    qemu.arg("-drive")
        .arg(format!("if=pflash,format=raw,file={}", variables.display()));
    qemu.arg("-drive")
        .arg(format!("if=virtio,format=qcow2,file={}", disk.display()));
    if let Some(seed) = &seed {
        qemu.arg("-drive").arg(format!(
            "if=virtio,format=raw,readonly=on,file={}",
            seed.display()
        ));
    }
    qemu.arg("-netdev").arg(format!(
        "user,id=net0,hostfwd=tcp:127.0.0.1:{}-:22",
        options.ssh_port
    ));
    qemu.args([
        "-device",
        "virtio-net-pci,netdev=net0",
        "-device",
        "virtio-rng-pci",
        "-nographic",
    ]);
    qemu.args(&options.qemu);
    let how = if accelerated {
        "KVM"
    } else {
        "software emulation: KVM does not work here"
    };
    workspace.progress.note(&format!(
        "booting ({how}); SSH on 127.0.0.1 port {}; Ctrl-A X ends QEMU, `poweroff` ends the machine",
        options.ssh_port
    ));
    Err(qemu.exec()).context("starting qemu-system-x86_64")
}

/// The machine's disk: an overlay over the build it was made from, which stays as it was when a new one comes.
fn disk(workspace: &Workspace, folder: &Path, options: &Run) -> Result<PathBuf> {
    let image = workspace.out.join("keelson.img");
    let (base, disk) = (folder.join("base.img"), folder.join("disk.qcow2"));
    if options.fresh || !disk.exists() || !base.exists() {
        for old in [&disk, &base] {
            files::remove(old)?;
        }
        // A second name keeps this build's file when the next build puts another in its place.
        fs::hard_link(&image, &base)
            .with_context(|| format!("linking {} to {}", image.display(), base.display()))?;
        files::replace_durably(&disk, |temporary| {
            let mut make = Command::new("qemu-img");
            make.current_dir(folder)
                .args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b", "base.img"]);
            command::run(make.arg(temporary).arg(&options.disk_size))
                .map(drop)
                .context("making the machine's disk")
        })?;
    } else if !same_file(&image, &base)? {
        workspace.progress.note(&format!(
            "{} holds an earlier build; --fresh boots the new one and loses what is on the disk",
            workspace.shown(&disk)
        ));
    }
    Ok(disk)
}

fn same_file(one: &Path, other: &Path) -> Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let inode =
        |path: &Path| fs::metadata(path).with_context(|| format!("examining {}", path.display()));
    Ok(inode(one)?.ino() == inode(other)?.ino())
}

/// Leaves `text` in `folder/name` for the next run.
fn remember(folder: &Path, name: &str, text: &str) -> Result<()> {
    files::write_durably(&folder.join(name), text.as_bytes())
}

/// What [`remember`] left, if anything.
fn remembered(folder: &Path, name: &str) -> Option<String> {
    let text = fs::read_to_string(folder.join(name)).ok()?;
    Some(text.trim().to_owned())
}

/// Makes sure that what a person named is there.
fn existing(path: &Path) -> Result<&Path> {
    ensure!(
        path.exists(),
        "{} does not exist (paths are taken from the project's folder)",
        path.display()
    );
    Ok(path)
}
