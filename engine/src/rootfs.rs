//! A container's root: an overlay over the image's directory, nothing unpacked.
//!
//! Below the container's own directory:
//!
//! - `mountpoints/`: places for mounts that the image does not have; the upper of the two read-only layers
//! - `upper/`, `work/`: what the container writes, in memory, unless its root is read-only or kept
//! - `image/`: the image, when it has several layers
//! - `rootfs/`: the overlay

use anyhow::{Context, bail};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MoveMountFlags, fsconfig_create,
    fsconfig_set_string, fsmount, fsopen, move_mount,
};
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Component, Path, PathBuf};

/// As the kernel: so many symbolic links in one path and no more.
const SYMLINKS_MAX: usize = 40;

/// What becomes of what a container writes to its root.
#[derive(Clone, Debug)]
pub enum Writes {
    /// Nothing can be written.
    None,
    /// It is in memory, and gone with the machine.
    InMemory,
    /// It is kept in this directory.
    Kept(PathBuf),
}

/// Mounts the root of a container and gives nothing back: it is at `container/rootfs`. A root that is still mounted
/// is used again, with what was written to it.
///
/// `targets` are the paths that will be mounted upon, each with whether it is a directory, parents first.
///
/// # Errors
/// Says which step failed.
pub fn mount_root(
    container: &Path,
    image: &Path,
    targets: &[(String, bool)],
    writes: &Writes,
) -> anyhow::Result<()> {
    let [rootfs, mountpoints] = ["rootfs", "mountpoints"].map(|name| container.join(name));
    if is_mount_point(&rootfs) {
        return Ok(());
    }
    make_directory(&rootfs)?;
    make_directory(&mountpoints)?;
    copy_attributes(image, &mountpoints)
        .with_context(|| format!("cannot prepare {}", mountpoints.display()))?;
    for (target, is_directory) in targets {
        let target = resolve(image, target)?;
        let hidden = targets.iter().any(|(other, _)| {
            let other = Path::new(other.trim_start_matches('/'));
            target != other && target.starts_with(other)
        });
        if !hidden && !image.join(&target).exists() {
            add_mountpoint(image, &mountpoints, &target, *is_directory).with_context(|| {
                format!("cannot make a place for the mount at /{}", target.display())
            })?;
        }
    }
    let mut options = format!("lowerdir={}:{}", mountpoints.display(), image.display());
    let mut flags = MsFlags::empty();
    let kept = match writes {
        Writes::None => None,
        Writes::InMemory => Some(container),
        Writes::Kept(directory) => Some(directory.as_path()),
    };
    if let Some(kept) = kept {
        let (upper, work) = (kept.join("upper"), kept.join("work"));
        make_directory(&upper)?;
        make_directory(&work)?;
        copy_attributes(image, &upper)
            .with_context(|| format!("cannot prepare {}", upper.display()))?;
        options.push_str(&format!(
            ",upperdir={},workdir={}",
            upper.display(),
            work.display()
        ));
    } else {
        flags |= MsFlags::MS_RDONLY;
    }
    mount(
        Some("overlay"),
        &rootfs,
        Some("overlay"),
        flags,
        Some(options.as_str()),
    )
    .with_context(|| format!("cannot mount an overlay over {}", image.display()))
}

/// Where a container's root is made from, and where what it writes goes.
#[derive(Clone, Debug)]
pub struct Layers {
    /// The image's layers, the topmost first. Not empty.
    pub image: Vec<PathBuf>,
    /// What the container writes.
    pub upper: PathBuf,
    /// The kernel's scratch space for it, in the same file system.
    pub work: PathBuf,
}

/// Mounts the root of a container at `container/rootfs`, writable. A root that is still mounted is used again.
///
/// # Errors
/// Says which step failed.
pub fn mount_layers(container: &Path, layers: &Layers) -> anyhow::Result<()> {
    let rootfs = container.join("rootfs");
    if is_mount_point(&rootfs) {
        return Ok(());
    }
    for directory in [&rootfs, &layers.upper, &layers.work] {
        make_directory(directory)?;
    }
    let top = layers.image.first().context("the image has no layers")?;
    copy_attributes(top, &layers.upper)
        .with_context(|| format!("cannot prepare {}", layers.upper.display()))?;
    overlay(&rootfs, &layers.image, Some((&layers.upper, &layers.work)))
        .with_context(|| format!("cannot mount an overlay over {}", top.display()))
}

/// The directory of an image, of which `container` is to be made: the only layer itself, or all of them mounted
/// together, read-only.
///
/// # Errors
/// Says which step failed.
pub fn mount_image(container: &Path, layers: &[PathBuf]) -> anyhow::Result<PathBuf> {
    if let [layer] = layers {
        return Ok(layer.clone());
    }
    let top = layers.first().context("the image has no layers")?;
    let place = container.join("image");
    if !is_mount_point(&place) {
        make_directory(&place)?;
        overlay(&place, layers, None)
            .with_context(|| format!("cannot mount an overlay over {}", top.display()))?;
    }
    Ok(place)
}

/// Mounts an overlay; `upper` is what is written and the kernel's scratch space for it.
fn overlay(
    place: &Path,
    lower: &[PathBuf],
    upper: Option<(&Path, &Path)>,
) -> rustix::io::Result<()> {
    let overlay = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC)?;
    let set = |key: &str, value: &Path| fsconfig_set_string(overlay.as_fd(), key, value);
    set("source", Path::new("overlay"))?;
    // One parameter a layer: the options of mount(2) would have to fit into a page.
    for layer in lower {
        set("lowerdir+", layer)?;
    }
    if let Some((upper, work)) = upper {
        set("upperdir", upper)?;
        set("workdir", work)?;
    }
    fsconfig_create(overlay.as_fd())?;
    let mounted = fsmount(
        overlay.as_fd(),
        FsMountFlags::FSMOUNT_CLOEXEC,
        MountAttrFlags::empty(),
    )?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    move_mount(mounted.as_fd(), "", rustix::fs::CWD, place, flags)
}

/// Makes a directory in a container's root, as its program will find it; fine when it is there.
///
/// # Errors
/// With the path.
pub fn make_inside(root: &Path, path: &str) -> anyhow::Result<()> {
    make_directory(&root.join(resolve(root, path)?))
}

/// Makes sure that there is a file in a container's root for something to be mounted on, and gives the path that its
/// program finds it by with no link on the way: an image may have a link there that leads to nothing yet.
///
/// # Errors
/// With the path.
pub fn make_file_inside(root: &Path, path: &str) -> anyhow::Result<PathBuf> {
    let inside = resolve(root, path)?;
    let place = root.join(&inside);
    if let Some(parent) = place.parent() {
        make_directory(parent)?;
    }
    match File::options().create_new(true).write(true).open(&place) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            Err(error).with_context(|| format!("cannot make {}", place.display()))
        }
        _ => Ok(Path::new("/").join(inside)),
    }
}

/// Unmounts the root of a container and removes its directory. What the container wrote is lost.
pub fn remove(container: &Path) {
    unmount(container);
    let _ = fs::remove_dir_all(container);
}

/// Unmounts the root of a container; fine when it is not mounted.
pub fn unmount(container: &Path) {
    for place in ["rootfs", "image"] {
        let _ = umount2(&container.join(place), MntFlags::MNT_DETACH);
    }
}

/// Makes a directory and its parents; fine when it is there.
///
/// # Errors
/// With the path.
pub fn make_directory(path: &Path) -> anyhow::Result<()> {
    fs::create_dir_all(path)
        .with_context(|| format!("cannot make the directory {}", path.display()))
}

fn is_mount_point(path: &Path) -> bool {
    match (fs::metadata(path), path.parent().map(fs::metadata)) {
        (Ok(own), Some(Ok(parent))) => own.dev() != parent.dev(),
        _ => false,
    }
}

/// Where a path of the container leads inside the image, symbolic links followed without leaving it. Relative.
///
/// # Errors
/// When links lead in a circle.
pub fn resolve(image: &Path, target: &str) -> anyhow::Result<PathBuf> {
    let mut todo: Vec<String> = parts(Path::new(target));
    let (mut done, mut links) = (PathBuf::new(), 0);
    while let Some(part) = todo.pop() {
        if part == ".." {
            done.pop();
            continue;
        }
        let next = done.join(&part);
        let Ok(link) = fs::read_link(image.join(&next)) else {
            done = next;
            continue;
        };
        links += 1;
        if links > SYMLINKS_MAX {
            bail!(
                "the image has a loop of symbolic links at /{}",
                next.display()
            );
        }
        if link.is_absolute() {
            done = PathBuf::new();
        }
        todo.extend(parts(&link));
    }
    Ok(done)
}

/// Names in a path, the last one first.
fn parts(path: &Path) -> Vec<String> {
    let name = |part: Component<'_>| match part {
        Component::Normal(name) => Some(name.to_string_lossy().into_owned()),
        Component::ParentDir => Some("..".to_owned()),
        _ => None,
    };
    path.components().rev().filter_map(name).collect()
}

fn add_mountpoint(
    image: &Path,
    layer: &Path,
    target: &Path,
    is_directory: bool,
) -> std::io::Result<()> {
    let mut path = PathBuf::new();
    for part in target.parent().into_iter().flat_map(Path::components) {
        path.push(part);
        ignore_existing(fs::create_dir(layer.join(&path)))?;
        if image.join(&path).is_dir() {
            copy_attributes(&image.join(&path), &layer.join(&path))?;
        }
    }
    let place = layer.join(target);
    if is_directory {
        ignore_existing(fs::create_dir(place))
    } else {
        File::create(place).map(drop)
    }
}

fn ignore_existing(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
        other => other,
    }
}

/// A directory in an upper layer decides over mode and owner of the one below.
pub(crate) fn copy_attributes(from: &Path, to: &Path) -> std::io::Result<()> {
    let attributes = fs::metadata(from)?;
    chown(to, Some(attributes.uid()), Some(attributes.gid()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(attributes.mode() & 0o7777))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_followed_inside_the_image() {
        let image = tempfile::tempdir().unwrap();
        fs::create_dir_all(image.path().join("var")).unwrap();
        symlink("/run", image.path().join("var/run")).unwrap();
        symlink("../../../etc", image.path().join("var/up")).unwrap();
        symlink("loop", image.path().join("loop")).unwrap();
        assert_eq!(
            resolve(image.path(), "/var/run/chrony").unwrap(),
            Path::new("run/chrony")
        );
        assert_eq!(
            resolve(image.path(), "/var/up/passwd").unwrap(),
            Path::new("etc/passwd")
        );
        assert_eq!(resolve(image.path(), "/").unwrap(), Path::new(""));
        assert!(resolve(image.path(), "/loop/x").is_err());
    }

    #[test]
    fn a_place_for_a_mount_keeps_the_mode_of_the_directory_that_it_lies_in() {
        let (image, layer) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir_all(image.path().join("srv")).unwrap();
        fs::set_permissions(image.path().join("srv"), fs::Permissions::from_mode(0o711)).unwrap();
        add_mountpoint(image.path(), layer.path(), Path::new("srv/data"), true).unwrap();
        add_mountpoint(image.path(), layer.path(), Path::new("srv/file"), false).unwrap();
        assert_eq!(
            fs::metadata(layer.path().join("srv")).unwrap().mode() & 0o7777,
            0o711
        );
        assert!(layer.path().join("srv/data").is_dir());
        assert!(layer.path().join("srv/file").is_file());
    }
}
