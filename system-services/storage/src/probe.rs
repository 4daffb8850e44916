//! What is on a device, by its own bytes (blkid(8), low-level probing).

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use keelson_config::cloud_config::storage::partition;
use nix::fcntl::OFlag;

use crate::program;

/// What is found on a device.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Content {
    /// Kind of its file system, when it has one.
    pub(crate) kind: Option<String>,
    /// Label of its file system.
    pub(crate) label: Option<String>,
    /// Kind of its partition table, when it has one.
    pub(crate) table: Option<String>,
}

impl Content {
    /// Whether there is nothing.
    pub(crate) fn is_nothing(&self) -> bool {
        *self == Content::default()
    }
}

/// So much of each end of a device is read.
const ENDS_BYTES: usize = 1 << 20;
/// blkid(8): nothing was found.
const NOTHING: i32 = 2;
/// blkid(8): more than one thing was found.
const AMBIVALENT: i32 = 8;

/// Looks at `device`.
///
/// # Errors
/// It cannot be read, or has the marks of more than one file system.
pub(crate) fn content(device: &Path) -> Result<Content> {
    let path = device.to_str().context("a name that is no text")?;
    let output = program::output("blkid", &["--probe", "--output", "export", path], None)?;
    match output.status.code() {
        Some(0) => {}
        // It says the same of a device that it cannot read.
        Some(NOTHING) => {
            let reading = || format!("read {path}");
            return readable(device)
                .map(|()| Content::default())
                .with_context(reading);
        }
        Some(AMBIVALENT) => bail!(
            "{path} has the marks of more than one file system; wipefs(8) takes the wrong ones away"
        ),
        _ => bail!("blkid: {}", String::from_utf8_lossy(&output.stderr).trim()),
    }
    Ok(parse(&String::from_utf8_lossy(&output.stdout)))
}

/// Whether both ends can be read, where file systems and partition tables have their marks.
fn readable(device: &Path) -> io::Result<()> {
    let mut file = File::open(device)?;
    let mut bytes = vec![0; ENDS_BYTES];
    let length = file.seek(SeekFrom::End(0))?;
    let end = length.saturating_sub(ENDS_BYTES as u64);
    for at in [0, end] {
        file.seek(SeekFrom::Start(at))?;
        let part = usize::try_from(length - at)
            .unwrap_or(ENDS_BYTES)
            .min(ENDS_BYTES);
        file.read_exact(&mut bytes[..part])?;
    }
    Ok(())
}

/// Whether somebody uses the device, or a part of it (open(2), `O_EXCL` of a block device).
///
/// # Errors
/// It cannot be opened.
pub(crate) fn is_in_use(device: &Path) -> io::Result<bool> {
    let mut options = OpenOptions::new();
    match options
        .read(true)
        .custom_flags(OFlag::O_EXCL.bits())
        .open(device)
    {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::ResourceBusy => Ok(true),
        Err(error) => Err(error),
    }
}

fn parse(text: &str) -> Content {
    let fields: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .collect();
    let field = |name: &str| fields.get(name).map(|value| value.replace('\\', ""));
    Content {
        kind: field("TYPE"),
        label: field("LABEL"),
        table: field("PTTYPE"),
    }
}

/// Where the device is, with links followed; `None` when it is not there.
pub(crate) fn device(path: &str) -> Option<PathBuf> {
    let real = match fs::canonicalize(path) {
        Ok(real) => real,
        // The link to a partition that was just made comes a little later.
        Err(_) => {
            let (disk, number) = path.rsplit_once("-part")?;
            let disk = fs::canonicalize(disk).ok()?;
            partition(disk.to_str()?, number).into()
        }
    };
    let kind = fs::metadata(&real).ok()?.file_type();
    kind.is_block_device().then_some(real)
}

/// The devices of a disk's partitions, in order of number; none when it is no disk.
pub(crate) fn partitions(disk: &Path) -> Vec<PathBuf> {
    let name = disk.file_name().unwrap_or_default();
    let entries = fs::read_dir(Path::new("/sys/class/block").join(name));
    let mut found: Vec<(u32, PathBuf)> = entries
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let number = fs::read_to_string(entry.path().join("partition")).ok()?;
            let device = Path::new("/dev").join(entry.file_name());
            Some((number.trim().parse().ok()?, device))
        })
        .collect();
    found.sort();
    found.into_iter().map(|(_, device)| device).collect()
}

/// How large a disk is, in sectors of 512 bytes.
///
/// # Errors
/// It is no disk, or part of one.
pub(crate) fn sectors(disk: &Path) -> Result<u64> {
    let name = disk.file_name().unwrap_or_default();
    let path = Path::new("/sys/class/block").join(name);
    if path.join("partition").exists() {
        bail!("{} is a partition; a disk is expected", disk.display());
    }
    let reading = || format!("read the size of {}", disk.display());
    let text = fs::read_to_string(path.join("size")).with_context(reading)?;
    text.trim().parse().with_context(reading)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_blkid_says_is_read() {
        let content =
            parse("DEVNAME=/dev/vdb\nLABEL=my\\ disk\nUUID=x\nTYPE=ext4\nUSAGE=filesystem\n");
        assert_eq!(content.kind.as_deref(), Some("ext4"));
        assert_eq!(content.label.as_deref(), Some("my disk"));
        assert!(!content.is_nothing() && content.table.is_none());
        assert!(parse("DEVNAME=/dev/vdb\n").is_nothing());
    }
}
