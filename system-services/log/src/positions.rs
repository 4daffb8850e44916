//! How far each source has been read: what a restart needs so that nothing is lost and nothing stands twice.
//!
//! Each record carries its source's position. A checkpoint at the start of each segment repeats all of them, so the
//! newest segment alone tells the whole state.

use crate::record::{Record, Stream};
use std::collections::BTreeMap;

/// The source number of `/dev/kmsg`, whose positions are sequence numbers; pipes are numbered by their inode, which
/// is never so low.
pub const KERNEL: u64 = 1;
/// No source with a position: syslog datagrams, notes of our own.
pub const NONE: u64 = 0;

const BOOT_ID_BYTES: usize = 16;
const ENTRY_BYTES: usize = 16;
/// Sources that one checkpoint has room for.
pub const SOURCES_MAX: usize = 1024;

/// The kernel's identifier of this boot (`/proc/sys/kernel/random/boot_id`).
pub type BootId = [u8; BOOT_ID_BYTES];

/// Positions of one boot's sources.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Positions {
    boot_id: BootId,
    sources: BTreeMap<u64, u64>,
}

impl Positions {
    /// Nothing read yet in this boot.
    #[must_use]
    pub fn new(boot_id: BootId) -> Self {
        Self {
            boot_id,
            sources: BTreeMap::new(),
        }
    }

    /// The boot these belong to.
    #[must_use]
    pub fn boot_id(&self) -> BootId {
        self.boot_id
    }

    /// How far this source was read.
    #[must_use]
    pub fn get(&self, source: u64) -> Option<u64> {
        self.sources.get(&source).copied()
    }

    /// Notes a source's progress.
    pub fn advance(&mut self, source: u64, position: u64) {
        if source == NONE {
            return;
        }
        let known = self.sources.entry(source).or_insert(position);
        *known = position.max(*known);
    }

    /// Forgets a source that is gone.
    pub fn remove(&mut self, source: u64) {
        self.sources.remove(&source);
    }

    /// Takes up what a stored record says.
    pub fn replay(&mut self, record: &Record) {
        if record.stream != Stream::Checkpoint {
            return self.advance(record.source, record.position);
        }
        let Some(stored) = Self::from_bytes(&record.message) else {
            return;
        };
        if stored.boot_id == self.boot_id {
            self.merge(&stored);
        } else {
            *self = stored;
        }
    }

    /// The later position of each source, when both are of one boot; otherwise nothing changes.
    pub fn merge(&mut self, other: &Self) {
        if self.boot_id == other.boot_id {
            for (&source, &position) in &other.sources {
                self.advance(source, position);
            }
        }
    }

    /// A checkpoint's message.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.boot_id.to_vec();
        // Inode numbers rise: the sources that do not fit are the oldest.
        let surplus = self.sources.len().saturating_sub(SOURCES_MAX);
        for (source, position) in self.sources.iter().skip(surplus) {
            bytes.extend(source.to_le_bytes());
            bytes.extend(position.to_le_bytes());
        }
        bytes
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (boot_id, mut rest) = bytes.split_first_chunk::<BOOT_ID_BYTES>()?;
        let mut positions = Self::new(*boot_id);
        while let Some((entry, behind)) = rest.split_first_chunk::<ENTRY_BYTES>() {
            let entry = u128::from_le_bytes(*entry);
            positions.advance(entry as u64, (entry >> 64) as u64);
            rest = behind;
        }
        rest.is_empty().then_some(positions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn positions(boot: u8, sources: &[(u64, u64)]) -> Positions {
        let mut positions = Positions::new([boot; 16]);
        for (source, position) in sources {
            positions.advance(*source, *position);
        }
        positions
    }

    fn checkpoint(positions: &Positions) -> Record {
        Record {
            id: 1,
            time_us: 0,
            boot_us: 0,
            source: NONE,
            position: 0,
            stream: Stream::Checkpoint,
            priority: None,
            partial: false,
            service: String::new(),
            message: positions.to_bytes(),
        }
    }

    proptest! {
        #[test]
        fn a_checkpoint_is_read_back(boot: u8, sources: Vec<(u64, u64)>) {
            let stored = positions(boot, &sources);
            prop_assert_eq!(Positions::from_bytes(&stored.to_bytes()), Some(stored));
        }

        #[test]
        fn any_bytes_are_read_without_a_panic(bytes: Vec<u8>) {
            let _ = Positions::from_bytes(&bytes);
        }
    }

    #[test]
    fn another_boots_checkpoint_replaces_what_was_known() {
        let mut known = positions(1, &[(KERNEL, 500), (77, 3)]);
        known.replay(&checkpoint(&positions(2, &[(KERNEL, 10)])));
        assert_eq!(known, positions(2, &[(KERNEL, 10)]));
    }

    #[test]
    fn a_checkpoint_of_the_same_boot_takes_nothing_back() {
        let mut known = positions(1, &[(KERNEL, 500)]);
        known.replay(&checkpoint(&positions(1, &[(KERNEL, 10), (77, 3)])));
        assert_eq!(known, positions(1, &[(KERNEL, 500), (77, 3)]));
    }
}
