//! Containers that clients of Docker's API made: from the disk and back to it.

use super::entry::Entry;
use super::start::employ;
use super::worker::Job;
use super::{Engine, Shared};
use crate::clock::now_us;
use crate::compose::Definition;
use crate::containers::{Outcome, Stored, unix_us};
use crate::events::Attributes;
use crate::lifecycle::{Ending, Lifecycle, State, Then};
use crate::record::Record;
use crate::server::Refusal;
use bollard_stubs::models::EventMessageTypeEnum;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

/// Who waits for an answer.
pub(super) type Answer = oneshot::Sender<Result<(), Refusal>>;

/// Containers start after these, when they are there: what they print is taken, their network and devices are set up.
const AFTER: [&str; 3] = ["log", "network", "udev"];

/// Reads the containers from the disk. Those that were to go with their end are cleared away unless an earlier engine
/// of this boot knew them.
pub(super) fn load(
    shared: &Rc<Shared>,
    records: &BTreeMap<String, Record>,
) -> Vec<(Entry, JoinHandle<()>)> {
    let store = shared.options.containers();
    let (all, complaints) = store.load();
    for complaint in complaints {
        shared.console.error(&complaint);
    }
    store.empty_trash();
    let (mut loaded, mut names) = (Vec::new(), BTreeSet::new());
    for stored in all {
        let known = records.contains_key(stored.key());
        // Of two with one name the newer was about to be refused when the engine was killed.
        let is_refused = !names.insert(stored.name.clone()) && !known;
        if stored.auto_remove() && !known || is_refused {
            let _ = store.remove(stored.key());
            let _ = crate::images::store(&shared.options).release(stored.key());
            continue;
        }
        match stored.definition(shared.options.volumes().directory()) {
            Ok(definition) => loaded.push(entry(shared, stored, definition)),
            Err(why) => shared.console.error(&format!(
                "container {} cannot be used any more: {why}",
                stored.name
            )),
        }
    }
    loaded
}

/// An entry for a container as it is on the disk: down, or about to be started.
fn entry(
    shared: &Rc<Shared>,
    stored: Stored,
    mut definition: Definition,
) -> (Entry, JoinHandle<()>) {
    use crate::compose::values::Text;
    let after = &mut definition.service.keelson.after.0;
    after.extend(AFTER.map(|name| Text(name.to_owned())));
    let (mut entry, worker) = employ(shared, definition, &mut BTreeMap::new());
    let starts = stored.starts_at_boot(entry.definition.service.restart);
    let code = stored.outcome.exit_code;
    entry.record.id.clone_from(&stored.id);
    entry.record.life = Lifecycle {
        state: if starts {
            State::Waiting
        } else {
            State::Stopped
        },
        last: code.map(Ending::Code),
        ..Lifecycle::default()
    };
    entry.stored = Some(Arc::new(stored));
    (entry, worker)
}

impl Engine {
    /// Whether a client made it.
    pub(super) fn is_container(&self, name: &str) -> bool {
        self.services
            .get(name)
            .is_some_and(|entry| entry.stored.is_some())
    }

    /// Takes in a container that is on the disk already.
    pub(super) fn add_container(&mut self, stored: Stored) -> Result<(), Refusal> {
        if self.shutdown.is_some() {
            return Err(Refusal::Failed("the system is going down".to_owned()));
        }
        self.name_is_free(&stored.name, &stored.id)?;
        let volumes = self.shared.options.volumes();
        let definition = stored
            .definition(volumes.directory())
            .map_err(Refusal::Invalid)?;
        let key = stored.key().to_owned();
        let (entry, worker) = entry(&self.shared, stored, definition);
        // It ends when the entry does.
        drop(worker);
        self.services.insert(key.clone(), entry);
        self.save(&key);
        self.tell(&key, "create", Attributes::new());
        Ok(())
    }

    pub(super) fn name_is_free(&self, name: &str, id: &str) -> Result<(), Refusal> {
        let holder = self.find(name).filter(|entry| entry.record.id != id);
        match holder {
            None => Ok(()),
            Some(entry) => Err(Refusal::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
                entry.record.id
            ))),
        }
    }

    /// Writes a container down and answers when that is done.
    pub(super) fn store_and_answer(&mut self, key: &str, answer: Answer) {
        if let Some(entry) = self.services.get_mut(key) {
            entry.storing.push(answer);
        }
        self.store(key);
    }

    /// Has a container's description written.
    fn store(&mut self, key: &str) {
        if let Some(entry) = self.services.get_mut(key)
            && let Some(stored) = &entry.stored
        {
            entry.unstored += 1;
            drop(entry.jobs.send(Job::Store(stored.clone())));
        }
    }

    /// A description is on the disk, or is not.
    pub(super) fn stored(&mut self, key: &str, result: anyhow::Result<()>) {
        let failed = result
            .err()
            .map(|error| format!("what became of it is not stored: {error:#}"));
        if let Some(why) = &failed {
            self.shared
                .console
                .error(&format!("container {key}: {why}"));
        }
        let Some(entry) = self.services.get_mut(key) else {
            return;
        };
        entry.unstored = entry.unstored.saturating_sub(1);
        if entry.unstored == 0 {
            for answer in std::mem::take(&mut entry.storing) {
                let _ = answer.send(
                    failed
                        .clone()
                        .map_or(Ok(()), |why| Err(Refusal::Failed(why))),
                );
            }
        }
        entry.resolve_waiters();
    }

    /// After each change: what has to be told, stored, or done with a container.
    pub(super) fn container_may_have_changed(&mut self, key: &str, before: &Lifecycle) {
        self.end_relay(key, &before.state);
        self.take_network(key);
        self.tell_changes(key, before);
        let going_down = self.shutdown.is_some();
        let Some(entry) = self.services.get_mut(key) else {
            return;
        };
        let after = &entry.record.life;
        let has_ended = after.state.is_down() && !before.state.is_down();
        if after.state.process().is_none() {
            entry.record.paused = false;
        }
        if let Some(stored) = &mut entry.stored
            && *after != *before
        {
            let outcome = outcome(after, &stored.outcome, going_down);
            // Whether it started or ended; that it is being made is nobody's concern after a power cut.
            if outcome != stored.outcome && !stored.auto_remove() {
                Arc::make_mut(stored).outcome = outcome;
                self.store(key);
            }
        }
        let Some(entry) = self.services.get_mut(key) else {
            return;
        };
        entry.resolve_waiters();
        let auto = entry
            .stored
            .as_ref()
            .is_some_and(|stored| stored.auto_remove());
        if has_ended && auto && !going_down {
            entry.removing.get_or_insert_default();
        }
        if entry.removing.is_some() && entry.state().is_down() && !entry.disposing {
            entry.disposing = true;
            drop(entry.jobs.send(Job::Dispose));
        }
    }

    /// Tells an event of one's name.
    pub(super) fn tell(&self, key: &str, action: &str, mut attributes: Attributes) {
        let Some(entry) = self.services.get(key) else {
            return;
        };
        let service = &entry.definition.service;
        let labels = service.labels.0.iter();
        attributes.extend(labels.map(|(name, value)| (name.clone(), value.clone())));
        attributes.insert("image".to_owned(), service.image.clone());
        attributes.insert("name".to_owned(), entry.title().to_owned());
        let kind = EventMessageTypeEnum::CONTAINER;
        self.shared
            .events
            .tell(kind, action, &entry.record.id, attributes);
    }
}

/// What is worth keeping of a life.
fn outcome(life: &Lifecycle, before: &Outcome, going_down: bool) -> Outcome {
    let moment = |boot_us: Option<u64>| {
        let ago = Duration::from_micros(now_us().saturating_sub(boot_us?));
        SystemTime::now().checked_sub(ago).map(unix_us)
    };
    let stopping = matches!(
        life.state,
        State::Stopping {
            then: Then::Stop,
            ..
        }
    );
    let up = !life.state.is_down() && !stopping && life.started_us.is_some();
    let fresh = |stored: Option<u64>, boot_us: Option<u64>| match (stored, moment(boot_us)) {
        // The two clocks drift apart by microseconds: the same moment stays the same number.
        (Some(old), Some(new)) if old.abs_diff(new) < 1_000_000 => Some(old),
        (old, new) => new.or(old),
    };
    Outcome {
        started_us: fresh(before.started_us, life.started_us),
        ended_us: fresh(before.ended_us, life.ended_us),
        exit_code: life.last.and_then(Ending::exit_code).or(before.exit_code),
        error: match &life.state {
            State::Failed { why, .. } if life.started_us.is_none() => Some(why.clone()),
            _ => None,
        },
        // Going down with the machine is no wish to stay down.
        up: if going_down { before.up } else { up },
    }
}
