//! Writes a root image into a slot: what the other slot or an earlier try already holds is not fetched, and every chunk is read back.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, bail, ensure};

use crate::esp::drop_cache;
use crate::release::chunks::{Chunk, Chunks, Name, each, name};

/// A run is asked for in pieces of this size, in bytes: what has come is synced and need not come again.
pub(crate) const RUN_BYTES: u64 = 2 * 1024 * 1024;

/// Where a chunk comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    /// It is in its place.
    Here,
    /// It is in its place, and the running slot has it, too: it came from there.
    Copied,
    /// The running slot has it there.
    Current(u64),
    /// It is fetched.
    Fetched,
}

/// How the bytes of an image came.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Moved {
    /// Of the whole image.
    pub total_bytes: u64,
    /// From an earlier try.
    pub kept_bytes: u64,
    /// From the running slot.
    pub copied_bytes: u64,
    /// From the release's source.
    pub fetched_bytes: u64,
}

/// A chunk-wise writer of one slot.
#[derive(Debug)]
pub struct Writer<'w> {
    /// The slot that is written.
    pub slot: &'w File,
    /// The slot that runs.
    pub current: &'w File,
    /// What the image is made of.
    pub chunks: &'w Chunks,
}

impl Writer<'_> {
    /// Writes the image. `resume` looks first at what the slot holds; `fetch` gives a range of the image; `progress` hears of bytes that
    /// are in place, and ends it with an error.
    ///
    /// # Errors
    /// The disk cannot be read or written, or what was fetched or read back is not what it should be.
    pub fn write<R: Read>(
        &self,
        resume: bool,
        fetch: &mut dyn FnMut(Range<u64>) -> Result<R>,
        progress: &mut dyn FnMut(Moved) -> Result<()>,
    ) -> Result<Moved> {
        let plan = self.plan(resume)?;
        let mut moved = Moved {
            total_bytes: self.chunks.size_bytes(),
            ..Moved::default()
        };
        let mut buffer = Vec::new();
        for (chunk, from) in self.chunks.iter().zip(&plan) {
            match from {
                From::Here => moved.kept_bytes += chunk.length as u64,
                From::Copied => moved.copied_bytes += chunk.length as u64,
                From::Current(offset) => {
                    buffer.resize(chunk.length, 0);
                    let read = self.current.read_exact_at(&mut buffer, *offset);
                    read.context("read the running slot")?;
                    self.place(chunk, &buffer)?;
                    moved.copied_bytes += chunk.length as u64;
                    progress(moved)?;
                }
                From::Fetched => {}
            }
        }
        for run in runs(self.chunks, &plan) {
            let (Some(first), Some(last)) = (run.first(), run.last()) else {
                continue;
            };
            let range = first.offset..last.offset + last.length as u64;
            let mut source = fetch(range)?;
            for chunk in &run {
                buffer.resize(chunk.length, 0);
                let read = source.read_exact(&mut buffer);
                read.context("the release's source ends too early")?;
                self.place(chunk, &buffer)?;
                moved.fetched_bytes += chunk.length as u64;
                progress(moved)?;
            }
            self.slot.sync_data().context("write the slot")?;
        }
        self.slot.sync_all().context("write the slot")?;
        drop_cache(self.slot);
        self.verify()?;
        Ok(moved)
    }

    fn place(&self, chunk: &Chunk, content: &[u8]) -> Result<()> {
        ensure!(
            name(content) == chunk.name,
            "the bytes from {} on are not those of the signed release",
            chunk.offset
        );
        let written = self.slot.write_all_at(content, chunk.offset);
        written.context("write the slot")
    }

    /// Where each chunk comes from.
    fn plan(&self, resume: bool) -> Result<Vec<From>> {
        let mut wanted: HashSet<Name> = self.chunks.iter().map(|chunk| chunk.name).collect();
        let mut plan = vec![From::Fetched; self.chunks.iter().len()];
        if resume {
            for (chunk, from) in self.chunks.iter().zip(&mut plan) {
                if self.holds(chunk)? {
                    *from = From::Here;
                }
            }
        }
        if plan.contains(&From::Fetched) {
            let mut held: HashMap<Name, u64> = HashMap::new();
            let reader = Positioned {
                file: self.current,
                place: 0,
            };
            // What cannot be read of it is fetched.
            let _ = each(reader, |chunk, _| {
                if wanted.remove(&chunk.name) {
                    held.insert(chunk.name, chunk.offset);
                }
            });
            for (chunk, from) in self.chunks.iter().zip(&mut plan) {
                match (*from, held.get(&chunk.name)) {
                    (From::Fetched, Some(offset)) => *from = From::Current(*offset),
                    (From::Here, Some(_)) => *from = From::Copied,
                    _ => {}
                }
            }
        }
        Ok(plan)
    }

    fn holds(&self, chunk: &Chunk) -> Result<bool> {
        let mut content = vec![0; chunk.length];
        let read = self.slot.read_exact_at(&mut content, chunk.offset);
        read.context("read the slot")?;
        Ok(name(&content) == chunk.name)
    }

    /// Reads all of it back from the disk.
    ///
    /// # Errors
    /// It is not what was written.
    pub fn verify(&self) -> Result<()> {
        for chunk in self.chunks.iter() {
            if !self.holds(chunk)? {
                bail!(
                    "the slot does not give back what was written to it, from byte {} on: the disk may be defective",
                    chunk.offset
                );
            }
        }
        Ok(())
    }
}

/// Chunks that are fetched, in pieces of neighbours.
fn runs(chunks: &Chunks, plan: &[From]) -> Vec<Vec<Chunk>> {
    let mut runs: Vec<Vec<Chunk>> = Vec::new();
    let mut length = 0;
    for (chunk, from) in chunks.iter().zip(plan) {
        if *from != From::Fetched {
            length = RUN_BYTES;
            continue;
        }
        match runs.last_mut() {
            Some(run) if length < RUN_BYTES => run.push(*chunk),
            _ => {
                length = 0;
                runs.push(vec![*chunk]);
            }
        }
        length += chunk.length as u64;
    }
    runs
}

/// A file that is read from its start, whatever others do with it.
struct Positioned<'f> {
    file: &'f File,
    place: u64,
}

impl Read for Positioned<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let length = self.file.read_at(buffer, self.place)?;
        self.place += length as u64;
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::chunks::tests::noise;
    use proptest::prelude::*;
    use std::cell::RefCell;

    fn file(content: &[u8], size: usize) -> File {
        let file = tempfile::tempfile().unwrap();
        file.set_len(size as u64).unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    fn content(file: &File, length: usize) -> Vec<u8> {
        let mut content = vec![0; length];
        file.read_exact_at(&mut content, 0).unwrap();
        content
    }

    /// Writes `new` over `slot` beside `current`, with a source that ends after so many bytes.
    fn write(slot: &File, current: &File, new: &[u8], resume: bool, until: u64) -> Result<Moved> {
        let chunks = Chunks::of(new).unwrap();
        let left = RefCell::new(until);
        let mut fetch = |range: Range<u64>| {
            let piece = &new[range.start as usize..range.end as usize];
            let length = (*left.borrow()).min(piece.len() as u64);
            *left.borrow_mut() -= length;
            Ok(piece.take(length))
        };
        let writer = Writer {
            slot,
            current,
            chunks: &chunks,
        };
        writer.write(resume, &mut fetch, &mut |_| Ok(()))
    }

    #[test]
    fn what_the_running_slot_holds_is_not_fetched() {
        let old = noise(4 << 20, 3);
        let mut new = old.clone();
        new.splice(2_000_000..2_000_100, noise(50_000, 4));
        let (slot, current) = (file(b"", 5 << 20), file(&old, 5 << 20));
        let moved = write(&slot, &current, &new, false, u64::MAX).unwrap();
        assert!(content(&slot, new.len()) == new);
        assert!(moved.fetched_bytes < 700_000, "{moved:?}");
        assert_eq!(
            moved.copied_bytes + moved.fetched_bytes,
            new.len() as u64,
            "{moved:?}"
        );
    }

    #[test]
    fn what_an_earlier_try_has_brought_is_not_fetched_again() {
        let new = noise(20 << 20, 5);
        let (slot, current) = (file(b"", 20 << 20), file(b"", 1 << 20));
        let error = write(&slot, &current, &new, false, 12 << 20).unwrap_err();
        assert!(error.to_string().contains("ends too early"), "{error}");
        let moved = write(&slot, &current, &new, true, u64::MAX).unwrap();
        assert!(content(&slot, new.len()) == new);
        assert!(moved.kept_bytes >= 11 << 20, "{moved:?}");
    }

    #[test]
    fn bytes_that_are_not_the_signed_ones_are_not_written() {
        let new = noise(1 << 20, 5);
        let chunks = Chunks::of(&new[..]).unwrap();
        let (slot, current) = (file(b"", 1 << 20), file(b"", 1 << 20));
        let writer = Writer {
            slot: &slot,
            current: &current,
            chunks: &chunks,
        };
        let other = noise(1 << 20, 6);
        let mut fetch = |_| Ok(&other[..]);
        let error = writer
            .write(false, &mut fetch, &mut |_| Ok(()))
            .unwrap_err();
        assert!(
            error.to_string().contains("not those of the signed"),
            "{error}"
        );
        assert!(content(&slot, 1 << 20).iter().all(|byte| *byte == 0));
        slot.write_all_at(&new, 0).unwrap();
        writer.verify().unwrap();
        slot.write_all_at(&[new[700_000] ^ 1], 700_000).unwrap();
        assert!(writer.verify().is_err());
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn whatever_the_slots_hold_the_image_is_written_whole(
            seed in 1..u64::MAX, before in 0..3_000_000usize, cut in 0..3_000_000usize, resume: bool,
        ) {
            let old = noise(before, 11);
            let mut new = noise(900_000, seed);
            new.extend(&old[cut.min(old.len())..]);
            let (slot, current) = (file(&noise(500_000, seed), 5 << 20), file(&old, 4 << 20));
            let moved = write(&slot, &current, &new, resume, u64::MAX).unwrap();
            prop_assert!(content(&slot, new.len()) == new);
            prop_assert_eq!(moved.kept_bytes + moved.copied_bytes + moved.fetched_bytes, new.len() as u64);
        }
    }
}
