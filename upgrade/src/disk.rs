//! The system disk: where its slots are, and the name of the slot that is written (UEFI 2.10, section 5.3).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use crate::state_partition::{self, RESET_ATTRIBUTE};
use anyhow::{Context as _, Result, bail, ensure};
use gptman::{GPT, GPTPartitionEntry};
use uuid::{Uuid, uuid};

pub(crate) const TYPE_ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
pub(crate) const TYPE_ROOT_X86_64: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");

/// A partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    /// Its number in the table.
    pub number: u32,
    /// Its GUID, in the usual notation.
    pub guid: String,
    /// Its device.
    pub node: PathBuf,
    /// Its size.
    pub size_bytes: u64,
}

/// The disk that the running system was started from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SystemDisk {
    /// Its device.
    pub node: PathBuf,
    /// The EFI system partition.
    pub esp: Partition,
    /// The slot that runs.
    pub current: Partition,
    /// The slot that the next version is written to.
    pub other: Partition,
    /// The state partition, when it is on this disk.
    pub state: Option<Partition>,
}

/// The slot that a kernel command line names (`keelson.slot=PARTUUID=...`), in lower case.
pub fn slot_of(command_line: &str) -> Option<String> {
    let word = command_line
        .split_ascii_whitespace()
        .rev()
        .find_map(|word| word.strip_prefix("keelson.slot=PARTUUID="))?;
    Some(word.to_ascii_lowercase())
}

/// The name of the device-mapper device over the slot that runs; PID 1 gives it.
const ROOT: &str = "keelson-root";

impl SystemDisk {
    /// The disk that the root is on: what device mapper has under it, not what has the same name elsewhere, for a copy of a disk has all names of
    /// the first. `block` is `/sys/class/block`, `devices` is `/dev`; `running` is the slot that the command line names.
    ///
    /// # Errors
    /// The root is not on a partition of a disk, or the disk does not have the partitions that it should have.
    pub fn find(block: &Path, devices: &Path, running: &str) -> Result<Self> {
        let slot = under_root(block)?;
        let place = fs::canonicalize(block.join(&slot))
            .with_context(|| format!("find {}", slot.display()))?;
        let number = fs::read_to_string(place.join("partition"))
            .with_context(|| format!("{} is no partition", slot.display()))?;
        let number: u32 = number.trim().parse().context("read its number")?;
        let directory = place.parent().context("a partition without a disk")?;
        let node = devices.join(directory.file_name().unwrap_or_default());
        let mut disk = File::open(&node).with_context(|| format!("open {}", node.display()))?;
        let table = GPT::find_from(&mut disk)
            .with_context(|| format!("read the partition table of {}", node.display()))?;
        Self::of(&table, directory, devices, node, (number, running))
    }

    fn of(
        table: &GPT,
        directory: &Path,
        devices: &Path,
        node: PathBuf,
        (running, guid): (u32, &str),
    ) -> Result<Self> {
        let (mut slots, mut esp, mut state) = (Vec::new(), None, None);
        for (number, entry) in table.iter().filter(|(_, entry)| entry.is_used()) {
            let kind = Uuid::from_bytes_le(entry.partition_type_guid);
            let is_state = entry.partition_name.as_str() == state_partition::LABEL;
            if kind != TYPE_ESP && kind != TYPE_ROOT_X86_64 && !is_state {
                continue;
            }
            let partition = Partition {
                number,
                guid: Uuid::from_bytes_le(entry.unique_partition_guid).to_string(),
                node: devices.join(partition_name(directory, number)?),
                size_bytes: entry.size()? * table.sector_size,
            };
            match kind {
                TYPE_ESP => esp = esp.or(Some(partition)),
                TYPE_ROOT_X86_64 => slots.push(partition),
                _ => state = state.or(Some(partition)),
            }
        }
        let current = slots.iter().position(|slot| slot.number == running);
        let current = current.map(|place| slots.swap_remove(place));
        let (Some(esp), Some(current), [other]) = (esp, current, slots.as_slice()) else {
            bail!(
                "{} does not have an EFI system partition and two slots",
                node.display()
            );
        };
        ensure!(
            current.guid == guid,
            "the slot that runs is called {} in the partition table of {}, and {guid} on the kernel's command line",
            current.guid,
            node.display()
        );
        Ok(Self {
            node,
            esp,
            current,
            other: other.clone(),
            state,
        })
    }

    /// Gives the other slot the GUID by which the boot finds it. After a power cut one of the two tables is whole, and PID 1
    /// restores the primary one from the backup.
    ///
    /// # Errors
    /// The disk cannot be read or written.
    pub fn name_other(&self, guid: &str) -> Result<()> {
        let guid = Uuid::parse_str(guid).context("read the slot's name")?;
        let naming = || format!("write the partition table of {}", self.node.display());
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.node)
            .with_context(naming)?;
        rename(&disk, self.other.number, guid).with_context(naming)
    }

    /// Notes in the partition table that the next boot makes the state partition anew, or that it does not. PID 1 takes the note away when the
    /// new file system is complete.
    ///
    /// # Errors
    /// It is not on this disk, or the disk cannot be read or written.
    pub fn wish_reset(&self, wished: bool) -> Result<&Partition> {
        let state = self
            .state
            .as_ref()
            .with_context(|| format!("{} has no state partition", self.node.display()))?;
        let noting = || format!("write the partition table of {}", self.node.display());
        let disk = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&self.node)
            .with_context(noting)?;
        change(&disk, state.number, &mut |entry| match wished {
            true => entry.attribute_bits |= RESET_ATTRIBUTE,
            false => entry.attribute_bits &= !RESET_ATTRIBUTE,
        })
        .with_context(noting)?;
        Ok(state)
    }
}

/// The EFI system partition on the disk that the root is on, be it installed or a medium that is live.
///
/// # Errors
/// The root is not on a partition of a disk, or that disk has no EFI system partition.
pub fn esp_beside_root(block: &Path, devices: &Path) -> Result<PathBuf> {
    let slot = under_root(block)?;
    let place =
        fs::canonicalize(block.join(&slot)).with_context(|| format!("find {}", slot.display()))?;
    let directory = place.parent().context("a partition without a disk")?;
    let node = devices.join(directory.file_name().unwrap_or_default());
    let reading = || format!("read the partition table of {}", node.display());
    let mut disk = File::open(&node).with_context(reading)?;
    let table = GPT::find_from(&mut disk).with_context(reading)?;
    let mut entries = table.iter().filter(|(_, entry)| entry.is_used());
    let esp = entries.find(|(_, entry)| entry.partition_type_guid == TYPE_ESP.to_bytes_le());
    let (number, _) =
        esp.with_context(|| format!("{} has no EFI system partition", node.display()))?;
    Ok(devices.join(partition_name(directory, number)?))
}

/// The kernel's name for what the root's device is over.
pub(crate) fn under_root(block: &Path) -> Result<PathBuf> {
    for entry in fs::read_dir(block).with_context(|| format!("read {}", block.display()))? {
        let path = entry?.path();
        let is_root =
            fs::read_to_string(path.join("dm/name")).is_ok_and(|name| name.trim() == ROOT);
        if !is_root {
            continue;
        }
        let slaves = fs::read_dir(path.join("slaves")).context("read what the root is on")?;
        let slave = slaves.flatten().next().context("the root is on nothing")?;
        return Ok(slave.file_name().into());
    }
    bail!("the root is not a verified slot of a disk")
}

/// The kernel's name for a partition.
fn partition_name(disk: &Path, number: u32) -> Result<PathBuf> {
    for entry in fs::read_dir(disk).with_context(|| format!("read {}", disk.display()))? {
        let path = entry?.path();
        let is_wanted = fs::read_to_string(path.join("partition"))
            .is_ok_and(|text| text.trim() == number.to_string());
        if is_wanted {
            return Ok(path.file_name().unwrap_or_default().into());
        }
    }
    bail!(
        "the kernel does not know partition {number} of {}",
        disk.display()
    )
}

fn rename(disk: &File, number: u32, guid: Uuid) -> Result<()> {
    change(disk, number, &mut |entry| {
        entry.unique_partition_guid = guid.to_bytes_le();
    })
}

/// Changes an entry of the partition table, durably.
fn change(disk: &File, number: u32, to: &mut dyn FnMut(&mut GPTPartitionEntry)) -> Result<()> {
    let mut plan = Plan::new(disk);
    let mut table = GPT::find_from(&mut plan)?;
    ensure!(
        table.is_primary(),
        "the primary partition table is damaged; it is restored at the next start"
    );
    ensure!(
        table
            .iter()
            .any(|(other, entry)| other == number && entry.is_used()),
        "there is no partition {number}"
    );
    let before = table[number].clone();
    to(&mut table[number]);
    let (was, is) = (&before, &table[number]);
    if was.unique_partition_guid == is.unique_partition_guid
        && was.attribute_bits == is.attribute_bits
    {
        return Ok(());
    }
    table.write_into(&mut plan)?;
    plan.carry_out(table.header.first_usable_lba * table.sector_size)
}

/// A disk that is read, and what would be written to it.
pub(crate) struct Plan<'d> {
    disk: &'d File,
    place: u64,
    writes: Vec<(u64, Vec<u8>)>,
}

impl<'d> Plan<'d> {
    /// Nothing is written yet.
    pub(crate) fn new(disk: &'d File) -> Self {
        Plan {
            disk,
            place: 0,
            writes: Vec::new(),
        }
    }

    /// Writes it, durably: first what lies behind `middle`, the backup, and then the table that counts: at any time one of them is whole.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub(crate) fn carry_out(self, middle: u64) -> Result<()> {
        let (primary, backup): (Vec<_>, Vec<_>) = self
            .writes
            .into_iter()
            .partition(|(offset, _)| *offset < middle);
        for writes in [backup, primary] {
            for (offset, bytes) in writes {
                self.disk.write_all_at(&bytes, offset)?;
            }
            self.disk.sync_all()?;
        }
        Ok(())
    }
}

impl Read for Plan<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.disk.read_at(buffer, self.place)?;
        self.place += length as u64;
        Ok(length)
    }
}

impl Write for Plan<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.writes.last_mut() {
            Some((offset, last)) if *offset + last.len() as u64 == self.place => last.extend(bytes),
            _ => self.writes.push((self.place, bytes.to_vec())),
        }
        self.place += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Seek for Plan<'_> {
    fn seek(&mut self, to: SeekFrom) -> io::Result<u64> {
        self.place = match to {
            SeekFrom::Start(place) => place,
            SeekFrom::Current(by) => self.place.saturating_add_signed(by),
            SeekFrom::End(by) => {
                let mut disk = self.disk;
                disk.seek(SeekFrom::End(by))?
            }
        };
        Ok(self.place)
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    const A: Uuid = uuid!("aaaaaaaa-0000-0000-0000-000000000001");
    const B: Uuid = uuid!("bbbbbbbb-0000-0000-0000-000000000002");
    const NEW: Uuid = uuid!("cccccccc-0000-0000-0000-000000000003");

    /// `/sys/class/block` and `/dev` with one disk, `vda`.
    pub(crate) fn machine() -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir_all(path("dev")).unwrap();
        let mut disk = File::create_new(path("dev/vda")).unwrap();
        disk.set_len(8 << 20).unwrap();
        let mut table = GPT::new_from(&mut disk, 512, [9; 16]).unwrap();
        for (number, kind, guid) in [
            (1, TYPE_ESP, TYPE_ESP),
            (2, TYPE_ROOT_X86_64, A),
            (3, TYPE_ROOT_X86_64, B),
        ] {
            table[number] = GPTPartitionEntry {
                partition_type_guid: kind.to_bytes_le(),
                unique_partition_guid: guid.to_bytes_le(),
                starting_lba: u64::from(number) * 2048,
                ending_lba: u64::from(number) * 2048 + 2047,
                attribute_bits: 0,
                partition_name: "x".into(),
            };
        }
        GPT::write_protective_mbr_into(&mut disk, 512).unwrap();
        table.write_into(&mut disk).unwrap();
        for number in 1..4 {
            let partition = path(&format!("devices/vda/vda{number}"));
            fs::create_dir_all(&partition).unwrap();
            fs::write(partition.join("partition"), format!("{number}\n")).unwrap();
        }
        for directory in ["class/dm-0/dm", "class/dm-0/slaves"] {
            fs::create_dir_all(path(directory)).unwrap();
        }
        fs::write(path("class/dm-0/dm/name"), "keelson-root\n").unwrap();
        for name in ["vda", "vda/vda1", "vda/vda2", "vda/vda3"] {
            let link = path("class").join(Path::new(name).file_name().unwrap());
            symlink(path("devices").join(name), link).unwrap();
        }
        directory
    }

    /// Gives a partition of a disk another GUID.
    pub(crate) fn rename(disk: &Path, number: u32, guid: &str) {
        let file = OpenOptions::new().read(true).write(true).open(disk);
        super::rename(&file.unwrap(), number, Uuid::parse_str(guid).unwrap()).unwrap();
    }

    /// The number of the partition of this GUID.
    pub(crate) fn number_of(disk: &Path, guid: &str) -> u32 {
        let table = GPT::find_from(&mut File::open(disk).unwrap()).unwrap();
        let guid = Uuid::parse_str(guid).unwrap().to_bytes_le();
        let found = table
            .iter()
            .find(|(_, entry)| entry.unique_partition_guid == guid);
        found.unwrap().0
    }

    /// With the root on this partition.
    fn find(machine: &tempfile::TempDir, slot: &str, running: &str) -> Result<SystemDisk> {
        let path = |name: &str| machine.path().join(name);
        for old in fs::read_dir(path("class/dm-0/slaves")).unwrap() {
            fs::remove_file(old.unwrap().path()).unwrap();
        }
        fs::write(path("class/dm-0/slaves").join(slot), "").unwrap();
        SystemDisk::find(&path("class"), &path("dev"), running)
    }

    #[test]
    fn the_slots_are_told_apart_by_the_one_that_the_root_is_on() {
        let machine = machine();
        for (slot, running, current, other) in [("vda2", A, 2, 3), ("vda3", B, 3, 2)] {
            let disk = find(&machine, slot, &running.to_string()).unwrap();
            assert_eq!((disk.current.number, disk.other.number), (current, other));
            assert_eq!(disk.esp.node, machine.path().join("dev/vda1"));
            assert_eq!(disk.other.size_bytes, 1 << 20);
        }
        for (slot, words) in [
            ("vda3", "is called"),
            ("vda1", "two slots"),
            ("loop0", "find loop0"),
        ] {
            let error = find(&machine, slot, &A.to_string()).unwrap_err();
            assert!(error.to_string().contains(words), "{error:#}");
        }
        fs::write(machine.path().join("class/dm-0/dm/name"), "other").unwrap();
        let error = find(&machine, "vda2", &A.to_string()).unwrap_err();
        assert!(error.to_string().contains("not a verified slot"), "{error}");
    }

    #[test]
    fn the_other_slot_gets_a_name_in_both_tables() {
        let machine = machine();
        let disk = find(&machine, "vda2", &A.to_string()).unwrap();
        disk.name_other(&NEW.to_string()).unwrap();
        disk.name_other(&NEW.to_string()).unwrap();
        assert_eq!(
            find(&machine, "vda2", &A.to_string()).unwrap().other.guid,
            NEW.to_string()
        );
        // The primary table is lost: the backup says the same.
        let file = OpenOptions::new()
            .write(true)
            .open(machine.path().join("dev/vda"))
            .unwrap();
        file.write_all_at(&[0; 512], 512).unwrap();
        assert_eq!(
            find(&machine, "vda2", &A.to_string()).unwrap().other.guid,
            NEW.to_string()
        );
        let error = disk.name_other(&B.to_string()).unwrap_err();
        assert!(format!("{error:#}").contains("damaged"), "{error:#}");
    }

    #[test]
    fn the_last_slot_of_a_command_line_counts() {
        let line = "quiet keelson.slot=PARTUUID=AA keelson.roothash=1 keelson.slot=PARTUUID=BB\n";
        assert_eq!(slot_of(line).as_deref(), Some("bb"));
        assert_eq!(slot_of("keelson.slot=/dev/vda2"), None);
    }
}
