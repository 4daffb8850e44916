//! What is under way, and what happened: files on the state partition, each replaced as a whole.

use std::path::Path;
use std::time::SystemTime;

use anyhow::{Context as _, Result};
use keelson_sys::durable::{Access, Tree};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::entry::compare_versions;
use crate::protocol::Happened;

const PENDING: &str = "pending.json";
const FETCHING: &str = "fetching.json";
const FLOOR: &str = "floor.json";
const HISTORY: &str = "history.json";
const LIMIT_BYTES: u64 = 4 * 1024 * 1024;
/// So many entries are kept.
const ENTRIES_MAX: usize = 200;

/// A version that was installed and has not shown yet that it is good.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pending {
    /// The version that ran before.
    pub from: String,
    /// The version on trial.
    pub to: String,
    /// Id of the boot that installed it.
    pub boot_id: String,
    /// When it was installed, in microseconds of Unix time.
    pub time_us: u64,
    /// Services that were down before, too: their being down says nothing against the new version.
    #[serde(default)]
    pub down: Vec<String>,
    /// Why it was found wanting, by its own boot.
    #[serde(default)]
    pub why: Option<String>,
    /// The last lines of that boot's log.
    #[serde(default)]
    pub log: Vec<String>,
    /// The machine restarts by itself to start it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,
}

/// Why a machine restarts by itself, in the window that the configuration names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Restart {
    /// Somebody has asked for it.
    Asked,
    /// The policy says so, as long as it does.
    Policy,
}

/// The highest version that was good on this machine.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Floor {
    version: String,
}

/// What was being written when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fetching {
    /// Digest of the release's manifest.
    pub release: String,
}

/// The files.
#[derive(Debug)]
pub struct Journal {
    tree: Tree,
}

impl Journal {
    /// The journal in `directory`, which is there.
    ///
    /// # Errors
    /// It cannot be opened.
    pub fn open(directory: &Path) -> Result<Self> {
        let tree =
            Tree::open(directory).with_context(|| format!("open {}", directory.display()))?;
        Ok(Journal { tree })
    }

    /// The version on trial.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn pending(&self) -> Result<Option<Pending>> {
        self.read(PENDING)
    }

    /// Notes the version on trial; `None`: there is none any more.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_pending(&self, pending: Option<&Pending>) -> Result<()> {
        self.write(PENDING, pending)
    }

    /// What was being written.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn fetching(&self) -> Result<Option<Fetching>> {
        self.read(FETCHING)
    }

    /// Notes what is being written.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn set_fetching(&self, fetching: Option<&Fetching>) -> Result<()> {
        self.write(FETCHING, fetching)
    }

    /// The highest version that was good on this machine.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn floor(&self) -> Result<Option<String>> {
        Ok(self.read::<Floor>(FLOOR)?.map(|floor| floor.version))
    }

    /// Notes that a version is good. It never becomes lower.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn raise_floor(&self, version: &str) -> Result<()> {
        let floor = self.floor()?;
        if floor.is_some_and(|floor| compare_versions(&floor, version).is_ge()) {
            return Ok(());
        }
        let version = version.to_owned();
        self.write(FLOOR, Some(&Floor { version }))
    }

    /// All that happened, the oldest first.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn history(&self) -> Result<Vec<Happened>> {
        Ok(self.read(HISTORY)?.unwrap_or_default())
    }

    /// Adds an entry.
    ///
    /// # Errors
    /// The file cannot be read or written.
    pub fn add(&self, happened: Happened) -> Result<()> {
        let mut history = self.history()?;
        // Told twice when the power failed between this and what follows it.
        let is_same = |last: &Happened| {
            (&last.what, &last.from, &last.to) == (&happened.what, &happened.from, &happened.to)
        };
        if history.last().is_some_and(is_same) {
            return Ok(());
        }
        history.push(happened);
        let surplus = history.len().saturating_sub(ENTRIES_MAX);
        history.drain(..surplus);
        self.write(HISTORY, Some(&history))
    }

    /// A file that is damaged is said to be so, and counts for nothing: the system goes on.
    fn read<T: DeserializeOwned>(&self, name: &str) -> Result<Option<T>> {
        let bytes = self
            .tree
            .read(Path::new(name), LIMIT_BYTES)
            .with_context(|| format!("read {name}"))?;
        let Some(bytes) = bytes else {
            return Ok(None);
        };
        match serde_json::from_slice(&bytes) {
            Ok(value) => Ok(Some(value)),
            Err(error) => {
                eprintln!("<4>{name} is damaged and counts for nothing: {error}");
                Ok(None)
            }
        }
    }

    fn write<T: Serialize>(&self, name: &str, value: Option<&T>) -> Result<()> {
        let path = Path::new(name);
        let written = match value {
            None => self.tree.remove(path),
            Some(value) => {
                let bytes = serde_json::to_vec_pretty(value).context("write JSON")?;
                self.tree.write(path, &bytes, Access::root(0o600))
            }
        };
        written.with_context(|| format!("write {name}"))
    }
}

/// The time, as RFC 3339 has it.
pub fn timestamp() -> String {
    humantime::format_rfc3339_seconds(SystemTime::now()).to_string()
}

/// The time in microseconds of Unix time.
pub fn now_us() -> u64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn happened(number: usize) -> Happened {
        Happened {
            time: timestamp(),
            what: "upgraded".into(),
            from: number.to_string(),
            to: (number + 1).to_string(),
            why: None,
            log: Vec::new(),
        }
    }

    #[test]
    fn what_is_pending_is_kept_until_it_is_not() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        assert_eq!(journal.pending().unwrap(), None);
        let pending = Pending {
            from: "1".into(),
            to: "2".into(),
            boot_id: "x".into(),
            time_us: now_us(),
            down: vec!["time".into()],
            why: None,
            log: Vec::new(),
            restart: Some(Restart::Asked),
        };
        journal.set_pending(Some(&pending)).unwrap();
        assert_eq!(journal.pending().unwrap(), Some(pending));
        journal.set_pending(None).unwrap();
        journal.set_pending(None).unwrap();
        assert_eq!(journal.pending().unwrap(), None);
    }

    #[test]
    fn the_floor_rises_and_never_falls() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        assert_eq!(journal.floor().unwrap(), None);
        for (version, floor) in [("1.2", "1.2"), ("1.10", "1.10"), ("1.9", "1.10")] {
            journal.raise_floor(version).unwrap();
            assert_eq!(journal.floor().unwrap().as_deref(), Some(floor));
        }
    }

    #[test]
    fn the_history_is_bounded_and_told_once() {
        let directory = tempfile::tempdir().unwrap();
        let journal = Journal::open(directory.path()).unwrap();
        for number in 0..ENTRIES_MAX + 5 {
            let entry = happened(number);
            journal.add(entry.clone()).unwrap();
            journal.add(entry).unwrap();
        }
        let history = journal.history().unwrap();
        assert_eq!(
            (history.len(), history[0].from.as_str()),
            (ENTRIES_MAX, "5")
        );
        std::fs::write(directory.path().join(HISTORY), "{").unwrap();
        journal.add(happened(1)).unwrap();
        assert_eq!(journal.history().unwrap().len(), 1);
    }
}
