//! One entry of an archive, made below the root of this process.
//!
//! The process is shut into the directory that it fills, so links lead nowhere that matters; names with `..` are refused
//! all the same, because no honest archive has them.

use anyhow::{Context, bail};
use rustix::fs::{
    AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chmodat, chownat,
    lsetxattr, mknodat, utimensat,
};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Component, Path, PathBuf};
use tar::{Entry, EntryType};

/// Beginnings of names that stand for something that is not there any more (layer.md, "Whiteouts").
const WHITEOUT: &str = ".wh.";
const OPAQUE: &str = ".wh..wh..opq";
/// Extended attributes in archives (PAX, as GNU tar and Go write them).
const XATTR: &str = "SCHILY.xattr.";

/// Makes the entries of one archive.
#[derive(Debug)]
pub(crate) struct Unpacker {
    /// Whiteouts mean something, and directories without an entry are told.
    is_layer: bool,
    /// What everything is made below.
    base: PathBuf,
    /// A directory does not take the place of something else, nor the other way round.
    keep_kinds: bool,
    named: BTreeSet<PathBuf>,
    implied: BTreeSet<PathBuf>,
    /// Times of directories, which change as long as something is made in them.
    times: Vec<(PathBuf, Timespec)>,
}

impl Unpacker {
    /// For a layer.
    pub(crate) fn layer() -> Self {
        Self {
            is_layer: true,
            base: PathBuf::from("/"),
            keep_kinds: false,
            named: BTreeSet::new(),
            implied: BTreeSet::from([PathBuf::new()]),
            times: Vec::new(),
        }
    }

    /// For files that are copied into a container.
    pub(crate) fn copy(base: PathBuf, keep_kinds: bool) -> Self {
        Self {
            is_layer: false,
            base,
            keep_kinds,
            ..Self::layer()
        }
    }

    /// Makes one entry.
    ///
    /// # Errors
    /// Names it and what went wrong.
    pub(crate) fn unpack(&mut self, entry: &mut Entry<'_, impl Read>) -> anyhow::Result<()> {
        let name = entry.path().context("read a name")?.into_owned();
        self.make(entry, &name)
            .with_context(|| format!("unpack {}", name.display()))
    }

    fn make(&mut self, entry: &mut Entry<'_, impl Read>, name: &Path) -> anyhow::Result<()> {
        let relative = plain(name)?;
        let kind = entry.header().entry_type();
        if matches!(kind, EntryType::XGlobalHeader) {
            return Ok(());
        }
        if let Some(parent) = relative.parent() {
            self.parents(parent)?;
        }
        let file_name = relative
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        if self.is_layer && file_name.starts_with(WHITEOUT) {
            return self.whiteout(&relative, &file_name);
        }
        let path = self.base.join(&relative);
        match kind {
            EntryType::Directory => self.directory(&path)?,
            EntryType::Link => {
                let target = entry.link_name()?.context("a hard link leads nowhere")?;
                let target = self.base.join(plain(&target)?);
                self.make_room(&path)?;
                // What it has it shares with its other name.
                return fs::hard_link(&target, &path)
                    .with_context(|| format!("link to {}", target.display()));
            }
            EntryType::Symlink => {
                let target = entry
                    .link_name()?
                    .context("a symbolic link leads nowhere")?;
                self.make_room(&path)?;
                std::os::unix::fs::symlink(&target, &path)?;
            }
            EntryType::Char => self.node(entry, &path, FileType::CharacterDevice)?,
            EntryType::Block => self.node(entry, &path, FileType::BlockDevice)?,
            EntryType::Fifo => self.node(entry, &path, FileType::Fifo)?,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
                self.make_room(&path)?;
                let mut file = File::options().write(true).create_new(true).open(&path)?;
                io::copy(entry, &mut file)?;
            }
            other => bail!("entries of type {other:?} are not supported"),
        }
        self.attributes(entry, &path, kind)?;
        self.implied.remove(&relative);
        self.named.insert(relative);
        Ok(())
    }

    /// Makes the directories on the way that the archive has not named.
    fn parents(&mut self, path: &Path) -> anyhow::Result<()> {
        let mut way = PathBuf::new();
        for part in path.components() {
            way.push(part);
            let place = self.base.join(&way);
            if self.named.contains(&way) || self.implied.contains(&way) || place.is_dir() {
                continue;
            }
            if fs::symlink_metadata(&place).is_ok() {
                fs::remove_file(&place)?;
            }
            fs::create_dir(&place).with_context(|| format!("make {}", place.display()))?;
            chmodat(CWD, &place, Mode::from_raw_mode(0o755), AtFlags::empty())?;
            self.implied.insert(way.clone());
        }
        Ok(())
    }

    fn directory(&self, path: &Path) -> anyhow::Result<()> {
        match fs::symlink_metadata(path) {
            Ok(found) if found.is_dir() => Ok(()),
            Ok(_) if self.keep_kinds => bail!("cannot overwrite non-directory with directory"),
            Ok(_) => {
                fs::remove_file(path)?;
                Ok(fs::create_dir(path)?)
            }
            Err(_) => Ok(fs::create_dir(path)?),
        }
    }

    /// Takes away what is in the way of something that is no directory.
    fn make_room(&self, path: &Path) -> anyhow::Result<()> {
        match fs::symlink_metadata(path) {
            Err(_) => Ok(()),
            Ok(found) if found.is_dir() && self.keep_kinds => {
                bail!("cannot overwrite directory with non-directory")
            }
            Ok(found) if found.is_dir() => Ok(fs::remove_dir_all(path)?),
            Ok(_) => Ok(fs::remove_file(path)?),
        }
    }

    fn node(
        &self,
        entry: &Entry<'_, impl Read>,
        path: &Path,
        kind: FileType,
    ) -> anyhow::Result<()> {
        self.make_room(path)?;
        let device = match kind {
            FileType::Fifo => 0,
            _ => {
                let number =
                    |number: io::Result<Option<u32>>| number.map(Option::unwrap_or_default);
                let header = entry.header();
                rustix::fs::makedev(
                    number(header.device_major())?,
                    number(header.device_minor())?,
                )
            }
        };
        Ok(mknodat(
            CWD,
            path,
            kind,
            Mode::from_raw_mode(0o600),
            device,
        )?)
    }

    /// In overlayfs's form: a device node of number 0/0, or an attribute of the directory.
    fn whiteout(&mut self, relative: &Path, name: &str) -> anyhow::Result<()> {
        let parent = relative.parent().unwrap_or(Path::new(""));
        if name == OPAQUE {
            let directory = self.base.join(parent);
            return Ok(lsetxattr(
                &directory,
                "trusted.overlay.opaque",
                b"y",
                XattrFlags::empty(),
            )?);
        }
        let hidden = name.strip_prefix(WHITEOUT).unwrap_or_default();
        // Other names that begin so are a file system's own business.
        if hidden.is_empty() || hidden.starts_with(WHITEOUT) {
            return Ok(());
        }
        let path = self.base.join(parent).join(hidden);
        self.make_room(&path)?;
        Ok(mknodat(
            CWD,
            &path,
            FileType::CharacterDevice,
            Mode::empty(),
            0,
        )?)
    }

    fn attributes(
        &mut self,
        entry: &mut Entry<'_, impl Read>,
        path: &Path,
        kind: EntryType,
    ) -> anyhow::Result<()> {
        let header = entry.header();
        let fields = header.as_old();
        let mut uid = number(header.uid(), &fields.uid)?;
        let mut gid = number(header.gid(), &fields.gid)?;
        let mode = number(header.mode(), &fields.mode)?;
        let mut time = Timespec {
            tv_sec: i64::try_from(number(header.mtime(), &fields.mtime)?).unwrap_or(0),
            tv_nsec: 0,
        };
        let mut extended: Vec<(String, Vec<u8>)> = Vec::new();
        for extension in entry.pax_extensions()?.into_iter().flatten() {
            let extension = extension?;
            let Ok(key) = extension.key() else { continue };
            match (key, extension.value()) {
                ("uid", Ok(value)) => uid = value.parse()?,
                ("gid", Ok(value)) => gid = value.parse()?,
                ("mtime", Ok(value)) => time = timespec(value).unwrap_or(time),
                _ => {
                    if let Some(name) = key.strip_prefix(XATTR) {
                        extended.push((name.to_owned(), extension.value_bytes().to_vec()));
                    }
                }
            }
        }
        let (uid, gid) = (u32::try_from(uid)?, u32::try_from(gid)?);
        let (owner, group) = (Uid::from_raw(uid), Gid::from_raw(gid));
        chownat(
            CWD,
            path,
            Some(owner),
            Some(group),
            AtFlags::SYMLINK_NOFOLLOW,
        )?;
        if kind != EntryType::Symlink {
            // After the owner, whose change takes setuid away.
            chmodat(
                CWD,
                path,
                Mode::from_raw_mode(mode & 0o7777),
                AtFlags::empty(),
            )?;
        }
        for (name, value) in extended {
            // What overlayfs itself goes by is not an image's to say.
            if name.starts_with("trusted.overlay.") {
                continue;
            }
            match lsetxattr(path, &name, &value, XattrFlags::empty()) {
                // A file system without them, as Docker takes it.
                Err(rustix::io::Errno::NOTSUP) => {}
                other => other.with_context(|| format!("set the attribute {name}"))?,
            }
        }
        match kind {
            EntryType::Directory => self.times.push((path.to_owned(), time)),
            _ => touch(path, time)?,
        }
        Ok(())
    }

    /// Sets the times of directories and gives those that had no entry.
    ///
    /// # Errors
    /// What the system calls report.
    pub(crate) fn finish(self) -> anyhow::Result<Vec<PathBuf>> {
        for (path, time) in self.times.iter().rev() {
            // It may have been replaced later in the archive.
            if fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()) {
                touch(path, *time)?;
            }
        }
        Ok(self.implied.into_iter().collect())
    }
}

/// A number of a header; a field with nothing in it is 0, as for GNU tar.
fn number<T: Default>(read: io::Result<T>, field: &[u8]) -> io::Result<T> {
    match field.iter().all(|byte| matches!(byte, 0 | b' ')) {
        true => Ok(T::default()),
        false => read,
    }
}

fn touch(path: &Path, time: Timespec) -> anyhow::Result<()> {
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    Ok(utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW)?)
}

/// A name without `/` in front and `.` within; `..` is refused.
fn plain(name: &Path) -> anyhow::Result<PathBuf> {
    let mut plain = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::RootDir | Component::CurDir => {}
            Component::ParentDir | Component::Prefix(_) => {
                bail!("the name {} leads out", name.display())
            }
        }
    }
    Ok(plain)
}

/// Seconds with a fraction.
fn timespec(text: &str) -> Option<Timespec> {
    let (seconds, fraction) = text.split_once('.').unwrap_or((text, ""));
    let nanos: String = fraction
        .chars()
        .chain("000000000".chars())
        .take(9)
        .collect();
    Some(Timespec {
        tv_sec: seconds.parse().ok()?,
        tv_nsec: nanos.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_inside() {
        assert_eq!(plain(Path::new("./a//b/./c")).unwrap(), Path::new("a/b/c"));
        assert_eq!(plain(Path::new("/etc/x")).unwrap(), Path::new("etc/x"));
        assert_eq!(plain(Path::new("./")).unwrap(), Path::new(""));
        for wrong in ["..", "a/../../b", "/../x"] {
            assert!(plain(Path::new(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn times_have_nanoseconds() {
        let time = timespec("12.5").unwrap();
        assert_eq!((time.tv_sec, time.tv_nsec), (12, 500_000_000));
        assert!(timespec("x").is_none());
    }
}
