//! What the API shows.

use super::privileges::privileges;
use super::{Engine, Entry};
use crate::api;
use crate::clock::now_us;
use crate::docker::container::Container;
use crate::graph::{self, Verdict};
use crate::healthcheck::Check;
use crate::lifecycle::{Ending, State, Then};
use crate::server::Request;
use crate::{boot, slices};
use bollard_stubs::models::HealthStatusEnum;
use std::fs;

impl Engine {
    /// Answers one request, at once or when what was asked for has come to something.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Services(answer) => drop(answer.send(self.services())),
            Request::Status(answer) => drop(answer.send(self.status())),
            Request::Boot(answer) => drop(answer.send(self.boot())),
            Request::Containers(answer) => drop(answer.send(self.containers())),
            Request::Control(name, command, answer) => self.control(name, command, answer),
            Request::Wait(name, condition, answer) => {
                drop(answer.send(self.wait(&name, condition)));
            }
            Request::Add(stored, answer) => drop(answer.send(self.add_container(*stored))),
            Request::Remove { key, force, answer } => self.remove_container(&key, force, answer),
            Request::Rename { key, name, answer } => self.rename(&key, &name, answer),
            Request::Update {
                key,
                update,
                answer,
            } => self.update(&key, &update, answer),
            Request::Freeze {
                key,
                frozen,
                answer,
            } => self.freeze(&key, frozen, answer),
            Request::Attach { key, input, answer } => drop(answer.send(self.attach(&key, input))),
            Request::Resize {
                key,
                rows,
                columns,
                answer,
            } => drop(answer.send(self.resize(&key, rows, columns))),
            Request::Tell {
                kind,
                action,
                id,
                attributes,
                answer,
            } => {
                self.shared.events.tell(kind, action, &id, attributes);
                let _ = answer.send(());
            }
            Request::TellOfContainer {
                key,
                action,
                attributes,
                answer,
            } => {
                self.tell(&key, &action, attributes);
                let _ = answer.send(());
            }
            Request::Networks(answer) => drop(answer.send(self.networks())),
            Request::AddNetwork(new, answer) => self.add_network(*new, answer),
            Request::JoinNetwork {
                key,
                network,
                settings,
                answer,
            } => self.join_network(&key, &network, *settings, answer),
            Request::LeaveNetwork {
                key,
                network,
                answer,
            } => self.leave_network(&key, &network, answer),
            Request::RemoveNetwork(name, answer) => self.remove_network(&name, answer),
            Request::Reload(answer) => drop(answer.send(self.reload(false))),
            Request::Enable(name, enabled, answer) => {
                drop(answer.send(self.enable(&name, enabled)));
            }
            Request::Up(name, answer) => self.up(name, answer),
            Request::Down(name, answer) => self.down(name, answer),
            Request::Choose(name, image, answer) => {
                drop(answer.send(self.choose(&name, &image)));
            }
            Request::Upgrade {
                name,
                image,
                answer,
            } => self.upgrade(&name, &image, answer),
            Request::Events(answer) => drop(answer.send(self.shared.events.subscribe())),
        }
    }

    /// All services whose definition can be used, and all containers that clients made.
    fn containers(&self) -> Vec<Container> {
        let container = |(name, entry): (&String, &Entry)| Container {
            id: entry.record.id.clone(),
            key: name.clone(),
            stored: entry.stored.clone(),
            exit_code: entry.exit_code(),
            out_of_memory: entry.record.life.last == Some(Ending::OutOfMemory),
            paused: entry.record.paused,
            service: self.service(entry.title(), entry),
            definition: entry.definition.service.clone(),
            arguments: entry.definition.arguments(),
            stop: (entry.policy.stop_signal, entry.policy.stop_grace_period),
            ended_us: entry.record.life.ended_us,
            connection: entry.record.connection.clone(),
            health: health(entry),
        };
        self.services.iter().map(container).collect()
    }

    fn services(&self) -> Vec<api::Service> {
        let mut services: Vec<api::Service> = self
            .services
            .iter()
            .filter(|(_, entry)| entry.stored.is_none())
            .map(|(name, entry)| self.service(name, entry))
            .collect();
        for failure in &self.broken {
            if !services
                .iter()
                .any(|service| service.name == failure.source)
            {
                services.push(broken(failure));
            }
        }
        services.sort_by(|a, b| a.name.cmp(&b.name));
        services
    }

    fn service(&self, name: &str, entry: &Entry) -> api::Service {
        let (definition, life) = (&entry.definition, &entry.record.life);
        let (state, detail) = self.describe_state(entry);
        api::Service {
            name: name.to_owned(),
            image: definition.service.image.clone(),
            state,
            detail,
            pid: life.state.process().map(|process| process.pid),
            restarts: life.restarts,
            exit_code: life.last.and_then(crate::lifecycle::Ending::exit_code),
            created_us: life.created_us,
            started_us: life.started_us,
            ready_us: life.ready_us,
            depends_on: definition
                .service
                .depends_on
                .0
                .iter()
                .map(|dependency| dependency.name.clone())
                .collect(),
            after: definition.after(),
            privileges: privileges(definition),
            file: Some(definition.file.display().to_string()),
            own: definition.own,
            enabled: self.choices.of(name).enabled,
            next_image: self.next_image(entry),
            outdated: entry.stored.is_none() && self.is_outdated(entry),
            memory_bytes: slices::memory_bytes(
                &self.shared.options.cgroups,
                definition.slice(),
                &definition.name,
            ),
        }
    }

    /// The image that was chosen for the machine's next start, when that is another one.
    fn next_image(&self, entry: &Entry) -> Option<String> {
        let chosen = self.choices.of(&entry.definition.name).image;
        let is_other =
            entry.stored.is_none() && chosen != entry.pin && entry.record.trial.is_none();
        let defined = &entry.base.service.image;
        is_other.then(|| chosen.map_or_else(|| defined.clone(), |pin| pin.reference))
    }

    fn describe_state(&self, entry: &Entry) -> (api::State, Option<String>) {
        let own_words = || entry.record.status.clone();
        match entry.state() {
            State::Waiting => {
                let look = |other: &str| self.services.get(other).map(|entry| &entry.record.life);
                let detail = match graph::judge(&entry.definition, look) {
                    Verdict::Wait(names) => Some(format!("waits for {}", names.join(", "))),
                    _ => None,
                };
                (api::State::Waiting, detail)
            }
            State::Listening => (api::State::Listening, None),
            State::Creating | State::Starting { .. } => (api::State::Starting, own_words()),
            State::Ready { healthy: true, .. } => (api::State::Ready, own_words()),
            State::Ready { healthy: false, .. } => (
                api::State::Running,
                Some("its health check fails".to_owned()),
            ),
            State::Backoff { until_us, why } => {
                let seconds = until_us.saturating_sub(now_us()) as f64 / 1e6;
                (
                    api::State::Backoff,
                    Some(format!("{why}; starts again in {seconds:.1} s")),
                )
            }
            State::Finished => (api::State::Finished, own_words()),
            State::Failed { why, .. } => (api::State::Failed, Some(why.clone())),
            State::Stopping {
                then: Then::Fail(why),
                ..
            } => (api::State::Stopping, Some(why.clone())),
            State::Stopping { .. } => (api::State::Stopping, own_words()),
            State::Stopped => (api::State::Stopped, None),
        }
    }

    fn status(&self) -> api::Status {
        api::Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            hostname: nix::unistd::gethostname()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned(),
            uptime_us: now_us(),
            state: self.storage(),
            services: self.services(),
            failures: self.failures(),
            boot_complete_us: self.boot_complete_us,
        }
    }

    fn storage(&self) -> api::Storage {
        let path = self.shared.options.storage();
        let read = fs::read(&path).map_err(|error| error.to_string());
        let parsed =
            read.and_then(|text| serde_json::from_slice(&text).map_err(|error| error.to_string()));
        parsed.unwrap_or_else(|error| api::Storage {
            reason: Some(format!("cannot read {}: {error}", path.display())),
            ..api::Storage::default()
        })
    }

    fn failures(&self) -> Vec<api::Failure> {
        let mut failures = self.broken.clone();
        for entry in self
            .services
            .values()
            .filter(|entry| entry.stored.is_none())
        {
            let (State::Failed { why, .. } | State::Backoff { why, .. }) = entry.state() else {
                continue;
            };
            let mut failure = entry
                .definition
                .failure(entry.record.fault.as_deref().unwrap_or(""), why.clone());
            if entry.record.fault.is_none() {
                (failure.file, failure.line, failure.column) = (None, None, None);
            }
            failures.push(failure);
        }
        failures
    }

    fn boot(&self) -> api::Boot {
        boot::timeline(&self.shared.options.init_timeline(), &self.services())
    }
}

/// What its health check says; `None` without one, or while it does not run.
fn health(entry: &Entry) -> Option<HealthStatusEnum> {
    Check::of(&entry.definition.service)?;
    match entry.state() {
        State::Ready { healthy: true, .. } => Some(HealthStatusEnum::HEALTHY),
        State::Ready { healthy: false, .. } => Some(HealthStatusEnum::UNHEALTHY),
        State::Starting { .. } => Some(HealthStatusEnum::STARTING),
        _ => None,
    }
}

/// A service whose definition cannot be used.
fn broken(failure: &api::Failure) -> api::Service {
    api::Service {
        name: failure.source.clone(),
        image: String::new(),
        state: api::State::Failed,
        detail: Some(failure.message.clone()),
        pid: None,
        restarts: 0,
        exit_code: None,
        created_us: None,
        started_us: None,
        ready_us: None,
        depends_on: Vec::new(),
        after: Vec::new(),
        privileges: api::Privileges::default(),
        file: failure.file.clone(),
        own: false,
        enabled: true,
        next_image: None,
        outdated: false,
        memory_bytes: None,
    }
}
