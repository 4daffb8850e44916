//! The definitions of services: read at the start and whenever that is asked for; what people decide about them.

use super::containers::Answer;
use super::entry::{Entry, Until};
use super::start::employ;
use super::worker::Job;
use super::{Engine, Shared, image};
use crate::api::{Failure, Reloaded};
use crate::choices::{Choice, Choices, Pin};
use crate::compose::load::{ENVIRONMENT, parse, read_environment};
use crate::compose::{Definition, Loaded, Service, load_all};
use crate::docker::Command;
use crate::lifecycle::{Event, Lifecycle, Policy, State};
use crate::options::Options;
use crate::server::Refusal;
use crate::{graph, images};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::SystemTime;
use tokio::sync::oneshot;

/// Reads all definitions; services that wait for themselves are taken out.
pub(super) fn load(options: &Options) -> Loaded {
    let mut loaded = load_all(&options.services, &options.own_services);
    graph::turn_before(&mut loaded.definitions);
    let cycles = graph::refuse_cycles(&mut loaded.definitions);
    loaded.failures.extend(cycles);
    loaded
}

/// Whether a service that runs by the one runs as the other says: order counts at the start alone.
fn runs_alike(one: &Service, other: &Service) -> bool {
    let mut one = one.clone();
    one.keelson.after.clone_from(&other.keelson.after);
    one == *other
}

/// What a service begins with: as it was decided.
pub(super) fn prepare(entry: &mut Entry, choice: &Choice, starts: bool) {
    entry.pin(choice.image.clone());
    entry.record.life.state = match () {
        () if entry.definition.is_create_only() => State::Finished,
        () if starts && choice.enabled && entry.starts_when_called() => State::Listening,
        () if starts && choice.enabled => State::Waiting,
        () => State::Stopped,
    };
}

impl Entry {
    /// Has it run from this image from its next start on, or from that of its definition.
    pub(super) fn pin(&mut self, pin: Option<Pin>) {
        let mut definition = Rc::clone(&self.base);
        if let Some(pin) = &pin {
            let definition = Rc::make_mut(&mut definition);
            definition.service.image.clone_from(&pin.reference);
        }
        self.pin = pin;
        self.define(definition);
    }

    /// Takes over a definition that was read again, at once or when its program next starts.
    fn redefine(&mut self, definition: Definition) {
        self.base = Rc::new(definition);
        if self.state().is_down() || matches!(self.state(), State::Waiting) {
            self.pin(self.pin.clone());
            if *self.state() == State::Listening && !self.starts_when_called() {
                self.record.life.state = State::Stopped;
            }
        } else {
            self.outdated = true;
        }
    }

    fn define(&mut self, definition: Rc<Definition>) {
        self.policy = Policy::of(&definition);
        self.definition = definition;
        self.outdated = false;
    }

    /// Its program is about to be started: its newest definition counts.
    pub(super) fn bring_up_to_date(&mut self) {
        if self.outdated {
            self.pin(self.pin.clone());
        }
    }
}

impl Engine {
    /// Reads the definitions again. Services that are new are started when `starts`, and those with `x-keelson.follows` that
    /// changed are started anew; those that are not defined any more are stopped and removed; others that changed run on as they are
    /// until their next start. What a file that
    /// cannot be read any more defined goes on as it was.
    pub(super) fn reload(&mut self, starts: bool) -> Reloaded {
        self.files = stamps(&self.shared.options);
        let loaded = load(&self.shared.options);
        for warning in &loaded.warnings {
            self.shared.console.info(warning);
        }
        for failure in &loaded.failures {
            if !self.broken.contains(failure) {
                let text = super::apply::describe(failure);
                self.shared.console.error(&text);
            }
        }
        let unreadable: Vec<&Path> = loaded
            .failures
            .iter()
            .filter_map(|failure| failure.file.as_deref().map(Path::new))
            .collect();
        let known: BTreeSet<String> = loaded
            .definitions
            .iter()
            .map(|definition| definition.name.clone())
            .collect();
        let gone = |entry: &Entry| {
            let file = &entry.definition.file;
            entry.stored.is_none()
                && !known.contains(&entry.definition.name)
                && !unreadable.iter().any(|path| file.starts_with(path))
        };
        let removed = self.services.iter().filter(|(_, entry)| gone(entry));
        let mut reloaded = Reloaded {
            removed: removed.map(|(name, _)| name.clone()).collect(),
            failures: loaded.failures.clone(),
            ..Reloaded::default()
        };
        self.broken = loaded.failures;
        for name in &reloaded.removed {
            self.remove_service(name);
        }
        for definition in loaded.definitions {
            let name = definition.name.clone();
            match self.services.get_mut(&name) {
                None => {
                    self.add_service(definition, starts);
                    reloaded.added.push(name);
                }
                Some(entry) if runs_alike(&entry.base.service, &definition.service) => {
                    // Its lines may have moved.
                    if !entry.outdated {
                        entry.base = Rc::new(definition);
                        entry.pin(entry.pin.clone());
                    }
                }
                Some(entry) => {
                    let follows = starts && definition.service.keelson.follows;
                    let event = match entry.state() {
                        State::Waiting | State::Stopped => None,
                        state if state.is_down() => Some(Event::Start),
                        _ => Some(Event::Restart),
                    };
                    entry.redefine(definition);
                    self.listen_as_its_state_says(&name);
                    if let Some(event) = event.filter(|_| follows) {
                        self.apply(&name, event);
                    }
                    reloaded.changed.push(name);
                }
            }
        }
        self.know_dependents();
        reloaded
    }

    fn add_service(&mut self, definition: Definition, starts: bool) {
        let (mut entry, worker) = employ(&self.shared, definition, &mut BTreeMap::new());
        // It ends when the entry does.
        drop(worker);
        let name = entry.definition.name.clone();
        prepare(&mut entry, &self.choices.of(&name), starts);
        self.services.insert(name.clone(), entry);
        self.save(&name);
        self.listen_as_its_state_says(&name);
    }

    /// Removes a service that is not defined any more, when it has ended.
    fn remove_service(&mut self, name: &str) {
        self.shared
            .console
            .info(&format!("service {name} is not defined any more"));
        if let Some(entry) = self.services.get_mut(name) {
            entry.removing.get_or_insert_default();
        }
        self.apply(name, Event::Stop);
    }

    fn know_dependents(&mut self) {
        let services = self.services.values();
        let definitions: Vec<Rc<Definition>> =
            services.map(|entry| entry.definition.clone()).collect();
        let mut dependents = graph::dependents(definitions.iter().map(|rc| &**rc));
        for (name, entry) in &mut self.services {
            entry.dependents = dependents.remove(name).unwrap_or_default();
        }
    }

    /// Whether a service starts with the machine, from the next start of that on.
    pub(super) fn enable(&mut self, name: &str, enabled: bool) -> Result<(), Refusal> {
        self.is_service(name)?;
        let choice = Choice {
            enabled,
            ..self.choices.of(name)
        };
        self.decide(name, choice).map_err(Refusal::Failed)
    }

    /// Decides about a service, for good.
    ///
    /// # Errors
    /// For a person.
    pub(super) fn decide(&mut self, name: &str, choice: Choice) -> Result<(), String> {
        let decided = self.choices.decide(name, choice);
        decided.map_err(|error| format!("cannot store what was decided about {name}: {error}"))
    }

    /// Fails for what clients of Docker's API made, and for what is not there.
    pub(super) fn is_service(&self, name: &str) -> Result<&Entry, Refusal> {
        match self.services.get(name) {
            Some(entry) if entry.stored.is_none() => Ok(entry),
            _ => Err(self
                .may_control(name)
                .err()
                .unwrap_or_else(|| Refusal::NoSuchService(name.to_owned()))),
        }
    }

    /// Starts a service; one that runs and whose definition or image has changed is started again.
    pub(super) fn up(&mut self, name: String, answer: Answer) {
        let command = match self.is_service(&name) {
            Err(refusal) => return drop(answer.send(Err(refusal))),
            Ok(entry) if !entry.state().is_down() && self.is_outdated(entry) => {
                Command::Restart(None)
            }
            Ok(entry) if entry.state().is_down() && entry.starts_when_called() => {
                self.apply(&name, Event::Listen);
                return self.answer_when(&name, Until::Settled, answer);
            }
            Ok(_) => Command::Up,
        };
        self.control(name, command, answer);
    }

    /// Whether it would run otherwise if it were started anew.
    pub(super) fn is_outdated(&self, entry: &Entry) -> bool {
        let options = &self.shared.options;
        let name = &entry.base.service.image;
        let id = match &entry.pin {
            Some(pin) => Some(pin.id.clone()),
            None if images::is_of_the_os(name) => {
                images::of_the_os(options, name).map(|image| image.id)
            }
            None => images::find(options, name).ok().map(|image| image.id),
        };
        let made_from = image::made_from(&options.container(&entry.definition.name));
        entry.outdated || matches!((id, made_from), (Some(id), Some(from)) if id != from)
    }

    /// Stops a service and throws its container's root away; answers when it is down.
    pub(super) fn down(&mut self, name: String, answer: Answer) {
        if let Err(refusal) = self.is_service(&name) {
            return drop(answer.send(Err(refusal)));
        }
        if let Some(entry) = self.services.get_mut(&name) {
            entry.discarding = true;
        }
        let (stopped, outcome) = oneshot::channel();
        self.control(name.clone(), Command::Stop(None), stopped);
        if self
            .services
            .get(&name)
            .is_some_and(|entry| entry.state().is_down())
        {
            self.discard(&name);
        }
        tokio::task::spawn_local(async move {
            if let Ok(outcome) = outcome.await {
                let _ = answer.send(outcome);
            }
        });
    }

    /// After each change of a service: what has to follow.
    pub(super) fn service_may_have_changed(&mut self, name: &str, before: &Lifecycle) {
        self.discard(name);
        self.trial_may_have_ended(name);
        let has_ended = self.services.get(name).is_some_and(|entry| {
            entry.definition.reloads_config()
                && entry.state().is_down()
                && before.state.process().is_some()
        });
        let is_due = has_ended && self.shutdown.is_none();
        if is_due && self.files != stamps(&self.shared.options) {
            self.reload(true);
        }
    }

    /// Throws the root of a service away that has ended, if that was asked for.
    fn discard(&mut self, name: &str) {
        if let Some(entry) = self.services.get_mut(name)
            && entry.discarding
            && entry.state().is_down()
        {
            entry.discarding = false;
            drop(entry.jobs.send(Job::Remove));
        }
    }
}

/// The machine's own files, each with what changes with it.
pub(super) fn stamps(options: &Options) -> BTreeMap<PathBuf, (SystemTime, u64)> {
    let entries = fs::read_dir(&options.own_services).into_iter().flatten();
    let stamp = |entry: fs::DirEntry| {
        let metadata = entry.metadata().ok()?;
        Some((entry.path(), (metadata.modified().ok()?, metadata.len())))
    };
    entries.flatten().filter_map(stamp).collect()
}

/// What was decided about services; what cannot be read is told.
pub(super) fn choices(shared: &Shared) -> Choices {
    let (choices, complaint) = Choices::load(&shared.options.state);
    if let Some(complaint) = complaint {
        shared.console.error(&complaint);
    }
    choices
}

/// Whether a file may be added to the machine's own. Names of the services that it defines.
///
/// # Errors
/// The first thing that is wrong with it, with its place.
pub(crate) fn check(options: &Options, file: &Path, text: &str) -> Result<Vec<String>, Failure> {
    let environment = read_environment(&options.own_services.join(ENVIRONMENT))?;
    let mut added = parse(file, text, &environment)?;
    let mut all = load_all(&options.services, &options.own_services).definitions;
    all.retain(|definition| definition.file != file);
    if let Some((definition, other)) = added.iter().find_map(|definition| {
        let other = all.iter().find(|other| other.name == definition.name)?;
        Some((definition, other))
    }) {
        let message = format!(
            "service `{}` is already defined in {}",
            definition.name,
            other.file.display()
        );
        return Err(definition.failure("", message));
    }
    let names: Vec<String> = added
        .iter()
        .map(|definition| definition.name.clone())
        .collect();
    all.append(&mut added);
    graph::turn_before(&mut all);
    match graph::refuse_cycles(&mut all).into_iter().next() {
        Some(failure) => Err(failure),
        None => Ok(names),
    }
}
