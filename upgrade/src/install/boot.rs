//! The EFI system partition of a new disk: FAT32 with boot loader, its settings, and the unified kernel image; made by the tools that make
//! that of the disk image.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use super::copy::copy_image;
use super::layout::Part;

/// A file of the partition.
#[derive(Clone, Debug)]
pub struct BootFile {
    /// Its path there.
    pub path: String,
    /// Where it is taken from.
    pub from: PathBuf,
}

/// Makes the file system with these files in a part of a disk, and reads it back. It is made in a file in `scratch` first.
///
/// # Errors
/// The files do not fit, the disk cannot be written, or does not give back what was written.
pub fn write(disk: &File, part: &Part, files: &[BootFile], scratch: &Path) -> Result<()> {
    let work = tempfile::tempdir_in(scratch).context("make a temporary directory")?;
    let image = work.path().join("esp");
    let file = File::create_new(&image).context("make a temporary file")?;
    file.set_len(part.size).context("make a temporary file")?;
    let mut mkfs = Command::new("mkfs.fat");
    run(mkfs.args(["-F", "32", "-n", "ESP"]).arg(&image))?;
    let folders: BTreeSet<&str> = files
        .iter()
        .flat_map(|file| {
            file.path
                .match_indices('/')
                .map(move |(end, _)| &file.path[..end])
        })
        .collect();
    for folder in folders {
        run(mtools("mmd", &image).arg(format!("::/{folder}")))?;
    }
    for BootFile { path, from } in files {
        run(mtools("mcopy", &image).arg(from).arg(format!("::/{path}")))
            .with_context(|| format!("write {path} to the EFI system partition (is it full?)"))?;
    }
    copy_image(&File::open(&image)?, disk, part.offset).context("write the EFI system partition")
}

fn mtools(program: &str, image: &Path) -> Command {
    let mut command = Command::new(program);
    command.env("MTOOLS_SKIP_CHECK", "1");
    // ASCII: the tables of other code pages are not in the system.
    command.env("DEFAULT_CODEPAGE", "367").arg("-i").arg(image);
    command
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command.output().with_context(|| format!("run {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program}: {}", said.trim());
    }
    Ok(())
}

/// The files below a folder, if it is there.
///
/// # Errors
/// It cannot be read.
pub fn files_of(root: &Path, folder: &str) -> Result<Vec<BootFile>> {
    let entries = match fs::read_dir(root.join(folder)) {
        Ok(entries) => entries,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(|| format!("read {folder}")),
    };
    let mut files = Vec::new();
    for entry in entries {
        let from = entry.with_context(|| format!("read {folder}"))?.path();
        let name = from.file_name().unwrap_or_default().to_string_lossy();
        files.push(BootFile {
            path: format!("{folder}/{name}"),
            from,
        });
    }
    Ok(files)
}
