//! The state partition of a new disk: ext4, as PID 1 makes it when it is reset, with the configuration in it.

use std::fs::{self, File, OpenOptions, Permissions};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::Command;

use crate::state_partition::{MKE2FS, MKE2FS_EXTENDED, NEW_BYTES};
use anyhow::{Context as _, Result, bail, ensure};
use keelson_config::instance::LAYERS_DIRECTORY;

use super::copy::copy_image;
use super::layout::Part;

/// The configuration's name among the layers.
const LAYER: &str = "install.yml";

/// Makes the file system in a part of a disk and reads it back. It is made in a file in `scratch` first, where mke2fs(8) finds
/// nothing that it could take for something else.
///
/// # Errors
/// mke2fs fails, the disk cannot be written, or does not give back what was written.
pub fn write(disk: &File, part: &Part, configuration: Option<&str>, scratch: &Path) -> Result<()> {
    ensure!(part.size >= NEW_BYTES, "the state partition is too small");
    let work = tempfile::tempdir_in(scratch).context("make a temporary directory")?;
    let (tree, image) = (work.path().join("tree"), work.path().join("image"));
    make_tree(&tree, configuration).context("lay out the state partition")?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs
        .args(MKE2FS)
        .arg(MKE2FS_EXTENDED)
        .arg("-d")
        .arg(&tree)
        .arg(&image);
    let output = mke2fs
        .arg(format!("{}k", NEW_BYTES / 1024))
        .output()
        .context("run mke2fs")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("make the state file system: {}", said.trim());
    }
    copy_image(&File::open(&image)?, disk, part.offset).context("write the state partition")
}

fn make_tree(tree: &Path, configuration: Option<&str>) -> Result<()> {
    let directory = |path: &Path| fs::DirBuilder::new().mode(0o755).create(path);
    directory(tree)?;
    let Some(text) = configuration else {
        return Ok(());
    };
    let config = tree.join("config");
    directory(&config)?;
    directory(&config.join(LAYERS_DIRECTORY))?;
    let file = config.join(LAYERS_DIRECTORY).join(LAYER);
    fs::write(&file, text)?;
    // It may hold secrets.
    fs::set_permissions(&file, Permissions::from_mode(0o600))?;
    Ok(())
}

/// Opens a disk that nobody uses, and has it for itself (open(2), `O_EXCL` of a block device).
///
/// # Errors
/// What open(2) reports, `EBUSY` when it is in use.
pub fn claim(disk: &Path) -> std::io::Result<File> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(nix::fcntl::OFlag::O_EXCL.bits())
        .open(disk)
}
