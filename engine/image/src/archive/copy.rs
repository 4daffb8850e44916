//! Files into a container and out of it, as `docker cp` has them. The process is shut into the container's root, whose
//! links then lead nowhere else.

use super::pack::{Packer, Tree};
use crate::arguments::CopyIn;
use crate::failure::Failure;
use crate::unpack::child::shut_in;
use crate::unpack::decompress;
use crate::unpack::entry::Unpacker;
use anyhow::Context;
use serde_json::json;
use std::fs::{self, Metadata};
use std::io::{self, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// Unpacks the archive on standard input into a directory of the container.
///
/// # Errors
/// When there is no such directory, or something is in the way.
pub(crate) fn copy_in(copy: &CopyIn) -> anyhow::Result<()> {
    shut_in(&copy.root)?;
    let found = fs::metadata(&copy.path).map_err(|error| missing(&copy.path, error))?;
    if !found.is_dir() {
        return Err(Failure::error(400, "extraction point is not a directory"));
    }
    let base = fs::canonicalize(&copy.path)?;
    let mut unpacker = Unpacker::copy(base, copy.keep_kinds);
    let mut archive = tar::Archive::new(decompress::reader(io::stdin().lock())?);
    for entry in archive.entries().context("read the archive")? {
        unpacker.unpack(&mut entry.context("read the archive")?)?;
    }
    unpacker.finish().map(drop)
}

/// Packs a file or a directory of the container, under its own name.
///
/// # Errors
/// When there is none.
pub(crate) fn copy_out(root: &Path, path: &Path) -> anyhow::Result<()> {
    shut_in(root)?;
    // A path that ends in `/` or `/.` means what a link leads to, and a directory's content.
    let content = path.as_os_str().as_encoded_bytes().ends_with(b"/.");
    fs::symlink_metadata(path).map_err(|error| missing(path, error))?;
    let name = match (content, path.file_name()) {
        (true, _) | (_, None) => PathBuf::from("."),
        (false, Some(name)) => PathBuf::from(name),
    };
    let mut packer = packer();
    packer.add(path, &name)?;
    packer.finish()
}

/// Packs all of the container.
///
/// # Errors
/// When something cannot be read.
pub(crate) fn export(root: &Path) -> anyhow::Result<()> {
    shut_in(root)?;
    let mut packer = packer();
    packer.content(Path::new("/"), Path::new(""))?;
    packer.finish()
}

fn packer() -> Packer<impl Write> {
    Packer::new(io::BufWriter::new(io::stdout().lock()), Tree::Files)
}

/// Tells what a path is: Docker's `PathStat`, with the mode in Go's form.
///
/// # Errors
/// When there is nothing.
pub(crate) fn stat(root: &Path, path: &Path) -> anyhow::Result<()> {
    shut_in(root)?;
    let found = fs::symlink_metadata(path).map_err(|error| missing(path, error))?;
    let link = match found.is_symlink() {
        true => fs::canonicalize(path)
            .or_else(|_| fs::read_link(path))
            .unwrap_or_default(),
        false => PathBuf::new(),
    };
    let name = path
        .file_name()
        .map_or(Path::new("/").as_os_str(), |name| name);
    let modified = u64::try_from(found.mtime()).map_or(SystemTime::UNIX_EPOCH, |seconds| {
        SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
    });
    println!(
        "{}",
        json!({
            "name": name.to_string_lossy(), "size": found.len(), "mode": go_mode(&found),
            "mtime": humantime::format_rfc3339_seconds(modified).to_string(), "linkTarget": link.to_string_lossy(),
        })
    );
    Ok(())
}

fn missing(path: &Path, error: io::Error) -> anyhow::Error {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Failure::error(
            404,
            format!("Could not find the file {} in container", path.display()),
        ),
        _ => anyhow::Error::new(error).context(path.display().to_string()),
    }
}

/// Go's `os.FileMode`: kinds in the upper bits.
fn go_mode(found: &Metadata) -> u32 {
    let kind = found.file_type();
    let bits = [
        (kind.is_dir(), 31),
        (kind.is_symlink(), 27),
        (kind.is_block_device() || kind.is_char_device(), 26),
        (kind.is_fifo(), 25),
        (kind.is_socket(), 24),
        (found.mode() & 0o4000 != 0, 23),
        (found.mode() & 0o2000 != 0, 22),
        (kind.is_char_device(), 21),
        (found.mode() & 0o1000 != 0, 20),
    ];
    let upper: u32 = bits
        .iter()
        .filter(|(is, _)| *is)
        .map(|(_, bit)| 1 << bit)
        .sum();
    upper | found.mode() & 0o777
}
