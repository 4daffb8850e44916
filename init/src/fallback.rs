//! The way out of a slot that has decayed: its boot entry is given up, and the boot loader takes the other version.
//!
//! An entry whose tries are counted would be left in the end; one that was good once has no counter, and would be started for ever.

use crate::cmdline::{Options, Slot};
use crate::storage::partition::{self, Device};
use crate::{files, kmsg};
use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::reboot::{RebootMode, reboot};
use std::fs::File;
use std::path::{Path, PathBuf};

/// The type of the EFI system partition (UEFI 2.10, table 5.7).
const TYPE_ESP: &str = "c12a7328-f81f-11d2-ba4b-00a0c93ec93b";
/// Where it is mounted meanwhile.
const MOUNT_POINT: &str = "/run/keelson/esp";

/// Gives the version that runs up, durably, for this reason; gives the one that is started next. `None`, and nothing is changed, when there is
/// none that would be.
///
/// An error when the slot is not on a disk with an EFI system partition, or that cannot be mounted or written.
pub(crate) fn give_up(options: &Options, why: &str) -> Result<Option<String>> {
    let version = options
        .version
        .as_ref()
        .context("the kernel command line has no keelson.version=")?;
    let esp = find(options)?;
    files::make_directory(MOUNT_POINT)?;
    mount(
        Some(&esp),
        MOUNT_POINT,
        Some("vfat"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC,
        Some("umask=0077"),
    )
    .with_context(|| format!("mount the EFI system partition {}", esp.display()))?;
    let given_up = keelson_boot_entries::give_up(Path::new(MOUNT_POINT), version, why)
        .and_then(|next| flush().map(|()| next))
        .context("write the EFI system partition");
    kmsg::tolerate(
        "unmount the EFI system partition",
        umount2(MOUNT_POINT, MntFlags::empty()),
    );
    given_up
}

/// All of it to the disk, and out of the disk's own cache, which vfat flushes for a file or a directory only.
fn flush() -> std::io::Result<()> {
    let root = File::open(MOUNT_POINT)?;
    nix::unistd::syncfs(&root)?;
    root.sync_all()
}

/// In the initrd: starts the machine again with another version, when there is one. Comes back when there is none.
pub(crate) fn leave(options: &Options, why: &str) {
    match give_up(options, why) {
        Ok(Some(next)) => {
            kmsg::error(why);
            kmsg::error(format_args!(
                "this version is given up; restarting, version {next} is next"
            ));
            let Err(error) = reboot(RebootMode::RB_AUTOBOOT);
            kmsg::error(format_args!("restart: {error}"));
        }
        Ok(None) => kmsg::error("there is no other version to go back to"),
        Err(error) => kmsg::error(format_args!("going back to another version: {error:#}")),
    }
}

/// The EFI system partition of the disk that the slot is on.
fn find(options: &Options) -> Result<PathBuf> {
    let slot = options
        .slot
        .as_ref()
        .context("the kernel command line names no slot")?;
    let mut devices = partition::list(Path::new("/sys/class/block"));
    partition::identify(&mut devices);
    let is_slot = |device: &&Device| match slot {
        Slot::PartUuid(uuid) => device.uuid.as_ref() == Some(uuid),
        Slot::Device(node) => device.node() == *node,
    };
    let slot = devices
        .iter()
        .find(is_slot)
        .context("the slot is not on a disk")?;
    let table = partition::read_table(&slot.disk_node())?;
    let number = table.partitions().find(|entry| entry.kind == TYPE_ESP);
    let number = number.map(|entry| entry.number);
    let esp = devices.iter().find(|device| {
        device.disk == slot.disk && device.number.is_some() && device.number == number
    });
    esp.map(Device::node)
        .with_context(|| format!("{} has no EFI system partition", slot.disk))
}
