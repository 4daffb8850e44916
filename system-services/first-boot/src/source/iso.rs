//! ISO 9660 with Rock Ridge or Joliet names, read-only (ECMA-119; IEEE P1282).

use std::io;

use super::bytes::{text_at, u8_at, u32_at};
use super::{ReadAt, Volume, check_size, invalid};

const SECTOR_BYTES: usize = 2048;
const FIRST_DESCRIPTOR: u64 = 16;
const MAX_DESCRIPTORS: u64 = 32;
const MAX_DIRECTORY_BYTES: u32 = 1024 * 1024;
const MAX_CONTINUATIONS: usize = 8;
const FLAG_DIRECTORY: u8 = 0x02;

/// An opened volume.
pub(super) struct Iso<'a, D> {
    device: &'a D,
    /// Root directories: the primary one, with Rock Ridge names where there are any; then the Joliet one.
    roots: Vec<(Names, Extent)>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Names {
    Primary,
    Joliet,
}

/// Where a file's bytes are.
#[derive(Clone, Copy)]
struct Extent {
    sector: u32,
    bytes: u32,
}

/// Opens the volume on `device` when it is ISO 9660 and bears one of `labels`; gives which.
pub(super) fn open<'a, 'l, D: ReadAt>(
    device: &'a D,
    labels: &[&'l str],
) -> io::Result<Option<(Iso<'a, D>, &'l str)>> {
    let mut roots = Vec::new();
    let mut label = None;
    for number in FIRST_DESCRIPTOR..FIRST_DESCRIPTOR + MAX_DESCRIPTORS {
        let descriptor = match device.bytes_at(number * SECTOR_BYTES as u64, SECTOR_BYTES) {
            // The device ends before: it is something else, or its descriptors have no end.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => break,
            other => other?,
        };
        if descriptor.get(1..6) != Some(b"CD001") {
            break;
        }
        let joliet = matches!(descriptor.get(88..91), Some(b"%/@" | b"%/C" | b"%/E"));
        let (names, volume) = match u8_at(&descriptor, 0) {
            1 => (Names::Primary, text_at(&descriptor, 40, 32)),
            2 if joliet => (
                Names::Joliet,
                utf16(descriptor.get(40..72).unwrap_or_default()),
            ),
            255 => break,
            _ => continue,
        };
        let volume = volume.trim_end_matches([' ', '\0']);
        let mut known = labels.iter();
        label = label.or(known
            .find(|label| volume.eq_ignore_ascii_case(label))
            .copied());
        roots.push((
            names,
            Extent {
                sector: u32_at(&descriptor, 158),
                bytes: u32_at(&descriptor, 166),
            },
        ));
    }
    Ok(label.map(|label| (Iso { device, roots }, label)))
}

fn utf16(bytes: &[u8]) -> String {
    let units: Vec<u16> = bytes
        .chunks_exact(2)
        .map(|pair| u16::from_be_bytes([u8_at(pair, 0), u8_at(pair, 1)]))
        .collect();
    String::from_utf16_lossy(&units)
}

impl<D: ReadAt> Iso<'_, D> {
    fn content(&self, extent: Extent) -> io::Result<Vec<u8>> {
        self.device.bytes_at(
            u64::from(extent.sector) * SECTOR_BYTES as u64,
            extent.bytes as usize,
        )
    }

    /// How many bytes of each system use field are not Rock Ridge's: the root directory's own record says so.
    fn skipped(&self, root: Extent) -> io::Result<usize> {
        let start = Extent {
            bytes: root.bytes.min(SECTOR_BYTES as u32),
            ..root
        };
        let sector = self.content(start)?;
        let record = sector.get(..usize::from(u8_at(&sector, 0)));
        Ok(record
            .and_then(|record| record.get(34..))
            .map_or(0, suspension))
    }

    /// Finds `name`, a directory or a file, in a directory.
    fn find(
        &self,
        names: Names,
        directory: Extent,
        skip: usize,
        (name, is_directory): (&str, bool),
    ) -> io::Result<Option<Extent>> {
        if directory.bytes > MAX_DIRECTORY_BYTES {
            return Err(invalid("a directory is larger than a directory can be"));
        }
        let directory = self.content(directory)?;
        for sector in directory.chunks(SECTOR_BYTES) {
            let mut rest = sector;
            // A record does not cross a sector's end; a length of zero fills the sector up.
            while let Some(record) = rest
                .get(..usize::from(u8_at(rest, 0)))
                .filter(|record| record.len() > 33)
            {
                rest = rest.get(record.len()..).unwrap_or_default();
                let identifier_bytes = usize::from(u8_at(record, 32));
                let identifier = record.get(33..33 + identifier_bytes).unwrap_or_default();
                let system_use = record
                    .get((33 + identifier_bytes).next_multiple_of(2)..)
                    .unwrap_or_default();
                if (u8_at(record, 25) & FLAG_DIRECTORY != 0) != is_directory {
                    continue;
                }
                let found = match names {
                    Names::Joliet => plain_name(&utf16(identifier)),
                    Names::Primary => self
                        .rock_ridge_name(system_use.get(skip..).unwrap_or_default())?
                        .unwrap_or_else(|| plain_name(&String::from_utf8_lossy(identifier))),
                };
                if found.eq_ignore_ascii_case(name) {
                    return Ok(Some(Extent {
                        sector: u32_at(record, 2),
                        bytes: u32_at(record, 10),
                    }));
                }
            }
        }
        Ok(None)
    }

    /// The name in a record's NM entries, following its continuation areas.
    fn rock_ridge_name(&self, system_use: &[u8]) -> io::Result<Option<String>> {
        let mut name: Option<Vec<u8>> = None;
        let mut area = system_use.to_vec();
        for _ in 0..MAX_CONTINUATIONS {
            let mut continuation = None;
            let mut rest = area.as_slice();
            while let Some(entry) = rest
                .get(..usize::from(u8_at(rest, 2)))
                .filter(|entry| entry.len() >= 4)
            {
                rest = rest.get(entry.len()..).unwrap_or_default();
                match entry {
                    [b'N', b'M', _, _, _, part @ ..] => {
                        name.get_or_insert_default().extend_from_slice(part)
                    }
                    [b'C', b'E', _, _, place @ ..] => {
                        continuation =
                            Some((u32_at(place, 0), u32_at(place, 8), u32_at(place, 16)));
                    }
                    [b'S', b'T', ..] => break,
                    _ => {}
                }
            }
            let Some((sector, offset, bytes)) = continuation else {
                break;
            };
            if bytes as usize > SECTOR_BYTES || offset as usize > SECTOR_BYTES {
                return Err(invalid("a continuation area is larger than a sector"));
            }
            area = self.device.bytes_at(
                u64::from(sector) * SECTOR_BYTES as u64 + u64::from(offset),
                bytes as usize,
            )?;
        }
        Ok(name.map(|name| String::from_utf8_lossy(&name).into_owned()))
    }
}

/// How many bytes of each system use field are not Rock Ridge's: the SP entry of the root's own record says so.
fn suspension(system_use: &[u8]) -> usize {
    match system_use {
        [b'S', b'P', 7, _, 0xbe, 0xef, skip, ..] => usize::from(*skip),
        _ => 0,
    }
}

/// An identifier without its version (`;1`) and without the dot of an empty extension.
fn plain_name(identifier: &str) -> String {
    let name = identifier
        .split_once(';')
        .map_or(identifier, |(name, _)| name);
    name.strip_suffix('.').unwrap_or(name).to_owned()
}

impl<D: ReadAt> Volume for Iso<'_, D> {
    fn file(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        for (names, root) in &self.roots {
            let skip = match names {
                Names::Primary => self.skipped(*root)?,
                Names::Joliet => 0,
            };
            let mut found = Some(*root);
            let mut parts = path.split('/').peekable();
            while let (Some(directory), Some(part)) = (found, parts.next()) {
                let wanted = (part, parts.peek().is_some());
                found = self.find(*names, directory, skip, wanted)?;
            }
            if let Some(extent) = found {
                check_size(path, u64::from(extent.bytes))?;
                return self.content(extent).map(Some);
            }
        }
        Ok(None)
    }
}
