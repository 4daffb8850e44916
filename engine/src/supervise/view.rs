//! What the API shows.

use super::{Engine, Entry};
use crate::api;
use crate::clock::now_us;
use crate::graph::{self, Verdict};
use crate::lifecycle::{Event, State, Then};
use crate::server::{Refusal, Request};
use crate::{boot, slices};
use std::fs;

impl Engine {
    /// Answers one request; a restart is answered when it has come to something.
    pub(super) fn answer(&mut self, request: Request) {
        match request {
            Request::Services(answer) => drop(answer.send(self.services())),
            Request::Status(answer) => drop(answer.send(self.status())),
            Request::Boot(answer) => drop(answer.send(self.boot())),
            Request::Restart(name, answer) => {
                if !self.services.contains_key(&name) {
                    let message = match self.broken.iter().find(|failure| failure.source == name) {
                        Some(failure) => Refusal::Failed(format!(
                            "{name} cannot be started: {}",
                            failure.message
                        )),
                        None => Refusal::NoSuchService(name),
                    };
                    let _ = answer.send(Err(message));
                    return;
                }
                if self.shutdown.is_some() {
                    let _ =
                        answer.send(Err(Refusal::Failed("the system is going down".to_owned())));
                    return;
                }
                let (outcome, waiter) = tokio::sync::oneshot::channel();
                tokio::task::spawn_local(async move {
                    let outcome = waiter
                        .await
                        .unwrap_or_else(|_| Err("the engine ended".to_owned()));
                    let _ = answer.send(outcome.map_err(Refusal::Failed));
                });
                self.shared
                    .console
                    .info(&format!("service {name} is restarted on request"));
                self.apply(&name, Event::Restart);
                // Only now: the state before the restart is not its outcome.
                if let Some(entry) = self.services.get_mut(&name) {
                    entry.waiters.push(outcome);
                }
            }
        }
    }

    fn services(&self) -> Vec<api::Service> {
        let mut services: Vec<api::Service> = self
            .services
            .iter()
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
            privileges: api::Privileges {
                capabilities: definition.capabilities(),
                privileged: definition.service.privileged,
            },
            memory_bytes: slices::memory_bytes(
                &self.shared.options.cgroups,
                definition.slice(),
                name,
            ),
        }
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
        for entry in self.services.values() {
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
        memory_bytes: None,
    }
}
