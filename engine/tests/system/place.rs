//! Where a test's engine lives: a mount namespace, a cgroup, an image.

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::unistd::{chdir, fchdir, pivot_root};
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A mount namespace for this test's thread and a cgroup of its own as the root of the cgroup tree. Returns that
/// cgroup's path outside.
pub(crate) fn separate(directory: &Path) -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    leave_chroot();
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).unwrap();
    let tree = directory.join("cgroup");
    fs::create_dir(&tree).unwrap();
    mount(
        Some("cgroup2"),
        &tree,
        Some("cgroup2"),
        MsFlags::empty(),
        none,
    )
    .unwrap();
    let own = tree.join(format!(
        "keelson-test-{}-{}",
        std::process::id(),
        NUMBER.fetch_add(1, Ordering::Relaxed)
    ));
    fs::create_dir(&own).unwrap();
    mount(Some(&own), "/sys/fs/cgroup", none, MsFlags::MS_BIND, none).unwrap();
    own
}

/// In the tool root, which is entered by chroot(2): makes it the root of this thread's mount namespace. Runtimes need
/// a root that is a mount point, and who joins a container's namespace finds that namespace's own root.
fn leave_chroot() {
    let none = None::<&str>;
    let namespace = File::open("/proc/thread-self/ns/mnt").unwrap();
    mount(
        Some("/"),
        "/mnt",
        none,
        MsFlags::MS_BIND | MsFlags::MS_REC,
        none,
    )
    .unwrap();
    let root = File::open("/mnt").unwrap();
    setns(&namespace, CloneFlags::CLONE_NEWNS).unwrap();
    let outside = File::open("/").unwrap().metadata().unwrap();
    let inside = root.metadata().unwrap();
    if (outside.dev(), outside.ino()) == (inside.dev(), inside.ino()) {
        umount2("/mnt", MntFlags::MNT_DETACH).unwrap();
        return;
    }
    fchdir(&root).unwrap();
    pivot_root(".", ".").unwrap();
    umount2(".", MntFlags::MNT_DETACH).unwrap();
    chdir("/").unwrap();
}

pub(crate) fn make_image(image: &Path) {
    fs::create_dir_all(image.join("bin")).unwrap();
    fs::create_dir_all(image.join("etc")).unwrap();
    fs::copy("/usr/bin/busybox", image.join("bin/busybox")).unwrap();
    for name in [
        "sh", "sleep", "echo", "cat", "test", "true", "false", "ls", "touch",
    ] {
        symlink("busybox", image.join("bin").join(name)).unwrap();
    }
}
