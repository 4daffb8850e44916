//! Keelson as it is shipped, with the seed that the tests use.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::{Disk, Report, System};
use crate::harness::artifacts::Artifacts;
use crate::harness::seed;

/// The system; its seed goes to `dir/keelson`.
///
/// # Errors
/// When the seed cannot be made or the artifacts cannot be read.
pub fn system(artifacts: &Artifacts, dir: &Path) -> Result<System> {
    let dir = dir.join("keelson");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    // The console asks for a password; the key is a placeholder of the right form that nobody has.
    let seed = seed::fat(
        &dir,
        &seed::usual(
            "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA bench",
        ),
    )?;
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
                path: seed,
                format: "raw",
            },
        ],
        report: Report::WhenAsked,
    })
}
