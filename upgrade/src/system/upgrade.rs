//! Another version into the other slot. First the boot loader forgets what was there; then nothing changes for it until the new boot entry
//! has its name: that is the last step, and the only one that counts.

use std::fs::{File, OpenOptions};
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use keelson_image::Digest;
use keelson_sys::block;

use super::{System, may_take};
use crate::disk::{SystemDisk, slot_of};
use crate::entry::Entry;
use crate::esp::Esp;
use crate::health;
use crate::journal::{Fetching, Pending, now_us, timestamp};
use crate::protocol::{Progress, Upgraded};
use crate::release::chunks::Chunks;
use crate::release::document::{Description, UKI_MAX_BYTES};
use crate::release::{Release, find};
use crate::slot::{Moved, Writer};
use crate::source::Source;

/// So often a source that breaks off is asked again for the same piece.
const TRIES: u32 = 4;
const PAUSE: Duration = Duration::from_secs(1);
/// What is fetched at once, in bytes.
const PIECE_BYTES: u64 = 2 * 1024 * 1024;
/// Progress is told this often.
const TELL_EVERY: Duration = Duration::from_millis(200);

type Tell<'t> = &'t mut dyn FnMut(Progress) -> Result<()>;

impl System {
    /// Fetches a release into the other slot and makes it what the boot loader takes next.
    ///
    /// # Errors
    /// It cannot be fetched, is not to be trusted, or cannot be written: then the boot loader takes what it took before.
    pub fn upgrade(
        &self,
        source: Option<&str>,
        version: Option<&str>,
        tell: Tell<'_>,
    ) -> Result<Upgraded> {
        let _changing = self.change()?;
        let running = self.version()?;
        let disk = self.disk()?;
        let mut source = self.source(source)?;
        let target = match version {
            Some(version) => Description::tag(version),
            None => source.target().to_owned(),
        };
        let release = find(&mut source, &target, &self.keys()?)?;
        let description = &release.description;
        may_take(description, &running, version, &timestamp())?;
        fits(&release, &disk)?;
        println!(
            "<5>upgrade from {running} to {} begins, signed by {}",
            description.version, release.signer
        );
        let chunks = release.chunks(&mut source)?;
        let resume = self.make_room(&disk, release.digest.as_str())?;
        let moved = write(&disk, &release, &chunks, &mut source, resume, tell)?;
        tell(step("writing the boot entry", moved))?;
        self.switch(&disk, &release, &mut source, &running)?;
        println!("<5>version {} is started next", description.version);
        Ok(Upgraded {
            from: running,
            to: description.version.clone(),
            fetched_bytes: moved.fetched_bytes + release.uki.size,
            copied_bytes: moved.copied_bytes,
            total_bytes: moved.total_bytes + release.uki.size,
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
        running: &str,
    ) -> Result<()> {
        let description = &release.description;
        disk.name_other(&description.slot())?;
        let mut content = Pieces {
            source,
            digest: &release.uki.digest,
            place: 0,
            size: release.uki.size,
            piece: Cursor::default(),
        };
        let esp = self.esp(disk, false)?;
        let digest = esp.stage(&mut content)?;
        let checked = is_digest(&release.uki.digest, &digest)
            .and_then(|()| agrees(&esp.staged_command_line()?, description));
        if let Err(error) = checked {
            esp.discard();
            return Err(error);
        }
        self.commit(&esp, disk, &description.version, running)
    }

    /// The one step that counts: the image that was taken in becomes an entry.
    pub(super) fn commit(
        &self,
        esp: &Esp,
        disk: &SystemDisk,
        version: &str,
        running: &str,
    ) -> Result<()> {
        let journal = self.journal()?;
        journal.set_pending(Some(&self.trial_from(running, version)?))?;
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
        })
    }
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
    let size = block::size_bytes(&slot).context("measure the slot")?;
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
