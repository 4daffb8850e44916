//! Disks as power cuts would have left them: what a machine wrote, in order, from the log that QEMU's `blklogwrites` keeps in the format of
//! Linux' dm-log-writes (Documentation/admin-guide/device-mapper/log-writes.rst).
//!
//! A disk has what was written before the last flush, and any part of what was written after it: a cut keeps each of those writes or
//! loses it, as a random number says.

use std::fs::{File, OpenOptions};
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::harness::disk::Random;

const MAGIC: u64 = 0x6a_7366_7773_6872;
const FLUSH: u64 = 1;
const FUA: u64 = 2;
const DISCARD: u64 = 4;

/// One thing that a machine had its disk do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entry {
    log: usize,
    // Where the written bytes are in the log.
    data: u64,
    to: u64,
    length: u64,
    flags: u64,
}

impl Entry {
    fn writes(self) -> bool {
        self.length > 0 && self.flags & DISCARD == 0
    }
}

/// A disk that is taken through its past.
pub struct Replay {
    disk: File,
    logs: Vec<File>,
    entries: Vec<Entry>,
    // So many entries are on the disk for good.
    durable: usize,
    // What the last cut has overwritten, and where.
    undo: Vec<(u64, Vec<u8>)>,
}

impl Replay {
    /// `disk` is as it was before the first of the `logs` was begun, and is written to.
    ///
    /// # Errors
    /// When a file cannot be read, or a log is none.
    pub fn open(disk: &Path, logs: &[std::path::PathBuf]) -> Result<Self> {
        let mut replay = Replay {
            disk: OpenOptions::new()
                .read(true)
                .write(true)
                .open(disk)
                .with_context(|| format!("opening {}", disk.display()))?,
            logs: Vec::new(),
            entries: Vec::new(),
            durable: 0,
            undo: Vec::new(),
        };
        for path in logs {
            let log = File::open(path).with_context(|| format!("opening {}", path.display()))?;
            let entries = read_entries(&log, replay.logs.len(), u64::MAX)
                .with_context(|| format!("reading {}", path.display()))?;
            replay.entries.extend(entries);
            replay.logs.push(log);
        }
        Ok(replay)
    }

    /// Number of entries: a moment is one of `0..=len`, so many entries after the beginning.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether nothing was written.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Bytes that were written between two moments.
    pub fn written(&self, between: Range<usize>) -> u64 {
        let entries = self.entries.get(between).unwrap_or_default();
        entries
            .iter()
            .filter(|entry| entry.writes())
            .map(|entry| entry.length)
            .sum()
    }

    /// Makes the disk what a power cut at `moment` leaves. Moments only go forward.
    ///
    /// # Errors
    /// When the disk cannot be written, or `moment` is one before the last flush of an earlier cut.
    pub fn cut(&mut self, moment: usize, random: &mut Random) -> Result<()> {
        self.take_back()?;
        let happened = self.entries.get(..moment).context("no such moment")?;
        let flushed = happened
            .iter()
            .rposition(|entry| entry.flags & FLUSH != 0)
            .map_or(0, |last| last + 1);
        ensure!(self.durable <= flushed, "moments only go forward");
        for place in self.durable..flushed {
            self.apply(place, false)?;
        }
        self.durable = flushed;
        for place in flushed..moment {
            let certain = self.entries[place].flags & FUA != 0;
            if certain || random.next() & 1 == 0 {
                self.apply(place, true)?;
            }
        }
        Ok(())
    }

    /// Undoes what the last cut has kept by chance.
    fn take_back(&mut self) -> Result<()> {
        while let Some((at, bytes)) = self.undo.pop() {
            self.disk
                .write_all_at(&bytes, at)
                .context("writing the disk")?;
        }
        Ok(())
    }

    fn apply(&mut self, place: usize, for_now: bool) -> Result<()> {
        let entry = self.entries[place];
        if !entry.writes() {
            return Ok(());
        }
        let mut bytes = vec![0; usize::try_from(entry.length)?];
        if for_now {
            self.disk
                .read_exact_at(&mut bytes, entry.to)
                .context("reading the disk")?;
            self.undo.push((entry.to, bytes.clone()));
        }
        self.logs[entry.log]
            .read_exact_at(&mut bytes, entry.data)
            .context("reading a log")?;
        self.disk
            .write_all_at(&bytes, entry.to)
            .context("writing the disk")
    }
}

/// How many entries a log has that is still being written.
///
/// # Errors
/// When it cannot be read.
pub fn entries_so_far(path: &Path) -> Result<usize> {
    let log = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let length = log.metadata().context("examining a log")?.len();
    Ok(read_entries(&log, 0, length)?.len())
}

/// The number of entries in the superblock is late: the entries themselves are followed to the end of the file.
fn read_entries(mut log: &File, number: usize, end: u64) -> Result<Vec<Entry>> {
    let end = end.min(log.metadata().context("examining a log")?.len());
    let mut head = [0; 28];
    log.read_exact(&mut head).context("reading its beginning")?;
    let word = |bytes: &[u8], place: usize| {
        bytes
            .get(place..place + 8)
            .and_then(|word| word.try_into().ok())
            .map_or(0, u64::from_le_bytes)
    };
    ensure!(word(&head, 0) == MAGIC, "it is no log of writes");
    let sector = word(&head, 20) >> 32;
    ensure!(
        sector.is_power_of_two() && sector >= 512,
        "sectors of {sector} bytes"
    );
    let mut entries = Vec::new();
    let mut at = sector;
    while at + sector <= end {
        let mut head = [0; 32];
        log.read_exact_at(&mut head, at)
            .context("reading an entry")?;
        let flags = word(&head, 16);
        let length = word(&head, 8) * sector;
        // A hole: the entry was not complete when the machine ended.
        if flags == 0 && length == 0 {
            break;
        }
        let data = at + sector;
        at = match flags & DISCARD {
            0 => data + length,
            _ => data,
        };
        if at > end {
            break;
        }
        entries.push(Entry {
            log: number,
            data,
            to: word(&head, 0) * sector,
            length,
            flags,
        });
    }
    Ok(entries)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(entries: &[(u64, u64, &[u8])]) -> Vec<u8> {
        let mut bytes = vec![0; 512];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&1_u64.to_le_bytes());
        bytes[24..28].copy_from_slice(&512_u32.to_le_bytes());
        for (sector, flags, data) in entries {
            let mut entry = vec![0; 512];
            entry[..8].copy_from_slice(&sector.to_le_bytes());
            entry[8..16].copy_from_slice(&(data.len() as u64 / 512).to_le_bytes());
            entry[16..24].copy_from_slice(&flags.to_le_bytes());
            bytes.extend(entry);
            bytes.extend(*data);
        }
        bytes
    }

    #[test]
    fn what_was_flushed_is_there_and_the_rest_may_be() {
        let dir = tempfile::tempdir().unwrap();
        let (disk, path) = (dir.path().join("disk"), dir.path().join("log"));
        std::fs::write(&disk, [b'.'; 2048]).unwrap();
        let content = log(&[
            (0, 0, &[b'a'; 512]),
            (0, FLUSH, &[]),
            (1, 0, &[b'b'; 512]),
            (2, FUA, &[b'c'; 512]),
            (0, FLUSH, &[]),
            (3, 0, &[b'd'; 512]),
        ]);
        std::fs::write(&path, content).unwrap();
        assert_eq!(entries_so_far(&path).unwrap(), 6);
        let mut replay = Replay::open(&disk, &[path]).unwrap();
        assert_eq!((replay.len(), replay.written(0..6)), (6, 2048));
        let sectors = || {
            let bytes = std::fs::read(&disk).unwrap();
            let letters: Vec<u8> = bytes.chunks(512).map(|sector| sector[0]).collect();
            String::from_utf8(letters).unwrap()
        };
        let mut random = Random::new(7);
        replay.cut(0, &mut random).unwrap();
        assert_eq!(sectors(), "....");
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..32 {
            replay.cut(4, &mut random).unwrap();
            seen.insert(sectors());
        }
        assert_eq!(seen.into_iter().collect::<Vec<_>>(), ["a.c.", "abc."]);
        replay.cut(5, &mut random).unwrap();
        assert_eq!(sectors(), "abc.");
        assert!(replay.cut(1, &mut random).is_err());
    }

    #[test]
    fn a_file_that_is_no_log_is_said_to_be_none() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        std::fs::write(&path, [7; 4096]).unwrap();
        let error = entries_so_far(&path).unwrap_err();
        assert_eq!(format!("{error:#}"), "it is no log of writes");
    }
}
