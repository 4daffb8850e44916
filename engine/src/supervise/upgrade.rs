//! A service gets another image without a reboot: the new one is started, and when it does not come up the old one
//! comes back.

use super::containers::Answer;
use super::entry::Until;
use super::{Engine, image};
use crate::choices::{Choice, Pin};
use crate::images;
use crate::lifecycle::{Event, State};
use crate::server::Refusal;
use keelson_image::store;
use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

/// An image that a service is tried with. It is on its record, so that the next engine goes on with the trial.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trial {
    /// The new image; `None` is that of the definition.
    pub new: Option<Pin>,
    /// What it ran from before.
    pub old: Option<Pin>,
}

/// The name by which the image of a service is kept from being removed, while it is on trial.
pub(crate) fn trial_lease(service: &str) -> String {
    format!("{service}.next")
}

impl Engine {
    /// Starts a service from another image. Answers when it is ready, or when the old one has come back.
    pub(super) fn upgrade(&mut self, name: &str, reference: &str, answer: Answer) {
        let entry = match self.is_service(name) {
            Err(refusal) => return drop(answer.send(Err(refusal))),
            Ok(entry) => entry,
        };
        let refusal = match () {
            () if self.shutdown.is_some() => Some("the system is going down".to_owned()),
            () if entry.record.trial.is_some() => Some(format!("{name} is being upgraded already")),
            () => None,
        };
        if let Some(why) = refusal {
            return drop(answer.send(Err(Refusal::Conflict(why))));
        }
        let image = match images::find(&self.shared.options, reference) {
            Err(why) => return drop(answer.send(Err(Refusal::Invalid(why.to_string())))),
            Ok(image) => image,
        };
        let new = (!image.built_in || entry.base.service.image != reference).then(|| Pin {
            reference: reference.to_owned(),
            id: image.id,
        });
        let old = entry
            .pin
            .clone()
            .or_else(|| image::pin_of_the_running(&self.shared, &entry.definition));
        let is_down = entry.state().is_down();
        if let Some(entry) = self.services.get_mut(name) {
            entry.pin(new.clone());
            entry.record.trial = Some(Trial { new, old });
            entry.trial_answers.push(answer);
        }
        self.save(name);
        self.shared
            .console
            .info(&format!("service {name} is upgraded to {reference}"));
        let event = match is_down {
            true => Event::Start,
            false => Event::Restart,
        };
        self.apply(name, event);
    }

    /// Has a service run from another image from the machine's next start on.
    pub(super) fn choose(&mut self, name: &str, reference: &str) -> Result<(), Refusal> {
        let base = &self.is_service(name)?.base.service.image;
        let image = images::find(&self.shared.options, reference)
            .map_err(|why| Refusal::Invalid(why.to_string()))?;
        let pin = (!image.built_in || base != reference).then(|| Pin {
            reference: reference.to_owned(),
            id: image.id,
        });
        let choice = Choice {
            image: pin,
            ..self.choices.of(name)
        };
        self.decide(name, choice).map_err(Refusal::Failed)
    }

    /// After each change of a service: a trial may have come to something.
    pub(super) fn trial_may_have_ended(&mut self, name: &str) {
        let Some(entry) = self.services.get(name) else {
            return;
        };
        let Some(trial) = entry.record.trial.clone() else {
            return;
        };
        match entry.state() {
            State::Ready { .. } | State::Finished => self.keep_new(name, &trial),
            State::Failed { why, .. } | State::Backoff { why, .. } => {
                let why = why.clone();
                self.go_back(name, trial, &why);
            }
            State::Stopped => self.go_back(name, trial, "it was stopped"),
            _ => {}
        }
    }

    fn keep_new(&mut self, name: &str, trial: &Trial) {
        let choice = Choice {
            image: trial.new.clone(),
            ..self.choices.of(name)
        };
        let kept = self
            .keep_image(name, trial.new.as_ref())
            .map_err(|why| format!("cannot keep its image: {why}"))
            .and_then(|()| self.decide(name, choice));
        let kept = kept.map_err(|why| {
            format!("{name} runs from its new image until the next boot only: {why}")
        });
        if let Err(why) = &kept {
            self.shared.console.error(&format!("service {why}"));
        }
        for answer in self.end_trial(name) {
            let _ = answer.send(kept.clone().map_err(Refusal::Failed));
        }
    }

    fn keep_image(&self, name: &str, pin: Option<&Pin>) -> Result<(), store::Error> {
        let options = &self.shared.options;
        let store = images::store(options);
        let image = pin.map(|pin| images::find(options, &pin.id)).transpose()?;
        match image
            .filter(|image| !image.built_in)
            .map(|image| image.id.parse())
        {
            Some(Ok(id)) => store.lease(name, &id)?,
            _ => store.release(name)?,
        }
        store.release(&trial_lease(name))
    }

    /// Back to the old image, which is started again unless somebody has stopped it.
    fn go_back(&mut self, name: &str, trial: Trial, why: &str) {
        let answers = self.end_trial(name);
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        let tried = entry.definition.service.image.clone();
        entry.pin(trial.old);
        let old = entry.definition.service.image.clone();
        let why = format!("{name} did not come up from {tried}: {why}; it is back on {old}");
        self.shared.console.error(&format!("service {why}"));
        let was_stopped = *entry.state() == State::Stopped;
        let (settled, outcome) = oneshot::channel();
        if !was_stopped {
            self.apply(name, Event::Restart);
        }
        if let Some(entry) = self.services.get_mut(name) {
            entry.waiters.push((Until::Settled, settled));
            entry.resolve_waiters();
        }
        let store = images::store(&self.shared.options);
        if let Err(error) = store.release(&trial_lease(name)) {
            self.shared
                .console
                .error(&format!("the image {tried} cannot be let go of: {error}"));
        }
        tokio::task::spawn_local(async move {
            let outcome = outcome.await.unwrap_or(Ok(()));
            let why = match outcome {
                Ok(()) => why,
                Err(also) if was_stopped => format!("{why} ({also})"),
                Err(also) => format!("{why}, which does not come up either: {also}"),
            };
            for answer in answers {
                let _ = answer.send(Err(Refusal::Failed(why.clone())));
            }
        });
    }

    fn end_trial(&mut self, name: &str) -> Vec<Answer> {
        let Some(entry) = self.services.get_mut(name) else {
            return Vec::new();
        };
        entry.record.trial = None;
        let answers = std::mem::take(&mut entry.trial_answers);
        self.save(name);
        answers
    }
}
