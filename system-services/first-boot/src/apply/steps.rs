//! What is done once for an instance, and again where something else is asked for.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

/// What is done once for an instance, and what of it was done.
pub(super) struct Steps {
    is_new: bool,
    previous: BTreeMap<String, String>,
    done: BTreeMap<String, String>,
}

impl Steps {
    /// With what was done for the same instance before; `None` when it is a new one.
    pub(super) fn after(previous: Option<BTreeMap<String, String>>) -> Self {
        Steps {
            is_new: previous.is_none(),
            previous: previous.unwrap_or_default(),
            done: BTreeMap::new(),
        }
    }

    /// What is done of what was asked for.
    pub(super) fn into_done(self) -> BTreeMap<String, String> {
        self.done
    }

    /// Whether `what` is due: the instance is new, or something else was asked for then.
    pub(super) fn is_due(&self, what: &str, asked: &[u8]) -> bool {
        self.is_new
            || self
                .previous
                .get(what)
                .is_none_or(|done| *done != digest(asked))
    }

    /// It is done, now or earlier.
    pub(super) fn is_done(&mut self, what: &str, asked: &[u8]) {
        self.done.insert(what.to_owned(), digest(asked));
    }
}

/// SHA-256, in hexadecimal.
pub(super) fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}
