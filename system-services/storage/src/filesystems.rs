//! File systems, by mkfs(8).

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use keelson_config::cloud_config::storage::{Filesystem, Target, partition};

use crate::done::Done;
use crate::probe::Content;
use crate::{Outcome, probe, program};

/// Makes the file system, unless it or another one is there.
///
/// # Errors
/// The device cannot be read or written, or there is no room for one.
pub(crate) fn make(wanted: &Filesystem, done: &mut Done) -> Result<Outcome> {
    let device = match wanted.target {
        Target::Whole => probe::device(&wanted.device),
        Target::Number(number) => {
            let number = number.to_string();
            let named = probe::device(&partition(&wanted.device, &number));
            // A link to the disk may have none for its partitions.
            named.or_else(|| {
                let disk = probe::device(&wanted.device)?;
                probe::device(&partition(disk.to_str()?, &number))
            })
        }
        Target::Auto | Target::Any => match probe::device(&wanted.device) {
            None => None,
            Some(disk) => match choose(wanted, &disk, !done.has(&record(wanted)))? {
                Some(device) => Some(device),
                None => return Ok(Outcome::Done(None)),
            },
        },
    };
    let Some(device) = device else {
        return Ok(Outcome::Missing);
    };
    let record = record(wanted);
    let may_overwrite = !done.has(&record);
    match probe::content(&device) {
        Ok(content) if content.is_nothing() => {}
        Ok(content) if is_wanted(wanted, &content) && !(wanted.overwrite && may_overwrite) => {
            return Ok(Outcome::Done(None));
        }
        Ok(content) if may_overwrite && (wanted.overwrite || is_replaced(wanted, &content)) => {}
        Err(_) if may_overwrite && wanted.overwrite => {}
        Ok(content) => {
            let what = content.kind.as_deref().or(content.table.as_deref());
            bail!(
                "there is something else on {} ({}); it is left as it is",
                device.display(),
                what.unwrap_or("unknown")
            );
        }
        Err(error) => return Err(error.context("it is left as it is")),
    }
    if probe::is_in_use(&device)? {
        bail!("{} is in use; it is left as it is", device.display());
    }
    // Also of an empty one: at the next start it is not.
    if may_overwrite && (wanted.overwrite || wanted.replace.is_some()) {
        done.add(&record)?;
    }
    format(wanted, &device)?;
    Ok(Outcome::Done(Some(format!(
        "{} is made on {}",
        wanted.kind,
        device.display()
    ))))
}

/// The device and which part of it: another label or option does not have it overwritten again.
fn record(wanted: &Filesystem) -> String {
    format!("filesystem {} {:?}", wanted.device, wanted.target)
}

fn is_replaced(wanted: &Filesystem, content: &Content) -> bool {
    content.kind.is_some() && content.kind == wanted.replace
}

fn is_wanted(wanted: &Filesystem, content: &Content) -> bool {
    content.kind.as_deref() == Some(wanted.kind.as_str())
        && (wanted.target == Target::Any || wanted.label.is_none() || content.label == wanted.label)
}

/// The partition to make it on, or the disk itself when it has none; `None` when it is there already.
fn choose(wanted: &Filesystem, disk: &Path, may_overwrite: bool) -> Result<Option<PathBuf>> {
    let mut all = probe::partitions(disk);
    if all.is_empty() {
        all.push(disk.to_owned());
    }
    let mut contents = Vec::new();
    for device in all {
        let content = probe::content(&device)?;
        contents.push((device, content));
    }
    let first = |fits: &dyn Fn(&Content) -> bool| {
        let mut all = contents.iter();
        all.find(|(_, content)| fits(content))
            .map(|(device, _)| device.clone())
    };
    if first(&|content| is_wanted(wanted, content)).is_some() {
        return Ok(None);
    }
    // The system's own disk has parts that nothing is on yet.
    if probe::is_in_use(disk)? {
        bail!(
            "a part of {} is in use: say which partition is meant; it is left as it is",
            disk.display()
        );
    }
    let replaced = first(&|content| may_overwrite && is_replaced(wanted, content));
    let free = replaced.or_else(|| first(&Content::is_nothing));
    let any = first(&|_| may_overwrite && wanted.overwrite);
    match free.or(any) {
        Some(device) => Ok(Some(device)),
        None => bail!(
            "there is something on all of {}; it is left as it is",
            disk.display()
        ),
    }
}

/// Makes it; what was there is gone.
fn format(wanted: &Filesystem, device: &Path) -> Result<()> {
    let path = device.to_str().context("a name that is no text")?;
    let (program, force, label_option) = match wanted.kind.as_str() {
        "swap" => ("mkswap", "--force", "--label"),
        "ext2" => ("mkfs.ext2", "-Fq", "-L"),
        "ext3" => ("mkfs.ext3", "-Fq", "-L"),
        "ext4" => ("mkfs.ext4", "-Fq", "-L"),
        "xfs" => ("mkfs.xfs", "-fq", "-L"),
        "btrfs" => ("mkfs.btrfs", "-fq", "-L"),
        // For a device without partitions.
        "vfat" => ("mkfs.vfat", "-I", "-n"),
        other => bail!("`{other}` cannot be made here"),
    };
    let mut arguments = vec![force];
    if let Some(label) = &wanted.label {
        arguments.extend([label_option, label]);
    }
    arguments.extend(wanted.options.iter().map(String::as_str));
    arguments.push(path);
    program::run(program, &arguments, None)?;
    Ok(())
}
