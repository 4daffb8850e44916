//! Keelson as it is shipped, with a seed whose script asks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::measure::ASK;
use super::{Disk, System};
use crate::harness::artifacts::Artifacts;
use crate::harness::seed;

/// The system; its seed goes to `dir/keelson`.
///
/// # Errors
/// When the seed cannot be made or the artifacts cannot be read.
pub fn system(artifacts: &Artifacts, dir: &Path) -> Result<System> {
    let dir = dir.join("keelson");
    fs::create_dir_all(&dir).with_context(|| format!("making {}", dir.display()))?;
    let script: String = ASK.lines().map(|line| format!("      {line}\n")).collect();
    let user_data = format!(
        "#cloud-config\nwrite_files:\n  - path: /etc/ask.sh\n    content: |\n{script}\
         runcmd:\n  - [sh, -c, bash /etc/ask.sh >/dev/ttyS0]\n"
    );
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
                path: seed::fat(&dir, &user_data)?,
                format: "raw",
            },
        ],
    })
}
