//! Images of file systems onto a disk; and what a disk loses.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};

use super::layout::MIB;
use crate::esp::drop_cache;

const PIECE_BYTES: usize = 64 * 1024;
/// What may stand at the start of a file system that was there before.
const START_BYTES: usize = MIB as usize;

/// Copies an image, whose length is a multiple of 64 KiB, to a disk, has the disk keep it, and reads it back from there.
///
/// # Errors
/// The disk cannot be written, or does not give back what was written.
pub fn copy_image(image: &File, disk: &File, offset: u64) -> Result<()> {
    let length = image.metadata()?.len();
    ensure!(
        length.is_multiple_of(PIECE_BYTES as u64),
        "an image of {length} bytes"
    );
    let (mut buffer, mut there) = (vec![0; PIECE_BYTES], vec![0; PIECE_BYTES]);
    for at in (0..length).step_by(PIECE_BYTES) {
        image.read_exact_at(&mut buffer, at)?;
        disk.write_all_at(&buffer, offset + at)?;
    }
    disk.sync_all()?;
    drop_cache(disk);
    for at in (0..length).step_by(PIECE_BYTES) {
        image.read_exact_at(&mut buffer, at)?;
        disk.read_exact_at(&mut there, offset + at)?;
        ensure!(
            there == buffer,
            "the disk does not give back what was written to it: it may be defective"
        );
    }
    Ok(())
}

/// Overwrites what may say that there is something: the first MiB.
///
/// # Errors
/// The disk cannot be written.
pub fn clear(disk: &File, offset: u64) -> Result<()> {
    disk.write_all_at(&vec![0; START_BYTES], offset)
        .context("write the disk")
}
