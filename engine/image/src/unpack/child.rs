//! The process that unpacks a layer. Its root is the directory that it fills: no path of an archive leads anywhere else.

use super::Report;
use super::confine::{ARCHIVE, confine};
use super::decompress;
use super::entry::Unpacker;
use anyhow::Context;
use keelson_image::Digest;
use sha2::{Digest as _, Sha256};
use std::io::{self, Read};
use std::path::Path;

/// Unpacks what comes on standard input and reports on standard output.
///
/// # Errors
/// Names the entry that cannot be made.
pub(crate) fn main(directory: &Path) -> anyhow::Result<()> {
    shut_in(directory)?;
    let mut hashing = Hashing {
        inner: decompress::reader(io::stdin().lock()).context("read the layer")?,
        hasher: Sha256::new(),
    };
    let mut unpacker = Unpacker::layer();
    {
        let mut archive = tar::Archive::new(&mut hashing);
        for entry in archive.entries().context("read the layer")? {
            unpacker.unpack(&mut entry.context("read the layer")?)?;
        }
    }
    let implied = unpacker.finish()?;
    // What follows the end of an archive counts as well.
    io::copy(&mut hashing, &mut io::sink()).context("read the layer")?;
    let report = Report {
        diff_id: Digest::finish(hashing.hasher),
        implied,
    };
    println!("{}", serde_json::to_string(&report)?);
    Ok(())
}

/// Makes a directory the root and gives up what would lead out of it.
///
/// # Errors
/// What the system calls report.
pub(crate) fn shut_in(directory: &Path) -> anyhow::Result<()> {
    rustix::process::chroot(directory)
        .with_context(|| format!("change the root to {}", directory.display()))?;
    std::env::set_current_dir("/").context("enter the root")?;
    rustix::process::umask(rustix::fs::Mode::empty());
    confine(ARCHIVE)
}

struct Hashing<R> {
    inner: R,
    hasher: Sha256,
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.inner.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        Ok(length)
    }
}
