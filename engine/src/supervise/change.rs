//! What is changed of a container that a client made: its name, its limits, whether it moves.

use super::containers::Answer;
use super::{Engine, Input};
use crate::containers::Stored;
use crate::docker::update::Update;
use crate::events::Attributes;
use crate::lifecycle::Policy;
use crate::server::Refusal;
use std::rc::Rc;
use std::sync::Arc;

impl Engine {
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
                self.tell_new_name(key);
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
        if entry.state().process().is_none() || !self.shared.limits {
            self.tell(key, "update", Attributes::new());
            return self.store_and_answer(key, answer);
        }
        // The kernel may refuse: it is asked before anything is stored.
        let resources = crate::spec::linux::limits(&entry.definition.service);
        let (shared, key) = (self.shared.clone(), key.to_owned());
        tokio::task::spawn_local(async move {
            let bundle = shared.options.container(&key);
            let result = shared.runtime.update(&key, &bundle, &resources).await;
            let _ = shared.inputs.send(Input::Updated {
                service: key,
                result,
                answer,
            });
        });
    }

    /// The limits of a container that runs have been changed, or not.
    pub(super) fn updated(&mut self, key: &str, result: anyhow::Result<()>, answer: Answer) {
        match result {
            Err(error) => {
                let why = format!("Cannot update container {key}: {error:#}");
                drop(answer.send(Err(Refusal::Failed(why))));
            }
            Ok(()) => {
                self.tell(key, "update", Attributes::new());
                self.store_and_answer(key, answer);
            }
        }
    }

    /// Has a container stand still, or go on.
    pub(super) fn freeze(&mut self, key: &str, frozen: bool, answer: Answer) {
        let refusal = match self.services.get(key) {
            None => Some(Refusal::NoSuchService(key.to_owned())),
            Some(entry) if entry.state().process().is_none() => Some(Refusal::Conflict(format!(
                "Container {} is not running",
                entry.record.id
            ))),
            Some(entry) if !entry.record.paused && !frozen => Some(Refusal::Failed(format!(
                "Container {} is not paused",
                entry.record.id
            ))),
            Some(entry) if entry.record.paused == frozen => Some(Refusal::Conflict(format!(
                "Container {} is already paused",
                entry.record.id
            ))),
            Some(_) => None,
        };
        if let Some(refusal) = refusal {
            return drop(answer.send(Err(refusal)));
        }
        let (shared, key) = (self.shared.clone(), key.to_owned());
        tokio::task::spawn_local(async move {
            let result = shared.runtime.freeze(&key, frozen).await;
            let _ = shared.inputs.send(Input::Frozen {
                service: key,
                frozen,
                result,
                answer,
            });
        });
    }

    /// A container stands still, goes on, or would not.
    pub(super) fn frozen(
        &mut self,
        key: &str,
        frozen: bool,
        result: anyhow::Result<()>,
        answer: Answer,
    ) {
        if let Err(error) = result {
            let why = format!("Cannot pause or unpause container {key}: {error:#}");
            return drop(answer.send(Err(Refusal::Failed(why))));
        }
        if let Some(entry) = self.services.get_mut(key) {
            entry.record.paused = frozen && entry.state().process().is_some();
        }
        self.save(key);
        self.tell(
            key,
            if frozen { "pause" } else { "unpause" },
            Attributes::new(),
        );
        let _ = answer.send(Ok(()));
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
}
