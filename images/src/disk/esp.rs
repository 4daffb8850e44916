//! The EFI system partition: FAT32 with systemd-boot, its configuration and the unified kernel image; in signed builds also
//! what systemd-boot hands to the firmware to enrol.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result};

use super::{MIB, uki::LOADER};
use crate::command;
use crate::files;
use crate::keys::Keys;
use crate::recipe;
use crate::workspace::Workspace;

/// The volume's serial number.
const VOLUME_ID: &str = "4b45454c";

/// Folders of the partition, parents first.
const FOLDERS: [&str; 5] = ["EFI", "EFI/BOOT", "EFI/systemd", "EFI/Linux", "loader"];

/// Further folders in signed builds: where systemd-boot looks for keys.
const KEY_FOLDERS: [&str; 2] = ["loader/keys", "loader/keys/auto"];

/// Makes the file system image `to`.
///
/// # Errors
/// When mkfs.vfat or mtools fail, as they do when it gets too full.
pub(crate) fn make(
    workspace: &Workspace,
    recipe: &recipe::Disk,
    boot: &Path,
    uki: &Path,
    keys: Option<&Keys>,
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
    let text = loader_configuration(recipe.menu_seconds, keys.is_some());
    files::write_durably(&configuration, text.as_bytes())?;
    let key_folders = keys.map(|_| KEY_FOLDERS).into_iter().flatten();
    for folder in FOLDERS.into_iter().chain(key_folders) {
        mtools(workspace, "mmd", to)
            .and_then(|mut mmd| command::run(mmd.arg(format!("::/{folder}"))))?;
    }
    let name = uki.file_name().unwrap_or_default().to_string_lossy();
    let loader = boot.join(LOADER);
    let mut content = vec![
        (loader.clone(), "EFI/BOOT/BOOTX64.EFI".to_owned()),
        (loader, "EFI/systemd/systemd-bootx64.efi".to_owned()),
        (configuration, "loader/loader.conf".to_owned()),
        (uki.to_owned(), format!("EFI/Linux/{name}")),
    ];
    for (name, update) in keys.iter().flat_map(|keys| &keys.enrolment) {
        let file = boot.join(format!("{name}.auth"));
        files::write_durably(&file, update)?;
        content.push((file, format!("loader/keys/auto/{name}.auth")));
    }
    for (from, path) in &content {
        copy(workspace, from, to, path).with_context(|| {
            format!(
                "copying {path} to the EFI system partition of {} MiB (esp_mib in disk.yml)",
                recipe.esp_mib
            )
        })?;
    }
    Ok(())
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
