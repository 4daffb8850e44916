//! What the engine knows of each service, in `/run` so that the next engine goes on from there: one JSON file a
//! service, replaced by rename.

use crate::lifecycle::{Lifecycle, Process};
use crate::network::Connection;
use crate::supervise::Trial;
use anyhow::Context;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::Path;

/// One service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// What tells it from all others: 64 hexadecimal digits, made anew at each boot.
    #[serde(default)]
    pub id: String,
    /// Its life so far.
    pub life: Lifecycle,
    /// Its own words about itself.
    pub status: Option<String>,
    /// The key of its definition that its failure is about.
    pub fault: Option<String>,
    /// It stands still, on request.
    #[serde(default)]
    pub paused: bool,
    /// Its addresses and ports, while it runs.
    #[serde(default)]
    pub connection: Connection,
    /// The image that it is being tried with.
    #[serde(default)]
    pub trial: Option<Trial>,
    /// Of the log service: this run has been given all pipes.
    pub handed_over: bool,
}

/// Writes a file so that a reader sees the old content or the new, whatever happens meanwhile.
///
/// # Errors
/// With the path.
pub fn replace(path: &Path, content: &[u8]) -> anyhow::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, content)
        .and_then(|()| fs::rename(&new, path))
        .with_context(|| format!("cannot write {}", path.display()))
}

/// A new [`Record::id`].
pub fn new_id() -> String {
    let mut bytes = [0; 32];
    // Cannot fail on a running system. If it did, the numbers would be equal and services still have their names.
    let read = fs::File::open("/dev/urandom").and_then(|mut file| file.read_exact(&mut bytes));
    debug_assert!(read.is_ok());
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Stores the record of a service.
///
/// # Errors
/// When `/run` is full.
pub fn save(directory: &Path, service: &str, record: &Record) -> anyhow::Result<()> {
    replace(
        &directory.join(format!("{service}.json")),
        &serde_json::to_vec(record)?,
    )
}

/// Reads all records, by service. A file that cannot be used is reported and counts as missing.
pub fn load(directory: &Path) -> (BTreeMap<String, Record>, Vec<String>) {
    let (mut records, mut complaints) = (BTreeMap::new(), Vec::new());
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        let Some(name) = path
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".json"))
        else {
            continue;
        };
        let record = fs::read(&path)
            .map_err(anyhow::Error::from)
            .and_then(|text| Ok(serde_json::from_slice(&text)?));
        match record {
            Ok(record) => {
                records.insert(name.to_owned(), record);
            }
            Err(error) => complaints.push(format!("cannot use {}: {error}", path.display())),
        }
    }
    (records, complaints)
}

/// A number of proc_pid_stat(5), by its place there; `None` when there is no such process.
fn stat(pid: i32, field: usize) -> Option<u64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the program's name in brackets, with anything in it.
    let rest = stat.get(stat.rfind(')')? + 1..)?;
    rest.split_ascii_whitespace()
        .nth(field.checked_sub(3)?)?
        .parse()
        .ok()
}

/// When the process with that number was started, in clock ticks since boot; `None` when there is none.
pub fn start_ticks(pid: i32) -> Option<u64> {
    stat(pid, 22)
}

/// The parent of the process with that number; `None` when there is none.
pub fn parent(pid: i32) -> Option<i32> {
    i32::try_from(stat(pid, 4)?).ok()
}

impl Process {
    /// The process with that number, now.
    pub fn inspect(pid: i32) -> Option<Self> {
        start_ticks(pid).map(|start_ticks| Self { pid, start_ticks })
    }

    /// Whether it is still the same process (a zombie counts).
    pub fn exists(self) -> bool {
        start_ticks(self.pid) == Some(self.start_ticks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lifecycle::State;

    #[test]
    fn a_record_comes_back_as_it_was() {
        let directory = tempfile::tempdir().unwrap();
        let process = Process::inspect(i32::try_from(std::process::id()).unwrap()).unwrap();
        assert!(process.exists());
        let state = State::Ready {
            process,
            healthy: true,
            until_us: None,
        };
        let record = Record {
            life: Lifecycle {
                state,
                restarts: 3,
                ..Lifecycle::default()
            },
            ..Record::default()
        };
        save(directory.path(), "web", &record).unwrap();
        fs::write(directory.path().join("broken.json"), "{").unwrap();
        let (records, complaints) = load(directory.path());
        assert_eq!(records, BTreeMap::from([("web".to_owned(), record)]));
        assert_eq!(complaints.len(), 1);
    }
}
