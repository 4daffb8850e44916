//! Stock Debian 13: systemd, docker.io, openssh-server, and whatever they bring.

use std::path::Path;

use anyhow::Result;

use super::measure::ASK;
use super::tree::{self, Tree};
use super::{Disk, System};

const PACKAGES: &[&str] = &[
    "linux-image-cloud-amd64",
    "initramfs-tools",
    "systemd-sysv",
    "systemd-resolved",
    "dbus",
    "udev",
    "openssh-server",
    "docker.io",
    "docker-cli",
    "iptables",
    "ca-certificates",
];

/// Prints the figures; started as early as systemd starts anything, so that it waits for Docker and not Docker for it.
/// The console is opened for each line: getty hangs up on whoever has it open.
const UNIT: &str = "[Unit]
DefaultDependencies=no
After=sysinit.target

[Service]
Type=exec
ExecStart=/bin/bash -c \"/bin/bash /ask.sh | while read line; do echo \\\"$line\\\" >/dev/ttyS0; done\"

[Install]
WantedBy=sysinit.target
";
const NETWORK: &str = "[Match]\nType=ether\n\n[Network]\nDHCP=yes\n";

/// Builds Debian in `dir/debian`, or takes what is there.
///
/// # Errors
/// When mmdebstrap fails.
pub fn build(dir: &Path) -> Result<System> {
    let dir = dir.join("debian");
    let tree = Tree::install(&dir, PACKAGES)?;
    let disk = dir.join("disk.img");
    if !disk.exists() {
        tree.write("ask.sh", ASK, 0o644)?;
        tree.write("etc/systemd/system/bench.service", UNIT, 0o644)?;
        tree.link(
            "etc/systemd/system/sysinit.target.wants/bench.service",
            "/etc/systemd/system/bench.service",
        )?;
        tree.write("etc/systemd/network/wired.network", NETWORK, 0o644)?;
        tree.link(
            "etc/systemd/system/multi-user.target.wants/systemd-networkd.service",
            "/usr/lib/systemd/system/systemd-networkd.service",
        )?;
        tree.write("etc/fstab", "/dev/vda / ext4 defaults 0 1\n", 0o644)?;
        tree.write("etc/hostname", "debian\n", 0o644)?;
        tree::make_ext4(&tree.root, &disk)?;
    }
    Ok(System {
        name: "debian",
        kernel: tree.kernel()?,
        initrd: tree.own_initrd()?,
        cmdline: "console=ttyS0 quiet panic=-1 root=/dev/vda rw".to_owned(),
        disks: vec![Disk {
            path: disk,
            format: "raw",
        }],
    })
}
