//! Overlays, and what tests do to disks behind a machine's back.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use crate::harness::process;

const TOOL_DEADLINE: Duration = Duration::from_secs(120);
const SECTOR_BYTES: u64 = 512;
/// Size of the disks that tests boot from; the state partition grows into it.
const DISK_SIZE: &str = "4G";

/// Makes a qcow2 overlay over a raw or qcow2 `base`, which stays as it is.
///
/// # Errors
/// When qemu-img fails.
pub fn overlay(base: &Path, format: &str, path: &Path) -> Result<PathBuf> {
    let mut command = Command::new("qemu-img");
    command
        .args(["create", "-q", "-f", "qcow2", "-F", format, "-b"])
        .arg(base.canonicalize()?)
        .arg(path);
    process::check(command.arg(DISK_SIZE), TOOL_DEADLINE)?;
    Ok(path.to_owned())
}

/// Writes what a qcow2 disk holds to a sparse raw file.
///
/// # Errors
/// When qemu-img fails.
pub fn flatten(disk: &Path, raw: &Path) -> Result<PathBuf> {
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-q", "-O", "raw"])
        .arg(disk)
        .arg(raw);
    process::check(&mut command, TOOL_DEADLINE)?;
    Ok(raw.to_owned())
}

/// A sparse copy that may be spoilt.
///
/// # Errors
/// When it cannot be made.
pub fn copy(from: &Path, to: &Path) -> Result<PathBuf> {
    process::check(
        Command::new("cp")
            .args(["--sparse=always", "--reflink=auto"])
            .arg(from)
            .arg(to),
        TOOL_DEADLINE,
    )?;
    Ok(to.to_owned())
}

/// Where a partition lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Number in the partition table, from 1.
    pub number: u64,
    /// First byte.
    pub start_bytes: u64,
    /// Length.
    pub size_bytes: u64,
}

/// Finds the GPT partition called `name` in a raw image.
///
/// # Errors
/// When there is none.
pub fn partition(raw: &Path, name: &str) -> Result<Partition> {
    find(raw, "name", name)?.with_context(|| format!("{} has no partition {name}", raw.display()))
}

/// Finds the GPT partition with the GUID `uuid`, if there is one.
///
/// # Errors
/// When sfdisk cannot read the table.
pub fn partition_of(raw: &Path, uuid: &str) -> Result<Option<Partition>> {
    find(raw, "uuid", &uuid.to_ascii_uppercase())
}

fn find(raw: &Path, key: &str, value: &str) -> Result<Option<Partition>> {
    let text = process::check(Command::new("sfdisk").arg("--json").arg(raw), TOOL_DEADLINE)?;
    let table: Value = serde_json::from_str(&text).context("reading sfdisk's table")?;
    let list = table["partitiontable"]["partitions"]
        .as_array()
        .context("sfdisk shows no partitions")?;
    let Some(index) = list.iter().position(|entry| entry[key] == value) else {
        return Ok(None);
    };
    let field = |key: &str| {
        list[index][key]
            .as_u64()
            .context("sfdisk's table lacks a number")
    };
    let node = list[index]["node"].as_str().unwrap_or_default();
    let digits = node
        .rsplit(|character: char| !character.is_ascii_digit())
        .next()
        .unwrap_or_default();
    Ok(Some(Partition {
        number: digits.parse().context("reading a partition's number")?,
        start_bytes: field("start")? * SECTOR_BYTES,
        size_bytes: field("size")? * SECTOR_BYTES,
    }))
}

/// Copies a partition of a raw image to a file of its own, without the zeros at its end.
///
/// # Errors
/// When it cannot be read or written.
pub fn extract(raw: &Path, partition: Partition, to: &Path) -> Result<()> {
    let mut file = File::open(raw).with_context(|| format!("opening {}", raw.display()))?;
    let mut content = Vec::new();
    file.seek(SeekFrom::Start(partition.start_bytes))
        .and_then(|_| file.take(partition.size_bytes).read_to_end(&mut content))
        .context("reading a partition")?;
    let used = content
        .iter()
        .rposition(|byte| *byte != 0)
        .map_or(0, |last| last + 1);
    content.truncate(used.next_multiple_of(4096));
    fs::write(to, content).with_context(|| format!("writing {}", to.display()))
}

/// Copies a partition of a raw image to a sparse file of its own.
///
/// # Errors
/// When qemu-img fails.
pub fn extract_whole(raw: &Path, partition: Partition, to: &Path) -> Result<()> {
    let Partition {
        start_bytes,
        size_bytes,
        ..
    } = partition;
    let mut command = Command::new("qemu-img");
    command
        .args(["convert", "-q", "-O", "raw", "--image-opts"])
        .arg(format!(
            "driver=raw,offset={start_bytes},size={size_bytes},file.driver=file,file.filename={}",
            raw.display()
        ));
    process::check(command.arg(to), TOOL_DEADLINE).map(drop)
}

/// Fills a part of a raw image with noise from `seed`.
///
/// # Errors
/// When it cannot be written.
pub fn fill_with_noise(raw: &Path, at: u64, size_bytes: u64, seed: u64) -> Result<()> {
    let mut random = Random::new(seed);
    let noise: Vec<u8> = (0..size_bytes.div_ceil(8))
        .flat_map(|_| random.next().to_le_bytes())
        .collect();
    write_at(raw, at, &noise)
}

/// Flips the lowest bit of one byte of a raw image.
///
/// # Errors
/// When it cannot be read or written.
pub fn flip_bit(raw: &Path, at: u64) -> Result<()> {
    let mut file = OpenOptions::new()
        .read(true)
        .open(raw)
        .with_context(|| format!("opening {}", raw.display()))?;
    let mut byte = [0];
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.read_exact(&mut byte))
        .context("reading the byte to spoil")?;
    write_at(raw, at, &[byte[0] ^ 1])
}

fn write_at(raw: &Path, at: u64, bytes: &[u8]) -> Result<()> {
    let mut file = OpenOptions::new()
        .write(true)
        .open(raw)
        .with_context(|| format!("opening {}", raw.display()))?;
    file.seek(SeekFrom::Start(at))
        .and_then(|_| file.write_all(bytes))
        .context("spoiling a disk")
}

/// Checks that the ext4 file system in `partition` was unmounted and has no errors. Changes nothing.
///
/// # Errors
/// With the words of e2fsck or dumpe2fs when it was not.
pub fn check_clean_ext4(raw: &Path, partition: Partition) -> Result<()> {
    let extracted = raw.with_extension("partition.raw");
    extract_whole(raw, partition, &extracted)?;
    let header = process::check(
        Command::new("dumpe2fs").arg("-h").arg(&extracted),
        TOOL_DEADLINE,
    )?;
    let line = |key: &str| {
        header
            .lines()
            .find(|line| line.starts_with(key))
            .unwrap_or("missing")
    };
    ensure!(
        line("Filesystem state:").ends_with(" clean"),
        "the state partition is not clean: {header}"
    );
    ensure!(
        !line("Filesystem features:").contains("needs_recovery"),
        "the state partition was not unmounted: its journal needs recovery"
    );
    process::check(
        Command::new("e2fsck").args(["-f", "-n"]).arg(&extracted),
        TOOL_DEADLINE,
    )
    .map(drop)
}

/// Reproducible randomness (SplitMix64); not for secrets.
pub struct Random(u64);

impl Random {
    /// The same seed gives the same numbers.
    pub fn new(seed: u64) -> Self {
        Random(seed)
    }

    /// 64 bits.
    #[allow(clippy::should_implement_trait)] // never ends, so it is no iterator
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// A duration below `limit`.
    pub fn below(&mut self, limit: Duration) -> Duration {
        limit.mul_f64((self.next() >> 11) as f64 / (1_u64 << 53) as f64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("disk");
        let table = "label: gpt\nstart=2048, size=2048, name=\"esp\"\nstart=4096, size=40960, name=\"KEELSON_STATE\"\n";
        std::fs::File::create(&raw)
            .unwrap()
            .set_len(32 << 20)
            .unwrap();
        let output = process::run(
            Command::new("sfdisk").arg("-q").arg(&raw),
            table.as_bytes(),
            TOOL_DEADLINE,
        )
        .unwrap();
        assert!(output.status.success(), "{}", output.text());
        (dir, raw)
    }

    #[test]
    fn partitions_are_found_by_name() {
        let (_dir, raw) = sample();
        let state = partition(&raw, "KEELSON_STATE").unwrap();
        assert_eq!(
            state,
            Partition {
                number: 2,
                start_bytes: 4096 * 512,
                size_bytes: 40960 * 512
            }
        );
        assert!(partition(&raw, "KEELSON_STATES").is_err());
    }

    #[test]
    fn a_file_system_is_clean_until_noise_is_written_over_it() {
        let (_dir, raw) = sample();
        let state = partition(&raw, "KEELSON_STATE").unwrap();
        let at = state.start_bytes;
        let options = format!("offset={at}");
        let mut command = Command::new("mkfs.ext4");
        command
            .args(["-q", "-F", "-E", &options])
            .arg(&raw)
            .arg("20480k");
        process::check(&mut command, TOOL_DEADLINE).unwrap();
        check_clean_ext4(&raw, state).unwrap();
        fill_with_noise(&raw, at, 64 << 10, 1).unwrap();
        assert!(check_clean_ext4(&raw, state).is_err());
    }

    #[test]
    fn an_extracted_partition_ends_with_its_data() {
        let (dir, raw) = sample();
        let state = partition(&raw, "KEELSON_STATE").unwrap();
        flip_bit(&raw, state.start_bytes + 5000).unwrap();
        let file = dir.path().join("state");
        extract(&raw, state, &file).unwrap();
        let content = fs::read(&file).unwrap();
        assert_eq!((content.len(), content[5000]), (8192, 1));
    }

    #[test]
    fn flipping_a_bit_twice_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let raw = dir.path().join("disk");
        std::fs::write(&raw, b"abc").unwrap();
        flip_bit(&raw, 1).unwrap();
        assert_eq!(std::fs::read(&raw).unwrap(), b"acc");
        flip_bit(&raw, 1).unwrap();
        assert_eq!(std::fs::read(&raw).unwrap(), b"abc");
    }
}
