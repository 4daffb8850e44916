//! A file of fixed size, divided into segments that are used in turn: the oldest one's space takes the newest records.
//!
//! The space is allocated when the file is made, so neither a full disk nor an application that fills it can stop the
//! log, and the log never takes more. A segment starts with a header (sequence number, salt, checksum); frames follow
//! (see [`crate::record`]). What an earlier use left behind the last frame does not verify, for the salt has changed.

use crate::record::{Entry, FRAME_MAX_BYTES, Frame, Record, decode, header_checksum};
use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

const MAGIC: &[u8; 8] = b"KEELLOG1";
const HEADER_BYTES: u64 = 32;
const SEGMENTS_MIN: usize = 2;

/// How large a ring is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Geometry {
    /// Size of a segment.
    pub segment_bytes: u32,
    /// How many; at least two.
    pub segments: usize,
    /// Whether the space is taken at once. In memory it is not.
    pub preallocate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Segment {
    sequence: u64,
    salt: u64,
}

/// The open file.
#[derive(Debug)]
pub struct Ring {
    file: Arc<File>,
    segment_bytes: u32,
    slots: Vec<Option<Segment>>,
    current: usize,
    /// Where the next frame goes in the current segment.
    offset: u64,
    buffer: Vec<u8>,
}

/// A place in a ring, for reading.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cursor {
    sequence: u64,
    offset: u64,
}

impl Cursor {
    /// Whether the place is in this segment.
    #[must_use]
    pub fn is_in(&self, sequence: u64) -> bool {
        self.sequence == sequence
    }
}

/// What a step of reading came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// There is more, or there may be.
    Read,
    /// Records between the cursor and the oldest segment were overwritten before they could be read.
    Overwritten,
    /// All was read.
    End,
}

impl Ring {
    /// Opens or makes the file and finds the end of what was written; `replay` gets the newest segment's records.
    ///
    /// A disk without room for all segments gives a smaller ring, which grows when opened with room. A ring that
    /// was larger once stays so.
    ///
    /// # Errors
    /// What the file system reports; no room even for two segments.
    pub fn open(path: &Path, geometry: Geometry, replay: impl FnMut(&Record)) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o640)
            .open(path)?;
        let segments = allocate(&file, geometry)?;
        let mut ring = Self {
            file: Arc::new(file),
            segment_bytes: geometry.segment_bytes,
            slots: Vec::with_capacity(segments),
            current: 0,
            offset: u64::from(geometry.segment_bytes),
            buffer: Vec::new(),
        };
        for slot in 0..segments {
            let header = ring.read_header(slot)?;
            ring.slots.push(header);
        }
        ring.recover(replay)?;
        Ok(ring)
    }

    /// The file, for fdatasync(2) on another thread.
    #[must_use]
    pub fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// How much the ring can hold, in bytes.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.slots.len() as u64 * u64::from(self.segment_bytes)
    }

    /// Adds a record; it is in the file after [`Ring::flush`]. A segment that is begun for it starts with what
    /// `checkpoint` gives.
    ///
    /// # Errors
    /// What pwrite(2) reports; `InvalidInput` for a record that no frame can hold.
    pub fn push<'e>(
        &mut self,
        entry: impl Into<Entry<'e>>,
        checkpoint: impl FnOnce() -> Record,
    ) -> io::Result<()> {
        let entry = entry.into();
        if self.try_push(entry)? {
            return Ok(());
        }
        self.flush()?;
        self.begin_segment()?;
        if self.try_push((&checkpoint()).into())? && self.try_push(entry)? {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the segments are too small for this record",
        ))
    }

    /// Encodes behind what is there; `false` when the segment has no room.
    fn try_push(&mut self, entry: Entry<'_>) -> io::Result<bool> {
        let Some(segment) = self.slots.get(self.current).copied().flatten() else {
            return Ok(false);
        };
        let before = self.buffer.len();
        if !entry.encode(segment.salt, &mut self.buffer) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the record is too long for a frame",
            ));
        }
        if self.offset + self.buffer.len() as u64 > u64::from(self.segment_bytes) {
            self.buffer.truncate(before);
            return Ok(false);
        }
        Ok(true)
    }

    /// Writes what was pushed. It is in the page cache then: safe from a crash of this process, not from a power cut.
    ///
    /// # Errors
    /// What pwrite(2) reports.
    pub fn flush(&mut self) -> io::Result<()> {
        if self.buffer.is_empty() {
            return Ok(());
        }
        let start = self.slot_start(self.current) + self.offset;
        self.file.write_all_at(&self.buffer, start)?;
        self.offset += self.buffer.len() as u64;
        self.buffer.clear();
        Ok(())
    }

    /// Takes the oldest slot, unused ones first.
    fn begin_segment(&mut self) -> io::Result<()> {
        let oldest =
            |(_, slot): &(usize, &Option<Segment>)| slot.map_or(0, |segment| segment.sequence);
        let slot = self
            .slots
            .iter()
            .enumerate()
            .min_by_key(oldest)
            .map_or(0, |(slot, _)| slot);
        let sequence = self.newest().map_or(0, |segment| segment.sequence) + 1;
        // After a power cut the same sequence number may be used again for a slot whose header was lost, not its
        // frames: only the salt tells them apart.
        let salt = RandomState::new().build_hasher().finish();
        let mut header = Vec::with_capacity(HEADER_BYTES as usize);
        header.extend(MAGIC);
        header.extend(sequence.to_le_bytes());
        header.extend(salt.to_le_bytes());
        header.extend(self.segment_bytes.to_le_bytes());
        header.extend(header_checksum(&header).to_le_bytes());
        self.slots[slot] = None;
        self.file.write_all_at(&header, self.slot_start(slot))?;
        self.slots[slot] = Some(Segment { sequence, salt });
        self.current = slot;
        self.offset = HEADER_BYTES;
        Ok(())
    }

    fn slot_start(&self, slot: usize) -> u64 {
        slot as u64 * u64::from(self.segment_bytes)
    }

    fn newest(&self) -> Option<Segment> {
        self.slots
            .iter()
            .flatten()
            .copied()
            .max_by_key(|segment| segment.sequence)
    }

    /// Sequence numbers of the segments, oldest first.
    #[must_use]
    pub fn sequences(&self) -> Vec<u64> {
        let mut all: Vec<u64> = self
            .slots
            .iter()
            .flatten()
            .map(|segment| segment.sequence)
            .collect();
        all.sort_unstable();
        all
    }

    fn read_header(&self, slot: usize) -> io::Result<Option<Segment>> {
        let mut header = [0; HEADER_BYTES as usize];
        self.file
            .read_exact_at(&mut header, self.slot_start(slot))?;
        let number = |at: usize| {
            let mut bytes = [0; 8];
            bytes.copy_from_slice(&header[at..at + 8]);
            u64::from_le_bytes(bytes)
        };
        // The last eight bytes are the segment's size and the checksum.
        let expected =
            u64::from(self.segment_bytes) | (u64::from(header_checksum(&header[..28])) << 32);
        let valid = header.starts_with(MAGIC) && number(24) == expected;
        Ok(valid.then(|| Segment {
            sequence: number(8),
            salt: number(16),
        }))
    }

    /// Finds where the newest segment's records end, and clears what is behind: after a power cut frames may stand
    /// beyond a torn one.
    fn recover(&mut self, mut replay: impl FnMut(&Record)) -> io::Result<()> {
        let Some(newest) = self.newest() else {
            return Ok(());
        };
        self.current = self
            .slots
            .iter()
            .position(|slot| *slot == Some(newest))
            .unwrap_or(0);
        let mut cursor = Cursor {
            sequence: newest.sequence,
            offset: HEADER_BYTES,
        };
        let mut records = VecDeque::new();
        let mut end = HEADER_BYTES;
        while self.read_chunk(self.current, newest, &mut cursor, &mut records)? {
            end = cursor.offset;
            records.drain(..).for_each(|record| replay(&record));
        }
        self.offset = end;
        let rest = u64::from(self.segment_bytes) - end;
        if rest > 0 {
            let start = (self.slot_start(self.current) + end) as i64;
            match fallocate(
                &self.file,
                FallocateFlags::FALLOC_FL_ZERO_RANGE,
                start,
                rest as i64,
            ) {
                // In memory there are no torn writes.
                Ok(()) | Err(Errno::EOPNOTSUPP) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// The place before the oldest record.
    #[must_use]
    pub fn start(&self) -> Cursor {
        self.segment_start(self.sequences().first().copied().unwrap_or(0))
    }

    /// The place before a segment's first record.
    #[must_use]
    pub fn segment_start(&self, sequence: u64) -> Cursor {
        Cursor {
            sequence,
            offset: HEADER_BYTES,
        }
    }

    /// The place behind the newest record.
    #[must_use]
    pub fn end(&self) -> Cursor {
        Cursor {
            sequence: self.newest().map_or(0, |segment| segment.sequence),
            offset: self.offset,
        }
    }

    /// Reads on from the cursor, some dozen KiB at a time, oldest first.
    ///
    /// # Errors
    /// What pread(2) reports.
    pub fn read(&self, cursor: &mut Cursor, out: &mut VecDeque<Record>) -> io::Result<Step> {
        let slot = self
            .slots
            .iter()
            .position(|slot| slot.is_some_and(|segment| segment.sequence == cursor.sequence));
        let Some((slot, segment)) = slot.and_then(|slot| Some((slot, self.slots[slot]?))) else {
            let Some(next) = self
                .sequences()
                .into_iter()
                .find(|sequence| *sequence > cursor.sequence)
            else {
                return Ok(Step::End);
            };
            let was_somewhere = cursor.sequence != 0;
            *cursor = self.segment_start(next);
            return Ok(if was_somewhere {
                Step::Overwritten
            } else {
                Step::Read
            });
        };
        if self.read_chunk(slot, segment, cursor, out)? {
            return Ok(Step::Read);
        }
        match self
            .sequences()
            .into_iter()
            .find(|sequence| *sequence > cursor.sequence)
        {
            Some(next) => {
                *cursor = self.segment_start(next);
                Ok(Step::Read)
            }
            None => Ok(Step::End),
        }
    }

    /// Decodes what one read gives; `false` when no frame is there.
    fn read_chunk(
        &self,
        slot: usize,
        segment: Segment,
        cursor: &mut Cursor,
        out: &mut VecDeque<Record>,
    ) -> io::Result<bool> {
        let rest = u64::from(self.segment_bytes).saturating_sub(cursor.offset);
        let mut chunk = vec![0; rest.min(FRAME_MAX_BYTES as u64) as usize];
        self.file
            .read_exact_at(&mut chunk, self.slot_start(slot) + cursor.offset)?;
        let mut bytes = chunk.as_slice();
        while let Frame::Records(records, length) = decode(bytes, segment.salt) {
            out.extend(records);
            bytes = &bytes[length..];
        }
        let read = chunk.len() - bytes.len();
        cursor.offset += read as u64;
        Ok(read > 0)
    }
}

/// Makes the file as large as asked, or as the disk allows; gives the number of segments.
fn allocate(file: &File, geometry: Geometry) -> io::Result<usize> {
    let segment_bytes = u64::from(geometry.segment_bytes);
    let existing = (file.metadata()?.len() / segment_bytes) as usize;
    let mut wanted = geometry.segments.max(SEGMENTS_MIN);
    if existing >= wanted {
        return Ok(existing);
    }
    loop {
        let bytes = wanted as u64 * segment_bytes;
        let result = if geometry.preallocate {
            fallocate(file, FallocateFlags::empty(), 0, bytes as i64).map_err(io::Error::from)
        } else {
            file.set_len(bytes)
        };
        match result {
            Ok(()) => return Ok(wanted),
            Err(error)
                if error.kind() == io::ErrorKind::StorageFull
                    && wanted > SEGMENTS_MIN.max(existing) =>
            {
                // What was allocated before the disk was full is given back.
                file.set_len(existing as u64 * segment_bytes)?;
                wanted = (wanted / 2).max(SEGMENTS_MIN).max(existing);
            }
            Err(_) if existing >= SEGMENTS_MIN => return Ok(existing),
            Err(error) => return Err(error),
        }
    }
}
