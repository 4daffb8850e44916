//! The partition table (UEFI 2.10, section 5; types after the Discoverable Partitions Specification).

use std::io::{Read, Seek, Write};
use std::ops::Range;

use anyhow::{Context, Result};
use gptman::{GPT, GPTPartitionEntry};
use uuid::{Uuid, uuid};

use super::MIB;
use crate::recipe;

/// Number of the EFI system partition.
pub(crate) const ESP: u32 = 1;
/// Number of the slot that is filled.
pub(crate) const SLOT_A: u32 = 2;
/// Number of the slot that is empty.
pub(crate) const SLOT_B: u32 = 3;
/// Number of the state partition.
pub(crate) const STATE: u32 = 4;
/// Number of the partition of GRUB's core image: the last number, for nobody else counts it, and the first on the disk, for the last one grows.
pub(crate) const BIOS: u32 = 5;

const SECTOR_BYTES: u64 = 512;

const TYPE_ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");
const TYPE_BIOS: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
const TYPE_ROOT_X86_64: Uuid = uuid!("4f68bce3-e8cd-4db1-96e7-fbcaf984b709");
const TYPE_VAR: Uuid = uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d");

const DISK_GUID: Uuid = uuid!("6b65656c-736f-4e00-8000-000000000010");
const ESP_GUID: Uuid = uuid!("6b65656c-736f-4e00-8000-000000000011");
const EMPTY_SLOT_GUID: Uuid = uuid!("6b65656c-736f-4e00-8000-000000000013");
const STATE_GUID: Uuid = uuid!("6b65656c-736f-4e00-8000-000000000014");
const MEDIUM_GUID: Uuid = uuid!("6b65656c-736f-4e00-8000-000000000020");
const MEDIUM_ESP_GUID: Uuid = uuid!("6b65656c-736f-4e00-8000-000000000021");
/// The name of a medium's slot, by which PID 1 tells it from that of an installed system.
const LIVE_LABEL: &str = "keelson-live";
const BIOS_GUID: Uuid = uuid!("6b65656c-736f-4e00-8000-000000000015");

/// One partition: number, type, GUID, name, first byte, size in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Partition {
    number: u32,
    kind: Uuid,
    guid: Uuid,
    name: &'static str,
    offset_bytes: u64,
    size_bytes: u64,
}

/// The partitions of a disk image.
#[derive(Debug)]
pub(crate) struct Layout {
    disk: Uuid,
    partitions: Vec<Partition>,
}

impl Layout {
    /// The layout that `recipe` asks for, one partition after the other from 1 MiB on, with `slot` as GUID of the filled slot.
    pub(crate) fn new(recipe: &recipe::Disk, slot: Uuid) -> Self {
        let mut offset_bytes = MIB;
        let partitions = [
            (BIOS, TYPE_BIOS, BIOS_GUID, "bios", recipe.bios_mib),
            (ESP, TYPE_ESP, ESP_GUID, "esp", recipe.esp_mib),
            (SLOT_A, TYPE_ROOT_X86_64, slot, "keelson-a", recipe.slot_mib),
            (
                SLOT_B,
                TYPE_ROOT_X86_64,
                EMPTY_SLOT_GUID,
                "keelson-b",
                recipe.slot_mib,
            ),
            (
                STATE,
                TYPE_VAR,
                STATE_GUID,
                "KEELSON_STATE",
                recipe.state_mib,
            ),
        ]
        .map(|(number, kind, guid, name, size_mib)| {
            let size_bytes = size_mib * MIB;
            let partition = Partition {
                number,
                kind,
                guid,
                name,
                offset_bytes,
                size_bytes,
            };
            offset_bytes += size_bytes;
            partition
        });
        Self {
            disk: DISK_GUID,
            partitions: partitions.into(),
        }
    }

    /// That of a medium with an EFI system partition and one slot, whose places are given in bytes.
    pub(crate) fn of_medium(slot: Uuid, [esp_at, slot_at]: [Range<u64>; 2]) -> Self {
        let partition = |number, kind, guid, name, at: Range<u64>| Partition {
            number,
            kind,
            guid,
            name,
            offset_bytes: at.start,
            size_bytes: at.end - at.start,
        };
        Self {
            disk: MEDIUM_GUID,
            partitions: vec![
                partition(ESP, TYPE_ESP, MEDIUM_ESP_GUID, "esp", esp_at),
                partition(SLOT_A, TYPE_ROOT_X86_64, slot, LIVE_LABEL, slot_at),
            ],
        }
    }

    /// Size of the whole disk: the partitions, and one MiB for each of the two tables.
    pub(crate) fn size_bytes(&self) -> u64 {
        self.partitions
            .last()
            .map_or(0, |last| last.offset_bytes + last.size_bytes)
            + MIB
    }

    /// Where partition `number` begins.
    pub(crate) fn offset_bytes(&self, number: u32) -> u64 {
        self.partitions
            .iter()
            .find(|partition| partition.number == number)
            .map_or(0, |found| found.offset_bytes)
    }

    /// How large partition `number` is.
    pub(crate) fn size_bytes_of(&self, number: u32) -> u64 {
        self.partitions
            .iter()
            .find(|partition| partition.number == number)
            .map_or(0, |found| found.size_bytes)
    }

    /// Writes both tables and the protective MBR to `disk`, which has its full size already.
    ///
    /// # Errors
    /// When writing fails.
    pub(crate) fn write<D: Read + Write + Seek>(&self, disk: &mut D) -> Result<()> {
        let mut table = GPT::new_from(disk, SECTOR_BYTES, self.disk.to_bytes_le())
            .context("making a partition table")?;
        for partition in &self.partitions {
            table[partition.number] = GPTPartitionEntry {
                partition_type_guid: partition.kind.to_bytes_le(),
                unique_partition_guid: partition.guid.to_bytes_le(),
                starting_lba: partition.offset_bytes / SECTOR_BYTES,
                ending_lba: (partition.offset_bytes + partition.size_bytes) / SECTOR_BYTES - 1,
                attribute_bits: 0,
                partition_name: partition.name.into(),
            };
        }
        GPT::write_protective_mbr_into(disk, SECTOR_BYTES).context("writing the protective MBR")?;
        table
            .write_into(disk)
            .context("writing the partition table")?;
        Ok(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use std::io::Cursor;

    pub(crate) fn recipe() -> recipe::Disk {
        serde_yaml::from_str(
            "{esp_mib: 64, slot_mib: 16, state_mib: 8, bios_mib: 1, menu_seconds: 0, boot_package: x, boot_loader: /x, boot_stub: /y, boot_addon_stub: /y, grub: {package: z, folder: /z, modules: []}, command_line: []}",
        )
        .unwrap()
    }

    #[test]
    fn partitions_follow_each_other_and_are_read_back() {
        let slot = uuid!("01234567-89ab-cdef-0123-456789abcdef");
        let layout = Layout::new(&recipe(), slot);
        assert_eq!(layout.size_bytes(), (1 + 1 + 64 + 16 + 16 + 8 + 1) * MIB);
        let mut disk = Cursor::new(vec![0; layout.size_bytes() as usize]);
        layout.write(&mut disk).unwrap();
        let table = GPT::read_from(&mut disk, SECTOR_BYTES).unwrap();
        let names: Vec<String> = (1..=4)
            .map(|number| table[number].partition_name.to_string())
            .collect();
        assert_eq!(names, ["esp", "keelson-a", "keelson-b", "KEELSON_STATE"]);
        assert_eq!(table[SLOT_A].unique_partition_guid, slot.to_bytes_le());
        assert_eq!(
            table[STATE].starting_lba * SECTOR_BYTES,
            layout.offset_bytes(STATE)
        );
        assert_eq!(table[BIOS].ending_lba + 1, table[ESP].starting_lba);
        for number in 1..4 {
            assert_eq!(table[number].ending_lba + 1, table[number + 1].starting_lba);
        }
        assert_eq!(&disk.get_ref()[510..512], [0x55, 0xaa]);
    }

    #[test]
    fn the_same_layout_gives_the_same_bytes() {
        let write = || {
            let layout = Layout::new(&recipe(), uuid!("01234567-89ab-cdef-0123-456789abcdef"));
            let mut disk = Cursor::new(vec![0; layout.size_bytes() as usize]);
            layout.write(&mut disk).unwrap();
            disk.into_inner()
        };
        assert!(write() == write());
    }
}
