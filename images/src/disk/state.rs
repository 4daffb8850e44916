//! The state partition as shipped: a small empty ext4 that PID 1 grows to the disk at the first boot.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::command;

/// The file system's UUID in the image.
const UUID: &str = "6b65656c-736f-4e00-8000-000000000003";

/// Seed of the directory hashes.
const HASH_SEED: &str = "6b65656c-736f-4e00-8000-000000000004";

/// Room for group descriptors is kept up to this size, 1 TiB in blocks of 4 KiB; beyond it the kernel finds other room.
const GROWTH_BLOCKS: u64 = 1 << 28;

/// Makes an empty file system of `size_bytes` in the file `to`.
///
/// Its parameters are those of the large file system that it becomes: 4 KiB blocks, 8192 inodes a group of 128 MiB
/// (one for every 16 KiB), and a journal that does not slow Docker down.
///
/// # Errors
/// When mke2fs fails.
pub(crate) fn make(size_bytes: u64, epoch_seconds: u64, to: &Path) -> Result<()> {
    let file = File::create(to).with_context(|| format!("making {}", to.display()))?;
    file.set_len(size_bytes)
        .with_context(|| format!("making {}", to.display()))?;
    let mut mke2fs = Command::new("mke2fs");
    mke2fs
        .env("SOURCE_DATE_EPOCH", epoch_seconds.to_string())
        .env("E2FSPROGS_FAKE_TIME", epoch_seconds.to_string());
    mke2fs.args([
        "-q",
        "-F",
        "-t",
        "ext4",
        "-L",
        "KEELSON_STATE",
        "-U",
        UUID,
        "-b",
        "4096",
        "-I",
        "256",
    ]);
    mke2fs.args(["-N", "8192", "-m", "1", "-J", "size=16"]);
    mke2fs.args(["-E", &format!("hash_seed={HASH_SEED},resize={GROWTH_BLOCKS},root_owner=0:0,lazy_itable_init=0,nodiscard")]);
    command::run(mke2fs.arg(to)).context("making the state partition")?;
    Ok(())
}
