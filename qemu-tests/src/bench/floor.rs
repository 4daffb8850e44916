//! The floor: a shell script as PID 1 that starts dockerd and nothing else.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};

use super::measure::ASK;
use super::tree::{self, Tree};
use super::{Disk, System};

const PACKAGES: &[&str] = &[
    "docker.io",
    "docker-cli",
    "containerd",
    "runc",
    "iptables",
    "kmod",
    "bash",
    "coreutils",
    "mount",
    "iproute2",
    "busybox-static",
    "ca-certificates",
];
const SCRIPT: &str = include_str!("floor.sh");

/// Builds the floor in `dir/floor`, or takes what is there.
///
/// # Errors
/// When packages cannot be had or unpacked.
pub fn build(dir: &Path) -> Result<System> {
    let dir = dir.join("floor");
    let tree = Tree::unpack(&dir, PACKAGES)?;
    let disk = dir.join("disk.img");
    let initrd = dir.join("initrd");
    if !disk.exists() {
        for (link, target) in [("iptables", "iptables-nft"), ("ip6tables", "ip6tables-nft")] {
            tree.link(&format!("usr/sbin/{link}"), target)?;
        }
        tree.write("init.sh", SCRIPT, 0o755)?;
        tree.write("ask.sh", ASK, 0o644)?;
        for name in ["proc", "sys", "dev", "run", "tmp", "var/lib/docker"] {
            fs::create_dir_all(tree.root.join(name)).with_context(|| format!("making {name}"))?;
        }
        tree.make_initrd(&initrd)?;
        tree::make_ext4(&tree.root, &disk)?;
    }
    Ok(System {
        name: "floor",
        kernel: tree.kernel()?,
        initrd,
        cmdline: "console=ttyS0 quiet panic=-1".to_owned(),
        disks: vec![Disk {
            path: disk,
            format: "raw",
        }],
    })
}
