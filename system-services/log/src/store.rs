//! Everything that is kept: two rings, the positions of the sources, and what to do when the disk fails.
//!
//! Each service has a budget: a burst of one segment, and then so much per hour that its share of the main ring lasts
//! for days. What a service writes beyond it goes to the smaller overflow ring, where it can only push out other
//! surplus. So a service that floods the log loses its own oldest lines, never another service's.

use crate::budget::{Budgets, MAIN_RING_HOURS};
use crate::clock::Time;
use crate::lines::Run;
use crate::positions::{self, BootId, Positions};
use crate::record::{Entry, Lines, Record, Stream};
use crate::ring::{Geometry, Ring};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use std::cell::RefCell;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use tokio::sync::{Notify, watch};

/// Size of a segment.
pub const SEGMENT_BYTES: u32 = 1024 * 1024;
/// How much is kept where the directory is in memory.
const MEMORY_BYTES: u64 = 8 * 1024 * 1024;
/// Of a disk, at most one part in this many.
const DISK_SHARE: u64 = 8;
/// Of the whole, one part in this many is the overflow ring.
const OVERFLOW_SHARE: u64 = 4;
/// Records of this priority and more urgent ones go to the disk at once.
const PRIORITY_ERR: u8 = 3;

/// Where records are kept, and how much.
#[derive(Debug, Clone)]
pub struct StoreConfig {
    /// The directory that lasts.
    pub directory: PathBuf,
    /// A directory in memory, used when the other cannot be.
    pub fallback: PathBuf,
    /// Size of both rings together.
    pub size_bytes: u64,
    /// This boot.
    pub boot_id: BootId,
}

/// The rings and all that is known about them. One thread owns it.
#[derive(Debug)]
pub struct Store {
    config: StoreConfig,
    rings: Rings,
    next_id: u64,
    positions: Positions,
    budgets: Budgets,
    appended: watch::Sender<u64>,
    signals: Rc<SyncSignals>,
}

/// The store as its tasks share it: borrowed within one turn, never across an await.
pub type SharedStore = Rc<RefCell<Store>>;

/// Wakes the task that calls fdatasync(2).
#[derive(Debug, Default)]
pub struct SyncSignals {
    /// Something was written.
    pub dirty: Notify,
    /// Something was written that must not be lost.
    pub urgent: Notify,
}

/// The two files.
#[derive(Debug)]
pub struct Rings {
    /// What services write within their budgets.
    pub main: Ring,
    /// The rest.
    pub overflow: Ring,
    in_memory: bool,
}

impl Store {
    /// Opens the directory, or the fallback when that fails. The first record of a start says which, and why.
    ///
    /// # Errors
    /// Not even the fallback can be used.
    pub fn open(config: StoreConfig) -> io::Result<Self> {
        let mut known = Positions::new(config.boot_id);
        let mut last_id = 0;
        let mut failure = None;
        let rings = match Rings::open(
            &config.directory,
            config.size_bytes,
            &mut known,
            &mut last_id,
        ) {
            Ok(rings) => rings,
            Err(error) => {
                failure = Some(error);
                Rings::open(&config.fallback, MEMORY_BYTES, &mut known, &mut last_id)?
            }
        };
        let mut store = Self {
            config,
            rings,
            next_id: last_id + 1,
            positions: known,
            budgets: Budgets::default(),
            appended: watch::Sender::new(last_id),
            signals: Rc::default(),
        };
        match failure {
            Some(error) => store.note_failure(&error)?,
            None => store.note(6, &store.describe())?,
        }
        Ok(store)
    }

    /// Adds records, in order; they are safe from a crash of this process when this returns. Identifiers are given
    /// here. When the disk refuses, the log goes on in memory.
    ///
    /// # Errors
    /// Neither disk nor memory takes them.
    pub fn append(&mut self, mut records: Vec<Record>) -> io::Result<()> {
        if records.is_empty() {
            return Ok(());
        }
        for record in &mut records {
            record.id = self.next_id;
            self.next_id += 1;
        }
        let most_urgent = records.iter().filter_map(|record| record.priority).min();
        let entries: Vec<Entry<'_>> = records.iter().map(Entry::Record).collect();
        self.keep(&entries, most_urgent)
    }

    /// Adds lines of one pipe as they came, which are so many records.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn append_lines(&mut self, lines: &Lines<'_>, run: Run) -> io::Result<()> {
        let lines = Lines {
            first_id: self.next_id,
            ..*lines
        };
        self.next_id += run.records;
        self.keep(&[Entry::Lines(&lines)], run.most_urgent)
    }

    fn keep(&mut self, entries: &[Entry<'_>], most_urgent: Option<u8>) -> io::Result<()> {
        if let Err(error) = self.write(entries) {
            if self.rings.in_memory {
                return Err(error);
            }
            self.fall_back(&error)?;
            self.write(entries)?;
        }
        self.signals.dirty.notify_one();
        if most_urgent.is_some_and(|priority| priority <= PRIORITY_ERR) {
            self.signals.urgent.notify_one();
        }
        self.appended.send_replace(self.next_id - 1);
        Ok(())
    }

    fn write(&mut self, entries: &[Entry<'_>]) -> io::Result<()> {
        let hourly_bytes = self.rings.main.capacity_bytes() / MAIN_RING_HOURS;
        for entry in entries {
            let ring = if self.budgets.spend(*entry, hourly_bytes) {
                &mut self.rings.main
            } else {
                &mut self.rings.overflow
            };
            let (id, source, position) = match entry {
                Entry::Record(record) => (record.id, record.source, record.position),
                Entry::Lines(lines) => (lines.first_id, lines.source, lines.position),
            };
            ring.push(*entry, || checkpoint(&self.positions, id))?;
            // At once: the next segment's checkpoint has to count this record.
            self.positions.advance(source, position);
        }
        self.rings.main.flush()?;
        self.rings.overflow.flush()
    }

    /// Goes on in memory. What is on disk stays there, unread until the next boot.
    fn fall_back(&mut self, error: &io::Error) -> io::Result<()> {
        let (mut unused, mut last_id) = (Positions::new(self.config.boot_id), 0);
        self.rings = Rings::open(
            &self.config.fallback,
            MEMORY_BYTES,
            &mut unused,
            &mut last_id,
        )?;
        self.next_id = self.next_id.max(last_id + 1);
        self.note_failure(error)
    }

    fn note_failure(&mut self, error: &io::Error) -> io::Result<()> {
        let directory = self.config.directory.display().to_string();
        self.note(
            2,
            &format!(
                "cannot keep logs in {directory}: {error}; {}",
                self.describe()
            ),
        )
    }

    /// What the log itself has to say.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn note(&mut self, priority: u8, text: &str) -> io::Result<()> {
        let now = Time::now();
        self.append(vec![Record {
            id: 0,
            time_us: now.real_us,
            boot_us: now.boot_us,
            source: positions::NONE,
            position: 0,
            stream: Stream::Stderr,
            priority: Some(priority),
            partial: false,
            service: "log".to_owned(),
            message: text.as_bytes().to_vec(),
        }])
    }

    fn describe(&self) -> String {
        let mib = (self.rings.main.capacity_bytes() + self.rings.overflow.capacity_bytes()) >> 20;
        if self.rings.in_memory {
            format!("logging to memory, at most {mib} MiB: records are lost at power off")
        } else {
            format!(
                "logging to {}, at most {mib} MiB",
                self.config.directory.display()
            )
        }
    }

    /// How far a source has been read in this boot.
    #[must_use]
    pub fn position(&self, source: u64) -> Option<u64> {
        self.positions.get(source)
    }

    /// Forgets a source that will not come back.
    pub fn forget(&mut self, source: u64) {
        self.positions.remove(source);
    }

    /// For reading.
    #[must_use]
    pub fn rings(&self) -> &Rings {
        &self.rings
    }

    /// The newest record's identifier, now and whenever it changes.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.appended.subscribe()
    }

    /// What the task that syncs waits for.
    #[must_use]
    pub fn signals(&self) -> Rc<SyncSignals> {
        Rc::clone(&self.signals)
    }

    /// The files that the task has to sync.
    #[must_use]
    pub fn files(&self) -> [Arc<File>; 2] {
        [self.rings.main.file(), self.rings.overflow.file()]
    }

    /// The disk has failed to take what was written before.
    ///
    /// # Errors
    /// As [`Store::append`].
    pub fn sync_failed(&mut self, error: &io::Error) -> io::Result<()> {
        if self.rings.in_memory {
            Ok(())
        } else {
            self.fall_back(error)
        }
    }
}

impl Rings {
    fn open(
        directory: &Path,
        size_bytes: u64,
        known: &mut Positions,
        last_id: &mut u64,
    ) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        let file_system = statfs(directory)?;
        let in_memory = file_system.filesystem_type() == TMPFS_MAGIC;
        let disk_bytes = file_system.blocks() * file_system.block_size() as u64;
        let limit = if in_memory {
            MEMORY_BYTES
        } else {
            disk_bytes / DISK_SHARE
        };
        let size_bytes = size_bytes.min(limit);
        let overflow_bytes = size_bytes / OVERFLOW_SHARE;
        let boot_id = known.boot_id();
        let mut open = |name: &str, bytes: u64| {
            let geometry = Geometry {
                segment_bytes: SEGMENT_BYTES,
                segments: (bytes / u64::from(SEGMENT_BYTES)) as usize,
                preallocate: !in_memory,
            };
            let mut stored = Positions::new(boot_id);
            let mut ring = Ring::open(&directory.join(name), geometry, |record| {
                *last_id = record.id.max(*last_id);
                stored.replay(record);
            })?;
            known.merge(&stored);
            if stored.boot_id() != boot_id {
                // From here on the records are this boot's.
                let fresh = checkpoint(&Positions::new(boot_id), *last_id);
                ring.push(&fresh, || fresh.clone())?;
                ring.flush()?;
            }
            Ok::<_, io::Error>(ring)
        };
        Ok(Self {
            main: open("main.ring", size_bytes - overflow_bytes)?,
            overflow: open("overflow.ring", overflow_bytes)?,
            in_memory,
        })
    }
}

fn checkpoint(positions: &Positions, id: u64) -> Record {
    let now = Time::now();
    Record {
        id,
        time_us: now.real_us,
        boot_us: now.boot_us,
        source: positions::NONE,
        position: 0,
        stream: Stream::Checkpoint,
        priority: None,
        partial: false,
        service: String::new(),
        message: positions.to_bytes(),
    }
}
