//! Durable writes into a tree that others may write to as well.
//!
//! Each step of a path is opened without following symbolic links, so that whoever owns a directory in the tree cannot
//! redirect a write out of it. A file is replaced by a complete, synced one: after a power cut the old or the new content
//! is there.
//!
//! Safe code only; it stands here because several services need it.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, openat, renameat};
use nix::sys::stat::{Mode, fchmod, fstat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, syncfs, unlinkat};

/// Mode and owner of what is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// Permission bits.
    pub mode: u32,
    /// Owner's number.
    pub uid: u32,
    /// Group's number.
    pub gid: u32,
}

impl Access {
    /// Root's, with these permission bits.
    pub const fn root(mode: u32) -> Self {
        Access {
            mode,
            uid: 0,
            gid: 0,
        }
    }
}

/// A directory below which files are written. All paths are relative to it.
#[derive(Debug)]
pub struct Tree {
    root: OwnedFd,
    path: PathBuf,
}

impl Tree {
    /// The tree at `path`, which must be a directory.
    ///
    /// # Errors
    /// What open(2) reports.
    pub fn open(path: &Path) -> io::Result<Self> {
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Tree {
            root: openat(AT_FDCWD, path, flags, Mode::empty())?,
            path: path.to_owned(),
        })
    }

    /// Where the tree is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes the directory `path` with `access`; what is missing above it becomes root's, 0755. A directory that is there
    /// stays as it is.
    ///
    /// # Errors
    /// What the system calls report; `ENOTDIR` when something else, a symbolic link for instance, is in the way.
    pub fn make_directory(&self, path: &Path, access: Access) -> io::Result<()> {
        let (parent, name) = self.parent_of(path, true)?;
        make_or_open(&parent, &name, access).map(drop)
    }

    /// Replaces the file `path` durably. Directories that are missing above it become root's, 0755.
    ///
    /// # Errors
    /// What the system calls report; the old file is then untouched.
    pub fn write(&self, path: &Path, content: &[u8], access: Access) -> io::Result<()> {
        self.replace(path, content, access, true)
    }

    /// Replaces the file `path`: durably as soon as [`sync`](Self::sync) has come back, so that many files cost one wait for the
    /// disk. After a power cut before that there may be the old file, the new one, or an empty one: who writes has to know that it was not done.
    ///
    /// # Errors
    /// What the system calls report; the old file is then untouched.
    pub fn write_later(&self, path: &Path, content: &[u8], access: Access) -> io::Result<()> {
        self.replace(path, content, access, false)
    }

    /// Makes all that was written to the tree's file system so far durable (syncfs(2)).
    ///
    /// # Errors
    /// What the system call reports: something was not written.
    pub fn sync(&self) -> io::Result<()> {
        Ok(syncfs(&self.root)?)
    }

    fn replace(&self, path: &Path, content: &[u8], access: Access, now: bool) -> io::Result<()> {
        let (parent, name) = self.parent_of(path, true)?;
        let temporary = PathBuf::from(format!(".{}.keelson-new", name.to_string_lossy()));
        match unlinkat(&parent, &temporary, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => {}
            Err(error) => return Err(error.into()),
        }
        let flags =
            OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let mut file = File::from(openat(
            &parent,
            &temporary,
            flags,
            Mode::from_bits_truncate(0o600),
        )?);
        let content = file
            .write_all(content)
            .and_then(|()| give(&file, access))
            .and_then(|()| match now {
                true => file.sync_all(),
                false => Ok(()),
            });
        // Closed before it gets its name: those who watch the directory see one event.
        drop(file);
        let written = content.and_then(|()| {
            renameat(&parent, &temporary, &parent, &name)?;
            match now {
                true => Ok(fsync(&parent)?),
                false => Ok(()),
            }
        });
        if written.is_err() {
            // The error that matters is the first one.
            let _ = unlinkat(&parent, &temporary, UnlinkatFlags::NoRemoveDir);
        }
        written
    }

    /// The content of the regular file `path`; `None` when there is none.
    ///
    /// # Errors
    /// What the system calls report; `InvalidData` when the file is larger than `limit`.
    pub fn read(&self, path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
        let (parent, name) = match self.parent_of(path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other?,
        };
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC;
        let file = match openat(&parent, &name, flags, Mode::empty()) {
            Err(Errno::ENOENT) => return Ok(None),
            other => File::from(other?),
        };
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "not a regular file",
            ));
        }
        let mut content = Vec::new();
        file.take(limit.saturating_add(1))
            .read_to_end(&mut content)?;
        if content.len() as u64 > limit {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                format!("larger than {limit} bytes"),
            ));
        }
        Ok(Some(content))
    }

    /// Removes the file `path` durably; that it is not there is fine.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn remove(&self, path: &Path) -> io::Result<()> {
        let (parent, name) = match self.parent_of(path, false) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        match unlinkat(&parent, &name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) => Ok(fsync(&parent)?),
            Err(Errno::ENOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// The opened directory that holds `path`, and the last part of `path`.
    fn parent_of(&self, path: &Path, make: bool) -> io::Result<(OwnedFd, PathBuf)> {
        let mut parts = Vec::new();
        for component in path.components() {
            match component {
                Component::Normal(part) => parts.push(PathBuf::from(part)),
                Component::CurDir | Component::RootDir => {}
                Component::ParentDir | Component::Prefix(_) => return Err(Errno::EINVAL.into()),
            }
        }
        let name = parts.pop().ok_or(Errno::EINVAL)?;
        let mut directory = self.root.try_clone()?;
        for part in parts {
            directory = if make {
                make_or_open(&directory, &part, Access::root(0o755))?
            } else {
                open(&directory, &part)?
            };
        }
        Ok((directory, name))
    }
}

fn open(parent: &OwnedFd, name: &Path) -> io::Result<OwnedFd> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    Ok(openat(parent, name, flags, Mode::empty())?)
}

fn make_or_open(parent: &OwnedFd, name: &Path, access: Access) -> io::Result<OwnedFd> {
    match mkdirat(parent, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) => {
            let directory = open(parent, name)?;
            give(&directory, access)?;
            fsync(&directory)?;
            fsync(parent)?;
            Ok(directory)
        }
        Err(Errno::EEXIST) => open(parent, name),
        Err(error) => Err(error.into()),
    }
}

/// Hands an open file or directory over. Owner first: chown(2) clears set-user-ID bits.
fn give(file: impl AsFd, access: Access) -> io::Result<()> {
    let status = fstat(&file)?;
    if (status.st_uid, status.st_gid) != (access.uid, access.gid) {
        fchown(
            &file,
            Some(Uid::from_raw(access.uid)),
            Some(Gid::from_raw(access.gid)),
        )?;
    }
    Ok(fchmod(&file, Mode::from_bits_truncate(access.mode))?)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    fn own(mode: u32) -> Access {
        Access {
            mode,
            uid: Uid::effective().as_raw(),
            gid: Gid::effective().as_raw(),
        }
    }

    fn tree() -> (tempfile::TempDir, Tree) {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        (directory, tree)
    }

    #[test]
    fn a_written_file_has_its_content_and_mode_and_leaves_nothing_behind() {
        let (directory, tree) = tree();
        for content in [b"one".as_slice(), b"two"] {
            tree.write(Path::new("a"), content, own(0o640)).unwrap();
            assert_eq!(
                tree.read(Path::new("a"), 10).unwrap().as_deref(),
                Some(content)
            );
        }
        assert_eq!(
            std::fs::metadata(directory.path().join("a"))
                .unwrap()
                .permissions()
                .mode()
                & 0o7777,
            0o640
        );
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
        tree.remove(Path::new("a")).unwrap();
        tree.remove(Path::new("a")).unwrap();
        assert_eq!(tree.read(Path::new("a"), 10).unwrap(), None);
        assert_eq!(tree.read(Path::new("no/a"), 10).unwrap(), None);
    }

    #[test]
    fn a_symbolic_link_in_the_tree_leads_nowhere() {
        let (directory, tree) = tree();
        let outside = tempfile::tempdir().unwrap();
        symlink(outside.path(), directory.path().join("home")).unwrap();
        assert!(tree.write(Path::new("home/x"), b"", own(0o600)).is_err());
        assert!(
            tree.make_directory(Path::new("home/x"), own(0o700))
                .is_err()
        );
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);

        std::fs::write(outside.path().join("target"), "kept").unwrap();
        symlink(outside.path().join("target"), directory.path().join("link")).unwrap();
        assert!(tree.read(Path::new("link"), 10).is_err());
        tree.write(Path::new("link"), b"new", own(0o600)).unwrap();
        assert_eq!(
            std::fs::read(outside.path().join("target")).unwrap(),
            b"kept"
        );
        assert!(tree.write(Path::new("../x"), b"", own(0o600)).is_err());
    }

    #[test]
    fn a_directory_that_is_there_stays_as_it_is() {
        let (directory, tree) = tree();
        tree.make_directory(Path::new("a/b"), own(0o700)).unwrap();
        tree.make_directory(Path::new("a/b"), own(0o777)).unwrap();
        let metadata = std::fs::metadata(directory.path().join("a/b")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o7777, 0o700);
        assert_eq!(metadata.uid(), Uid::effective().as_raw());
    }

    #[test]
    fn a_file_that_is_too_large_is_not_read() {
        let (_directory, tree) = tree();
        tree.write(Path::new("a"), b"12345", own(0o600)).unwrap();
        assert!(tree.read(Path::new("a"), 4).is_err());
        assert!(tree.read(Path::new("a"), 5).is_ok());
    }
}
