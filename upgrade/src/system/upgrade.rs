//! Another version into the other slot. First the boot loader forgets what was there; then nothing changes for it until the new boot entry
//! has its name: that is the last step, and the only one that counts.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read, Seek as _, SeekFrom};
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keelson_image::Digest;

use super::{System, may_take};
use crate::assembly::Assembly;
use crate::disk::{SystemDisk, slot_of};
use crate::entry::Entry;
use crate::esp::Esp;
use crate::health;
use crate::journal::{Fetching, Pending, Restart, now_us, timestamp};
use crate::protocol::{Progress, Upgraded};
use crate::release::chunks::Chunks;
use crate::release::document::{Description, UKI_MAX_BYTES};
use crate::release::{Release, find};
use crate::slot::{Moved, Writer};
use crate::source::Source;

/// So often a source that breaks off is asked again for the same piece.
const TRIES: u32 = 4;
const PAUSE: Duration = match cfg!(test) {
    true => Duration::ZERO,
    false => Duration::from_secs(1),
};
/// What is fetched at once, in bytes.
const PIECE_BYTES: u64 = 2 * 1024 * 1024;
/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_millis(200);

pub(super) type Tell<'t> = &'t mut dyn FnMut(Progress) -> Result<()>;

impl System {
    /// Fetches a release into the other slot and makes it what the boot loader takes next; `restart` says whether the machine restarts
    /// by itself then.
    ///
    /// # Errors
    /// It cannot be fetched, is not to be trusted, or cannot be written: then the boot loader takes what it took before.
    pub fn upgrade(
        &self,
        source: Option<&str>,
        version: Option<&str>,
        restart: Option<Restart>,
        tell: Tell<'_>,
    ) -> Result<Upgraded> {
        let _changing = self.change()?;
        let running = self.version()?;
        let mut source = self.source(source)?;
        let target = match version {
            Some(version) => Description::tag(version),
            None => source.target().to_owned(),
        };
        let release = find(&mut source, &target, &self.keys()?)?;
        let floor = self.floor()?;
        may_take(
            &release.description,
            &running,
            &floor,
            version,
            &timestamp(),
        )?;
        self.take(&release, &mut source, &running, restart, tell)
    }

    /// Takes a release that may be taken.
    pub(super) fn take(
        &self,
        release: &Release,
        source: &mut Source,
        running: &str,
        restart: Option<Restart>,
        tell: Tell<'_>,
    ) -> Result<Upgraded> {
        let disk = self.disk()?;
        fits(release, &disk)?;
        let version = &release.description.version;
        println!(
            "<5>upgrade from {running} to {version} begins, signed by {}",
            release.signer
        );
        let chunks = release.chunks(source)?;
        let uki_chunks = release.uki_chunks(source)?;
        let resume = self.make_room(&disk, release.digest.as_str())?;
        let root = write(&disk, release, &chunks, source, resume, tell)?;
        tell(step("writing the boot entry", root))?;
        let change = Change {
            running,
            version,
            restart,
        };
        let uki = self.switch(&disk, release, source, uki_chunks.as_ref(), &change)?;
        println!("<5>version {version} is started next");
        Ok(Upgraded {
            from: running.to_owned(),
            to: version.clone(),
            fetched_bytes: root.fetched_bytes + uki.fetched_bytes,
            copied_bytes: root.copied_bytes + uki.copied_bytes,
            total_bytes: root.total_bytes + uki.total_bytes,
        })
    }

    /// Takes away the boot entries of what is about to be overwritten, and notes what is coming. Gives whether the slot holds a
    /// part of it already.
    pub(super) fn make_room(&self, disk: &SystemDisk, release: &str) -> Result<bool> {
        let journal = self.journal()?;
        let esp = self.esp(disk, false)?;
        let entries = self.entries(&esp, disk)?;
        let running = entries.running.context(
            "the EFI system partition has no entry of the version that runs: there would be nothing to go back to",
        )?;
        is_judged(&running, journal.pending()?.as_ref())?;
        // What is left of an earlier try.
        esp.discard();
        // It is what the machine goes back to, whatever was said of it.
        esp.rename(&running, &Entry::good(&running.version))?;
        for entry in entries.other.iter().chain(&entries.stale) {
            esp.remove(entry)?;
        }
        journal.set_pending(None)?;
        let fetching = Fetching {
            release: release.to_owned(),
        };
        let resume = journal.fetching()?.as_ref() == Some(&fetching);
        journal.set_fetching(Some(&fetching))?;
        Ok(resume)
    }

    /// The slot is whole: it gets its name, and the boot loader its entry.
    fn switch(
        &self,
        disk: &SystemDisk,
        release: &Release,
        source: &mut Source,
        chunks: Option<&Chunks>,
        change: &Change<'_>,
    ) -> Result<Moved> {
        let description = &release.description;
        disk.name_other(&description.slot())?;
        let esp = self.esp(disk, false)?;
        let (digest, moved) = match chunks {
            Some(chunks) => {
                let running = self.entries(&esp, disk)?.running;
                let here = running.map(|entry| esp.open(&entry)).transpose()?;
                let mut fetch = |range| read_range(source, &release.uki.digest, range);
                let mut content = Assembly::new(chunks, here.as_ref(), &mut fetch);
                let digest = esp.stage(&mut content)?;
                (digest, content.moved())
            }
            None => {
                let mut content = Pieces {
                    source,
                    digest: &release.uki.digest,
                    place: 0,
                    size: release.uki.size,
                    piece: Cursor::default(),
                };
                let moved = Moved {
                    total_bytes: release.uki.size,
                    fetched_bytes: release.uki.size,
                    ..Moved::default()
                };
                (esp.stage(&mut content)?, moved)
            }
        };
        let checked = is_digest(&release.uki.digest, &digest)
            .and_then(|()| agrees(&esp.staged_command_line()?, description));
        if let Err(error) = checked {
            esp.discard();
            return Err(error);
        }
        self.commit(&esp, disk, change)?;
        Ok(moved)
    }

    /// The one step that counts: the image that was taken in becomes an entry.
    pub(super) fn commit(&self, esp: &Esp, disk: &SystemDisk, change: &Change<'_>) -> Result<()> {
        let Change {
            running,
            version,
            restart,
        } = *change;
        let journal = self.journal()?;
        let mut trial = self.trial_from(running, version)?;
        trial.restart = restart;
        journal.set_pending(Some(&trial))?;
        let new = Entry::on_trial(version);
        esp.commit(&new)?;
        if let Some(entry) = self.entries(esp, disk)?.running
            && entry.cmp_as_loader(&new).is_le()
        {
            // The boot loader prefers what is newer: that steps back, and comes again when the older one fails.
            esp.rename(&entry, &Entry::bad(running))?;
        }
        journal.set_fetching(None)
    }

    /// A trial that begins now.
    pub(super) fn trial_from(&self, from: &str, to: &str) -> Result<Pending> {
        let status = self.engine.status();
        Ok(Pending {
            from: from.to_owned(),
            to: to.to_owned(),
            boot_id: self.boot_id()?,
            time_us: now_us(),
            down: status
                .map(|status| health::down(&status))
                .unwrap_or_default(),
            why: None,
            log: Vec::new(),
            restart: None,
        })
    }
}

/// From which version to which.
#[derive(Clone, Copy, Debug)]
pub(super) struct Change<'c> {
    pub(super) running: &'c str,
    pub(super) version: &'c str,
    /// The machine restarts by itself then.
    pub(super) restart: Option<Restart>,
}

/// Whether the version that runs has shown that it is good: until then what it came from is kept.
fn is_judged(running: &Entry, pending: Option<&Pending>) -> Result<()> {
    let is_on_trial = running.tries.is_some_and(|tries| tries.left > 0)
        || pending.is_some_and(|pending| pending.to == running.version);
    ensure!(
        !is_on_trial,
        "version {} has still to show that it is good: wait for that, or roll back",
        running.version
    );
    Ok(())
}

/// Writes the slot.
fn write(
    disk: &SystemDisk,
    release: &Release,
    chunks: &Chunks,
    source: &mut Source,
    resume: bool,
    tell: Tell<'_>,
) -> Result<Moved> {
    let open = |path: &Path, write| {
        let file = OpenOptions::new().read(true).write(write).open(path);
        file.with_context(|| format!("open {}", path.display()))
    };
    let slot: File = open(&disk.other.node, true)?;
    let current: File = open(&disk.current.node, false)?;
    let size = (&slot).seek(SeekFrom::End(0)).context("measure the slot")?;
    ensure!(release.root.size <= size, "the slot is too small");
    let nothing = Moved {
        total_bytes: release.root.size,
        ..Moved::default()
    };
    tell(step("comparing with what is here", nothing))?;
    let mut told = Instant::now();
    let mut progress = |moved: Moved| {
        if told.elapsed() < TELL_EVERY {
            return Ok(());
        }
        told = Instant::now();
        tell(step("fetching", moved))
    };
    let writer = Writer {
        slot: &slot,
        current: &current,
        chunks,
    };
    let mut fetch = |range| read_range(source, &release.root.digest, range);
    writer.write(resume, &mut fetch, &mut progress)
}

/// A part of a blob, in memory. A source that breaks off is asked again.
fn read_range(source: &mut Source, digest: &Digest, range: Range<u64>) -> Result<Cursor<Vec<u8>>> {
    let mut tries = 0;
    loop {
        let error = match try_range(source, digest, &range) {
            Ok(bytes) => return Ok(Cursor::new(bytes)),
            Err(error) => error,
        };
        if tries == TRIES {
            return Err(error);
        }
        eprintln!("<4>{error:#}; trying again");
        source.restart();
        // A server that is being started again takes a moment.
        thread::sleep(PAUSE * 2_u32.pow(tries));
        tries += 1;
    }
}

fn try_range(source: &mut Source, digest: &Digest, range: &Range<u64>) -> Result<Vec<u8>> {
    let length = range.end.saturating_sub(range.start);
    let mut bytes = Vec::with_capacity(usize::try_from(length)?);
    let read = source
        .range(digest, range.start, length)?
        .read_to_end(&mut bytes)?;
    ensure!(
        read as u64 == length,
        "the answer breaks off after {read} of {length} bytes"
    );
    Ok(bytes)
}

/// A blob that is fetched piece by piece.
struct Pieces<'s> {
    source: &'s mut Source,
    digest: &'s Digest,
    place: u64,
    size: u64,
    piece: Cursor<Vec<u8>>,
}

impl Read for Pieces<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.piece.read(buffer)?;
        if read > 0 || self.place == self.size {
            return Ok(read);
        }
        let end = self.size.min(self.place + PIECE_BYTES);
        let piece = read_range(self.source, self.digest, self.place..end);
        self.piece = piece.map_err(io::Error::other)?;
        self.place = end;
        self.piece.read(buffer)
    }
}

fn step(what: &str, moved: Moved) -> Progress {
    Progress {
        step: what.to_owned(),
        done_bytes: moved.kept_bytes + moved.copied_bytes + moved.fetched_bytes,
        total_bytes: moved.total_bytes,
    }
}

fn fits(release: &Release, disk: &SystemDisk) -> Result<()> {
    ensure!(
        release.root.size <= disk.other.size_bytes,
        "the root image has {} bytes, and the slot {} only",
        release.root.size,
        disk.other.size_bytes
    );
    ensure!(
        release.uki.size <= UKI_MAX_BYTES,
        "the unified kernel image has {} bytes, more than {UKI_MAX_BYTES}",
        release.uki.size
    );
    ensure!(
        release.description.slot() != disk.current.guid,
        "version {} has the same root image as the version that runs",
        release.description.version
    );
    Ok(())
}

fn is_digest(expected: &Digest, found: &[u8; 32]) -> Result<()> {
    ensure!(
        expected.hex() == hex::encode(found),
        "the unified kernel image is not that of the signed release"
    );
    Ok(())
}

/// Whether kernel and root belong together.
fn agrees(command_line: &str, description: &Description) -> Result<()> {
    let has = |word: String| {
        command_line
            .split_ascii_whitespace()
            .any(|other| other == word)
    };
    let belongs = slot_of(command_line).as_deref() == Some(description.slot().as_str())
        && has(format!("keelson.roothash={}", description.root_hash))
        && has(format!(
            "keelson.hashoffset={}",
            description.hash_offset_bytes
        ));
    ensure!(
        belongs,
        "the kernel of version {} would start another root than the release's",
        description.version
    );
    Ok(())
}
