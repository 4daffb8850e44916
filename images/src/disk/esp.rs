//! The EFI system partition: FAT32 with systemd-boot, its configuration and the unified kernel image.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::MIB;
use crate::command;
use crate::files;
use crate::recipe;
use crate::workspace::Workspace;

/// The volume's serial number.
const VOLUME_ID: &str = "4b45454c";

/// Folders of the partition, parents first.
const FOLDERS: [&str; 5] = ["EFI", "EFI/BOOT", "EFI/systemd", "EFI/Linux", "loader"];

/// Makes the file system image `to`.
///
/// # Errors
/// When mkfs.vfat or mtools fail, as they do when it gets too full.
pub(crate) fn make(
    workspace: &Workspace,
    recipe: &recipe::Disk,
    boot: &Path,
    uki: &Path,
    to: &Path,
) -> Result<()> {
    let file = File::create(to).with_context(|| format!("making {}", to.display()))?;
    file.set_len(recipe.esp_mib * MIB)
        .with_context(|| format!("making {}", to.display()))?;
    command::run(
        Command::new("mkfs.vfat")
            .args(["-F", "32", "-n", "ESP", "--invariant", "-i", VOLUME_ID])
            .arg(to),
    )
    .context("making the EFI system partition")?;
    let configuration = boot.join("loader.conf");
    let text = format!(
        "timeout {}\nconsole-mode keep\neditor no\n",
        recipe.menu_seconds
    );
    files::write_durably(&configuration, text.as_bytes())?;
    for folder in FOLDERS {
        mtools(workspace, "mmd", to)
            .and_then(|mut mmd| command::run(mmd.arg(format!("::/{folder}"))))?;
    }
    let name = uki.file_name().unwrap_or_default().to_string_lossy();
    let loader = boot.join("boot_loader");
    for (from, path) in [
        (loader.as_path(), "EFI/BOOT/BOOTX64.EFI"),
        (loader.as_path(), "EFI/systemd/systemd-bootx64.efi"),
        (configuration.as_path(), "loader/loader.conf"),
        (uki, &format!("EFI/Linux/{name}")),
    ] {
        let time = SystemTime::UNIX_EPOCH + Duration::from_secs(workspace.epoch_seconds);
        let stamped = File::options()
            .write(true)
            .open(from)
            .and_then(|file| file.set_modified(time));
        stamped.with_context(|| format!("setting the time of {}", from.display()))?;
        let mut mcopy = mtools(workspace, "mcopy", to)?;
        mcopy.arg("-m").arg(from).arg(format!("::/{path}"));
        command::run(&mut mcopy).with_context(|| {
            format!(
                "copying {path} to the EFI system partition of {} MiB (esp_mib in disk.yml)",
                recipe.esp_mib
            )
        })?;
    }
    Ok(())
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
