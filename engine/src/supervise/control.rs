//! What clients of the API have done with services.

use super::containers::Answer;
use super::entry::Until;
use super::{Engine, Input};
use crate::docker::{Command, Condition};
use crate::events::Attributes;
use crate::lifecycle::Event;
use crate::server::Refusal;
use tokio::sync::oneshot;

impl Engine {
    /// Does what is asked; `answer` comes when it has come to something.
    pub(super) fn control(
        &mut self,
        name: String,
        command: Command,
        answer: oneshot::Sender<Result<(), Refusal>>,
    ) {
        if let Err(refusal) = self.may_control(&name) {
            drop(answer.send(Err(refusal)));
            return;
        }
        let paused = self
            .services
            .get(&name)
            .is_some_and(|entry| entry.record.paused);
        if paused && matches!(command, Command::Stop(_) | Command::Restart(_)) {
            // A process that stands still hears no signal that asks it to end.
            return self.thaw(name, command, answer);
        }
        let (event, within, until) = match command {
            Command::Start => (Some(Event::Start), None, Until::Launched),
            Command::Stop(within) => (Some(Event::Stop), within, Until::Down),
            Command::Up => (Some(Event::Start), None, Until::Settled),
            Command::Restart(within) => (Some(Event::Restart), within, Until::Settled),
            Command::Kill => {
                self.tell_signal(&name, nix::libc::SIGKILL);
                self.kill_now(&name);
                (None, None, Until::Down)
            }
            Command::Signal(number) => {
                let sent = self.signal(&name, number);
                self.tell_signal(&name, number);
                drop(answer.send(sent.map_err(|error| Refusal::Failed(error.to_string()))));
                return;
            }
        };
        if !self.is_container(&name) {
            let word = match command {
                Command::Start | Command::Up => "started",
                Command::Stop(_) => "stopped",
                Command::Restart(_) => "restarted",
                Command::Kill | Command::Signal(_) => "killed",
            };
            let console = &self.shared.console;
            console.info(&format!("service {name} is {word} on request"));
        }
        for event in event.into_iter().chain(within.map(Event::Within)) {
            self.apply(&name, event);
        }
        // Only now: the state before was not the outcome.
        self.answer_when(&name, until, answer);
    }

    /// Answers when a service has come to something.
    pub(super) fn answer_when(&mut self, name: &str, until: Until, answer: Answer) {
        let (outcome, waiter) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let outcome = waiter.await;
            let outcome = outcome.unwrap_or_else(|_| Err("the engine ended".to_owned()));
            let _ = answer.send(outcome.map_err(Refusal::Failed));
        });
        if let Some(entry) = self.services.get_mut(name) {
            entry.waiters.push((until, outcome));
            entry.resolve_waiters();
        }
    }

    fn thaw(
        &self,
        service: String,
        command: Command,
        answer: oneshot::Sender<Result<(), Refusal>>,
    ) {
        let shared = self.shared.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = shared.runtime.freeze(&service, false).await {
                let console = &shared.console;
                console.error(&format!(
                    "container {service}: cannot be resumed: {error:#}"
                ));
            }
            let _ = shared.inputs.send(Input::Thawed {
                service,
                command,
                answer,
            });
        });
    }

    /// Sends a signal to the first process of a service.
    pub(super) fn signal(&self, name: &str, number: i32) -> std::io::Result<()> {
        let entry = self.services.get(name);
        match entry.and_then(|entry| entry.pidfd.as_ref()) {
            Some(pidfd) => keelson_sys::pidfd::send_signal(pidfd, number),
            None => Err(std::io::Error::other("it does not run")),
        }
    }

    pub(super) fn tell_signal(&self, name: &str, number: i32) {
        let signal = ("signal".to_owned(), number.to_string());
        self.tell(name, "kill", Attributes::from([signal]));
    }

    /// Registers somebody who waits for an exit status.
    pub(super) fn wait(
        &mut self,
        name: &str,
        until: Condition,
    ) -> Result<oneshot::Receiver<i32>, Refusal> {
        let entry = self
            .services
            .get_mut(name)
            .ok_or_else(|| Refusal::NoSuchService(name.to_owned()))?;
        let until = match until {
            Condition::NotRunning => Until::Down,
            Condition::NextExit => Until::NextExit(entry.record.life.ended_us),
            Condition::Removed => Until::Removed,
        };
        let (sender, receiver) = oneshot::channel();
        entry.exits.push((until, sender));
        entry.resolve_waiters();
        Ok(receiver)
    }

    pub(super) fn may_control(&self, name: &str) -> Result<(), Refusal> {
        if let Some(entry) = self.services.get(name) {
            return match self.shutdown {
                Some(_) => Err(Refusal::Failed("the system is going down".to_owned())),
                None if entry.disposing => Err(Refusal::Conflict(
                    "container is marked for removal and cannot be started".to_owned(),
                )),
                None => Ok(()),
            };
        }
        let broken = self.broken.iter().find(|failure| failure.source == name);
        Err(match broken {
            Some(failure) => {
                Refusal::Failed(format!("{name} cannot be started: {}", failure.message))
            }
            None => Refusal::NoSuchService(name.to_owned()),
        })
    }
}
