//! The disk image in the formats of hypervisors, by qemu-img.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use crate::arguments::Format;
use crate::command;
use crate::disk::Disk;
use crate::workspace::Workspace;

/// Converts the disk image: names of outputs, and files.
///
/// # Errors
/// When qemu-img fails.
pub(crate) fn formats(
    workspace: &Workspace,
    disk: &Disk,
    formats: &[Format],
) -> Result<Vec<(String, PathBuf)>> {
    let mut formats = formats.to_vec();
    formats.sort();
    formats.dedup();
    let convert = |format: Format| {
        let name = format.name();
        let step = workspace
            .step(name)
            .code(&[include_str!("formats.rs")])
            .result_of(disk.image.parent().unwrap_or(&disk.image));
        let file = step.run(|path, _| {
            let mut convert = Command::new("qemu-img");
            convert.args(["convert", "-q", "-f", "raw", "-O", name]);
            command::run(convert.arg(&disk.image).arg(path))
                .context("converting the disk image")
                .map(drop)
        })?;
        Ok((format!("keelson.{name}"), file))
    };
    formats.into_iter().map(convert).collect()
}
