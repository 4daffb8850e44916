//! Files of a disk image's EFI system partition, by mtools.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};
use tempfile::NamedTempFile;

use crate::harness::{disk, process};

const TOOL_DEADLINE: Duration = Duration::from_secs(60);

/// Where the firmware finds the boot loader.
pub const LOADER: &str = "EFI/BOOT/BOOTX64.EFI";

/// The EFI system partition of a raw image.
pub struct Esp {
    /// As mtools take it: file and first byte.
    image: String,
}

impl Esp {
    /// That of `raw`.
    ///
    /// # Errors
    /// When it has none.
    pub fn of(raw: &Path) -> Result<Self> {
        let start_bytes = disk::partition(raw, "esp")?.start_bytes;
        let image = format!("{}@@{start_bytes}", raw.display());
        Ok(Esp { image })
    }

    /// Content of the file `path`.
    ///
    /// # Errors
    /// When there is none.
    pub fn read(&self, path: &str) -> Result<Vec<u8>> {
        let file = scratch()?;
        let mut mcopy = self.tool("mcopy");
        mcopy.args(["-n", "-o"]).arg(format!("::/{path}"));
        process::check(mcopy.arg(file.path()), TOOL_DEADLINE)?;
        fs::read(file.path()).with_context(|| format!("reading {path} of the ESP"))
    }

    /// Writes the file `path`, over what is there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let file = scratch()?;
        fs::write(file.path(), content).with_context(|| format!("writing {path}"))?;
        let mut mcopy = self.tool("mcopy");
        mcopy.arg("-o").arg(file.path());
        process::check(mcopy.arg(format!("::/{path}")), TOOL_DEADLINE).map(drop)
    }

    /// Makes the folder `path`, whose parent is there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn make_directory(&self, path: &str) -> Result<()> {
        let mut mmd = self.tool("mmd");
        process::check(mmd.arg(format!("::/{path}")), TOOL_DEADLINE).map(drop)
    }

    /// Path of the one unified kernel image.
    ///
    /// # Errors
    /// When there is none.
    pub fn kernel_image(&self) -> Result<String> {
        let mut mdir = self.tool("mdir");
        let list = process::check(mdir.args(["-b", "::/EFI/Linux"]), TOOL_DEADLINE)?;
        let path = list.lines().find_map(|line| line.strip_prefix("::/"));
        Ok(path.context("the ESP has no kernel image")?.to_owned())
    }

    /// Names of the files in the folder `path`.
    ///
    /// # Errors
    /// When there is no such folder.
    pub fn list(&self, path: &str) -> Result<Vec<String>> {
        let mut mdir = self.tool("mdir");
        let list = process::check(mdir.arg("-b").arg(format!("::/{path}")), TOOL_DEADLINE)?;
        let names = list.lines().filter_map(|line| line.rsplit('/').next());
        Ok(names.map(str::to_owned).collect())
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        // The image is not one of a whole disk, as mtools would like to see.
        command
            .env("MTOOLS_SKIP_CHECK", "1")
            .arg("-i")
            .arg(&self.image);
        command
    }
}

/// A file for mtools to read or write.
///
/// # Errors
/// When it cannot be made.
fn scratch() -> Result<NamedTempFile> {
    NamedTempFile::new().context("making a file for mtools")
}
