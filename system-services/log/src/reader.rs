//! Reading both rings as one log, in the order of the records' identifiers.

use crate::record::{Record, Stream};
use crate::ring::{Cursor, Ring, Step};
use crate::store::{Rings, SharedStore};
use std::collections::VecDeque;
use std::io;

/// Which records are asked for.
#[derive(Debug, Clone, Default)]
pub struct Filter {
    /// Only this service's.
    pub service: Option<String>,
    /// Only those of this moment (realtime, microseconds) and later ones.
    pub since_us: Option<u64>,
}

impl Filter {
    /// Whether the record is asked for.
    #[must_use]
    pub fn matches(&self, record: &Record) -> bool {
        record.stream != Stream::Checkpoint
            && self
                .service
                .as_ref()
                .is_none_or(|service| *service == record.service)
            && self.since_us.is_none_or(|since| record.time_us >= since)
    }
}

/// What a reader meets.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// The next record; it may not match any filter.
    Record(Record),
    /// Here records are missing: they were overwritten before they could be read.
    Overwritten,
}

#[derive(Debug, Default)]
struct Side {
    cursor: Cursor,
    queue: VecDeque<Record>,
}

/// A place in the log.
#[derive(Debug, Default)]
pub struct Reader {
    main: Side,
    overflow: Side,
    first_id: u64,
}

impl Reader {
    /// Before the oldest record.
    #[must_use]
    pub fn from_start(rings: &Rings) -> Self {
        Self::at(rings.main.start(), rings.overflow.start(), 0)
    }

    /// Behind the record with this identifier, whether or not it is still there. Segments that end before it are not read.
    #[must_use]
    pub fn after(rings: &Rings, id: u64) -> Self {
        let first_id = id.saturating_add(1);
        Self::at(
            before(&rings.main, first_id),
            before(&rings.overflow, first_id),
            first_id,
        )
    }

    /// Behind the newest record.
    #[must_use]
    pub fn from_end(rings: &Rings) -> Self {
        Self::at(rings.main.end(), rings.overflow.end(), 0)
    }

    fn at(main: Cursor, overflow: Cursor, first_id: u64) -> Self {
        let side = |cursor| Side {
            cursor,
            queue: VecDeque::new(),
        };
        Self {
            main: side(main),
            overflow: side(overflow),
            first_id,
        }
    }

    /// Before the last `count` records that match, fewer if there are not so many. Gives way to other tasks after
    /// each segment.
    ///
    /// # Errors
    /// What reading reports.
    pub async fn from_tail(store: &SharedStore, filter: &Filter, count: usize) -> io::Result<Self> {
        let (main, main_ids) = tail(store, |rings| &rings.main, filter, count).await?;
        let (overflow, overflow_ids) = tail(store, |rings| &rings.overflow, filter, count).await?;
        let mut ids: Vec<u64> = main_ids.into_iter().chain(overflow_ids).collect();
        ids.sort_unstable();
        let first_id = ids.len().saturating_sub(count);
        match ids.get(first_id) {
            Some(first_id) => Ok(Self::at(main, overflow, *first_id)),
            None => Ok(Self::from_end(store.borrow().rings())),
        }
    }

    /// The next item; `None` when all was read for now.
    ///
    /// # Errors
    /// What reading reports.
    pub fn next(&mut self, rings: &Rings) -> io::Result<Option<Item>> {
        loop {
            if self.main.fill(&rings.main)? || self.overflow.fill(&rings.overflow)? {
                return Ok(Some(Item::Overwritten));
            }
            let side = match (self.main.queue.front(), self.overflow.queue.front()) {
                (Some(main), Some(overflow)) if overflow.id < main.id => &mut self.overflow,
                (Some(_), _) => &mut self.main,
                (None, _) => &mut self.overflow,
            };
            match side.queue.pop_front() {
                Some(record) if record.id < self.first_id => {}
                record => return Ok(record.map(Item::Record)),
            }
        }
    }
}

impl Side {
    /// Sees to it that the queue holds something if the ring does; `true` when records were missed.
    fn fill(&mut self, ring: &Ring) -> io::Result<bool> {
        while self.queue.is_empty() {
            match ring.read(&mut self.cursor, &mut self.queue)? {
                Step::Read => {}
                Step::Overwritten => return Ok(true),
                Step::End => break,
            }
        }
        Ok(false)
    }
}

/// A place before the record with this identifier and all later ones: the beginning of a segment.
fn before(ring: &Ring, id: u64) -> Cursor {
    let sequences = ring.sequences();
    // One that cannot be read is no reason to begin behind it: who reads is told.
    let begins_before =
        |sequence: &u64| first_id(ring, *sequence).is_some_and(|first_id| first_id <= id);
    let count = sequences.partition_point(begins_before);
    match sequences.get(count.saturating_sub(1)) {
        Some(sequence) => ring.segment_start(*sequence),
        None => ring.start(),
    }
}

/// The identifier that a segment begins with.
fn first_id(ring: &Ring, sequence: u64) -> Option<u64> {
    let mut cursor = ring.segment_start(sequence);
    let mut records = VecDeque::new();
    ring.read(&mut cursor, &mut records).ok()?;
    records.front().map(|record| record.id)
}

/// Walks back over the segments until `count` records that match are found; gives the place and their identifiers.
async fn tail(
    store: &SharedStore,
    ring: impl Fn(&Rings) -> &Ring,
    filter: &Filter,
    count: usize,
) -> io::Result<(Cursor, Vec<u64>)> {
    let (mut place, sequences) = {
        let store = store.borrow();
        let ring = ring(store.rings());
        (ring.end(), ring.sequences())
    };
    let mut ids = Vec::new();
    for sequence in sequences.into_iter().rev() {
        if ids.len() >= count {
            break;
        }
        let records = {
            let store = store.borrow();
            let ring = ring(store.rings());
            place = ring.segment_start(sequence);
            segment(ring, place, sequence)?
        };
        let matching = records.iter().filter(|record| filter.matches(record));
        ids.extend(matching.map(|record| record.id));
        tokio::task::yield_now().await;
    }
    Ok((place, ids))
}

/// All records of one segment.
fn segment(ring: &Ring, mut cursor: Cursor, sequence: u64) -> io::Result<VecDeque<Record>> {
    let mut records = VecDeque::new();
    // The step that leaves the segment reads nothing of the next one.
    while cursor.is_in(sequence) && ring.read(&mut cursor, &mut records)? == Step::Read {}
    Ok(records)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::positions::NONE;
    use crate::ring::Geometry;

    fn record(id: u64, stream: Stream) -> Record {
        Record {
            id,
            time_us: id * 1000,
            boot_us: id,
            source: NONE,
            position: 0,
            stream,
            priority: None,
            partial: false,
            service: "test".to_owned(),
            message: vec![b'x'; 100],
        }
    }

    #[test]
    fn a_place_is_found_without_reading_what_is_before_its_segment() {
        let directory = tempfile::tempdir().unwrap();
        let geometry = Geometry {
            segment_bytes: 4096,
            segments: 8,
            preallocate: false,
        };
        let mut ring = Ring::open(&directory.path().join("ring"), geometry, |_| {}).unwrap();
        assert_eq!(before(&ring, 1), ring.start());
        // So many that the first ones are overwritten; every third is in another ring.
        let ids: Vec<u64> = (1..400).filter(|id| id % 3 != 0).collect();
        for id in &ids {
            let checkpoint = || record(*id, Stream::Checkpoint);
            ring.push(&record(*id, Stream::Stdout), checkpoint).unwrap();
            ring.flush().unwrap();
        }
        let read = |mut cursor: Cursor| {
            let mut records = VecDeque::new();
            while ring.read(&mut cursor, &mut records).unwrap() != Step::End {}
            records.retain(|record| record.stream != Stream::Checkpoint);
            let ids: Vec<u64> = records.iter().map(|record| record.id).collect();
            ids
        };
        let all = read(ring.start());
        assert!(all[0] > 1 && all.len() > 100);
        let per_segment = all.len() / ring.sequences().len() + 10;
        for id in 0..=400 {
            let found = read(before(&ring, id));
            let wanted: Vec<u64> = all.iter().copied().filter(|known| *known >= id).collect();
            assert!(found.ends_with(&wanted), "{id}");
            assert!(found.len() <= wanted.len() + per_segment, "{id}");
        }
    }
}
