//! The OS slot: waits for its device, opens it with dm-verity, mounts the root file system.

use super::partition::{self, Device};
use super::verity;
use crate::cmdline::{Options, Slot};
use crate::kmod::background::{Background, Urgency};
use crate::kmsg;
use crate::uevent::{Received, Socket};
use anyhow::{Context as _, Result, anyhow, bail};
use keelson_sys::block;
use nix::mount::{MsFlags, mount};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{File, OpenOptions};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// How long the slot's device may take to appear.
const DEVICE_DEADLINE: Duration = Duration::from_secs(30);
/// A slot that came with the initrd, for machines without a disk: preferred when it is there.
const IMAGE: &str = "/usr/lib/keelson/slot.img";
/// A whole medium that came with the initrd from the network: a disk image with an EFI system partition and a slot.
const MEDIUM: &str = "/usr/lib/keelson/medium.img";
/// The name that a medium's slot has in its partition table: an installed system of the same version has the same identifier.
const LIVE_LABEL: &str = "keelson-live";

/// A slot that was found.
#[derive(Debug)]
pub(crate) struct Found {
    /// Its node.
    pub(crate) node: PathBuf,
    /// The name of its disk, like `vda`; empty for a slot in memory.
    pub(crate) disk: String,
    /// Its name for people.
    pub(crate) title: String,
    /// Keeps loop devices attached until they are in use.
    _attached: Vec<OwnedFd>,
}

/// Waits until the slot that the command line names is there. Loads the modules that new devices ask for.
pub(crate) fn find(
    options: &Options,
    modules: &mut Background,
    events: &mut Socket,
) -> Result<Found> {
    if Path::new(IMAGE).exists() {
        return attach_image(modules);
    }
    let wanted = options
        .slot
        .as_ref()
        .context("the kernel command line names no OS slot (keelson.slot=PARTUUID=...)")?;
    let deadline = Instant::now()
        .checked_add(DEVICE_DEADLINE)
        .context("the clock is out of range")?;
    let mut repaired = BTreeSet::new();
    let mut media = Media::default();
    if options.live && Path::new(MEDIUM).exists() {
        media.attach(Path::new(MEDIUM), modules)?;
    }
    loop {
        let mut devices = partition::list(Path::new("/sys/class/block"));
        partition::identify(&mut devices);
        let wanted_device = devices
            .iter()
            .find(|device| is_wanted(device, wanted, options.live));
        if let Some(device) = wanted_device {
            return Ok(found(device, media));
        }
        if options.live && media.attach_discs(&devices, modules) {
            continue;
        }
        if let Slot::PartUuid(uuid) = wanted {
            repair_tables(&devices, uuid, &mut repaired);
        }
        if !wait_for_block_device(modules, events, deadline)? {
            bail!(
                "the OS slot {} was not found within {} s; block devices that are there: {}",
                describe(wanted),
                DEVICE_DEADLINE.as_secs(),
                partition::describe_all(&devices)
            );
        }
    }
}

fn is_wanted(device: &Device, wanted: &Slot, live: bool) -> bool {
    let is_live = device.label.as_deref() == Some(LIVE_LABEL);
    match wanted {
        Slot::PartUuid(uuid) => device.uuid.as_ref() == Some(uuid) && is_live == live,
        Slot::Device(node) => device.node() == *node,
    }
}

fn describe(slot: &Slot) -> String {
    match slot {
        Slot::PartUuid(uuid) => format!("PARTUUID={uuid}"),
        Slot::Device(node) => node.display().to_string(),
    }
}

/// Media whose partitions the kernel does not make devices of by itself: they are seen through loop devices.
#[derive(Default)]
struct Media(BTreeMap<PathBuf, Option<OwnedFd>>);

impl Media {
    fn attach(&mut self, path: &Path, modules: &mut Background) -> Result<()> {
        modules.request("loop", Urgency::LikelyDisk);
        modules.start();
        modules.wait_for("loop");
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        let (_, attached) = block::attach_loop_with_partitions(&file)
            .with_context(|| format!("attach {} to a loop device", path.display()))?;
        self.0.insert(path.to_owned(), Some(attached));
        Ok(())
    }

    /// Optical discs that were not looked at yet and have a partition table of 512-byte sectors, as our images have. True when there are new ones.
    fn attach_discs(&mut self, devices: &[Device], modules: &mut Background) -> bool {
        let mut news = false;
        for disc in devices
            .iter()
            .filter(|device| device.number.is_none() && device.name.starts_with("sr"))
        {
            let node = disc.node();
            if self.0.contains_key(&node) || partition::read_table(&node).is_err() {
                continue;
            }
            let attached = self.attach(&node, modules);
            news |= attached.is_ok();
            kmsg::tolerate(format_args!("look at the disc in {}", disc.name), attached);
            // Not tried again and again.
            self.0.entry(node).or_insert(None);
        }
        news
    }
}

fn found(device: &Device, media: Media) -> Found {
    let label = device
        .label
        .as_ref()
        .map(|label| format!(" \"{label}\""))
        .unwrap_or_default();
    Found {
        node: device.node(),
        disk: device.disk.clone(),
        title: format!("{}{label}", device.node().display()),
        _attached: media.0.into_values().flatten().collect(),
    }
}

fn attach_image(modules: &mut Background) -> Result<Found> {
    modules.request("loop", Urgency::LikelyDisk);
    modules.start();
    modules.wait_for("loop");
    let image = File::open(IMAGE).with_context(|| format!("open {IMAGE}"))?;
    let (node, attached) =
        block::attach_loop(&image).with_context(|| format!("attach {IMAGE} to a loop device"))?;
    Ok(Found {
        node,
        disk: String::new(),
        title: format!("{IMAGE} of the initrd"),
        _attached: vec![attached],
    })
}

/// Waits for a new block device; false when the deadline has passed.
fn wait_for_block_device(
    modules: &mut Background,
    events: &mut Socket,
    deadline: Instant,
) -> Result<bool> {
    loop {
        let mut news = false;
        loop {
            match events.receive().context("receive kernel events")? {
                Received::Empty => break,
                Received::Lost => {
                    crate::kmod::coldplug()
                        .iter()
                        .for_each(|alias| modules.request_device(alias));
                    news = true;
                }
                Received::Event(event) => {
                    if let Some(alias) = event.get("MODALIAS").filter(|_| event.action == "add") {
                        modules.request_device(alias);
                    }
                    news |= event.get("SUBSYSTEM") == Some("block") && event.action != "remove";
                }
            }
        }
        modules.start();
        if news {
            return Ok(true);
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(false);
        }
        let timeout = PollTimeout::try_from(left.saturating_add(Duration::from_millis(1)))
            .unwrap_or(PollTimeout::MAX);
        match poll(
            &mut [PollFd::new(events.as_fd(), PollFlags::POLLIN)],
            timeout,
        ) {
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(error) => return Err(anyhow!(error).context("wait for kernel events")),
        }
    }
}

/// A power cut while the partition table was written leaves a primary table that the kernel refuses; it does not
/// look at the backup by itself. When the backup knows our slot, the primary table is restored from it.
fn repair_tables(devices: &[Device], uuid: &str, repaired: &mut BTreeSet<String>) {
    let whole = devices
        .iter()
        .filter(|device| device.number.is_none() && !device.read_only);
    for disk in whole.filter(|disk| {
        !devices
            .iter()
            .any(|other| other.disk == disk.disk && other.number.is_some())
    }) {
        let Ok(table) = partition::read_table(&disk.node()) else {
            continue;
        };
        let ours = table.is_backup && table.partitions().any(|entry| entry.uuid == uuid);
        if ours && repaired.insert(disk.name.clone()) {
            kmsg::error(format_args!(
                "the primary partition table of {} is damaged; restoring it from its backup",
                disk.name
            ));
            let write = table.restore_primary(disk.size_bytes);
            let restored = OpenOptions::new()
                .read(true)
                .write(true)
                .open(disk.node())
                .and_then(|file| {
                    file.write_all_at(&write.bytes, write.offset)?;
                    file.sync_all()?;
                    block::reread_partitions(&file)
                });
            kmsg::tolerate(
                format_args!("restore the partition table of {}", disk.name),
                restored,
            );
        }
    }
}

/// Opens the slot with dm-verity and mounts the root file system at `target`, read-only.
pub(crate) fn mount_root(
    found: &Found,
    options: &Options,
    modules: &mut Background,
    events: &mut Socket,
    target: &Path,
) -> Result<()> {
    let root_hash = options
        .root_hash
        .as_ref()
        .context("the kernel command line has no keelson.roothash=")?;
    let hash_offset = options
        .hash_offset
        .context("the kernel command line has no keelson.hashoffset=")?;
    modules.wait_for("dm-verity");
    let node = verity::open(&found.node, hash_offset, root_hash)
        .with_context(|| format!("OS slot {}", found.title))?;
    modules.wait_for("erofs");
    let mounted = mount(
        Some(&node),
        target,
        Some("erofs"),
        MsFlags::MS_RDONLY | MsFlags::MS_NODEV,
        None::<&str>,
    )
    .map_err(|error| anyhow!(error).context("mount the root file system"))
    .and_then(|()| read_through(&target.join("usr/lib/keelson/keelson-init")));
    mounted.map_err(|error| {
        let damage = refused_blocks(events);
        let error = if damage.is_empty() {
            error
        } else {
            error.context(format!(
                "dm-verity refuses {damage}: the data is not what was signed"
            ))
        };
        error.context(format!("OS slot {}", found.title))
    })
}

/// Reads the next program to its end: when one of its blocks is refused that is known now, while there is a program
/// that can say so.
fn read_through(program: &Path) -> Result<()> {
    let copied =
        File::open(program).and_then(|mut file| std::io::copy(&mut file, &mut std::io::sink()));
    copied.with_context(|| format!("read {}", program.display()))?;
    Ok(())
}

/// The blocks that dm-verity has refused since this was last asked.
fn refused_blocks(events: &mut Socket) -> String {
    let mut blocks = BTreeSet::new();
    while let Ok(Received::Event(event)) = events.receive() {
        blocks.extend(event.get("DM_VERITY_ERR_BLOCK_NR").map(describe_block));
    }
    blocks.into_iter().collect::<Vec<_>>().join(", ")
}

/// `DM_VERITY_ERR_BLOCK_NR` for people: its value is `0,N` for block N of the data, `1,N` for one of the hashes.
pub(crate) fn describe_block(value: &str) -> String {
    match value.split_once(',') {
        Some(("0", block)) => format!("data block {block}"),
        Some(("1", block)) => format!("hash block {block}"),
        _ => format!("block {value}"),
    }
}

/// Undoes [`mount_root`] as far as it came, so that a rescue shell can look at the slot.
pub(crate) fn close(target: &Path) {
    // Not mounted or not made is as good: nothing of it is left then.
    let _ = nix::mount::umount(target);
    let _ = verity::close();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_block_is_named() {
        assert_eq!(describe_block("0,17"), "data block 17");
        assert_eq!(describe_block("1,3"), "hash block 3");
        assert_eq!(describe_block("?"), "block ?");
    }

    #[test]
    fn the_slot_is_known_by_its_identifier_or_node() {
        let device = Device {
            name: "vda2".into(),
            uuid: Some("ab".into()),
            ..Device::default()
        };
        assert!(is_wanted(&device, &Slot::PartUuid("ab".into()), false));
        assert!(!is_wanted(&device, &Slot::PartUuid("cd".into()), false));
        assert!(is_wanted(&device, &Slot::Device("/dev/vda2".into()), false));
        let none = Device::default();
        assert!(!is_wanted(&none, &Slot::PartUuid(String::new()), false));
    }

    #[test]
    fn a_medium_and_an_installed_system_of_the_same_version_are_told_apart() {
        let slot = Slot::PartUuid("ab".into());
        for (label, live) in [("keelson-a", false), ("keelson-live", true)] {
            let device = Device {
                uuid: Some("ab".into()),
                label: Some(label.into()),
                ..Device::default()
            };
            assert!(is_wanted(&device, &slot, live), "{label}");
            assert!(!is_wanted(&device, &slot, !live), "{label}");
        }
    }
}
