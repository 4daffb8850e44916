//! The ring survives what disks and power cuts do to it.

use keelson_log::positions::{KERNEL, NONE, Positions};
use keelson_log::record::{Record, Stream};
use keelson_log::ring::{Geometry, Ring, Step};
use keelson_log::store::{Store, StoreConfig};
use proptest::prelude::*;
use std::collections::VecDeque;
use std::os::unix::fs::FileExt;
use std::path::Path;

const SEGMENT_BYTES: u32 = 4096;
const GEOMETRY: Geometry = Geometry {
    segment_bytes: SEGMENT_BYTES,
    segments: 4,
    preallocate: true,
};

fn record(id: u64, text: &str) -> Record {
    Record {
        id,
        time_us: id * 1000,
        boot_us: id,
        source: NONE,
        position: 0,
        stream: Stream::Stdout,
        priority: None,
        partial: false,
        service: "test".to_owned(),
        message: text.as_bytes().to_vec(),
    }
}

fn checkpoint() -> Record {
    Record {
        stream: Stream::Checkpoint,
        message: Positions::new([1; 16]).to_bytes(),
        ..record(0, "")
    }
}

fn open(path: &Path) -> Ring {
    Ring::open(path, GEOMETRY, |_| {}).unwrap()
}

fn push(ring: &mut Ring, ids: std::ops::Range<u64>) {
    for id in ids {
        ring.push(&record(id, &format!("message {id}")), checkpoint)
            .unwrap();
        ring.flush().unwrap();
    }
}

fn ids(ring: &Ring) -> Vec<u64> {
    let (mut cursor, mut records) = (ring.start(), VecDeque::new());
    while ring.read(&mut cursor, &mut records).unwrap() != Step::End {}
    records
        .iter()
        .filter(|record| record.stream != Stream::Checkpoint)
        .map(|record| record.id)
        .collect()
}

#[test]
fn the_newest_records_stay_and_the_file_does_not_grow() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("ring");
    let mut ring = open(&path);
    let length = path.metadata().unwrap().len();
    push(&mut ring, 1..1000);
    let kept = ids(&ring);
    assert_eq!(path.metadata().unwrap().len(), length);
    assert_eq!(kept.last(), Some(&999));
    assert!(kept.windows(2).all(|pair| pair[0] + 1 == pair[1]));
    assert!(kept.len() > 100, "{} records kept", kept.len());

    drop(ring);
    assert_eq!(ids(&open(&path)), kept);
}

#[test]
fn a_reader_that_is_too_slow_learns_that_records_are_missing() {
    let directory = tempfile::tempdir().unwrap();
    let mut ring = open(&directory.path().join("ring"));
    push(&mut ring, 1..10);
    let mut cursor = ring.start();
    push(&mut ring, 10..1000);
    let mut records = VecDeque::new();
    assert_eq!(
        ring.read(&mut cursor, &mut records).unwrap(),
        Step::Overwritten
    );
    assert_eq!(ring.read(&mut cursor, &mut records).unwrap(), Step::Read);
    assert_eq!(records[1].id, ids(&ring)[0]);
}

#[test]
fn a_ring_grows_when_there_is_room_and_keeps_what_it_had() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("ring");
    let mut ring = open(&path);
    push(&mut ring, 1..1000);
    let kept = ids(&ring);
    let larger = Geometry {
        segments: 8,
        ..GEOMETRY
    };
    let mut ring = Ring::open(&path, larger, |_| {}).unwrap();
    push(&mut ring, 1000..1150);
    let found = ids(&ring);
    assert!(found.starts_with(&kept));
    assert_eq!(found.last(), Some(&1149));
}

#[test]
fn noise_instead_of_a_log_is_written_over() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ring");
    std::fs::write(&path, vec![0xa5; 20_000]).unwrap();
    let mut ring = open(&path);
    assert_eq!(ids(&ring), [0; 0]);
    push(&mut ring, 1..5);
    assert_eq!(ids(&ring), [1, 2, 3, 4]);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(60))]

    /// A power cut leaves any part of what was written last undone, not only the end of it.
    #[test]
    fn after_a_power_cut_a_whole_beginning_is_left_and_writing_goes_on(
        before in 1..300_u64,
        unsynced in 1..60_u64,
        lost in proptest::collection::vec((any::<prop::sample::Index>(), 1..700_usize), 0..4),
        after in 1..300_u64,
    ) {
        let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = directory.path().join("ring");
        let mut ring = open(&path);
        push(&mut ring, 1..before + 1);
        let synced = std::fs::read(&path).unwrap();
        push(&mut ring, before + 1..before + unsynced + 1);
        let written = std::fs::read(&path).unwrap();
        drop(ring);
        // Pieces of the difference go back to what was there before.
        let changed: Vec<usize> = (0..synced.len()).filter(|at| synced[*at] != written[*at]).collect();
        let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
        for (at, length) in lost {
            let start = changed[at.index(changed.len())];
            let end = (start + length).min(synced.len());
            file.write_all_at(&synced[start..end], start as u64).unwrap();
        }

        let mut ring = open(&path);
        let survived = ids(&ring);
        prop_assert!(survived.windows(2).all(|pair| pair[0] < pair[1]), "{survived:?}");
        let first_new = survived.last().copied().unwrap_or(0) + 1;
        push(&mut ring, first_new..first_new + after);
        let found = ids(&open(&path));
        prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "{found:?}");
        let new: Vec<u64> = (first_new..first_new + after).collect();
        let new_kept = found.iter().filter(|id| **id >= first_new).count();
        prop_assert!(new.ends_with(&found[found.len() - new_kept..]));
        // What was safe before the cut is there unless the ring has come round to it.
        let safe_kept = survived.iter().filter(|id| **id <= before).count() as u64;
        prop_assert!(safe_kept >= before.min(60), "{survived:?}");
    }
}

fn store_config(directory: &Path, boot: u8) -> StoreConfig {
    StoreConfig {
        directory: directory.join("state"),
        fallback: directory.join("memory"),
        size_bytes: 16 << 20,
        boot_id: [boot; 16],
    }
}

#[test]
fn positions_are_found_again_within_a_boot_and_not_in_the_next() {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let read_to = |position: u64| Record {
        source: KERNEL,
        position,
        ..record(0, "kernel says")
    };
    let mut store = Store::open(store_config(directory.path(), 1)).unwrap();
    assert_eq!(store.position(KERNEL), None);
    // Enough for several segments, so that only checkpoints can know about the source below.
    let pipe = Record {
        source: 4711,
        position: 99,
        ..record(0, "pipe says")
    };
    store.append(vec![pipe]).unwrap();
    for position in 1..5000 {
        store
            .append(vec![Record {
                message: vec![b'x'; 1000],
                ..read_to(position)
            }])
            .unwrap();
    }
    drop(store);
    let mut store = Store::open(store_config(directory.path(), 1)).unwrap();
    assert_eq!(store.position(KERNEL), Some(4999));
    assert_eq!(store.position(4711), Some(99));
    store.append(vec![read_to(5000)]).unwrap();
    drop(store);

    let mut store = Store::open(store_config(directory.path(), 2)).unwrap();
    assert_eq!(store.position(KERNEL), None);
    store.append(vec![read_to(3)]).unwrap();
    drop(store);
    let store = Store::open(store_config(directory.path(), 2)).unwrap();
    assert_eq!(store.position(KERNEL), Some(3));
}
