//! A root file system being put together in a directory. Nothing written through it can leave the directory.

use std::fs::{self, File, Permissions};
use std::io::{self, Read};
use std::os::unix::fs::{PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::files;

/// Directories that a merged /usr replaces by links.
const MERGED: [&str; 4] = ["bin", "sbin", "lib", "lib64"];

/// Symbolic links followed for one path before it is taken for a loop.
const MOST_LINKS: usize = 40;

/// A directory that is treated as `/` of an image; has the links of a merged /usr.
#[derive(Debug)]
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    /// An empty tree at `root`, which is made.
    ///
    /// # Errors
    /// When a directory or link cannot be made.
    pub(crate) fn create(root: &Path) -> Result<Self> {
        files::make_directory(root)?;
        let tree = Self {
            root: root.to_owned(),
        };
        tree.directory("", 0o755, 0, 0)?;
        for name in MERGED {
            tree.directory(&format!("usr/{name}"), 0o755, 0, 0)?;
            tree.link(name, &format!("usr/{name}"))?;
        }
        Ok(tree)
    }

    /// The tree's directory.
    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// A path of a package in the form used here: relative, `/bin`, `/lib` ... below `usr/`.
    ///
    /// # Errors
    /// When the path has `..` in it.
    pub(crate) fn normal_path(path: &str) -> Result<String> {
        let mut parts = Vec::new();
        for part in path.split('/') {
            match part {
                "" | "." => {}
                ".." => bail!("path {path:?} leads upwards"),
                part => parts.push(part),
            }
        }
        let merged = parts.first().is_some_and(|first| MERGED.contains(first)) && parts.len() > 1;
        let prefix = if merged { "usr/" } else { "" };
        Ok(format!("{prefix}{}", parts.join("/")))
    }

    /// Whether something stands at `path`.
    ///
    /// # Errors
    /// When a parent cannot be examined.
    pub(crate) fn has(&self, path: &str) -> Result<bool> {
        Ok(fs::symlink_metadata(self.place(path)?).is_ok())
    }

    /// Makes a directory, or sets mode and owner of the one that is there.
    ///
    /// # Errors
    /// When it cannot be made, or something else stands there.
    pub(crate) fn directory(&self, path: &str, mode: u32, user: u32, group: u32) -> Result<()> {
        let place = self.place(path)?;
        match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_dir() => {}
            // A package may ship `/bin` as a directory where the tree has a link to another directory.
            Ok(metadata) if metadata.is_symlink() && self.follow(path)?.is_dir() => return Ok(()),
            Ok(_) => bail!("/{path} should be a directory and is something else"),
            Err(_) => {
                fs::create_dir(&place).with_context(|| format!("making directory /{path}"))?
            }
        }
        set_owner_and_mode(&place, mode, user, group)
            .with_context(|| format!("making directory /{path}"))
    }

    /// Writes a file, in place of what was there.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn file(
        &self,
        path: &str,
        content: &mut dyn Read,
        mode: u32,
        user: u32,
        group: u32,
    ) -> Result<()> {
        let place = self.vacant(path)?;
        let writing = || format!("writing /{path}");
        let mut file = File::create(&place).with_context(writing)?;
        io::copy(content, &mut file).with_context(writing)?;
        set_owner_and_mode(&place, mode, user, group).with_context(writing)
    }

    /// Makes a symbolic link, in place of what was there.
    ///
    /// # Errors
    /// When it cannot be made, or a directory with something in it stands there.
    pub(crate) fn link(&self, path: &str, target: &str) -> Result<()> {
        if MERGED.contains(&path) && self.has(path)? {
            ensure!(
                target.trim_start_matches('/') == format!("usr/{path}"),
                "/{path} should link to usr/{path}, not to {target}"
            );
            return Ok(());
        }
        let place = self.vacant(path)?;
        symlink(target, &place).with_context(|| format!("making link /{path}"))
    }

    /// Makes `path` another name of the file `target`.
    ///
    /// # Errors
    /// When the target is not there or the link cannot be made.
    pub(crate) fn hard_link(&self, path: &str, target: &str) -> Result<()> {
        let from = self.place(target)?;
        let place = self.vacant(path)?;
        fs::hard_link(&from, &place)
            .with_context(|| format!("making /{path} another name of /{target}"))
    }

    /// Removes a file, link or whole directory.
    ///
    /// # Errors
    /// When it cannot be removed.
    pub(crate) fn remove(&self, path: &str) -> Result<()> {
        files::remove(&self.place(path)?)
    }

    /// Where `path` lies on this machine; its parents are made and links among them followed inside the tree.
    ///
    /// # Errors
    /// When a parent is no directory or cannot be made.
    pub(crate) fn place(&self, path: &str) -> Result<PathBuf> {
        let Some((parent, name)) = split(path) else {
            return Ok(self.root.clone());
        };
        let parent = self.follow(parent)?;
        Ok(parent.join(name))
    }

    /// A place where nothing stands any more.
    fn vacant(&self, path: &str) -> Result<PathBuf> {
        let place = self.place(path)?;
        match fs::symlink_metadata(&place) {
            Ok(metadata) if metadata.is_dir() => {
                fs::remove_dir(&place)
                    .with_context(|| format!("replacing the directory /{path}"))?;
            }
            Ok(_) => fs::remove_file(&place).with_context(|| format!("replacing /{path}"))?,
            Err(_) => {}
        }
        Ok(place)
    }

    /// The directory `path` on this machine, made when missing, with links taken as the image would take them.
    fn follow(&self, path: &str) -> Result<PathBuf> {
        let mut pending: Vec<String> = path
            .split('/')
            .rev()
            .filter(|part| !part.is_empty())
            .map(str::to_owned)
            .collect();
        let mut reached: Vec<String> = Vec::new();
        let mut links = 0;
        while let Some(part) = pending.pop() {
            match part.as_str() {
                "." | "" => continue,
                ".." => {
                    reached.pop();
                    continue;
                }
                _ => reached.push(part),
            }
            let here = self.root.join(reached.join("/"));
            match fs::symlink_metadata(&here) {
                Ok(metadata) if metadata.is_symlink() => {
                    links += 1;
                    ensure!(
                        links <= MOST_LINKS,
                        "links on the way to /{path} go round in circles"
                    );
                    let target = fs::read_link(&here)
                        .with_context(|| format!("reading link {}", here.display()))?;
                    let target = target.to_string_lossy().into_owned();
                    if target.starts_with('/') {
                        reached.clear();
                    } else {
                        reached.pop();
                    }
                    pending.extend(target.split('/').rev().map(str::to_owned));
                }
                Ok(metadata) if metadata.is_dir() => {}
                Ok(_) => bail!(
                    "/{} on the way to /{path} is no directory",
                    reached.join("/")
                ),
                Err(_) => {
                    fs::create_dir(&here)
                        .with_context(|| format!("making directory /{}", reached.join("/")))?;
                    set_owner_and_mode(&here, 0o755, 0, 0)?;
                }
            }
        }
        Ok(self.root.join(reached.join("/")))
    }
}

fn split(path: &str) -> Option<(&str, &str)> {
    match path.rsplit_once('/') {
        Some((parent, name)) => Some((parent, name)),
        None if path.is_empty() => None,
        None => Some(("", path)),
    }
}

/// Owner first: changing it takes the set-user-id bits away.
fn set_owner_and_mode(place: &Path, mode: u32, user: u32, group: u32) -> Result<()> {
    lchown(place, Some(user), Some(group))
        .with_context(|| format!("setting the owner of {}", place.display()))?;
    fs::set_permissions(place, Permissions::from_mode(mode))
        .with_context(|| format!("setting the mode of {}", place.display()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    /// A tree owned by whoever runs the tests, when that is root; else nothing, as owners cannot be set.
    fn tree(scratch: &Path) -> Option<Tree> {
        (fs::metadata("/proc/self").unwrap().uid() == 0)
            .then(|| Tree::create(&scratch.join("tree")).unwrap())
    }

    #[test]
    fn old_paths_go_below_usr() {
        for (path, expected) in [
            ("./bin/sh", "usr/bin/sh"),
            (
                "./lib/x86_64-linux-gnu/libc.so.6",
                "usr/lib/x86_64-linux-gnu/libc.so.6",
            ),
            ("./bin", "bin"),
            ("./usr/bin/env", "usr/bin/env"),
            ("./library/x", "library/x"),
            ("./", ""),
        ] {
            assert_eq!(Tree::normal_path(path).unwrap(), expected);
        }
        assert!(Tree::normal_path("./usr/../../etc/passwd").is_err());
    }

    #[test]
    fn links_among_the_parents_stay_inside_the_tree() {
        let scratch = tempfile::tempdir().unwrap();
        let Some(tree) = tree(scratch.path()) else {
            return;
        };
        tree.link("var", "/data").unwrap();
        tree.file("var/run/x", &mut &b"hello"[..], 0o600, 0, 0)
            .unwrap();
        assert_eq!(fs::read(tree.root().join("data/run/x")).unwrap(), b"hello");
        tree.link("up", "../../..").unwrap();
        tree.file("up/y", &mut &b"y"[..], 0o600, 0, 0).unwrap();
        assert!(tree.root().join("y").exists());
        tree.link("loop", "loop").unwrap();
        assert!(tree.file("loop/z", &mut &b""[..], 0o600, 0, 0).is_err());
    }

    #[test]
    fn files_keep_their_set_user_id_bit() {
        let scratch = tempfile::tempdir().unwrap();
        let Some(tree) = tree(scratch.path()) else {
            return;
        };
        tree.file("bin/sudo", &mut &b""[..], 0o4755, 0, 27).unwrap();
        let metadata = fs::metadata(tree.root().join("usr/bin/sudo")).unwrap();
        assert_eq!((metadata.mode() & 0o7777, metadata.gid()), (0o4755, 27));
    }
}
