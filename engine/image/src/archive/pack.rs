//! A tree of files as a tar archive: owners, modes, times, links, device nodes and extended attributes.

use anyhow::Context;
use rustix::fs::{lgetxattr, llistxattr, major, minor};
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use tar::{EntryType, Header};

/// Extended attributes in archives (PAX, as GNU tar and Go write them).
const XATTR: &str = "SCHILY.xattr.";
/// Those that belong to a file rather than to this machine.
const KEPT: [&str; 3] = ["security.capability", "system.posix_acl_", "user."];
/// The kernel's limit for one attribute, and for the list of them.
const XATTR_MAX_BYTES: usize = 64 * 1024;

/// What a tree is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Tree {
    /// Files.
    Files,
    /// The upper directory of an overlay, which becomes a layer (OCI image specification, "layer.md"): what hides
    /// something below becomes a whiteout.
    Upper,
}

/// Writes an archive.
pub(crate) struct Packer<W: Write> {
    archive: tar::Builder<W>,
    tree: Tree,
    /// The first names of files that have several, by device and inode.
    first: BTreeMap<(u64, u64), PathBuf>,
}

impl<W: Write> Packer<W> {
    pub(crate) fn new(out: W, tree: Tree) -> Self {
        Self {
            archive: tar::Builder::new(out),
            tree,
            first: BTreeMap::new(),
        }
    }

    /// Ends the archive.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn finish(self) -> anyhow::Result<()> {
        Ok(self.archive.into_inner()?.flush()?)
    }

    /// Adds a file, or a directory with all that is in it.
    ///
    /// # Errors
    /// With the path that cannot be read.
    pub(crate) fn add(&mut self, path: &Path, name: &Path) -> anyhow::Result<()> {
        let packing = || format!("pack {}", path.display());
        let found = fs::symlink_metadata(path).with_context(packing)?;
        self.entry(path, name, &found).with_context(packing)?;
        match found.is_dir() {
            true => self.content(path, name),
            false => Ok(()),
        }
    }

    /// Adds all that is in a directory.
    ///
    /// # Errors
    /// As [`Packer::add`].
    pub(crate) fn content(&mut self, path: &Path, name: &Path) -> anyhow::Result<()> {
        let read = || -> io::Result<Vec<OsString>> {
            fs::read_dir(path)?
                .map(|entry| Ok(entry?.file_name()))
                .collect()
        };
        let mut names = read().with_context(|| format!("list {}", path.display()))?;
        names.sort();
        for child in names {
            self.add(&path.join(&child), &name.join(&child))?;
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, name: &Path, found: &Metadata) -> anyhow::Result<()> {
        let kind = found.file_type();
        if kind.is_socket() {
            // What listens there does not come along.
            return Ok(());
        }
        if self.tree == Tree::Upper && kind.is_char_device() && found.rdev() == 0 {
            return self.whiteout(name);
        }
        let mut header = Header::new_gnu();
        header.set_mode(found.mode() & 0o7777);
        header.set_uid(found.uid().into());
        header.set_gid(found.gid().into());
        header.set_mtime(u64::try_from(found.mtime()).unwrap_or(0));
        header.set_size(0);
        if !kind.is_dir() && found.nlink() > 1 {
            let inode = (found.dev(), found.ino());
            if let Some(first) = self.first.get(&inode) {
                header.set_entry_type(EntryType::Link);
                return Ok(self.archive.append_link(&mut header, name, first)?);
            }
            self.first.insert(inode, name.to_owned());
        }
        self.attributes(path)?;
        if kind.is_symlink() {
            header.set_entry_type(EntryType::Symlink);
            let target = fs::read_link(path)?;
            return Ok(self.archive.append_link(&mut header, name, target)?);
        }
        if kind.is_file() {
            header.set_entry_type(EntryType::Regular);
            header.set_size(found.len());
            // One that grows or shrinks meanwhile is as long as it was.
            let content = File::open(path)?.chain(io::repeat(0)).take(found.len());
            return Ok(self.archive.append_data(&mut header, name, content)?);
        }
        header.set_entry_type(match () {
            () if kind.is_dir() => EntryType::Directory,
            () if kind.is_char_device() => EntryType::Char,
            () if kind.is_block_device() => EntryType::Block,
            () => EntryType::Fifo,
        });
        if kind.is_char_device() || kind.is_block_device() {
            header.set_device_major(major(found.rdev()))?;
            header.set_device_minor(minor(found.rdev()))?;
        }
        self.archive.append_data(&mut header, name, io::empty())?;
        if self.tree == Tree::Upper && kind.is_dir() && is_opaque(path) {
            self.empty(&name.join(".wh..wh..opq"))?;
        }
        Ok(())
    }

    fn whiteout(&mut self, name: &Path) -> anyhow::Result<()> {
        let mut hidden = OsString::from(".wh.");
        hidden.push(name.file_name().unwrap_or_default());
        self.empty(&name.with_file_name(hidden))
    }

    fn empty(&mut self, name: &Path) -> anyhow::Result<()> {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_size(0);
        header.set_mode(0);
        Ok(self.archive.append_data(&mut header, name, io::empty())?)
    }

    /// What the next entry has beside what fits into its header.
    fn attributes(&mut self, path: &Path) -> anyhow::Result<()> {
        let mut list = vec![0; XATTR_MAX_BYTES];
        // A file system without any has none.
        let length = llistxattr(path, &mut list[..]).unwrap_or(0);
        let mut pairs: Vec<(String, Vec<u8>)> = Vec::new();
        for name in list[..length].split(|byte| *byte == 0) {
            let name = String::from_utf8_lossy(name);
            if !KEPT.iter().any(|kept| name.starts_with(kept)) {
                continue;
            }
            let mut value = vec![0; XATTR_MAX_BYTES];
            let length = lgetxattr(path, name.as_ref(), &mut value[..])?;
            value.truncate(length);
            pairs.push((format!("{XATTR}{name}"), value));
        }
        if pairs.is_empty() {
            return Ok(());
        }
        let pairs = pairs.iter().map(|(key, value)| (key.as_str(), &value[..]));
        Ok(self.archive.append_pax_extensions(pairs)?)
    }
}

fn is_opaque(path: &Path) -> bool {
    let mut value = [0; 8];
    let length = lgetxattr(path, "trusted.overlay.opaque", &mut value[..]);
    length.is_ok_and(|length| &value[..length] == b"y")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{CWD, FileType, Mode, XattrFlags, lsetxattr, makedev, mknodat};
    use std::os::unix::fs::symlink;

    /// Names, kinds, modes, and where links lead.
    fn entries(directory: &Path, tree: Tree) -> Vec<String> {
        let mut bytes = Vec::new();
        let mut packer = Packer::new(&mut bytes, tree);
        packer.content(directory, Path::new("")).unwrap();
        packer.finish().unwrap();
        let mut archive = tar::Archive::new(&bytes[..]);
        let entries = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let xattr = entry.pax_extensions().unwrap().map(|all| {
                let all = all.map(|one| one.unwrap().key().unwrap().to_owned());
                all.collect::<Vec<_>>().join(" ")
            });
            let header = entry.header();
            let (kind, mode) = (header.entry_type(), header.mode().unwrap());
            let link = entry.link_name().unwrap();
            let link = link.map_or(String::new(), |link| format!(" -> {}", link.display()));
            let name = entry.path().unwrap().display().to_string();
            format!(
                "{kind:?} {mode:o} {name}{link} {}",
                xattr.unwrap_or_default()
            )
        });
        entries.map(|line| line.trim_end().to_owned()).collect()
    }

    #[test]
    fn a_tree_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("sub/file"), "text").unwrap();
        fs::hard_link(at("sub/file"), at("sub/more")).unwrap();
        symlink("nowhere/at/all", at("link")).unwrap();
        std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        let set = lsetxattr(at("sub/file"), "user.note", b"x", XattrFlags::empty());
        let note = if set.is_ok() {
            " SCHILY.xattr.user.note"
        } else {
            ""
        };
        let long = "n".repeat(150);
        fs::write(at(&long), "").unwrap();
        let found = entries(directory.path(), Tree::Files);
        let expected = [
            "Symlink 777 link -> nowhere/at/all".to_owned(),
            format!("Regular 644 {long}"),
            "Directory 755 sub".to_owned(),
            format!("Regular 644 sub/file{note}"),
            "Link 644 sub/more -> sub/file".to_owned(),
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_hides_something_becomes_a_whiteout() {
        let directory = tempfile::tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir_all(at("etc/new")).unwrap();
        let made = mknodat(
            CWD,
            at("etc/gone"),
            FileType::CharacterDevice,
            Mode::empty(),
            makedev(0, 0),
        );
        let opaque = lsetxattr(
            at("etc/new"),
            "trusted.overlay.opaque",
            b"y",
            XattrFlags::empty(),
        );
        if made.is_err() || opaque.is_err() {
            eprintln!("skipped: needs root, and a file system with such attributes");
            return;
        }
        assert_eq!(
            entries(directory.path(), Tree::Upper),
            [
                "Directory 755 etc",
                "Regular 0 etc/.wh.gone",
                "Directory 755 etc/new",
                "Regular 0 etc/new/.wh..wh..opq"
            ]
        );
    }
}
