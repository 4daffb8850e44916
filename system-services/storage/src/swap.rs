//! What memory is swapped to.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use anyhow::{Context, Result, bail};
use keelson_config::cloud_config::storage::{Mount, SwapFile, SwapSize};
use nix::sys::statvfs::statvfs;

use crate::done::is_in_memory;
use crate::{Outcome, mounts, probe, program};

const DIRECTORY: &str = "/state/storage";
const FILE: &str = "/state/storage/swap";
/// What swapon(8) says of what is swapped to already. (/proc/swaps shows it by a path that ended with an earlier run's container.)
const BUSY: &str = "Device or resource busy";
const GIB: u64 = 1 << 30;
/// Less is not worth it.
const LEAST_BYTES: u64 = 1 << 20;

/// Swaps to a file on the state partition.
///
/// # Errors
/// There is no room, or the state is in memory.
pub(crate) fn file(wanted: &SwapFile) -> Result<Outcome> {
    if is_used(Path::new(FILE))? {
        return Ok(Outcome::Done(None));
    }
    if is_in_memory(Path::new(DIRECTORY))? {
        bail!("the machine's state is in memory: there is nothing to swap to");
    }
    let memory = memory()?;
    let there = fs::metadata(FILE).map(|metadata| metadata.size());
    let there = there.ok().filter(|size| *size > 0);
    // One that is smaller because there was no room stays as well.
    let is_good = |size: u64| match wanted.size {
        SwapSize::Bytes(_) => size == asked(wanted, memory),
        SwapSize::Auto => size <= asked(wanted, memory),
    };
    let is_swap = match there {
        Some(_) => probe::content(Path::new(FILE))?.kind.as_deref() == Some("swap"),
        None => false,
    };
    let size = match there.filter(|size| is_swap && is_good(*size)) {
        Some(size) => size,
        None => match remake(wanted, memory, there.unwrap_or(0))? {
            Some(size) => size,
            // An earlier run in this boot has begun to swap to it.
            None => return Ok(Outcome::Done(None)),
        },
    };
    match begin(&[FILE]) {
        Ok(false) => Ok(Outcome::Done(None)),
        Ok(true) => Ok(Outcome::Done(Some(format!("{} MiB", size >> 20)))),
        Err(error) => {
            // Why it is no use is what people want to know.
            let _ = fs::remove_file(FILE);
            Err(error)
        }
    }
}

/// Has the kernel swap; false when it does already.
fn begin(arguments: &[&str]) -> Result<bool> {
    match program::run("swapon", arguments, None) {
        Ok(_) => Ok(true),
        Err(error) if format!("{error}").contains(BUSY) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the file anew; `None` when it is in use.
fn remake(wanted: &SwapFile, memory: u64, there: u64) -> Result<Option<u64>> {
    let size = size(wanted, memory, there)?;
    match fs::OpenOptions::new().write(true).open(FILE) {
        Err(error) if error.kind() == std::io::ErrorKind::ExecutableFileBusy => return Ok(None),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(error).context(format!("open {FILE}")),
        Ok(_) => fs::remove_file(FILE).with_context(|| format!("remove {FILE}"))?,
    }
    let made = make(size);
    if made.is_err() {
        // What is half there is in the way. Why it could not be made is what people want to know.
        let _ = fs::remove_file(FILE);
    }
    made.map(|()| Some(size))
}

fn make(size: u64) -> Result<()> {
    let making = || format!("make {FILE}");
    let file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(FILE)
        .with_context(making)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))
        .with_context(making)?;
    let length = i64::try_from(size).with_context(making)?;
    nix::fcntl::posix_fallocate(&file, 0, length)
        .with_context(|| format!("make {FILE} of {} MiB", size >> 20))?;
    program::run("mkswap", &["--quiet", FILE], None)?;
    file.sync_all().with_context(making)
}

/// The machine's memory in bytes.
fn memory() -> Result<u64> {
    let info = fs::read_to_string("/proc/meminfo").context("read /proc/meminfo")?;
    let total = info
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:")?.trim().strip_suffix(" kB"));
    let kib = total.and_then(|text| text.trim().parse::<u64>().ok());
    Ok(kib.context("read MemTotal of /proc/meminfo")? * 1024)
}

/// How large the file can be, when it takes the place of one of `there` bytes.
fn size(wanted: &SwapFile, memory: u64, there: u64) -> Result<u64> {
    let room = statvfs(DIRECTORY).context("ask for the free space of /state")?;
    let free = room.blocks_available() * room.fragment_size() + there;
    match choose(wanted, memory, free) {
        Some(size) => Ok(size),
        None => bail!(
            "there is no room for it on /state ({} MiB are free, and some of that is for others)",
            free >> 20
        ),
    }
}

/// How large the file is to be: as is said, or by the memory, as in cloud-init. In whole MiB.
fn asked(wanted: &SwapFile, memory: u64) -> u64 {
    let bytes = match wanted.size {
        SwapSize::Bytes(bytes) => bytes,
        SwapSize::Auto => {
            let bytes = match memory {
                _ if memory < 4 * GIB => memory,
                _ if memory < 16 * GIB => 4 * GIB,
                // The root of the memory in GiB.
                _ => (memory / GIB).isqrt() * GIB,
            };
            bytes.min(wanted.max_bytes.unwrap_or(u64::MAX))
        }
    };
    bytes >> 20 << 20
}

/// At most a quarter of what is free when the size is found out; a size that is given must leave others a quarter.
fn choose(wanted: &SwapFile, memory: u64, free: u64) -> Option<u64> {
    let asked = asked(wanted, memory);
    let size = match wanted.size {
        SwapSize::Bytes(_) => (asked <= free / 4 * 3).then_some(asked)?,
        SwapSize::Auto => asked.min(free / 4) >> 20 << 20,
    };
    (size >= LEAST_BYTES).then_some(size)
}

/// Swaps to a device.
///
/// # Errors
/// It is not made for that.
pub(crate) fn device(mount: &Mount) -> Result<Outcome> {
    let Some(device) = mounts::device(&mount.source)? else {
        return Ok(Outcome::Missing);
    };
    if is_used(&device)? {
        return Ok(Outcome::Done(None));
    }
    let path = device.to_str().context("a name that is no text")?;
    let options: Vec<&str> = mount
        .options
        .iter()
        .map(String::as_str)
        .filter(|option| option.starts_with("pri=") || option.starts_with("discard"))
        .collect();
    let options = options.join(",");
    let mut arguments = Vec::new();
    if !options.is_empty() {
        arguments.extend(["--options", &options]);
    }
    arguments.push(path);
    let begun = begin(&arguments)?;
    Ok(Outcome::Done(begun.then(|| "is swapped to".to_owned())))
}

/// Whether memory is swapped to `path` (/proc/swaps, proc(5)).
fn is_used(path: &Path) -> Result<bool> {
    let swaps = fs::read_to_string("/proc/swaps").context("read /proc/swaps")?;
    Ok(swaps
        .lines()
        .any(|line| line.split_whitespace().next().map(Path::new) == Some(path)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_size_goes_by_memory_and_room() {
        let auto = |max_bytes| SwapFile {
            size: SwapSize::Auto,
            max_bytes,
        };
        assert_eq!(choose(&auto(None), 2 * GIB, 100 * GIB), Some(2 * GIB));
        assert_eq!(choose(&auto(None), 8 * GIB, 100 * GIB), Some(4 * GIB));
        assert_eq!(choose(&auto(None), 64 * GIB, 100 * GIB), Some(8 * GIB));
        assert_eq!(choose(&auto(None), 2 * GIB, 4 * GIB), Some(GIB));
        assert_eq!(choose(&auto(Some(GIB)), 8 * GIB, 100 * GIB), Some(GIB));
        let bytes = |bytes| SwapFile {
            size: SwapSize::Bytes(bytes),
            max_bytes: None,
        };
        assert_eq!(choose(&bytes(3_000_000), GIB, GIB), Some(2 << 20));
        assert_eq!(choose(&bytes(GIB), GIB, GIB), None);
    }
}
