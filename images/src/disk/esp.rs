//! The EFI system partition: FAT with systemd-boot, its configuration and the unified kernel image; in signed builds also
//! what systemd-boot hands to the firmware to enrol. And what GRUB reads, where there is no UEFI.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::{MIB, uki::LOADER};
use crate::command;
use crate::files;
use crate::keys::Keys;
use crate::workspace::Workspace;

/// The volume's serial number.
const VOLUME_ID: &str = "4b45454c";

/// What an EFI system partition holds.
#[derive(Debug)]
pub(crate) struct Content<'build> {
    /// Its size.
    pub(crate) size_bytes: u64,
    /// Bits of the file allocation table: 32 on disks; 16, with which a small one is small, on media.
    pub(crate) fat_bits: u8,
    /// How long systemd-boot shows its menu.
    pub(crate) menu_seconds: u32,
    /// The folder with the boot loader; what is made for this partition goes there, too.
    pub(crate) boot: &'build Path,
    /// The unified kernel image.
    pub(crate) uki: &'build Path,
    /// What it is signed with, if it is.
    pub(crate) keys: Option<&'build Keys>,
    /// Further files: where they are, and their path on the partition.
    pub(crate) more: Vec<(PathBuf, String)>,
}

/// Makes the file system image `to`.
///
/// # Errors
/// When mkfs.vfat or mtools fail, as they do when it gets too full.
pub(crate) fn make(workspace: &Workspace, content: Content<'_>, to: &Path) -> Result<()> {
    let size_bytes = content.size_bytes;
    let file = File::create(to).with_context(|| format!("making {}", to.display()))?;
    file.set_len(size_bytes)
        .with_context(|| format!("making {}", to.display()))?;
    command::run(
        Command::new("mkfs.vfat")
            .args(["-F", &content.fat_bits.to_string()])
            .args(["-n", "ESP", "--invariant", "-i", VOLUME_ID])
            .arg(to),
    )
    .context("making the EFI system partition")?;
    let all = files_of(content)?;
    let folders: BTreeSet<&Path> = all
        .iter()
        .flat_map(|(_, path)| Path::new(path).ancestors().skip(1))
        .filter(|folder| !folder.as_os_str().is_empty())
        .collect();
    // Parents come before what is in them.
    for folder in folders {
        mtools(workspace, "mmd", to)
            .and_then(|mut mmd| command::run(mmd.arg(format!("::/{}", folder.display()))))?;
    }
    for (from, path) in &all {
        copy(workspace, from, to, path).with_context(|| {
            format!(
                "copying {path} to the EFI system partition of {} MiB (esp_mib in disk.yml)",
                size_bytes / MIB
            )
        })?;
    }
    Ok(())
}

/// Every file, and its path on the partition.
fn files_of(content: Content<'_>) -> Result<Vec<(PathBuf, String)>> {
    let Content {
        boot, uki, keys, ..
    } = content;
    let configuration = boot.join("loader.conf");
    let text = loader_configuration(content.menu_seconds, keys.is_some());
    files::write_durably(&configuration, text.as_bytes())?;
    let name = uki.file_name().unwrap_or_default().to_string_lossy();
    let loader = boot.join(LOADER);
    let mut all = vec![
        (loader.clone(), "EFI/BOOT/BOOTX64.EFI".to_owned()),
        (loader, "EFI/systemd/systemd-bootx64.efi".to_owned()),
        (configuration, "loader/loader.conf".to_owned()),
        (uki.to_owned(), format!("EFI/Linux/{name}")),
    ];
    all.extend(content.more);
    for (name, update) in keys.iter().flat_map(|keys| &keys.enrolment) {
        let file = boot.join(format!("{name}.auth"));
        files::write_durably(&file, update)?;
        all.push((file, format!("loader/keys/auto/{name}.auth")));
    }
    Ok(all)
}

/// The text of `loader.conf` (loader.conf(5)). Signed, systemd-boot enrols our keys by itself in virtual machines whose firmware is in
/// setup mode; elsewhere, where wrong keys can make a machine useless, its menu offers that.
fn loader_configuration(menu_seconds: u32, signed: bool) -> String {
    let enrol = if signed {
        "secure-boot-enroll if-safe\n"
    } else {
        ""
    };
    format!("timeout {menu_seconds}\nconsole-mode keep\neditor no\n{enrol}")
}

/// Copies the file `from` to `path` in `image`, with a fixed time.
fn copy(workspace: &Workspace, from: &Path, image: &Path, path: &str) -> Result<()> {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(workspace.epoch_seconds);
    let stamped = File::options()
        .write(true)
        .open(from)
        .and_then(|file| file.set_modified(time));
    stamped.with_context(|| format!("setting the time of {}", from.display()))?;
    let mut mcopy = mtools(workspace, "mcopy", image)?;
    mcopy.arg("-m").arg(from).arg(format!("::/{path}"));
    command::run(&mut mcopy).map(drop)
}

/// One of mtools on `image`, with all times fixed.
fn mtools(workspace: &Workspace, program: &str, image: &Path) -> Result<Command> {
    let image = fs::canonicalize(image).with_context(|| format!("finding {}", image.display()))?;
    let mut command = Command::new(program);
    command.env("SOURCE_DATE_EPOCH", workspace.epoch_seconds.to_string());
    command
        .env("TZ", "UTC")
        .env("MTOOLS_SKIP_CHECK", "1")
        .arg("-i")
        .arg(image);
    Ok(command)
}
