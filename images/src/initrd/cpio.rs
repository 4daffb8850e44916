//! Archives in the "newc" format that the kernel unpacks (Documentation/driver-api/early-userspace/buffer-format.rst).
//!
//! The same tree gives the same bytes: entries are sorted, inode numbers count up, all times are one.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use anyhow::{Context, Result, bail};

use crate::files;

const MAGIC: &str = "070701";
const TRAILER: &str = "TRAILER!!!";
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Header fields of one entry.
#[derive(Debug, Clone, Copy, Default)]
struct Header {
    inode: u32,
    mode: u32,
    user: u32,
    group: u32,
    links: u32,
    time: u32,
    size: u32,
    device: (u32, u32),
}

/// Writes the tree below `root`, and the node `/dev/console` that the kernel opens for its first program.
///
/// # Errors
/// When something cannot be read, is no file, directory or link, or does not fit the format.
pub(crate) fn write_tree(root: &Path, epoch_seconds: u64, to: &mut dyn Write) -> Result<()> {
    let time =
        u32::try_from(epoch_seconds).context("the time stamp does not fit a cpio archive")?;
    let mut inode = 0;
    for entry in files::walk(root)? {
        inode += 1;
        let path = root.join(&entry.path);
        let archiving = || format!("archiving /{}", entry.path);
        let mut header = Header {
            inode,
            mode: entry.metadata.mode(),
            user: entry.metadata.uid(),
            group: entry.metadata.gid(),
            links: 1,
            time,
            ..Header::default()
        };
        if entry.metadata.is_dir() {
            header.links = 2;
            write_header(&header, &entry.path, to).with_context(archiving)?;
        } else if entry.metadata.is_symlink() {
            let target = fs::read_link(&path).with_context(archiving)?;
            let target = target.as_os_str().as_bytes();
            header.size = u32::try_from(target.len()).with_context(archiving)?;
            write_header(&header, &entry.path, to).with_context(archiving)?;
            write_padded(&mut &target[..], header.size, to).with_context(archiving)?;
        } else if entry.metadata.is_file() {
            header.size = u32::try_from(entry.metadata.len()).with_context(archiving)?;
            write_header(&header, &entry.path, to).with_context(archiving)?;
            let mut file = File::open(&path).with_context(archiving)?;
            write_padded(&mut file, header.size, to).with_context(archiving)?;
        } else {
            bail!("/{} is neither file nor directory nor link", entry.path);
        }
    }
    let console = Header {
        inode: inode + 1,
        mode: CHARACTER_DEVICE | 0o600,
        links: 1,
        time,
        device: (5, 1),
        ..Header::default()
    };
    write_header(&console, "dev/console", to).context("archiving /dev/console")?;
    let trailer = Header {
        links: 1,
        ..Header::default()
    };
    write_header(&trailer, TRAILER, to).context("ending the archive")
}

/// Thirteen numbers of eight hex digits after the magic, then the name with its zero, padded to four bytes.
fn write_header(header: &Header, name: &str, to: &mut dyn Write) -> io::Result<()> {
    let name_size = u32::try_from(name.len() + 1).map_err(io::Error::other)?;
    let Header {
        inode,
        mode,
        user,
        group,
        links,
        time,
        size,
        device,
    } = *header;
    write!(to, "{MAGIC}")?;
    for field in [
        inode, mode, user, group, links, time, size, 0, 0, device.0, device.1, name_size, 0,
    ] {
        write!(to, "{field:08x}")?;
    }
    to.write_all(name.as_bytes())?;
    to.write_all(&[0])?;
    pad(MAGIC.len() + 13 * 8 + name.len() + 1, to)
}

fn write_padded(content: &mut dyn io::Read, size: u32, to: &mut dyn Write) -> io::Result<()> {
    let copied = io::copy(content, to)?;
    if copied != u64::from(size) {
        return Err(io::Error::other("its size changed while it was read"));
    }
    pad(size as usize, to)
}

fn pad(size: usize, to: &mut dyn Write) -> io::Result<()> {
    to.write_all(&[0; 3][..size.next_multiple_of(4) - size])
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::process::{Command, Stdio};

    fn archive(root: &Path) -> Vec<u8> {
        let mut bytes = Vec::new();
        write_tree(root, 1_700_000_000, &mut bytes).unwrap();
        bytes
    }

    fn demo(root: &Path) {
        fs::create_dir(root.join("usr")).unwrap();
        fs::write(root.join("usr/file"), "hello").unwrap();
        symlink("usr/file", root.join("link")).unwrap();
    }

    #[test]
    fn cpio_reads_back_what_was_written() {
        let scratch = tempfile::tempdir().unwrap();
        demo(scratch.path());
        let mut cpio = Command::new("cpio")
            .args(["-itv", "--quiet"])
            .env("TZ", "UTC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        cpio.stdin
            .take()
            .unwrap()
            .write_all(&archive(scratch.path()))
            .unwrap();
        let output = cpio.wait_with_output().unwrap();
        assert!(output.status.success());
        let listing = String::from_utf8(output.stdout).unwrap();
        for wanted in [
            "link -> usr/file",
            "usr/file",
            "5 Nov 14  2023 usr/file",
            "dev/console",
        ] {
            assert!(listing.contains(wanted), "{wanted} is not in:\n{listing}");
        }
    }

    #[test]
    fn the_same_tree_gives_the_same_bytes() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        demo(one.path());
        demo(two.path());
        assert_eq!(archive(one.path()), archive(two.path()));
        assert_eq!(archive(one.path()).len() % 4, 0);
    }
}
