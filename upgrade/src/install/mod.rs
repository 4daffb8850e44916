//! The running system onto another disk.
//!
//! First the disk loses its partition table, so that there is plainly nothing on it; then all parts are written and read back; the
//! new table comes last. Whenever the power fails, the disk has no system or a whole one.
//!
//! - [`protocol`]: what the service is asked, and answers
//! - [`survey`]: disks, what is on them, and which may be used
//! - [`medium`]: what is installed
//! - [`verity`]: its blocks, each of which is checked
//! - [`layout`]: the partitions of the new disk
//! - [`copy`]: file systems onto them
//! - [`boot`]: boot loader and kernel image on it
//! - [`addon`]: further words for the kernel
//! - [`state`]: the state partition with the configuration

pub mod addon;
pub mod boot;
pub mod copy;
pub mod layout;
pub mod medium;
pub mod protocol;
pub mod state;
pub mod survey;
pub mod verity;

use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use ring::rand::{SecureRandom as _, SystemRandom};
use uuid::{Builder, Uuid};

use crate::esp::drop_cache;
use crate::protocol::Progress;
use crate::uki::grub::{self, Choice};
use boot::BootFile;
use copy::clear;
use layout::{Layout, MIB, Part, SECTOR_BYTES, Sizes};
use medium::Medium;
use verity::BLOCK_BYTES;

/// Blocks are copied in pieces of this size, in bytes.
const PIECE_BYTES: u64 = MIB;
/// The backup of a partition table, at the end of a disk (UEFI 2.10, section 5.3.1), in sectors.
const BACKUP_SECTORS: u64 = 33;

/// Hears how far it is; with an error it ends the installation.
pub type Tell<'t> = &'t mut dyn FnMut(Progress) -> Result<()>;

/// What the new system is to have of its own.
#[derive(Clone, Debug, Default)]
pub struct Extras<'e> {
    /// A cloud-config.
    pub configuration: Option<&'e str>,
    /// Words for the kernel.
    pub append: Option<&'e str>,
}

/// Installs `medium` on an open disk of `disk_bytes`, which nobody else uses. `scratch` is a directory for temporary files.
///
/// # Errors
/// The disk is too small, cannot be written, or does not give back what was written; or the medium is damaged. From its first write on
/// the disk has no partition table until the last one.
pub fn install(
    medium: &Medium,
    disk: &File,
    disk_bytes: u64,
    extras: &Extras<'_>,
    scratch: &Path,
    tell: Tell<'_>,
) -> Result<()> {
    let layout = Layout::plan(
        &Sizes::shipped()?,
        disk_bytes,
        medium.slot,
        &mut random_guid,
    )?;
    ensure!(
        medium.tree.image_bytes() <= layout.slot.size,
        "the root image does not fit into a slot"
    );
    tell(step("erasing the partition table"))?;
    erase(disk, disk_bytes)?;
    for part in [
        &layout.bios,
        &layout.esp,
        &layout.slot,
        &layout.spare,
        &layout.state,
    ] {
        clear(disk, part.offset)?;
    }
    tell(step("writing the boot files"))?;
    write_boot(medium, disk, &layout.esp, extras.append, scratch)?;
    write_core(&medium.bios.core, disk, &layout.bios)?;
    write_root(medium, disk, &layout.slot, tell)?;
    tell(step("writing the state partition"))?;
    state::write(disk, &layout.state, extras.configuration, scratch)?;
    tell(step("writing the partition table"))?;
    layout
        .write(disk, &medium.bios.program)
        .context("write the partition table")?;
    tell(step("done"))
}

fn write_boot(
    medium: &Medium,
    disk: &File,
    esp: &Part,
    append: Option<&str>,
    scratch: &Path,
) -> Result<()> {
    let mut files = medium.files.clone();
    let folder = tempfile::tempdir_in(scratch).context("make a temporary directory")?;
    let good = Choice {
        version: medium.version.clone(),
        tries: String::new(),
    };
    let mut made = vec![
        (grub::STATE.to_owned(), grub::state(&[good])?),
        (
            grub::path(&medium.version),
            medium.bios.entry.clone().into(),
        ),
    ];
    if let Some(words) = append {
        made.push((addon::PATH.to_owned(), addon::make(words)));
        made.push((grub::ARGUMENTS.to_owned(), grub::arguments(words)?.into()));
    }
    for (number, (path, content)) in made.into_iter().enumerate() {
        let from = folder.path().join(number.to_string());
        std::fs::write(&from, content).context("write a temporary file")?;
        files.push(BootFile { path, from });
    }
    boot::write(disk, esp, &files, scratch)
}

/// Writes GRUB's core image, and reads it back.
fn write_core(core: &[u8], disk: &File, part: &Part) -> Result<()> {
    ensure!(
        core.len() as u64 <= part.size,
        "GRUB's core image has {} bytes, its partition {}",
        core.len(),
        part.size
    );
    disk.write_all_at(core, part.offset)
        .and_then(|()| disk.sync_all())
        .context("write GRUB's core image")?;
    drop_cache(disk);
    let mut there = vec![0; core.len()];
    disk.read_exact_at(&mut there, part.offset)
        .context("read GRUB's core image back")?;
    ensure!(
        there == core,
        "the disk does not give back what was written to it (GRUB): it may be defective"
    );
    Ok(())
}

/// Takes away both tables, and with them everything that a firmware or a kernel would find.
fn erase(disk: &File, disk_bytes: u64) -> Result<()> {
    clear(disk, 0)?;
    let backup = BACKUP_SECTORS * SECTOR_BYTES;
    let zeros = vec![0; usize::try_from(backup)?];
    let end = disk_bytes / SECTOR_BYTES * SECTOR_BYTES;
    disk.write_all_at(&zeros, end.saturating_sub(backup))
        .and_then(|()| disk.sync_all())
        .context("erase the partition table")
}

/// Copies the root image and its tree, and reads both back.
fn write_root(medium: &Medium, disk: &File, slot: &Part, tell: Tell<'_>) -> Result<()> {
    let tree = &medium.tree;
    let total = tree.data_bytes();
    for (is_copy, name) in [(true, "writing the system"), (false, "reading it back")] {
        let mut buffer = vec![0; usize::try_from(PIECE_BYTES)?];
        for at in (0..total).step_by(buffer.len()) {
            let length = PIECE_BYTES.min(total - at);
            let piece = buffer
                .get_mut(..usize::try_from(length)?)
                .unwrap_or_default();
            let first = at / BLOCK_BYTES as u64;
            if is_copy {
                let read = medium.root.read_exact_at(piece, at);
                read.context("read the running system's root image")?;
                let checked = tree.check(first, piece);
                checked.context("the running system's root image")?;
                let written = disk.write_all_at(piece, slot.offset + at);
                written.context("write the root image")?;
            } else {
                let read = disk.read_exact_at(piece, slot.offset + at);
                read.context("read the root image back")?;
                if let Err(error) = tree.check(first, piece) {
                    bail!(
                        "the disk does not give back what was written to it ({error}): it may be defective"
                    );
                }
            }
            tell(Progress {
                step: name.to_owned(),
                done_bytes: at + length,
                total_bytes: total,
            })?;
        }
        let behind = slot.offset + total;
        if is_copy {
            disk.write_all_at(tree.area(), behind)
                .and_then(|()| disk.sync_all())
                .context("write the root image")?;
            drop_cache(disk);
        } else {
            let mut there = vec![0; tree.area().len()];
            let read = disk.read_exact_at(&mut there, behind);
            read.context("read the root image back")?;
            ensure!(
                there == tree.area(),
                "the disk does not give back what was written to it (hashes): it may be defective"
            );
        }
    }
    Ok(())
}

fn random_guid() -> Result<Uuid> {
    let mut bytes = [0; 16];
    let filled = SystemRandom::new().fill(&mut bytes);
    filled.map_err(|_| anyhow::anyhow!("the kernel has no random numbers"))?;
    Ok(Builder::from_random_bytes(bytes).into_uuid())
}

fn step(name: &str) -> Progress {
    Progress {
        step: name.to_owned(),
        done_bytes: 0,
        total_bytes: 0,
    }
}

#[cfg(test)]
mod tests;
