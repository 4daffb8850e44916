//! What clients of the API have done with services.

use super::Engine;
use super::entry::Until;
use crate::docker::Command;
use crate::lifecycle::Event;
use crate::server::Refusal;
use std::time::Duration;
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
        let console = &self.shared.console;
        let (event, within, until) = match command {
            Command::Start => (Some(Event::Restart), None, Until::Launched),
            Command::Stop(within) => (Some(Event::Stop), within, Until::Down),
            Command::Restart(within) => (Some(Event::Restart), within, Until::Settled),
            Command::Wait => (None, None, Until::Down),
            Command::Kill => {
                // The stop signal that follows finds a process that is dead already.
                let _ = self.signal(&name, nix::libc::SIGKILL);
                (Some(Event::Stop), Some(Duration::ZERO), Until::Down)
            }
            Command::Signal(number) => {
                let sent = self.signal(&name, number);
                drop(answer.send(sent.map_err(|error| Refusal::Failed(error.to_string()))));
                return;
            }
        };
        match command {
            Command::Start => console.info(&format!("service {name} is started on request")),
            Command::Kill => console.info(&format!("service {name} is killed on request")),
            Command::Stop(_) => console.info(&format!("service {name} is stopped on request")),
            Command::Restart(_) => console.info(&format!("service {name} is restarted on request")),
            Command::Wait | Command::Signal(_) => {}
        }
        for event in event.into_iter().chain(within.map(Event::Within)) {
            self.apply(&name, event);
        }
        let (outcome, waiter) = oneshot::channel();
        tokio::task::spawn_local(async move {
            let outcome = waiter.await;
            let outcome = outcome.unwrap_or_else(|_| Err("the engine ended".to_owned()));
            let _ = answer.send(outcome.map_err(Refusal::Failed));
        });
        // Only now: the state before was not the outcome.
        if let Some(entry) = self.services.get_mut(&name) {
            entry.waiters.push((until, outcome));
            entry.resolve_waiters();
        }
    }

    /// Sends a signal to the first process of a service.
    fn signal(&self, name: &str, number: i32) -> std::io::Result<()> {
        let entry = self.services.get(name);
        match entry.and_then(|entry| entry.pidfd.as_ref()) {
            Some(pidfd) => keelson_sys::pidfd::send_signal(pidfd, number),
            None => Err(std::io::Error::other("it does not run")),
        }
    }

    fn may_control(&self, name: &str) -> Result<(), Refusal> {
        if self.services.contains_key(name) {
            return match self.shutdown {
                Some(_) => Err(Refusal::Failed("the system is going down".to_owned())),
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
