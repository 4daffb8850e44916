//! Keelson as it is shipped, with one more service: the script that waits for Docker.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use super::{Disk, System};
use crate::harness::artifacts::Artifacts;
use crate::harness::{process, seed};

const BUILD_DEADLINE: Duration = Duration::from_secs(1800);

/// Builds it in `dir/keelson`, with a seed as a first boot has one.
///
/// # Errors
/// When the image or the seed cannot be made.
pub fn build(dir: &Path) -> Result<System> {
    let dir = dir.join("keelson");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let mut builder = Command::new("./mkimage.sh");
    builder.args([
        "build",
        "--services",
        "qemu-tests/bench-services",
        "--output",
    ]);
    process::check(builder.arg(&dir), BUILD_DEADLINE)?;
    let artifacts = Artifacts::open(&dir)?;
    // A key of the right form that nobody has.
    let key =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bench";
    Ok(System {
        name: "keelson",
        kernel: artifacts.kernel(),
        initrd: artifacts.initrd(),
        cmdline: artifacts.cmdline()?,
        disks: vec![
            Disk {
                path: artifacts.disk(),
                format: "raw",
            },
            Disk {
                path: seed::fat(&dir, &seed::usual(key))?,
                format: "raw",
            },
        ],
    })
}
