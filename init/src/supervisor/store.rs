//! What outlives the engine: descriptors that it has stored, and exits that it has not yet acknowledged.

use keelson_sys::control::{Ending, ToEngine};
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

/// At most this many descriptors, well below the limit of PID 1.
const DESCRIPTORS_MAX: usize = 16_384;
/// At most this many exits are kept.
const EXITS_MAX: usize = 4096;
const NAME_MAX_BYTES: usize = 255;

/// Descriptors by name.
#[derive(Debug)]
pub(super) struct Descriptors {
    held: BTreeMap<String, OwnedFd>,
    max: usize,
}

impl Default for Descriptors {
    fn default() -> Self {
        Self {
            held: BTreeMap::new(),
            max: DESCRIPTORS_MAX,
        }
    }
}

impl Descriptors {
    /// Keeps a descriptor; replaces one of the same name.
    ///
    /// # Errors
    /// A sentence, when the store is full or the name too long.
    pub(super) fn store(&mut self, name: String, fd: OwnedFd) -> Result<(), String> {
        if name.len() > NAME_MAX_BYTES {
            return Err(format!("the name has more than {NAME_MAX_BYTES} bytes"));
        }
        if self.held.len() >= self.max && !self.held.contains_key(&name) {
            return Err(format!("{} are stored already", self.max));
        }
        self.held.insert(name, fd);
        Ok(())
    }

    /// Forgets a descriptor.
    pub(super) fn remove(&mut self, name: &str) {
        self.held.remove(name);
    }

    /// A stored descriptor.
    pub(super) fn get(&self, name: &str) -> Option<BorrowedFd<'_>> {
        self.held.get(name).map(|fd| fd.as_fd())
    }

    /// The names, in order.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.held.keys().map(String::as_str)
    }
}

/// Exits of children, in order.
#[derive(Debug, Default)]
pub(super) struct Exits {
    last_seq: u64,
    pending: VecDeque<(u64, i32, Ending)>,
}

impl Exits {
    /// Records an exit and gives the message for the engine; the second value says whether an old record had to
    /// make room.
    pub(super) fn record(&mut self, pid: i32, ending: Ending) -> (ToEngine, bool) {
        let overflow = self.pending.len() >= EXITS_MAX;
        if overflow {
            self.pending.pop_front();
        }
        self.last_seq = self.last_seq.saturating_add(1);
        let seq = self.last_seq;
        self.pending.push_back((seq, pid, ending));
        (ToEngine::Exited { seq, pid, ending }, overflow)
    }

    /// Forgets all up to and including this one.
    pub(super) fn acknowledge(&mut self, seq: u64) {
        self.pending.retain(|(pending, _, _)| *pending > seq);
    }

    /// What a new engine must be told.
    pub(super) fn unacknowledged(&self) -> impl Iterator<Item = ToEngine> {
        self.pending
            .iter()
            .map(|(seq, pid, ending)| ToEngine::Exited {
                seq: *seq,
                pid: *pid,
                ending: *ending,
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fd() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn exits_are_kept_until_they_are_acknowledged() {
        let mut exits = Exits::default();
        for pid in 10..13 {
            assert!(!exits.record(pid, Ending::Code(0)).1);
        }
        exits.acknowledge(2);
        let left: Vec<ToEngine> = exits.unacknowledged().collect();
        assert_eq!(
            left,
            [ToEngine::Exited {
                seq: 3,
                pid: 12,
                ending: Ending::Code(0)
            }]
        );
        assert_eq!(
            exits.record(13, Ending::Signal(9)).0,
            ToEngine::Exited {
                seq: 4,
                pid: 13,
                ending: Ending::Signal(9)
            }
        );
    }

    #[test]
    fn exits_are_bounded_and_the_oldest_goes_first() {
        let mut exits = Exits::default();
        for pid in 0..4096 {
            assert!(!exits.record(pid, Ending::Code(0)).1);
        }
        assert!(exits.record(9999, Ending::Code(0)).1);
        assert_eq!(exits.unacknowledged().count(), EXITS_MAX);
        assert_eq!(
            exits.unacknowledged().next(),
            Some(ToEngine::Exited {
                seq: 2,
                pid: 1,
                ending: Ending::Code(0)
            })
        );
    }

    #[test]
    fn descriptors_are_bounded_and_replaced_by_name() {
        let mut descriptors = Descriptors {
            max: 100,
            ..Descriptors::default()
        };
        for number in 0..100 {
            descriptors.store(format!("{number}"), fd()).unwrap();
        }
        assert!(descriptors.store("one more".into(), fd()).is_err());
        descriptors.store("7".into(), fd()).unwrap();
        descriptors.remove("7");
        assert!(descriptors.get("7").is_none() && descriptors.get("8").is_some());
        descriptors.store("one more".into(), fd()).unwrap();
        assert!(descriptors.store("x".repeat(256), fd()).is_err());
    }
}
