//! What was overwritten because the configuration said so: it is done once.

use std::collections::BTreeSet;
use std::path::Path;

use anyhow::{Context, Result, bail};
use keelson_sys::durable::{Access, Tree};
use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use sha2::{Digest, Sha256};

const DIRECTORY: &str = "/state/storage";
const FILE: &str = "overwritten.json";
const MAX_BYTES: u64 = 1024 * 1024;

/// The record, on the state partition.
pub(crate) struct Done {
    tree: Tree,
    /// Nothing of it is kept over the next start.
    is_in_memory: bool,
    entries: BTreeSet<String>,
}

impl Done {
    /// Reads it.
    ///
    /// # Errors
    /// It cannot be read: nothing may be overwritten then.
    pub(crate) fn open() -> Result<Self> {
        Self::open_at(Path::new(DIRECTORY))
    }

    fn open_at(directory: &Path) -> Result<Self> {
        let reading = || format!("read {}/{FILE}", directory.display());
        let tree = Tree::open(directory).with_context(reading)?;
        let is_in_memory = is_in_memory(directory).with_context(reading)?;
        let entries = match tree
            .read(Path::new(FILE), MAX_BYTES)
            .with_context(reading)?
        {
            Some(bytes) => serde_json::from_slice(&bytes).with_context(reading)?,
            None => BTreeSet::new(),
        };
        Ok(Done {
            tree,
            is_in_memory,
            entries,
        })
    }

    /// Whether `what` was done, or begun.
    pub(crate) fn has(&self, what: &str) -> bool {
        self.entries.contains(&digest(what))
    }

    /// `what` is about to be done: it is never done again, which is durable when this returns.
    ///
    /// # Errors
    /// It cannot be written, or not be kept; then it must not be done.
    pub(crate) fn add(&mut self, what: &str) -> Result<()> {
        if self.is_in_memory {
            bail!(
                "the machine's state is in memory, so that it would be overwritten at each start; it is left as it is"
            );
        }
        self.entries.insert(digest(what));
        let json = serde_json::to_vec(&self.entries)?;
        self.tree
            .write(Path::new(FILE), &json, Access::root(0o600))
            .with_context(|| format!("write {DIRECTORY}/{FILE}"))
    }
}

/// Whether what is written to `directory` is gone at the next start.
///
/// # Errors
/// What statfs(2) reports.
pub(crate) fn is_in_memory(directory: &Path) -> Result<bool> {
    Ok(statfs(directory)?.filesystem_type() == TMPFS_MAGIC)
}

fn digest(what: &str) -> String {
    hex::encode(Sha256::digest(what))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_done_is_known_later() {
        let directory = tempfile::tempdir().unwrap();
        let mut done = Done::open_at(directory.path()).unwrap();
        done.is_in_memory = false;
        assert!(!done.has("a"));
        done.add("a").unwrap();
        let mut done = Done::open_at(directory.path()).unwrap();
        assert!(done.has("a") && !done.has("b"));
        done.is_in_memory = true;
        assert!(done.add("b").is_err());
        std::fs::write(directory.path().join(FILE), "nonsense").unwrap();
        assert!(Done::open_at(directory.path()).is_err());
    }
}
