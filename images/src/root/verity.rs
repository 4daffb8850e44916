//! The dm-verity hash tree, appended to the image with its superblock as veritysetup writes it.

use std::fs::{self, OpenOptions};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use super::Verity;
use crate::command;
use crate::files;

/// Hash and data blocks have this size, and the file system is padded to it.
const BLOCK_BYTES: u64 = 4096;

/// The superblock's UUID: the image's identity is its root hash, this one is never looked at.
const UUID: &str = "6b65656c-736f-4e00-8000-000000000002";

/// Appends the hash tree to the file system in `image`. The salt is the digest of the content: same content, same bytes.
///
/// # Errors
/// When veritysetup fails.
pub(crate) fn append(image: &Path) -> Result<Verity> {
    let size = fs::metadata(image)
        .with_context(|| format!("examining {}", image.display()))?
        .len();
    let hash_offset_bytes = size.next_multiple_of(BLOCK_BYTES);
    let file = OpenOptions::new().write(true).open(image);
    file.and_then(|file| file.set_len(hash_offset_bytes))
        .with_context(|| format!("padding {}", image.display()))?;
    let salt = files::sha256(image)?;
    let hash_file = image.with_extension("roothash");
    let mut veritysetup = Command::new("veritysetup");
    veritysetup.args([
        "format",
        "--hash=sha256",
        "--data-block-size=4096",
        "--hash-block-size=4096",
    ]);
    veritysetup.arg(format!("--data-blocks={}", hash_offset_bytes / BLOCK_BYTES));
    veritysetup.arg(format!("--hash-offset={hash_offset_bytes}"));
    veritysetup
        .arg(format!("--salt={salt}"))
        .arg(format!("--uuid={UUID}"));
    veritysetup.arg(format!("--root-hash-file={}", hash_file.display()));
    command::run(veritysetup.arg(image).arg(image)).context("making the dm-verity tree")?;
    let root_hash = files::read_text(&hash_file)?.trim().to_owned();
    files::remove(&hash_file)?;
    ensure!(
        root_hash.len() == 64,
        "veritysetup gave the root hash {root_hash:?}, which is not a SHA-256"
    );
    let size_bytes = fs::metadata(image)
        .with_context(|| format!("examining {}", image.display()))?
        .len();
    Ok(Verity {
        root_hash,
        hash_offset_bytes,
        size_bytes,
    })
}
