//! Mount work in the mount namespace of a container's init, while it waits for its start.

use std::fs::File;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::mount::{
    MountFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags, mount_change, mount_remount,
    move_mount, open_tree,
};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::config::mounts::{CONSOLE, LateMount};

/// Does the mount work that was left out of what libcontainer got; `console` is a terminal of the host that is to be
/// the container's.
///
/// # Errors
/// Names the mount that failed; this process is then back in its own namespace.
pub(crate) fn finish(
    init: i32,
    late_mounts: &[LateMount],
    console: Option<&OwnedFd>,
) -> anyhow::Result<()> {
    if late_mounts.is_empty() {
        return Ok(());
    }
    let host_trees = late_mounts
        .iter()
        .map(open_host_tree)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let console = console.map(clone_file).transpose()?;
    let own = Place::current()?;
    let namespace =
        File::open(format!("/proc/{init}/ns/mnt")).context("open init's mount namespace")?;
    move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Mount))
        .context("enter init's mount namespace")?;
    let done = late_mounts
        .iter()
        .zip(&host_trees)
        .try_for_each(|(work, tree)| apply(work, tree.as_ref()))
        .and_then(|()| console.map_or(Ok(()), |tree| attach(&tree, Path::new(CONSOLE))));
    own.return_to()?;
    done
}

/// Where this process is: its mount namespace, root and working directory, all of which a visit changes.
struct Place {
    namespace: File,
    root: OwnedFd,
    working_directory: OwnedFd,
}

impl Place {
    fn current() -> anyhow::Result<Self> {
        let directory = |path| {
            open(
                path,
                OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
                Mode::empty(),
            )
        };
        Ok(Self {
            namespace: File::open("/proc/self/ns/mnt").context("open the own mount namespace")?,
            root: directory("/").context("open the own root")?,
            working_directory: directory(".").context("open the working directory")?,
        })
    }

    fn return_to(&self) -> anyhow::Result<()> {
        let mount = Some(LinkNameSpaceType::Mount);
        move_into_link_name_space(self.namespace.as_fd(), mount)
            .and_then(|()| rustix::process::fchdir(&self.root))
            .and_then(|()| rustix::process::chroot("."))
            .and_then(|()| rustix::process::fchdir(&self.working_directory))
            .context("return to the own mount namespace")
    }
}

/// A copy of the host's mount, to be attached inside.
fn open_host_tree(work: &LateMount) -> anyhow::Result<Option<OwnedFd>> {
    let (LateMount::Dev {
        source, recursive, ..
    }
    | LateMount::Shared {
        source, recursive, ..
    }) = work
    else {
        return Ok(None);
    };
    clone_tree(source, *recursive).map(Some)
}

fn clone_tree(path: &Path, recursive: bool) -> anyhow::Result<OwnedFd> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(CWD, path, flags).with_context(|| format!("copy the mount {}", path.display()))
}

fn clone_file(file: &OwnedFd) -> anyhow::Result<OwnedFd> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH;
    open_tree(file, "", flags).context("copy the mount of the terminal")
}

fn attach(tree: &OwnedFd, place: &Path) -> anyhow::Result<()> {
    move_mount(
        tree,
        "",
        CWD,
        place,
        MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
    )
    .with_context(|| format!("mount {}", place.display()))
}

fn apply(work: &LateMount, tree: Option<&OwnedFd>) -> anyhow::Result<()> {
    match (work, tree) {
        (LateMount::Dev { flags, above, .. }, Some(tree)) => cover_dev(tree, *flags, above),
        (
            LateMount::Shared {
                destination, flags, ..
            },
            Some(tree),
        ) => {
            attach(tree, destination)?;
            match flags.is_empty() {
                true => Ok(()),
                false => remount(destination, *flags),
            }
        }
        (LateMount::Dev { .. } | LateMount::Shared { .. }, None) => Ok(()),
        (
            LateMount::Propagation {
                destination,
                propagation,
            },
            _,
        ) => set_propagation(destination, *propagation),
        (LateMount::ReadOnly { destination }, _) => {
            remount(destination, MountFlags::RDONLY | MountFlags::NOSUID)
        }
    }
}

fn cover_dev(tree: &OwnedFd, flags: MountFlags, above: &[PathBuf]) -> anyhow::Result<()> {
    let dev = Path::new("/dev");
    let kept = above
        .iter()
        .map(|path| clone_tree(path, true))
        .collect::<anyhow::Result<Vec<_>>>()?;
    attach(tree, dev)?;
    // A copy of a shared mount would go on passing mounts to and fro between host and container.
    set_propagation(
        dev,
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    for (path, tree) in above.iter().zip(&kept) {
        attach(tree, path)?;
    }
    if flags.is_empty() {
        Ok(())
    } else {
        remount(dev, flags)
    }
}

fn set_propagation(place: &Path, propagation: MountPropagationFlags) -> anyhow::Result<()> {
    mount_change(place, propagation)
        .with_context(|| format!("set the propagation of {}", place.display()))
}

fn remount(place: &Path, flags: MountFlags) -> anyhow::Result<()> {
    mount_remount(place, flags | MountFlags::BIND, "")
        .with_context(|| format!("remount {}", place.display()))
}
