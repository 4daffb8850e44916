//! Kernel file systems that the initrd has not mounted, and the kernel's settings.

use crate::{files, kmsg};
use anyhow::{Context as _, Result};
use nix::mount::{MsFlags, mount};
use std::path::Path;

struct Mount {
    kind: &'static str,
    target: &'static str,
    flags: MsFlags,
    data: &'static str,
}

const STRICT: MsFlags = MsFlags::MS_NOSUID
    .union(MsFlags::MS_NODEV)
    .union(MsFlags::MS_NOEXEC);

/// All but the state partition stays private, as the kernel makes it: what a container mounts is its own business, and the runtime
/// asks for propagation where a service needs it.
const MOUNTS: [Mount; 6] = [
    Mount {
        kind: "cgroup2",
        target: "/sys/fs/cgroup",
        flags: STRICT,
        data: "nsdelegate,memory_recursiveprot",
    },
    Mount {
        kind: "devpts",
        target: "/dev/pts",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NOEXEC),
        data: "gid=5,mode=620,ptmxmode=666",
    },
    Mount {
        kind: "tmpfs",
        target: "/dev/shm",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        data: "mode=1777",
    },
    Mount {
        kind: "mqueue",
        target: "/dev/mqueue",
        flags: STRICT,
        data: "",
    },
    Mount {
        kind: "securityfs",
        target: "/sys/kernel/security",
        flags: STRICT,
        data: "",
    },
    Mount {
        kind: "tmpfs",
        target: "/tmp",
        flags: MsFlags::MS_NOSUID.union(MsFlags::MS_NODEV),
        data: "mode=1777,size=10%",
    },
];

/// What is mounted below the state partition by one service is seen by those that ask for it (`rshared`, `rslave`).
pub(super) fn share(state: &Path) -> Result<()> {
    mount(
        None::<&str>,
        state,
        None::<&str>,
        MsFlags::MS_SHARED,
        None::<&str>,
    )
    .with_context(|| format!("share mounts below {}", state.display()))
}

/// The firmware's variables, where there are any: the boot loader leaves its times in them.
const FIRMWARE_VARIABLES: Mount = Mount {
    kind: "efivarfs",
    target: "/sys/firmware/efi/efivars",
    flags: STRICT.union(MsFlags::MS_RDONLY),
    data: "",
};

/// Kernel settings that every Keelson has, with their reasons.
const SETTINGS: [(&str, &str); 9] = [
    // After a panic the machine starts again and the boot loader counts.
    ("kernel/panic", "10"),
    // A link or pipe in /tmp is no way into somebody else's process.
    ("fs/protected_symlinks", "1"),
    ("fs/protected_hardlinks", "1"),
    ("fs/protected_fifos", "1"),
    ("fs/protected_regular", "2"),
    // Kernel addresses are for root.
    ("kernel/kptr_restrict", "1"),
    // Many containers, each with its watchers; the kernel's 128 is for one desktop.
    ("fs/inotify/max_user_instances", "8192"),
    // Databases in containers map many small pieces of memory.
    ("vm/max_map_count", "1048576"),
    // ping needs no privilege.
    ("net/ipv4/ping_group_range", "0 2147483647"),
];

/// Names in /dev that programs expect and that the kernel does not make.
const LINKS: [(&str, &str); 5] = [
    ("/dev/fd", "/proc/self/fd"),
    ("/dev/stdin", "/proc/self/fd/0"),
    ("/dev/stdout", "/proc/self/fd/1"),
    ("/dev/stderr", "/proc/self/fd/2"),
    ("/dev/core", "/proc/kcore"),
];

/// Mounts the table above, and makes the links in /dev.
pub(super) fn mount_all() {
    for entry in MOUNTS {
        kmsg::tolerate("going on without a kernel file system", mount_one(&entry));
    }
    for (link, target) in LINKS {
        let made = std::os::unix::fs::symlink(target, link);
        kmsg::tolerate(
            "going on without a link in /dev",
            made.with_context(|| format!("make {link}")),
        );
    }
}

/// Mounts the firmware's variables; a machine that was not started by UEFI has none.
pub(super) fn mount_firmware_variables() -> Result<()> {
    if Path::new(FIRMWARE_VARIABLES.target).is_dir() {
        mount_one(&FIRMWARE_VARIABLES)?;
    }
    Ok(())
}

fn mount_one(entry: &Mount) -> Result<()> {
    if !Path::new(entry.target).is_dir() {
        files::make_directory(entry.target)?;
    }
    mount(
        Some(entry.kind),
        entry.target,
        Some(entry.kind),
        entry.flags,
        Some(entry.data),
    )
    .with_context(|| format!("mount {} at {}", entry.kind, entry.target))
}

/// Writes the settings above.
pub(super) fn apply_settings() {
    for (name, value) in SETTINGS {
        kmsg::tolerate(
            "going on without a kernel setting",
            files::set(Path::new("/proc/sys").join(name), value),
        );
    }
}

/// Docker listens in a directory of its own, which can be bound into a container; the usual path leads there.
pub(super) fn link_docker_socket() -> Result<()> {
    files::make_directory("/run/keelson/docker")?;
    std::os::unix::fs::symlink("keelson/docker/docker.sock", "/run/docker.sock")
        .context("make the link")
}
