//! The state partition as shipped: a small empty ext4 that PID 1 grows to the disk at the first boot.

use std::fs::File;
use std::path::Path;
use std::process::Command;

use crate::state_partition::{MKE2FS, MKE2FS_EXTENDED};
use anyhow::{Context, Result};

use crate::command;

/// The file system's UUID in the image.
const UUID: &str = "6b65656c-736f-4e00-8000-000000000003";

/// Seed of the directory hashes.
const HASH_SEED: &str = "6b65656c-736f-4e00-8000-000000000004";

/// Makes an empty file system of `size_bytes` in the file `to`.
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
    mke2fs
        .args(MKE2FS)
        .arg(format!("{MKE2FS_EXTENDED},hash_seed={HASH_SEED},nodiscard"));
    mke2fs.args(["-U", UUID]);
    command::run(mke2fs.arg(to)).context("making the state partition")?;
    Ok(())
}
