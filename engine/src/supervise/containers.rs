//! Containers that clients of Docker's API made: from the disk and back to it, and away.

use super::entry::{Entry, Until};
use super::start::employ;
use super::worker::{Job, dispose};
use super::{Engine, Shared};
use crate::clock::now_us;
use crate::compose::Definition;
use crate::containers::{Outcome, Stored, unix_us};
use crate::docker::update::Update;
use crate::events::Attributes;
use crate::lifecycle::{Ending, Event, Lifecycle, Policy, State, Then};
use crate::record::Record;
use crate::server::Refusal;
use bollard_stubs::models::EventMessageTypeEnum;
use std::collections::BTreeMap;
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
    let mut loaded = Vec::new();
    for stored in all {
        let known = records.contains_key(stored.key());
        if stored.auto_remove() && !known {
            let _ = store.remove(stored.key());
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

    fn name_is_free(&self, name: &str, id: &str) -> Result<(), Refusal> {
        let holder = self.find(name).filter(|entry| entry.record.id != id);
        match holder {
            None => Ok(()),
            Some(entry) => Err(Refusal::Conflict(format!(
                "Conflict. The container name \"/{name}\" is already in use by container \"{}\". You have to remove (or rename) that container to be able to reuse that name.",
                entry.record.id
            ))),
        }
    }

    /// Gives a container another name.
    pub(super) fn rename(&mut self, key: &str, name: &str, answer: Answer) {
        let id = self.services.get(key).map(|entry| entry.record.id.clone());
        let free = self.name_is_free(name, &id.unwrap_or_default());
        let renamed = free.and_then(|()| {
            let stored = self.stored_mut(key)?;
            let old = std::mem::replace(&mut stored.name, name.to_owned());
            Ok(old)
        });
        match renamed {
            Err(refusal) => drop(answer.send(Err(refusal))),
            Ok(old) => {
                let old = Attributes::from([("oldName".to_owned(), format!("/{old}"))]);
                self.tell(key, "rename", old);
                self.store_and_answer(key, answer);
            }
        }
    }

    /// Changes limits and restart policy of a container, for now and for its next start.
    pub(super) fn update(&mut self, key: &str, update: &Update, answer: Answer) {
        let updated = self.stored_mut(key).map(|stored| {
            let mut changed = stored.clone();
            update.apply(changed.body.host_config.get_or_insert_default());
            changed
        });
        let volumes = self.shared.options.volumes();
        let updated = updated.and_then(|stored| {
            let definition = stored.definition(volumes.directory());
            Ok((definition.map_err(Refusal::Invalid)?, stored))
        });
        let (definition, stored) = match updated {
            Ok(updated) => updated,
            Err(refusal) => return drop(answer.send(Err(refusal))),
        };
        let Some(entry) = self.services.get_mut(key) else {
            return;
        };
        entry.policy = Policy::of(&definition);
        entry.definition = Rc::new(definition);
        entry.stored = Some(Arc::new(stored));
        self.tell(key, "update", Attributes::new());
        self.store_and_answer(key, answer);
    }

    fn stored_mut(&mut self, key: &str) -> Result<&mut Stored, Refusal> {
        let entry = self
            .services
            .get_mut(key)
            .ok_or_else(|| Refusal::NoSuchService(key.to_owned()))?;
        match &mut entry.stored {
            Some(stored) => Ok(Arc::make_mut(stored)),
            None => Err(Refusal::Conflict(format!(
                "{key} is a service of the system: its definition says what it is"
            ))),
        }
    }

    /// Writes a container down and answers when that is done.
    fn store_and_answer(&mut self, key: &str, answer: Answer) {
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
        self.tell_changes(key, before);
        let going_down = self.shutdown.is_some();
        let Some(entry) = self.services.get_mut(key) else {
            return;
        };
        let after = &entry.record.life;
        let has_ended = after.state.is_down() && !before.state.is_down();
        if after.state.process().is_none() {
            entry.paused = false;
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

    /// Removes a container; one that runs only by `force`.
    pub(super) fn remove_container(&mut self, key: &str, force: bool, answer: Answer) {
        let refusal = match self.services.get(key) {
            None => Some(Refusal::NoSuchService(key.to_owned())),
            Some(entry) if entry.stored.is_none() => Some(Refusal::Conflict(format!(
                "cannot remove container \"/{key}\": it is a service of the system"
            ))),
            Some(entry) if !force && entry.paused => Some(Refusal::Conflict(format!(
                "cannot remove container \"/{}\": container is paused and must be unpaused first",
                entry.title()
            ))),
            Some(entry) if !force && !entry.state().is_down() => Some(Refusal::Conflict(format!(
                "cannot remove container \"/{}\": container is running: stop the container before removing or force remove",
                entry.title()
            ))),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            return drop(answer.send(Err(refusal)));
        }
        if let Some(entry) = self.services.get_mut(key) {
            entry.removing.get_or_insert_default().push(answer);
        }
        if self
            .services
            .get(key)
            .is_some_and(|entry| !entry.state().is_down())
        {
            self.kill_now(key);
        }
        let before = self
            .services
            .get(key)
            .map(|entry| entry.record.life.clone());
        if let Some(before) = before {
            self.container_may_have_changed(key, &before);
        }
    }

    /// Kills a container for good.
    pub(super) fn kill_now(&mut self, key: &str) {
        // The stop signal that follows finds a process that is dead already.
        let _ = self.signal(key, nix::libc::SIGKILL);
        self.apply(key, Event::Stop);
        self.apply(key, Event::Within(Duration::ZERO));
    }

    /// A container is gone, or could not be removed.
    pub(super) fn disposed(&mut self, key: &str, result: anyhow::Result<()>) {
        let Some(entry) = self.services.get_mut(key) else {
            return;
        };
        entry.disposing = false;
        let answers = entry.removing.take().unwrap_or_default();
        if let Err(error) = result {
            let why = format!("container {}: cannot be removed: {error:#}", entry.title());
            self.shared.console.error(&why);
            for answer in answers {
                let _ = answer.send(Err(Refusal::Failed(why.clone())));
            }
            return;
        }
        self.tell(key, "destroy", Attributes::new());
        self.forget(key);
        let Some(mut entry) = self.services.remove(key) else {
            return;
        };
        let code = entry.exit_code();
        for (until, waiter) in std::mem::take(&mut entry.exits) {
            // A run that never was has no status.
            if until == Until::Removed || entry.state().is_down() {
                let _ = waiter.send(code);
            }
        }
        for answer in answers {
            let _ = answer.send(Ok(()));
        }
    }

    /// Forgets what is stored of a container beside its files.
    fn forget(&self, key: &str) {
        self.forget_stored(
            key,
            &["stdout", "stderr", "terminal", "stdin", "out", "err"],
        );
        let record = self.shared.options.records().join(format!("{key}.json"));
        let _ = std::fs::remove_file(record);
    }

    /// Removes what an engine that was killed meanwhile left of a container that is gone.
    pub(super) fn clear_away(&self, key: &str) {
        self.forget(key);
        let (shared, key) = (self.shared.clone(), key.to_owned());
        tokio::task::spawn_local(async move {
            if let Err(error) = dispose(&shared, &key).await {
                let console = &shared.console;
                console.error(&format!("container {key}: cannot be removed: {error:#}"));
            }
        });
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
