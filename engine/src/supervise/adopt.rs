//! Goes on where an earlier engine was killed: its containers run, PID 1 kept its descriptors and the exits that it
//! did not hear of.

use super::worker::Job;
use super::{Engine, Event};
use crate::containers::KEY_LENGTH;
use crate::lifecycle::{Ending, State};
use crate::options::Options;
use crate::output::{Output, Pipe};
use crate::readiness::register;
use crate::record::{self, Record};
use std::collections::BTreeMap;
use std::fs;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

/// What an earlier engine left behind.
#[derive(Debug, Default)]
pub(super) struct Legacy {
    /// Descriptors that PID 1 kept, by name.
    pub(super) stored: BTreeMap<String, OwnedFd>,
    /// Exits that it did not acknowledge.
    pub(super) exits: Vec<(i32, Ending)>,
    /// The number of the last of them.
    pub(super) last_seq: Option<u64>,
    /// The system is going down, and how long that may take.
    pub(super) shutdown: Option<Duration>,
    /// What it wrote about its services.
    pub(super) records: BTreeMap<String, Record>,
}

impl Engine {
    /// Takes over every service of an earlier engine. Nothing that runs is touched.
    pub(super) fn adopt(&mut self, mut legacy: Legacy) {
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in &names {
            let mut stored = |what: &str| legacy.stored.remove(&format!("{name}.{what}"));
            let (stdout, stderr, notify) = (stored("stdout"), stored("stderr"), stored("notify"));
            if let Some(entry) = self.services.get_mut(name) {
                let id = std::mem::take(&mut entry.record.id);
                // Of a container without a record the life begins as what is kept on the disk says.
                if let Some(record) = legacy.records.remove(name) {
                    entry.record = record;
                }
                if let Some(trial) = &entry.record.trial {
                    entry.pin(trial.new.clone());
                }
                if entry.record.id.is_empty() {
                    entry.record.id = id;
                }
            }
            if let Some(socket) = notify {
                self.hear_from(name, socket);
            }
            if let (Some(stdout), Some(stderr)) = (stdout, stderr)
                && let Some(entry) = self.services.get_mut(name)
            {
                entry.output = Some(Output::new(Pipe::adopt(stdout), Pipe::adopt(stderr)));
            }
            self.adopt_streams(name, &mut legacy.stored);
            self.adopt_sockets(name, &mut legacy.stored);
        }
        for (name, record) in &legacy.records {
            if crate::containers::key(&record.id) == name {
                // A client had it removed when the engine was killed.
                self.clear_away(name);
                continue;
            }
            self.shared.console.error(&format!(
                "service {name} has no definition any more: it is left alone"
            ));
        }
        // Of those whose record is gone already: the engine was killed before their bundle was.
        for name in bundles(&self.shared.options) {
            let is_containers =
                name.len() == KEY_LENGTH && name.bytes().all(|byte| byte.is_ascii_hexdigit());
            let is_known = self.services.contains_key(&name) || legacy.records.contains_key(&name);
            if is_containers && !is_known {
                self.clear_away(&name);
            }
        }
        self.adopt_networks();
        for name in &names {
            self.resume(name);
            self.take_network(name);
        }
        self.listen_for_all();
        for (pid, ending) in legacy.exits {
            self.exited(pid, ending);
        }
        for name in &names {
            self.bury(name);
        }
        if self.services.get(super::logs::LOG).is_some_and(|log| {
            matches!(log.state(), State::Ready { .. }) && !log.record.handed_over
        }) {
            self.give_log_everything();
        }
    }

    /// Goes on with one service where the earlier engine stopped.
    fn resume(&mut self, name: &str) {
        self.keep_company(name, None);
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        match entry.state().clone() {
            // Whether it was made or not: it is made anew.
            State::Creating => {
                entry.record.life.state = State::Waiting;
                self.apply(name, Event::Unblocked);
            }
            State::Starting {
                launched: false, ..
            } => drop(entry.jobs.send(Job::Launch {
                attempt: entry.attempt,
                again: true,
            })),
            State::Stopping { process: None, .. } => {
                let event = Event::LaunchFailed {
                    why: "it was being stopped".to_owned(),
                    permanent: false,
                };
                self.apply(name, event);
            }
            // It has ended, and what is left of it may not have been removed.
            state if state.is_down() => {
                if self.shared.options.runtime_root().join(name).exists() {
                    drop(entry.jobs.send(Job::Delete));
                }
            }
            // The signal may not have been sent.
            State::Stopping { .. } => {
                if let Some(process) = &entry.pidfd {
                    let _ = keelson_sys::pidfd::send_signal(process, entry.policy.stop_signal);
                }
            }
            _ => {}
        }
    }

    /// A process that is gone and whose exit nobody reported.
    fn bury(&mut self, name: &str) {
        let process = self
            .services
            .get(name)
            .and_then(|entry| entry.state().process());
        if process.is_some_and(|process| !process.exists()) {
            self.apply(name, Event::Exited(Ending::Unknown));
        }
    }
}

/// Waits until the runtime calls of an earlier engine have ended: they change what is about to be looked at.
pub(super) async fn wait_for_runtimes(options: &Options) {
    let waiting = async {
        while let Some(pid) = running_runtime(options) {
            // Gone meanwhile: the next look does not find it any more.
            let Ok(process) = keelson_sys::pidfd::open(pid) else {
                continue;
            };
            let Ok(process) = register(process) else {
                return;
            };
            let _ = process.readable().await;
        }
    };
    let _ = tokio::time::timeout(options.runtime_timeout, waiting).await;
}

/// The names of all containers that something is left of in `/run`.
fn bundles(options: &Options) -> Vec<String> {
    let entries = fs::read_dir(options.run.join("containers")).into_iter();
    let names = entries.flatten().flatten();
    names
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect()
}

/// A process that was called as `RUNTIME --root ROOT ... create|start|delete ...` and is not a container's first one.
/// That one looks the same until its program is started: it is a child of the runtime, or its number has been written
/// down.
fn running_runtime(options: &Options) -> Option<i32> {
    let root = options.runtime_root();
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    let alike: Vec<i32> = numbers.filter(|pid| is_called_so(*pid, &root)).collect();
    let first: Vec<i32> = bundles(options)
        .iter()
        .filter_map(|name| {
            let text = fs::read_to_string(options.container(name).join("pid")).ok()?;
            text.trim().parse().ok()
        })
        .collect();
    let is_child = |pid: i32| record::parent(pid).is_some_and(|parent| alike.contains(&parent));
    alike
        .iter()
        .copied()
        .find(|pid| !first.contains(pid) && !is_child(*pid))
}

fn is_called_so(pid: i32, root: &Path) -> bool {
    // A zombie has no command line any more.
    let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = command.split(|byte| *byte == 0).collect();
    let changes = words
        .iter()
        .any(|word| matches!(*word, b"create" | b"start" | b"delete"));
    let root = root.as_os_str().as_encoded_bytes();
    changes
        && words
            .windows(2)
            .any(|pair| pair[0] == b"--root" && pair[1] == root)
}
