//! UDF, read-only: the volumes that Azure hands to machines, of revision 1.02 and those that differ from it in nothing that is
//! read here (ECMA-167, 3rd edition; OSTA UDF 1.02). A volume on one partition; files in pieces, but not in too many.

use std::io;

use super::bytes::{u8_at, u16_at, u32_at};
use super::{ReadAt, Volume, check_size, invalid};

const SECTOR_BYTES: u64 = 2048;
/// The volume recognition sequence begins here (2/8.3).
const FIRST_RECOGNITION: u64 = 16;
const MAX_RECOGNITIONS: u64 = 16;
/// Where the anchor is (3/8.4.2.1).
const ANCHOR: u64 = 256;
const MAX_DESCRIPTORS: u64 = 64;
const MAX_DIRECTORY_BYTES: u64 = 1024 * 1024;
const MAX_PIECES: usize = 1024;

/// Kinds of descriptors (3/7.2.1, 4/7.2.1).
const ANCHOR_POINTER: u16 = 2;
const PARTITION: u16 = 5;
const LOGICAL_VOLUME: u16 = 6;
const TERMINATOR: u16 = 8;
const FILE_SET: u16 = 256;
const FILE_IDENTIFIER: u16 = 257;
const FILE_ENTRY: u16 = 261;
const EXTENDED_FILE_ENTRY: u16 = 266;

/// Characteristics of a directory's entry (4/14.4.3).
const DELETED: u8 = 4;
const PARENT: u8 = 8;

/// An opened volume.
pub(super) struct Udf<'a, D> {
    device: &'a D,
    /// Where the partition begins, in bytes.
    start: u64,
    /// Size of a logical block, in bytes.
    block: u64,
    /// The root directory's entry, in blocks of the partition.
    root: u32,
}

/// Opens the volume on `device`, if it is UDF.
pub(super) fn open<D: ReadAt>(device: &D) -> io::Result<Option<Udf<'_, D>>> {
    if !is_udf(device)? {
        return Ok(None);
    }
    let anchor = descriptor(device, ANCHOR * SECTOR_BYTES)?;
    if u16_at(&anchor, 0) != ANCHOR_POINTER {
        return Err(invalid("UDF: there is no anchor"));
    }
    let first = u64::from(u32_at(&anchor, 20));
    let count = (u64::from(u32_at(&anchor, 16)) / SECTOR_BYTES).min(MAX_DESCRIPTORS);
    let mut partitions = Vec::new();
    let mut volume = None;
    for sector in first..first + count {
        let found = descriptor(device, sector * SECTOR_BYTES)?;
        match u16_at(&found, 0) {
            PARTITION => partitions.push((u16_at(&found, 22), u32_at(&found, 188))),
            LOGICAL_VOLUME => volume = Some(found),
            TERMINATOR => break,
            _ => {}
        }
    }
    let volume = volume.ok_or_else(|| invalid("UDF: there is no logical volume"))?;
    let block = u64::from(u32_at(&volume, 212));
    if !matches!(block, 512 | 1024 | 2048 | 4096) {
        return Err(invalid("UDF: blocks have a size that no volume has"));
    }
    // The file set's place is a long_ad; its partition is the map's (4/14.14.2, 3/10.7.2).
    let (set, reference) = (u32_at(&volume, 252), u16_at(&volume, 256));
    if reference != 0 || u8_at(&volume, 440) != 1 {
        return Err(invalid("UDF: the volume is not on one plain partition"));
    }
    let number = u16_at(&volume, 444);
    let partition = partitions.iter().find(|(known, _)| *known == number);
    let (_, start) = partition.ok_or_else(|| invalid("UDF: its partition is not there"))?;
    let start = u64::from(*start) * SECTOR_BYTES;
    let set = descriptor(device, start + u64::from(set) * block)?;
    if u16_at(&set, 0) != FILE_SET {
        return Err(invalid("UDF: there is no file set"));
    }
    Ok(Some(Udf {
        device,
        start,
        block,
        root: u32_at(&set, 404),
    }))
}

/// Whether one of the recognition sequence's structures is UDF's (2/9.1, UDF 1.02 2.1).
fn is_udf<D: ReadAt>(device: &D) -> io::Result<bool> {
    for number in 0..MAX_RECOGNITIONS {
        let offset = (FIRST_RECOGNITION + number) * SECTOR_BYTES;
        let found = match device.bytes_at(offset, 8) {
            // The device ends before: it is something else.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(false),
            other => other?,
        };
        match found.get(1..6) {
            Some(b"NSR02" | b"NSR03") => return Ok(true),
            Some(b"BEA01" | b"CD001" | b"BOOT2" | b"CDW02") => {}
            _ => return Ok(false),
        }
    }
    Ok(false)
}

fn descriptor<D: ReadAt>(device: &D, offset: u64) -> io::Result<Vec<u8>> {
    device.bytes_at(offset, 512)
}

impl<D: ReadAt> Udf<'_, D> {
    /// The content of the file or directory whose entry is at a block; at most `limit` bytes.
    fn content(&self, entry: u32, limit: u64) -> io::Result<Vec<u8>> {
        let length = usize::try_from(self.block).unwrap_or(2048);
        let place = self.start + u64::from(entry) * self.block;
        let entry = self.device.bytes_at(place, length)?;
        let header = match u16_at(&entry, 0) {
            FILE_ENTRY => 168,
            EXTENDED_FILE_ENTRY => 208,
            _ => {
                return Err(invalid(
                    "UDF: there is no entry of a file where one should be",
                ));
            }
        };
        let size = u64::from(u32_at(&entry, 56)) | u64::from(u32_at(&entry, 60)) << 32;
        if size > limit {
            return Err(invalid(&format!(
                "UDF: a file is larger than {limit} bytes"
            )));
        }
        let attributes = u32_at(&entry, header) as usize;
        let pieces_bytes = u32_at(&entry, header + 4) as usize;
        let from = (header + 8).saturating_add(attributes);
        let pieces = entry.get(from..from.saturating_add(pieces_bytes));
        let pieces = pieces.ok_or_else(|| invalid("UDF: an entry is larger than its block"))?;
        let size = usize::try_from(size).map_err(io::Error::other)?;
        // How they are written stands in the flags (4/14.6.8).
        let step = match u16_at(&entry, 34) & 7 {
            0 => 8,
            1 => 16,
            3 => {
                let inside = pieces.get(..size);
                let inside =
                    inside.ok_or_else(|| invalid("UDF: a file is larger than its entry"))?;
                return Ok(inside.to_vec());
            }
            _ => {
                return Err(invalid(
                    "UDF: a file is written in a way that no volume of its kind has",
                ));
            }
        };
        let mut content = Vec::new();
        for piece in pieces.chunks_exact(step).take(MAX_PIECES) {
            let (length, block) = (u32_at(piece, 0), u32_at(piece, 4));
            let (kind, length) = (length >> 30, (length & 0x3fff_ffff) as usize);
            if length == 0 || content.len() >= size {
                break;
            }
            let length = length.min(size - content.len());
            match kind {
                0 => {
                    let place = self.start + u64::from(block) * self.block;
                    content.extend(self.device.bytes_at(place, length)?);
                }
                // Nothing is written there: it reads as zeros.
                1 | 2 => content.resize(content.len() + length, 0),
                _ => return Err(invalid("UDF: a file is in too many pieces")),
            }
        }
        if content.len() < size {
            return Err(invalid("UDF: a file's end is missing"));
        }
        Ok(content)
    }

    /// Finds a name in a directory; gives the block of its entry.
    fn find(&self, directory: u32, name: &str) -> io::Result<Option<u32>> {
        let content = self.content(directory, MAX_DIRECTORY_BYTES)?;
        let mut rest = content.as_slice();
        while u16_at(rest, 0) == FILE_IDENTIFIER {
            let identifier = usize::from(u8_at(rest, 19));
            let skipped = 38 + usize::from(u16_at(rest, 36));
            let found = rest.get(skipped..skipped + identifier).unwrap_or_default();
            if u8_at(rest, 18) & (DELETED | PARENT) == 0 && text(found).eq_ignore_ascii_case(name) {
                return Ok(Some(u32_at(rest, 24)));
            }
            let length = (skipped + identifier).next_multiple_of(4);
            rest = rest.get(length..).unwrap_or_default();
        }
        Ok(None)
    }
}

/// A name: its first byte says how many bits a letter has (UDF 1.02 2.1.1).
fn text(identifier: &[u8]) -> String {
    match identifier.split_first() {
        Some((8, letters)) => letters.iter().map(|letter| char::from(*letter)).collect(),
        Some((16, letters)) => {
            let units = letters.chunks_exact(2);
            let units: Vec<u16> = units
                .map(|pair| u16::from_be_bytes([u8_at(pair, 0), u8_at(pair, 1)]))
                .collect();
            String::from_utf16_lossy(&units)
        }
        _ => String::new(),
    }
}

impl<D: ReadAt> Volume for Udf<'_, D> {
    fn file(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let mut found = Some(self.root);
        for part in path.split('/') {
            let Some(directory) = found else {
                return Ok(None);
            };
            found = self.find(directory, part)?;
        }
        let Some(entry) = found else {
            return Ok(None);
        };
        let content = self.content(entry, keelson_config::MAX_DOCUMENT_BYTES as u64)?;
        check_size(path, content.len() as u64)?;
        Ok(Some(content))
    }
}
