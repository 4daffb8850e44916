//! GUID partition tables (UEFI specification 2.10, section 5.3): reading one, and the writes that let its last
//! partition grow to the end of a disk that has become larger. Pure but for [`Table::read`]; sectors are of 512
//! bytes.

use anyhow::{Context as _, Result, anyhow, ensure};
use crc::{CRC_32_ISO_HDLC, Crc};
use std::os::unix::fs::FileExt;

/// Bytes in a sector.
pub(crate) const SECTOR_BYTES: u64 = 512;
const HEADER_BYTES: usize = 92;
const ENTRY_BYTES: usize = 128;
const ENTRIES: usize = 128;
/// Sectors that the entries take.
const ENTRY_SECTORS: u64 = 32;
/// Partitions end where the next MiB begins.
const ALIGNMENT_SECTORS: u64 = 2048;

static CRC32: Crc<u32> = Crc::<u32>::new(&CRC_32_ISO_HDLC);

/// A partition's entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Counts from 1, as in the kernel's device names.
    pub(crate) number: u32,
    /// The type, in the usual notation, in lower case.
    pub(crate) kind: String,
    /// The unique identifier, likewise.
    pub(crate) uuid: String,
    /// The name.
    pub(crate) label: String,
    /// Its first sector.
    pub(crate) first_lba: u64,
    /// Its last sector.
    pub(crate) last_lba: u64,
}

/// A valid partition table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Table {
    header: [u8; HEADER_BYTES],
    entries: Vec<u8>,
    /// The primary table was damaged, this is the backup.
    pub(crate) is_backup: bool,
}

/// Bytes to be written to the disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// Where, in bytes from the disk's start.
    pub(crate) offset: u64,
    /// What.
    pub(crate) bytes: Vec<u8>,
}

/// What makes a partition larger. After each step the disk must be flushed: whenever the power fails, one of the
/// two tables is whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Growth {
    /// The backup table at the new end of the disk.
    pub(crate) backup: Write,
    /// The primary table.
    pub(crate) primary: Write,
    /// The partition's first sector.
    pub(crate) first_lba: u64,
    /// The partition's new last sector.
    pub(crate) last_lba: u64,
}

impl Table {
    /// Reads the primary table, or the backup at the end of the disk when the primary one is damaged.
    pub(crate) fn read(disk: &impl FileExt, size_bytes: u64) -> Result<Self> {
        let primary = Self::read_at(disk, 1, false);
        let last_lba = (size_bytes / SECTOR_BYTES).saturating_sub(1);
        primary.or_else(|error| {
            Self::read_at(disk, last_lba, true)
                .map_err(|_| error.context("no partition table, neither primary nor backup"))
        })
    }

    fn read_at(disk: &impl FileExt, lba: u64, is_backup: bool) -> Result<Self> {
        let mut header = [0; HEADER_BYTES];
        disk.read_exact_at(&mut header, lba.saturating_mul(SECTOR_BYTES))
            .context("read the header")?;
        ensure!(
            header.starts_with(b"EFI PART\0\0\x01\0"),
            "no GPT header in sector {lba}"
        );
        let mut plain = header;
        put(&mut plain, 16, &[0; 4]);
        ensure!(
            u32_at(&header, 12) == Some(92),
            "a GPT header of unusual size in sector {lba}"
        );
        ensure!(
            u32_at(&header, 16) == Some(CRC32.checksum(&plain)),
            "a damaged GPT header in sector {lba}"
        );
        ensure!(
            u64_at(&header, 24) == Some(lba),
            "a GPT header in the wrong place, sector {lba}"
        );
        let usual = u32_at(&header, 80) == u32::try_from(ENTRIES).ok()
            && u32_at(&header, 84) == u32::try_from(ENTRY_BYTES).ok();
        ensure!(usual, "a GPT with an unusual number of entries");
        let mut entries = vec![0; ENTRIES.saturating_mul(ENTRY_BYTES)];
        let start = u64_at(&header, 72).and_then(|lba| lba.checked_mul(SECTOR_BYTES));
        disk.read_exact_at(&mut entries, start.context("a GPT with absurd entries")?)
            .context("read the entries")?;
        ensure!(
            u32_at(&header, 88) == Some(CRC32.checksum(&entries)),
            "damaged GPT entries"
        );
        Ok(Self {
            header,
            entries,
            is_backup,
        })
    }

    /// The partitions, in the order of their numbers.
    pub(crate) fn partitions(&self) -> impl Iterator<Item = Entry> {
        (1..)
            .zip(self.entries.chunks_exact(ENTRY_BYTES))
            .filter_map(|(number, bytes)| {
                if bytes.iter().take(16).all(|byte| *byte == 0) {
                    return None;
                }
                let units = bytes
                    .get(56..)?
                    .chunks_exact(2)
                    .filter_map(|unit| unit.first_chunk().copied().map(u16::from_le_bytes));
                let label = char::decode_utf16(units.take_while(|unit| *unit != 0))
                    .map(|unit| unit.unwrap_or('\u{fffd}'));
                Some(Entry {
                    number,
                    kind: uuid(bytes.first_chunk()?),
                    uuid: uuid(bytes.get(16..)?.first_chunk()?),
                    label: label.collect(),
                    first_lba: u64_at(bytes, 32)?,
                    last_lba: u64_at(bytes, 40)?,
                })
            })
    }

    /// Plans to let partition `number` reach to the end of a disk of this size. `None` when there is nothing to
    /// gain: less than one MiB, or another partition lies behind it.
    pub(crate) fn plan_growth(&self, disk_bytes: u64, number: u32) -> Result<Option<Growth>> {
        let disk_last = (disk_bytes / SECTOR_BYTES)
            .checked_sub(1)
            .context("a disk without sectors")?;
        let backup_entries = disk_last
            .checked_sub(ENTRY_SECTORS)
            .context("a disk too small for a GPT")?;
        let partition = self.partitions().find(|entry| entry.number == number);
        let partition = partition.ok_or_else(|| anyhow!("there is no partition {number}"))?;
        let last_of_all = self.partitions().map(|entry| entry.last_lba).max();
        let end = backup_entries
            .checked_div(ALIGNMENT_SECTORS)
            .and_then(|units| units.checked_mul(ALIGNMENT_SECTORS));
        let last_lba = end
            .and_then(|end| end.checked_sub(1))
            .context("a disk too small to grow on")?;
        if last_of_all != Some(partition.last_lba) || last_lba <= partition.last_lba {
            return Ok(None);
        }
        let mut grown = self.clone();
        let at = Self::field(number, 40).context("an absurd partition number")?;
        put(&mut grown.entries, at, &last_lba.to_le_bytes());
        put(
            &mut grown.header,
            48,
            &backup_entries.saturating_sub(1).to_le_bytes(),
        );
        Ok(Some(Growth {
            backup: grown.backup(disk_last, backup_entries),
            primary: grown.primary(disk_last),
            first_lba: partition.first_lba,
            last_lba,
        }))
    }

    /// The attributes of a partition (UEFI 2.10, table 5-8).
    pub(crate) fn attributes(&self, number: u32) -> Option<u64> {
        u64_at(&self.entries, Self::field(number, 48)?)
    }

    /// Plans to give a partition other attributes: the backup table, then the primary one. After each write the disk must be flushed:
    /// whenever the power fails, one of the two tables is whole.
    pub(crate) fn plan_attributes(
        &self,
        disk_bytes: u64,
        number: u32,
        attributes: u64,
    ) -> Result<[Write; 2]> {
        let disk_last = (disk_bytes / SECTOR_BYTES)
            .checked_sub(1)
            .context("a disk without sectors")?;
        let backup_entries = disk_last
            .checked_sub(ENTRY_SECTORS)
            .context("a disk too small for a GPT")?;
        let at = Self::field(number, 48).context("an absurd partition number")?;
        let mut changed = self.clone();
        put(&mut changed.entries, at, &attributes.to_le_bytes());
        Ok([
            changed.backup(disk_last, backup_entries),
            changed.primary(disk_last),
        ])
    }

    /// Where a field of a partition's entry is.
    fn field(number: u32, offset: usize) -> Option<usize> {
        let index = usize::try_from(number).ok()?.checked_sub(1)?;
        index.checked_mul(ENTRY_BYTES)?.checked_add(offset)
    }

    /// The write that restores a damaged primary table from this one.
    pub(crate) fn restore_primary(&self, disk_bytes: u64) -> Write {
        self.primary((disk_bytes / SECTOR_BYTES).saturating_sub(1))
    }

    /// The primary table: header in sector 1, entries from sector 2 on, in one write.
    fn primary(&self, disk_last: u64) -> Write {
        let mut bytes = self.header_for(1, disk_last, 2);
        bytes.extend_from_slice(&self.entries);
        Write {
            offset: SECTOR_BYTES,
            bytes,
        }
    }

    /// The backup table: entries, then the header in the disk's last sector, in one write.
    fn backup(&self, disk_last: u64, entries_lba: u64) -> Write {
        let mut bytes = self.entries.clone();
        bytes.extend_from_slice(&self.header_for(disk_last, 1, entries_lba));
        Write {
            offset: entries_lba.saturating_mul(SECTOR_BYTES),
            bytes,
        }
    }

    /// One sector with a header for that place.
    fn header_for(&self, lba: u64, other_lba: u64, entries_lba: u64) -> Vec<u8> {
        let mut header = self.header;
        put(&mut header, 16, &[0; 4]);
        put(&mut header, 24, &lba.to_le_bytes());
        put(&mut header, 32, &other_lba.to_le_bytes());
        put(&mut header, 72, &entries_lba.to_le_bytes());
        put(
            &mut header,
            88,
            &CRC32.checksum(&self.entries).to_le_bytes(),
        );
        let checksum = CRC32.checksum(&header);
        put(&mut header, 16, &checksum.to_le_bytes());
        let mut sector = header.to_vec();
        sector.resize(usize::try_from(SECTOR_BYTES).unwrap_or(HEADER_BYTES), 0);
        sector
    }
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes
        .get_mut(at..)
        .and_then(|rest| rest.get_mut(..field.len()))
    {
        place.copy_from_slice(field);
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u32::from_le_bytes(*field))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|field| u64::from_le_bytes(*field))
}

/// The usual notation of a GUID: its first three fields are little-endian on the disk (appendix A).
fn uuid(bytes: &[u8; 16]) -> String {
    let [a, b, c, d, e, f, g, h, rest @ ..] = bytes;
    let [i, j, k, l, m, n, o, p] = rest;
    let mut text = crate::files::hex(&[
        *d, *c, *b, *a, *f, *e, *h, *g, *i, *j, *k, *l, *m, *n, *o, *p,
    ]);
    for at in [20, 16, 12, 8] {
        text.insert(at, '-');
    }
    text
}

#[cfg(test)]
mod tests;
