//! A root image cut into chunks by its content, so that what two releases share is moved once: FastCDC (Xia et al., 2020) cuts,
//! SHA-256 names, and the list of both has casync's index format (`.caibx`), which other tools read.

use std::io::{self, Read};

use fastcdc::v2020::StreamCDC;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

/// No chunk but the last is smaller, in bytes.
pub const MIN_BYTES: usize = 16 * 1024;
/// Chunks have about this size, in bytes.
pub const AVERAGE_BYTES: usize = 64 * 1024;
/// No chunk is larger, in bytes.
pub const MAX_BYTES: usize = 256 * 1024;

/// `CA_FORMAT_INDEX`
const INDEX: u64 = 0x9682_4d9c_7b12_9ff9;
/// `CA_FORMAT_TABLE`
const TABLE: u64 = 0xe75b_9e11_2f17_417d;
/// `CA_FORMAT_TABLE_TAIL_MARKER`
const TAIL_MARKER: u64 = 0x4b4f_050e_5549_ecd1;
const INDEX_BYTES: u64 = 48;
const TABLE_HEADER_BYTES: usize = 16;
const ITEM_BYTES: usize = 40;
/// `CA_FORMAT_EXCLUDE_NODUMP`, which casync always sets; without `CA_FORMAT_SHA512_256` digests are SHA-256.
const FLAGS: u64 = 0x8000_0000_0000_0000;
/// The longest list that is read, in bytes: of an image of 16 GiB.
pub const LIST_MAX_BYTES: u64 = 16 * 1024 * 1024;

/// What a chunk is called by.
pub type Name = [u8; 32];

/// A piece of an image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it begins, in bytes.
    pub offset: u64,
    /// Its length in bytes.
    pub length: usize,
    /// SHA-256 of its content.
    pub name: Name,
}

/// Why a list cannot be used.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum Malformed {
    /// It is no index, or one of another kind.
    #[error("not a list of chunks in casync's index format with SHA-256")]
    Format,
    /// It ends too early or goes on after its end.
    #[error("the list of chunks is cut off or too long")]
    Length,
    /// A chunk of a size that there is not.
    #[error("chunk {0} has a size that no chunk has")]
    Chunk(usize),
}

/// The chunks of an image, in order and without gaps.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chunks(Vec<Chunk>);

impl Chunks {
    /// Cuts what `image` gives.
    ///
    /// # Errors
    /// What reading reports.
    pub fn of(image: impl Read) -> io::Result<Self> {
        let mut chunks = Vec::new();
        each(image, |chunk, _| chunks.push(chunk))?;
        Ok(Chunks(chunks))
    }

    /// The chunks.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Chunk> {
        self.0.iter()
    }

    /// Size of the image in bytes.
    pub fn size_bytes(&self) -> u64 {
        self.0
            .last()
            .map_or(0, |last| last.offset + last.length as u64)
    }

    /// The list as an index of casync's.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        let mut put = |numbers: &[u64]| {
            numbers
                .iter()
                .for_each(|number| bytes.extend(number.to_le_bytes()));
        };
        put(&[INDEX_BYTES, INDEX, FLAGS]);
        put(&[MIN_BYTES as u64, AVERAGE_BYTES as u64, MAX_BYTES as u64]);
        put(&[u64::MAX, TABLE]);
        for chunk in &self.0 {
            bytes.extend((chunk.offset + chunk.length as u64).to_le_bytes());
            bytes.extend(chunk.name);
        }
        let table = TABLE_HEADER_BYTES + (self.0.len() + 1) * ITEM_BYTES;
        for number in [0, 0, INDEX_BYTES, table as u64, TAIL_MARKER] {
            bytes.extend(number.to_le_bytes());
        }
        bytes
    }

    /// Reads an index.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let number = |at: usize| {
            let field = bytes.get(at..).and_then(|rest| rest.first_chunk());
            field.map(|field| u64::from_le_bytes(*field))
        };
        let head = [number(0), number(8), number(16), number(48), number(56)];
        let expected = [INDEX_BYTES, INDEX, FLAGS, u64::MAX, TABLE].map(Some);
        if head != expected {
            return Err(Malformed::Format);
        }
        let table = bytes
            .get(64..)
            .filter(|table| table.len() % ITEM_BYTES == 0)
            .ok_or(Malformed::Length)?;
        let count = (table.len() / ITEM_BYTES)
            .checked_sub(1)
            .ok_or(Malformed::Length)?;
        let tail = 64 + count * ITEM_BYTES;
        let size = (TABLE_HEADER_BYTES + (count + 1) * ITEM_BYTES) as u64;
        let ends = [0, 8, 16, 24, 32].map(|at| number(tail + at));
        if ends != [0, 0, INDEX_BYTES, size, TAIL_MARKER].map(Some) {
            return Err(Malformed::Length);
        }
        let mut chunks = Vec::with_capacity(count);
        let mut offset = 0;
        for (place, item) in table.chunks_exact(ITEM_BYTES).take(count).enumerate() {
            let malformed = Malformed::Chunk(place);
            let (Some(end), Some(name)) = (item.first_chunk(), item.last_chunk()) else {
                return Err(Malformed::Length);
            };
            let end = u64::from_le_bytes(*end);
            let length = end
                .checked_sub(offset)
                .and_then(|length| usize::try_from(length).ok());
            let length = length.filter(|length| (1..=MAX_BYTES).contains(length));
            let length = length.ok_or(malformed)?;
            chunks.push(Chunk {
                offset,
                length,
                name: *name,
            });
            offset = end;
        }
        Ok(Chunks(chunks))
    }
}

/// Cuts what `image` gives and hands over each chunk with its content; no more than one is in memory.
///
/// # Errors
/// What reading reports.
pub fn each(image: impl Read, mut found: impl FnMut(Chunk, &[u8])) -> io::Result<()> {
    for data in StreamCDC::new(image, MIN_BYTES, AVERAGE_BYTES, MAX_BYTES) {
        let data = data.map_err(io::Error::from)?;
        let chunk = Chunk {
            offset: data.offset,
            length: data.length,
            name: name(&data.data),
        };
        found(chunk, &data.data);
    }
    Ok(())
}

/// What content is called by.
pub fn name(content: &[u8]) -> Name {
    Sha256::digest(content).into()
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Reproducible noise (xorshift64).
    pub(crate) fn noise(length: usize, mut seed: u64) -> Vec<u8> {
        let next = || {
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed as u8
        };
        std::iter::repeat_with(next).take(length).collect()
    }

    #[test]
    fn what_was_moved_is_found_again() {
        let old = noise(4 << 20, 7);
        let mut new = old.clone();
        new.splice(1_000_000..1_000_000, noise(4096, 9));
        let known: Vec<Name> = Chunks::of(&old[..])
            .unwrap()
            .iter()
            .map(|c| c.name)
            .collect();
        let chunks = Chunks::of(&new[..]).unwrap();
        let missing: usize = chunks
            .iter()
            .filter(|chunk| !known.contains(&chunk.name))
            .map(|chunk| chunk.length)
            .sum();
        assert!(missing <= 2 * MAX_BYTES, "{missing} bytes are new");
        assert_eq!(chunks.size_bytes(), new.len() as u64);
    }

    #[test]
    fn an_empty_image_has_no_chunks() {
        let chunks = Chunks::of(&b""[..]).unwrap();
        assert_eq!(chunks.iter().len(), 0);
        assert_eq!(Chunks::decode(&chunks.encode()), Ok(chunks));
    }

    #[test]
    fn lists_of_other_formats_are_refused() {
        let good = Chunks::of(&noise(300_000, 1)[..]).unwrap().encode();
        assert_eq!(Chunks::decode(b""), Err(Malformed::Format));
        assert_eq!(
            Chunks::decode(&good[..good.len() - 40]),
            Err(Malformed::Length)
        );
        let mut sha512 = good.clone();
        sha512[23] |= 0x20;
        assert_eq!(Chunks::decode(&sha512), Err(Malformed::Format));
        let mut huge = good.clone();
        huge[64 + 6] = 1;
        assert_eq!(Chunks::decode(&huge), Err(Malformed::Chunk(0)));
        let mut longer = good;
        longer.extend([0; 40]);
        assert_eq!(Chunks::decode(&longer), Err(Malformed::Length));
    }

    proptest! {
        #[test]
        fn a_list_is_read_as_it_was_written(length in 0..2_000_000usize, seed in 1..u64::MAX) {
            let chunks = Chunks::of(&noise(length, seed)[..]).unwrap();
            prop_assert_eq!(chunks.size_bytes(), length as u64);
            prop_assert_eq!(Chunks::decode(&chunks.encode()), Ok(chunks));
        }

        #[test]
        fn no_list_panics(bytes: Vec<u8>, at in 0..200usize, flip: u8) {
            let _ = Chunks::decode(&bytes);
            let mut list = Chunks::of(&noise(200_000, 3)[..]).unwrap().encode();
            let at = at % list.len();
            list[at] ^= flip;
            let _ = Chunks::decode(&list);
        }
    }
}
