//! Partition tables, by sfdisk(8).

use std::path::Path;

use anyhow::{Context, Result, bail};
use keelson_config::cloud_config::storage::{Disk, Layout, Partition};

use crate::done::Done;
use crate::{Outcome, probe, program};

/// Partitions begin at multiples of this many sectors: one MiB.
const ALIGNMENT_SECTORS: u64 = 2048;
/// What a GPT needs at the end.
const BACKUP_SECTORS: u64 = 34;

/// Gives the disk its table, unless it has something already.
///
/// # Errors
/// The disk cannot be read or written, or is in use.
pub(crate) fn set_up(disk: &Disk, done: &mut Done) -> Result<Outcome> {
    let Some(device) = probe::device(&disk.device) else {
        return Ok(Outcome::Missing);
    };
    // The device alone: another layout of the same disk does not overwrite it again.
    let record = format!("disk {}", disk.device);
    let may_overwrite = disk.overwrite && !done.has(&record);
    let found = probe::content(&device);
    if !may_overwrite {
        match found {
            Ok(content) if content.is_nothing() && disk.layout != Layout::Remove => {}
            Ok(content) if content.is_nothing() => return Ok(Outcome::Done(None)),
            Ok(_) => {
                return Ok(Outcome::Done(Some(
                    "there is something on it already; it is left as it is".to_owned(),
                )));
            }
            // What is there but cannot be told apart is something too.
            Err(error) => return Err(error.context("it is left as it is")),
        }
    }
    let path = device.to_str().context("a name that is no text")?;
    // All that can be wrong is found out before anything is changed.
    let sectors = probe::sectors(&device)?;
    if probe::is_in_use(&device).with_context(|| format!("open {path}"))? {
        bail!("it, or a part of it, is in use; it is left as it is");
    }
    let script = match &disk.layout {
        Layout::Remove => None,
        Layout::Partitions(partitions) => Some(script(disk.gpt, partitions, sectors)?),
    };
    if let Some(script) = &script {
        let options = ["--quiet", "--no-act", "--force", path];
        program::run("sfdisk", &options, Some(script)).context("it is left as it is")?;
    }
    // Also of an empty one: at the next start it is not.
    if may_overwrite {
        done.add(&record)?;
    }
    let Some(script) = script else {
        wipe(&device, path)?;
        return Ok(Outcome::Done(Some(
            "what was on it is taken away".to_owned(),
        )));
    };
    let wipe = ["--wipe", "always", "--wipe-partitions", "always"];
    let options = [&["--quiet", "--lock=yes"][..], &wipe, &[path]].concat();
    program::run("sfdisk", &options, Some(&script))?;
    Ok(Outcome::Done(Some("it is parted".to_owned())))
}

/// Takes away the marks of all that is on the disk, that of its partitions first.
fn wipe(device: &Path, path: &str) -> Result<()> {
    for partition in probe::partitions(device) {
        let partition = partition.to_str().context("a name that is no text")?;
        program::run("wipefs", &["--all", "--quiet", partition], None)?;
    }
    program::run("wipefs", &["--all", "--quiet", "--lock=yes", path], None)?;
    program::run("blockdev", &["--rereadpt", path], None)?;
    Ok(())
}

/// Input of sfdisk(8). The last partition has what is left when the parts are all of the disk.
fn script(gpt: bool, partitions: &[Partition], sectors: u64) -> Result<String> {
    let mut script = format!("label: {}\n", if gpt { "gpt" } else { "dos" });
    let sum: u64 = partitions.iter().map(|it| u64::from(it.percent)).sum();
    let usable = sectors.saturating_sub(ALIGNMENT_SECTORS + BACKUP_SECTORS);
    for (index, partition) in partitions.iter().enumerate() {
        let is_last = index + 1 == partitions.len();
        // Thirds are 33, 33 and 33.
        let size = match is_last && sum >= 99 {
            true => String::new(),
            false => {
                let size = usable / 100 * u64::from(partition.percent);
                let size = size / ALIGNMENT_SECTORS * ALIGNMENT_SECTORS;
                if size == 0 {
                    bail!(
                        "{} % of it is less than one MiB; it is left as it is",
                        partition.percent
                    );
                }
                format!("size={size}, ")
            }
        };
        script.push_str(&format!("{size}type={}\n", partition.kind));
    }
    Ok(script)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_aligned_and_the_last_has_the_rest() {
        let part = |percent, kind: &str| Partition {
            percent,
            kind: kind.to_owned(),
        };
        let script = script(true, &[part(33, "linux"), part(67, "swap")], 204_800).unwrap();
        assert_eq!(script, "label: gpt\nsize=65536, type=linux\ntype=swap\n");
        let script = super::script(false, &[part(10, "83")], 204_800).unwrap();
        assert_eq!(script, "label: dos\nsize=18432, type=83\n");
        assert!(super::script(false, &[part(1, "83")], 4096).is_err());
    }
}
