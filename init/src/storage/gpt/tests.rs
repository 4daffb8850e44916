//! Tables are written by another implementation (gptman) and read by ours, and the other way round.

use super::*;
use gptman::{GPT, GPTPartitionEntry};
use proptest::prelude::*;
use std::fs::File;

const MIB: u64 = 1 << 20;
const SECTORS_PER_MIB: u64 = MIB / SECTOR_BYTES;

fn partition(last_byte: u8, first_mib: u64, mib: u64, name: &str) -> GPTPartitionEntry {
    GPTPartitionEntry {
        partition_type_guid: [0xaa; 16],
        unique_partition_guid: [
            0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 9, 10, 11, 12, 13, 14, 15, last_byte,
        ],
        starting_lba: first_mib * SECTORS_PER_MIB,
        ending_lba: (first_mib + mib) * SECTORS_PER_MIB - 1,
        attribute_bits: 4,
        partition_name: name.into(),
    }
}

/// A disk of 8 MiB with two partitions, made by gptman.
fn disk() -> File {
    let mut file = tempfile::tempfile().unwrap();
    file.set_len(8 * MIB).unwrap();
    let mut gpt = GPT::new_from(&mut file, SECTOR_BYTES, [7; 16]).unwrap();
    gpt[1] = partition(16, 1, 2, "keelson-a");
    gpt[4] = partition(17, 3, 2, "KEELSON_STATE");
    gpt.write_into(&mut file).unwrap();
    file
}

fn apply(file: &File, write: &Write) {
    file.write_all_at(&write.bytes, write.offset).unwrap();
}

fn size(file: &File) -> u64 {
    file.metadata().unwrap().len()
}

/// What gptman says of partition 4: its end, and the name.
fn judged_by_gptman(file: &mut File) -> (u64, String) {
    let gpt = GPT::read_from(file, SECTOR_BYTES).unwrap();
    (gpt[4].ending_lba, gpt[4].partition_name.as_str().to_owned())
}

#[test]
fn a_foreign_table_is_read() {
    let file = disk();
    let partitions: Vec<Entry> = Table::read(&file, size(&file))
        .unwrap()
        .partitions()
        .collect();
    assert_eq!(
        partitions
            .iter()
            .map(|entry| entry.number)
            .collect::<Vec<_>>(),
        [1, 4]
    );
    assert_eq!(partitions[0].uuid, "44332211-6655-8877-090a-0b0c0d0e0f10");
    assert_eq!(partitions[1].label, "KEELSON_STATE");
    assert_eq!(
        (partitions[0].first_lba, partitions[0].last_lba),
        (2048, 6143)
    );
}

#[test]
fn the_last_partition_grows_to_the_end_of_the_disk() {
    let mut file = disk();
    file.set_len(64 * MIB).unwrap();
    let growth = Table::read(&file, size(&file))
        .unwrap()
        .plan_growth(64 * MIB, 4)
        .unwrap()
        .unwrap();
    apply(&file, &growth.backup);
    apply(&file, &growth.primary);
    assert_eq!(
        judged_by_gptman(&mut file),
        (63 * SECTORS_PER_MIB - 1, "KEELSON_STATE".into())
    );
    let table = Table::read(&file, size(&file)).unwrap();
    assert!(!table.is_backup);
    assert_eq!(
        table.plan_growth(64 * MIB, 4).unwrap(),
        None,
        "a second time there is nothing to do"
    );
}

#[test]
fn nothing_grows_without_room_or_over_another_partition() {
    let file = disk();
    let table = Table::read(&file, size(&file)).unwrap();
    assert_eq!(table.plan_growth(6 * MIB, 4).unwrap(), None);
    assert_eq!(table.plan_growth(64 * MIB, 1).unwrap(), None);
    assert!(table.plan_growth(64 * MIB, 2).is_err());
    assert!(table.plan_growth(100, 4).is_err());
}

#[test]
fn a_damaged_primary_table_is_restored_from_the_backup() {
    let mut file = disk();
    for offset in [SECTOR_BYTES, 2 * SECTOR_BYTES] {
        file.write_all_at(&[0xff; 40], offset).unwrap();
        let table = Table::read(&file, size(&file)).unwrap();
        assert!(table.is_backup);
        apply(&file, &table.restore_primary(size(&file)));
        assert!(!Table::read(&file, size(&file)).unwrap().is_backup);
        assert_eq!(
            judged_by_gptman(&mut file),
            (5 * SECTORS_PER_MIB - 1, "KEELSON_STATE".into())
        );
    }
}

#[test]
fn noise_is_no_table() {
    let file = tempfile::tempfile().unwrap();
    file.write_all_at(&[0x5a; 8192], 0).unwrap();
    let error = format!("{:#}", Table::read(&file, 8192).unwrap_err());
    assert_eq!(
        error,
        "no partition table, neither primary nor backup: no GPT header in sector 1"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// A power cut may leave any part of any of the writes on the disk, in the order of their flushes.
    #[test]
    fn growth_survives_a_power_cut_anywhere(done in 0usize..2, sectors in 0usize..34) {
        let file = disk();
        file.set_len(64 * MIB).unwrap();
        let growth = Table::read(&file, 64 * MIB).unwrap().plan_growth(64 * MIB, 4).unwrap().unwrap();
        let steps = [growth.backup, growth.primary];
        for step in &steps[..done] {
            apply(&file, step);
        }
        let cut = &steps[done];
        let length = (sectors * 512).min(cut.bytes.len());
        file.write_all_at(&cut.bytes[..length], cut.offset).unwrap();
        let table = Table::read(&file, 64 * MIB).unwrap();
        prop_assert_eq!(table.partitions().count(), 2);
        prop_assert_eq!(table.partitions().last().unwrap().first_lba, 3 * SECTORS_PER_MIB);
    }

    #[test]
    fn no_disk_panics(bytes in proptest::collection::vec(any::<u8>(), 600..2000), number in 0u32..200) {
        let file = disk();
        file.write_all_at(&bytes, 600).unwrap();
        if let Ok(table) = Table::read(&file, size(&file)) {
            let _ = table.plan_growth(1 << 40, number);
        }
    }
}

#[test]
fn attributes_are_changed_and_a_power_cut_between_the_writes_leaves_one_table() {
    let mut file = disk();
    let table = Table::read(&file, size(&file)).unwrap();
    assert_eq!(table.attributes(4), Some(4));
    let [backup, primary] = table.plan_attributes(size(&file), 4, 4 | 1 << 56).unwrap();
    apply(&file, &backup);
    let between = Table::read(&file, size(&file)).unwrap();
    assert_eq!((between.attributes(4), between.is_backup), (Some(4), false));
    apply(&file, &primary);
    let gpt = GPT::read_from(&mut file, SECTOR_BYTES).unwrap();
    assert_eq!(gpt[4].attribute_bits, 4 | 1 << 56);
    assert_eq!(
        (gpt[1].attribute_bits, gpt[4].ending_lba),
        (4, 5 * SECTORS_PER_MIB - 1)
    );
    assert_eq!(table.attributes(0), None);
}
