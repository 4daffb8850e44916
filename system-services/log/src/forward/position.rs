//! How far the log was sent to a remote: kept over restarts, so that nothing is lost while nobody sends.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;

use keelson_sys::durable::{Access, Tree};
use serde::{Deserialize, Serialize};

const MAX_BYTES: u64 = 4096;

/// A record's place. After a power cut another record may have its number, but not its time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Place {
    /// Its number in the log.
    pub(super) id: u64,
    /// When it was written, in microseconds of Unix time.
    pub(super) time_us: u64,
}

/// The last record that has arrived, and those that are on their way.
#[derive(Debug)]
pub(super) struct Position {
    tree: Tree,
    file: PathBuf,
    arrived: Option<Place>,
    saved: Option<Place>,
    /// Records that were sent: their places, and all bytes that were sent with each. As much as the kernel holds, and no more.
    sent: VecDeque<(Place, u64)>,
    sent_bytes: u64,
}

impl Position {
    /// As it was saved. What cannot be read is as if nothing had ever been sent.
    pub(super) fn read(tree: Tree, name: &str) -> io::Result<Self> {
        let file = PathBuf::from(name);
        let json = tree.read(&file, MAX_BYTES)?;
        let arrived = json.and_then(|json| serde_json::from_slice(&json).ok());
        Ok(Self {
            tree,
            file,
            arrived,
            saved: arrived,
            sent: VecDeque::new(),
            sent_bytes: 0,
        })
    }

    /// The last record that has arrived; `None` when none ever has.
    pub(super) fn arrived(&self) -> Option<Place> {
        self.arrived
    }

    /// There is a new connection: what was on its way with another is not counted on.
    pub(super) fn begin(&mut self) {
        self.sent.clear();
        self.sent_bytes = 0;
    }

    /// A record need not be sent, or is on its way with so many bytes.
    pub(super) fn sent(&mut self, place: Place, bytes: usize) {
        self.sent_bytes += bytes as u64;
        match self.sent.back_mut() {
            // Of those that need not be sent there may be any number: they have arrived with the one before them.
            Some((last, _)) if bytes == 0 => *last = place,
            _ => self.sent.push_back((place, self.sent_bytes)),
        }
    }

    /// Whether something is on its way, or has arrived and is not saved.
    pub(super) fn is_due(&self) -> bool {
        self.arrived != self.saved || !self.sent.is_empty()
    }

    /// All has arrived but the last `pending_bytes`.
    pub(super) fn confirm(&mut self, pending_bytes: u64) {
        let arrived_bytes = self.sent_bytes.saturating_sub(pending_bytes);
        while let Some((place, _)) = self.sent.pop_front_if(|(_, end)| *end <= arrived_bytes) {
            self.arrived = Some(place);
        }
    }

    /// Saves it, if it is another one.
    pub(super) fn save(&mut self) -> io::Result<()> {
        if self.arrived == self.saved {
            return Ok(());
        }
        let json = serde_json::to_vec(&self.arrived)?;
        self.tree.write(&self.file, &json, Access::root(0o600))?;
        self.saved = self.arrived;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(id: u64) -> Place {
        Place {
            id,
            time_us: id * 10,
        }
    }

    #[test]
    fn what_is_on_its_way_has_not_arrived() {
        let directory = tempfile::tempdir().unwrap();
        let open = || {
            let tree = Tree::open(directory.path()).unwrap();
            Position::read(tree, "tcp:h:1").unwrap()
        };
        let mut position = open();
        assert_eq!(position.arrived(), None);
        position.sent(place(1), 100);
        position.sent(place(2), 50);
        position.sent(place(3), 0);
        position.confirm(60);
        assert_eq!(position.arrived(), None);
        position.confirm(50);
        assert_eq!(position.arrived(), Some(place(1)));
        assert!(position.is_due());
        position.save().unwrap();
        assert_eq!(open().arrived(), Some(place(1)));
        position.begin();
        position.sent(place(2), 50);
        position.sent(place(3), 0);
        position.confirm(0);
        assert_eq!(position.arrived(), Some(place(3)));
        position.save().unwrap();
        assert!(!position.is_due());
        std::fs::write(directory.path().join("tcp:h:1"), "nonsense").unwrap();
        assert_eq!(open().arrived(), None);
    }

    #[test]
    fn records_that_are_not_sent_take_no_room() {
        let directory = tempfile::tempdir().unwrap();
        let tree = Tree::open(directory.path()).unwrap();
        let mut position = Position::read(tree, "tcp:h:1").unwrap();
        position.sent(place(1), 10);
        (2..1000).for_each(|id| position.sent(place(id), 0));
        assert_eq!(position.sent.len(), 1);
        position.confirm(10);
        assert_eq!(position.arrived(), None);
        position.confirm(0);
        assert_eq!(position.arrived(), Some(place(999)));
    }
}
