//! FAT12, FAT16 and FAT32, read-only (Microsoft FAT specification 1.03).

use std::io;

use super::bytes::{text_at, u8_at, u16_at, u32_at};
use super::{ReadAt, Volume, check_size, invalid};

const ENTRY_BYTES: usize = 32;
const MAX_DIRECTORY_BYTES: usize = 65536 * ENTRY_BYTES;
const ATTRIBUTE_LONG_NAME: u8 = 0x0f;
const ATTRIBUTE_VOLUME: u8 = 0x08;
const ATTRIBUTE_DIRECTORY: u8 = 0x10;

/// How many bits a table's entry has.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    Bits12,
    Bits16,
    Bits32,
}

/// An opened volume.
pub(super) struct Fat<'a, D> {
    device: &'a D,
    width: Width,
    table_offset: u64,
    table_bytes: u64,
    cluster_bytes: usize,
    data_offset: u64,
    clusters: u32,
    root: Vec<u8>,
}

/// Opens the volume on `device` when it is FAT and bears one of `labels`, in its root directory or its boot sector; gives
/// which.
pub(super) fn open<'a, 'l, D: ReadAt>(
    device: &'a D,
    labels: &[&'l str],
) -> io::Result<Option<(Fat<'a, D>, &'l str)>> {
    let known = |found: &str| {
        let mut labels = labels.iter();
        labels
            .find(|label| found.eq_ignore_ascii_case(label))
            .copied()
    };
    let boot = device.bytes_at(0, 512)?;
    let sector = usize::from(u16_at(&boot, 11));
    let sectors_per_cluster = usize::from(u8_at(&boot, 13));
    let (reserved, tables) = (u64::from(u16_at(&boot, 14)), u64::from(u8_at(&boot, 16)));
    let plausible = u16_at(&boot, 510) == 0xaa55
        && matches!(sector, 512 | 1024 | 2048 | 4096)
        && sectors_per_cluster.is_power_of_two()
        && reserved > 0
        && (1..=2).contains(&tables);
    if !plausible {
        return Ok(None);
    }
    let root_bytes = usize::from(u16_at(&boot, 17)) * ENTRY_BYTES;
    let total = either(u16_at(&boot, 19), u32_at(&boot, 32));
    let table_sectors = either(u16_at(&boot, 22), u32_at(&boot, 36));
    // As Linux does: a volume without a 16-bit table size is FAT32, however few clusters it has.
    let is_fat32 = u16_at(&boot, 22) == 0;
    let sector64 = sector as u64;
    let table_offset = reserved * sector64;
    let root_offset = table_offset + tables * u64::from(table_sectors) * sector64;
    let data_offset = root_offset + (root_bytes as u64).next_multiple_of(sector64);
    let cluster_bytes = sector * sectors_per_cluster;
    let data_bytes = (u64::from(total) * sector64).saturating_sub(data_offset);
    let clusters = u32::try_from(data_bytes / cluster_bytes as u64).unwrap_or(u32::MAX);
    let width = match clusters {
        _ if is_fat32 => Width::Bits32,
        0..=4084 => Width::Bits12,
        _ => Width::Bits16,
    };
    let table_bytes = u64::from(table_sectors) * sector64;
    let mut fat = Fat {
        device,
        width,
        table_offset,
        table_bytes,
        cluster_bytes,
        data_offset,
        clusters,
        root: Vec::new(),
    };
    let boot_label = text_at(&boot, if is_fat32 { 71 } else { 43 }, 11);
    let root = if is_fat32 {
        fat.chain(u32_at(&boot, 44), MAX_DIRECTORY_BYTES)
    } else {
        device.bytes_at(root_offset, root_bytes)
    };
    fat.root = match root {
        Ok(root) => root,
        Err(error) if known(&boot_label).is_some() => return Err(error),
        Err(_) => return Ok(None),
    };
    let label = fat.root_label().and_then(|found| known(&found));
    Ok(label.or(known(&boot_label)).map(|label| (fat, label)))
}

/// The newer, wider field where the older one is zero.
fn either(narrow: u16, wide: u32) -> u32 {
    if narrow == 0 { wide } else { u32::from(narrow) }
}

impl<D: ReadAt> Fat<'_, D> {
    /// The content of a chain of clusters, up to `limit` bytes (rounded up to a cluster).
    fn chain(&self, first: u32, limit: usize) -> io::Result<Vec<u8>> {
        let mut content = Vec::new();
        let mut cluster = first;
        while content.len() < limit {
            if cluster < 2 || cluster - 2 >= self.clusters {
                return Err(invalid("a chain of clusters leads out of the volume"));
            }
            let offset = self.data_offset + u64::from(cluster - 2) * self.cluster_bytes as u64;
            content.extend(self.device.bytes_at(offset, self.cluster_bytes)?);
            match self.next(cluster)? {
                Some(next) => cluster = next,
                None => break,
            }
        }
        Ok(content)
    }

    /// The cluster after `cluster`; `None` at the end of the chain.
    fn next(&self, cluster: u32) -> io::Result<Option<u32>> {
        let cluster64 = u64::from(cluster);
        let (offset, length) = match self.width {
            Width::Bits12 => (cluster64 + cluster64 / 2, 2),
            Width::Bits16 => (cluster64 * 2, 2),
            Width::Bits32 => (cluster64 * 4, 4),
        };
        if offset + length > self.table_bytes {
            return Err(invalid("a chain of clusters leads out of the table"));
        }
        let bytes = self
            .device
            .bytes_at(self.table_offset + offset, length as usize)?;
        let (next, end) = match self.width {
            Width::Bits12 if cluster.is_multiple_of(2) => {
                (u32::from(u16_at(&bytes, 0) & 0xfff), 0xff8)
            }
            Width::Bits12 => (u32::from(u16_at(&bytes, 0) >> 4), 0xff8),
            Width::Bits16 => (u32::from(u16_at(&bytes, 0)), 0xfff8),
            Width::Bits32 => (u32_at(&bytes, 0) & 0x0fff_ffff, 0x0fff_fff8),
        };
        Ok((next < end).then_some(next))
    }

    fn root_label(&self) -> Option<String> {
        let is_label = |entry: &&[u8]| {
            u8_at(entry, 11) != ATTRIBUTE_LONG_NAME && u8_at(entry, 11) & ATTRIBUTE_VOLUME != 0
        };
        entries(&self.root)
            .find(is_label)
            .map(|entry| text_at(entry, 0, 11))
    }
}

/// The entries of a directory that are in use.
fn entries(directory: &[u8]) -> impl Iterator<Item = &[u8]> {
    let used = |entry: &&[u8]| u8_at(entry, 0) != 0;
    directory
        .chunks_exact(ENTRY_BYTES)
        .take_while(used)
        .filter(|entry| u8_at(entry, 0) != 0xe5)
}

/// The entry of `name` in a directory, in any mix of capitals.
fn entry<'d>(directory: &'d [u8], name: &str) -> Option<&'d [u8]> {
    let mut long = LongName::default();
    for entry in entries(directory) {
        let attributes = u8_at(entry, 11);
        if attributes == ATTRIBUTE_LONG_NAME {
            long.add(entry);
            continue;
        }
        let long_name = std::mem::take(&mut long).finish(entry);
        if attributes & ATTRIBUTE_VOLUME != 0 {
            continue;
        }
        let matches = |found: &str| found.eq_ignore_ascii_case(name);
        if matches(&short_name(entry)) || long_name.is_some_and(|found| matches(&found)) {
            return Some(entry);
        }
    }
    None
}

impl<D: ReadAt> Fat<'_, D> {
    fn first_cluster(&self, entry: &[u8]) -> u32 {
        let high = match self.width {
            Width::Bits32 => u32::from(u16_at(entry, 20)) << 16,
            _ => 0,
        };
        high | u32::from(u16_at(entry, 26))
    }
}

impl<D: ReadAt> Volume for Fat<'_, D> {
    fn file(&self, path: &str) -> io::Result<Option<Vec<u8>>> {
        let mut directory = self.root.clone();
        let mut names = path.split('/').peekable();
        while let Some(name) = names.next() {
            let Some(entry) = entry(&directory, name) else {
                return Ok(None);
            };
            let is_directory = u8_at(entry, 11) & ATTRIBUTE_DIRECTORY != 0;
            if is_directory != names.peek().is_some() {
                return Ok(None);
            }
            let cluster = self.first_cluster(entry);
            if is_directory {
                directory = self.chain(cluster, MAX_DIRECTORY_BYTES)?;
                continue;
            }
            let size = check_size(path, u64::from(u32_at(entry, 28)))?;
            if size == 0 {
                return Ok(Some(Vec::new()));
            }
            let mut content = self.chain(cluster, size)?;
            if content.len() < size {
                return Err(invalid(&format!("{path} ends too early")));
            }
            content.truncate(size);
            return Ok(Some(content));
        }
        Ok(None)
    }
}

fn short_name(entry: &[u8]) -> String {
    let (name, extension) = (text_at(entry, 0, 8), text_at(entry, 8, 3));
    if extension.is_empty() {
        name
    } else {
        format!("{name}.{extension}")
    }
}

/// A long name, collected from the entries that stand before its short one, last part first.
#[derive(Default)]
struct LongName {
    units: Vec<u16>,
    checksum: u8,
}

impl LongName {
    fn add(&mut self, entry: &[u8]) {
        if u8_at(entry, 0) & 0x40 != 0 || u8_at(entry, 13) != self.checksum {
            self.units.clear();
            self.checksum = u8_at(entry, 13);
        }
        let fields = (1..11)
            .step_by(2)
            .chain((14..26).step_by(2))
            .chain((28..32).step_by(2));
        let mut part: Vec<u16> = fields.map(|offset| u16_at(entry, offset)).collect();
        part.append(&mut self.units);
        part.truncate(255 + 13);
        self.units = part;
    }

    /// The name, when it belongs to the short entry `entry`.
    fn finish(self, entry: &[u8]) -> Option<String> {
        let short = entry.get(..11)?;
        let sum = short
            .iter()
            .fold(0_u8, |sum, byte| sum.rotate_right(1).wrapping_add(*byte));
        let name = self.units.split(|unit| *unit == 0).next()?;
        (!name.is_empty() && sum == self.checksum).then(|| String::from_utf16_lossy(name))
    }
}
