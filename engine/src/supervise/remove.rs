//! The end of a container that a client made.

use super::Engine;
use super::containers::Answer;
use super::entry::Until;
use super::worker::dispose;
use crate::choices::Choice;
use crate::events::Attributes;
use crate::lifecycle::Event;
use crate::server::Refusal;
use std::time::Duration;

impl Engine {
    /// Removes a container; one that runs only by `force`.
    pub(super) fn remove_container(&mut self, key: &str, force: bool, answer: Answer) {
        let refusal = match self.services.get(key) {
            None => Some(Refusal::NoSuchService(key.to_owned())),
            Some(entry) if entry.stored.is_none() => Some(Refusal::Conflict(format!(
                "cannot remove container \"/{key}\": it is a service of the system"
            ))),
            Some(entry) if !force && entry.record.paused => Some(Refusal::Conflict(format!(
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
        if let Some(entry) = self.services.get_mut(key) {
            entry.killed = true;
        }
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
        if self.is_service(key).is_ok()
            && let Err(why) = self.decide(key, Choice::default())
        {
            self.shared.console.error(&why);
        }
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
        let (log, name) = (self.shared.options.log_socket(), key.to_owned());
        tokio::task::spawn_local(async move {
            // A log service that is away has nothing to let go of.
            let _ = crate::handover::forget(&log, &name).await;
        });
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
}
