//! A file that is put together from what is here and what is fetched: the unified kernel image, of which the running version has most.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};

use crate::release::chunks::{Chunk, Chunks, Name, each, name};
use crate::slot::{Moved, RUN_BYTES};

/// Gives a range of the file from the release's source.
type Fetch<'f> = &'f mut dyn FnMut(Range<u64>) -> Result<Cursor<Vec<u8>>>;

/// A reader of a file that is being put together; every chunk is checked before it is handed on.
pub struct Assembly<'a> {
    chunks: Vec<Chunk>,
    /// Where the one that is here holds chunks.
    held: HashMap<Name, u64>,
    here: Option<&'a File>,
    fetch: Fetch<'a>,
    next: usize,
    piece: Cursor<Vec<u8>>,
    moved: Moved,
}

impl<'a> Assembly<'a> {
    /// The file of these chunks; `here` may hold some of them.
    pub fn new(chunks: &Chunks, here: Option<&'a File>, fetch: Fetch<'a>) -> Self {
        let mut wanted: HashSet<Name> = chunks.iter().map(|chunk| chunk.name).collect();
        let mut held = HashMap::new();
        if let Some(file) = here {
            // What cannot be read of it is fetched.
            let _ = each(file, |chunk, _| {
                if wanted.remove(&chunk.name) {
                    held.insert(chunk.name, chunk.offset);
                }
            });
        }
        Assembly {
            chunks: chunks.iter().copied().collect(),
            held,
            here,
            fetch,
            next: 0,
            piece: Cursor::default(),
            moved: Moved {
                total_bytes: chunks.size_bytes(),
                ..Moved::default()
            },
        }
    }

    /// How the bytes came that were read so far.
    pub fn moved(&self) -> Moved {
        self.moved
    }

    /// The next piece, at most a run of chunks long; nothing at the end.
    fn advance(&mut self) -> Result<Vec<u8>> {
        let Some(first) = self.chunks.get(self.next).copied() else {
            return Ok(Vec::new());
        };
        if let (Some(offset), Some(file)) = (self.held.get(&first.name), self.here) {
            let mut bytes = vec![0; first.length];
            let read = file.read_exact_at(&mut bytes, *offset);
            // It is the boot entry of the running version: if its disk fails, it is not read past.
            read.context("read the running version's unified kernel image")?;
            check(&first, &bytes)?;
            self.moved.copied_bytes += first.length as u64;
            self.next += 1;
            return Ok(bytes);
        }
        let rest = self.chunks.get(self.next..).unwrap_or_default();
        let mut length = 0;
        let run: Vec<Chunk> = rest
            .iter()
            .take_while(|chunk| {
                let takes = length < RUN_BYTES && !self.held.contains_key(&chunk.name);
                length += chunk.length as u64;
                takes
            })
            .copied()
            .collect();
        let end = run
            .last()
            .map_or(first.offset, |last| last.offset + last.length as u64);
        let bytes = (self.fetch)(first.offset..end)?.into_inner();
        ensure!(
            bytes.len() as u64 == end - first.offset,
            "the release's source ends too early"
        );
        let mut left = bytes.as_slice();
        for chunk in &run {
            let (content, rest) = left.split_at_checked(chunk.length).unwrap_or_default();
            check(chunk, content)?;
            left = rest;
        }
        self.moved.fetched_bytes += end - first.offset;
        self.next += run.len();
        Ok(bytes)
    }
}

fn check(chunk: &Chunk, content: &[u8]) -> Result<()> {
    ensure!(
        name(content) == chunk.name,
        "the bytes from {} on are not those of the signed release",
        chunk.offset
    );
    Ok(())
}

impl Read for Assembly<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.piece.read(buffer)?;
        if read > 0 || buffer.is_empty() {
            return Ok(read);
        }
        let piece = self.advance();
        self.piece = Cursor::new(piece.map_err(|error| io::Error::other(format!("{error:#}")))?);
        self.piece.read(buffer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::release::chunks::tests::noise;
    use proptest::prelude::*;
    use std::io::Write as _;

    fn file(content: &[u8]) -> File {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(content).unwrap();
        std::io::Seek::rewind(&mut file).unwrap();
        file
    }

    /// What is put together of `new` with `here`, from a source that has `offered`.
    fn assemble(new: &[u8], here: Option<&File>, offered: &[u8]) -> io::Result<(Vec<u8>, Moved)> {
        let chunks = Chunks::of(new).unwrap();
        let mut fetch = |range: Range<u64>| {
            let bytes = &offered[range.start as usize..range.end as usize];
            Ok(Cursor::new(bytes.to_vec()))
        };
        let mut assembly = Assembly::new(&chunks, here, &mut fetch);
        let mut bytes = Vec::new();
        assembly.read_to_end(&mut bytes)?;
        Ok((bytes, assembly.moved()))
    }

    #[test]
    fn what_the_running_version_has_is_not_fetched() {
        let old = noise(4 << 20, 3);
        let mut new = old.clone();
        new.splice(2_000_000..2_000_100, noise(50_000, 4));
        let (bytes, moved) = assemble(&new, Some(&file(&old)), &new).unwrap();
        assert!(bytes == new);
        assert!(moved.fetched_bytes < 700_000, "{moved:?}");
        assert_eq!(moved.copied_bytes + moved.fetched_bytes, moved.total_bytes);
    }

    #[test]
    fn bytes_that_are_not_the_signed_ones_are_not_handed_on() {
        let (new, other) = (noise(1 << 20, 5), noise(1 << 20, 6));
        let error = assemble(&new, None, &other).unwrap_err();
        assert!(
            error.to_string().contains("not those of the signed"),
            "{error}"
        );
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn whatever_is_here_the_file_is_whole(seed in 1..u64::MAX, before in 0..2_000_000usize, cut in 0..2_000_000usize) {
            let old = noise(before, 11);
            let mut new = noise(300_000, seed);
            new.extend(&old[cut.min(old.len())..]);
            let (bytes, moved) = assemble(&new, Some(&file(&old)), &new).unwrap();
            prop_assert!(bytes == new);
            prop_assert_eq!(moved.copied_bytes + moved.fetched_bytes, new.len() as u64);
        }
    }
}
