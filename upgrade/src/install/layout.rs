//! The partitions of a new disk: those of the disk image, one after the other from 1 MiB on, the last of which reaches to the end
//! (UEFI 2.10, section 5.3; types after the Discoverable Partitions Specification).

use std::fs::File;
use std::io::{Seek as _, SeekFrom, Write as _};

use crate::state_partition::{self, NEW_BYTES};
use anyhow::{Context as _, Result, ensure};
use gptman::{GPT, GPTPartitionEntry};
use serde::Deserialize;
use uuid::{Uuid, uuid};

use crate::disk::{Plan, TYPE_ESP, TYPE_ROOT_X86_64};

/// What disks are made of that are supported, in bytes.
pub const SECTOR_BYTES: u64 = 512;
/// So much of the first sector is a program; the old partition table is behind it.
const PROGRAM_BYTES: usize = 440;
/// Partitions begin and end at multiples of this.
pub(crate) const MIB: u64 = 1 << 20;
const TYPE_BIOS: Uuid = uuid!("21686148-6449-6e6f-744e-656564454649");
const TYPE_VAR: Uuid = uuid!("4d21b016-b534-45c2-a9fb-5c16e091fd2d");

/// The recipe of the disk image: both have the same sizes.
const RECIPE: &str = include_str!("../../../images/disk.yml");

/// Sizes of the partitions before the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub struct Sizes {
    bios_mib: u64,
    esp_mib: u64,
    slot_mib: u64,
}

impl Sizes {
    /// Those of the disk image that is shipped.
    ///
    /// # Errors
    /// The recipe does not name them.
    pub fn shipped() -> Result<Self> {
        serde_yaml::from_str(RECIPE).context("read the sizes of the disk image")
    }

    /// The smallest disk that has room for them and for a new state partition.
    pub fn smallest_disk_bytes(&self) -> u64 {
        (1 + self.bios_mib + self.esp_mib + 2 * self.slot_mib + 1) * MIB + NEW_BYTES
    }
}

/// A part of a disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    kind: Uuid,
    guid: Uuid,
    name: &'static str,
    /// Its first byte.
    pub offset: u64,
    /// Its length in bytes.
    pub size: u64,
}

/// The partitions of one disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    disk_guid: Uuid,
    /// GRUB's, for machines without UEFI.
    pub bios: Part,
    /// The EFI system partition.
    pub esp: Part,
    /// The slot that is filled.
    pub slot: Part,
    /// The slot that is empty.
    pub spare: Part,
    /// The state partition.
    pub state: Part,
}

impl Layout {
    /// Plans a disk of this size; `slot` is the GUID of the slot that is filled, and `guid` gives new ones.
    ///
    /// # Errors
    /// The disk is too small.
    pub fn plan(
        sizes: &Sizes,
        disk_bytes: u64,
        slot: Uuid,
        guid: &mut dyn FnMut() -> Result<Uuid>,
    ) -> Result<Self> {
        let smallest = sizes.smallest_disk_bytes();
        ensure!(
            disk_bytes >= smallest,
            "it has {} MiB, and {} MiB are needed",
            disk_bytes / MIB,
            smallest / MIB
        );
        let (esp_bytes, slot_bytes) = (sizes.esp_mib * MIB, sizes.slot_mib * MIB);
        let mut offset = MIB;
        let mut part = |kind, guid, name, size| {
            let part = Part {
                kind,
                guid,
                name,
                offset,
                size,
            };
            offset += size;
            part
        };
        let bios = part(TYPE_BIOS, guid()?, "bios", sizes.bios_mib * MIB);
        let esp = part(TYPE_ESP, guid()?, "esp", esp_bytes);
        let filled = part(TYPE_ROOT_X86_64, slot, "keelson-a", slot_bytes);
        let spare = part(TYPE_ROOT_X86_64, guid()?, "keelson-b", slot_bytes);
        // The last MiB is for the backup of the table.
        let end = disk_bytes / MIB * MIB - MIB;
        let rest = end - spare.offset - spare.size;
        let state = part(TYPE_VAR, guid()?, state_partition::LABEL, rest);
        Ok(Layout {
            disk_guid: guid()?,
            bios,
            esp,
            slot: filled,
            spare,
            state,
        })
    }

    /// Writes the table to the disk, durably: the backup, then the one that counts, with the program that BIOS starts. From then on there is a
    /// system on the disk.
    ///
    /// # Errors
    /// The disk cannot be written.
    pub fn write(&self, disk: &File, program: &[u8]) -> Result<()> {
        let mut plan = Plan::new(disk);
        let mut table = GPT::new_from(&mut plan, SECTOR_BYTES, self.disk_guid.to_bytes_le())?;
        // GRUB has the last number, as in the disk image: nobody counts it.
        let parts = [&self.esp, &self.slot, &self.spare, &self.state, &self.bios];
        for (number, part) in (1..).zip(parts) {
            table[number] = GPTPartitionEntry {
                partition_type_guid: part.kind.to_bytes_le(),
                unique_partition_guid: part.guid.to_bytes_le(),
                starting_lba: part.offset / SECTOR_BYTES,
                ending_lba: (part.offset + part.size) / SECTOR_BYTES - 1,
                attribute_bits: 0,
                partition_name: part.name.into(),
            };
        }
        GPT::write_protective_mbr_into(&mut plan, SECTOR_BYTES)?;
        table.write_into(&mut plan)?;
        ensure!(
            program.len() <= PROGRAM_BYTES,
            "the program for the first sector has {} bytes",
            program.len()
        );
        plan.seek(SeekFrom::Start(0))?;
        plan.write_all(program)?;
        plan.carry_out(table.header.first_usable_lba * SECTOR_BYTES)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::os::unix::fs::FileExt as _;

    const SLOT: Uuid = uuid!("01234567-89ab-cdef-0123-456789abcdef");

    fn plan(disk_bytes: u64) -> Result<Layout> {
        let mut last = 0;
        Layout::plan(&Sizes::shipped()?, disk_bytes, SLOT, &mut || {
            last += 1;
            Ok(Uuid::from_u128(last))
        })
    }

    #[test]
    fn a_disk_has_the_partitions_of_the_disk_image_and_state_has_the_rest() {
        let layout = plan(4 << 30).unwrap();
        let disk = tempfile::tempfile().unwrap();
        disk.set_len(4 << 30).unwrap();
        layout.write(&disk, &[7; 440]).unwrap();
        let table = GPT::find_from(&mut Plan::new(&disk)).unwrap();
        let found: Vec<(String, u64)> = (1..=5)
            .map(|number| {
                let entry = &table[number];
                let size = entry.size().unwrap() * SECTOR_BYTES / MIB;
                (entry.partition_name.to_string(), size)
            })
            .collect();
        let expected = [
            ("esp", 128),
            ("keelson-a", 256),
            ("keelson-b", 256),
            ("KEELSON_STATE", 4096 - 643),
            ("bios", 1),
        ];
        assert_eq!(found, expected.map(|(name, size)| (name.to_owned(), size)));
        assert_eq!(table[2].unique_partition_guid, SLOT.to_bytes_le());
        assert!(table.is_primary());
        let mut first = [0; 512];
        disk.read_exact_at(&mut first, 0).unwrap();
        assert_eq!((first[439], first[440], first[450]), (7, 0, 0xee));
    }

    #[test]
    fn a_disk_that_is_too_small_is_refused_and_says_how_much_is_needed() {
        let error = plan(706 << 20).unwrap_err().to_string();
        assert_eq!(error, "it has 706 MiB, and 707 MiB are needed");
        assert_eq!(plan(707 << 20).unwrap().state.size, NEW_BYTES);
    }

    proptest! {
        #[test]
        fn partitions_follow_each_other_and_leave_room_for_both_tables(sectors in 1_447_936..u64::from(u32::MAX)) {
            let layout = plan(sectors * SECTOR_BYTES).unwrap();
            let parts = [&layout.bios, &layout.esp, &layout.slot, &layout.spare, &layout.state];
            prop_assert_eq!(layout.bios.offset, MIB);
            for pair in parts.windows(2) {
                prop_assert_eq!(pair[0].offset + pair[0].size, pair[1].offset);
            }
            let end = layout.state.offset + layout.state.size;
            prop_assert!(layout.state.size >= NEW_BYTES && end + 33 * SECTOR_BYTES <= sectors * SECTOR_BYTES);
        }
    }
}
