//! The output of services: pipes that outlive the engine, read by the log service, or here when there is none.

use super::entry::Task;
use super::{Engine, Input};
use crate::handover::{Piece, hand_over};
use crate::lifecycle::State;
use crate::notify;
use crate::output::{Output, Pipe, Stream, drain};
use crate::runtime::Streams;
use anyhow::Context;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

/// The service that takes the output of all others.
pub(super) const LOG: &str = "log";

/// So often pipes are offered to a log service that does not take them, a second apart.
const OFFERS_MAX: u32 = 5;

/// So many quick ends in a row make the log service one that is not coming back soon.
const LOST_STREAK: u32 = 6;

impl Engine {
    /// Makes the service's notify socket and listens to it, unless that is done already.
    pub(super) fn listen(&mut self, name: &str) -> anyhow::Result<()> {
        if self
            .services
            .get(name)
            .is_none_or(|entry| entry.ears.is_some())
        {
            return Ok(());
        }
        let socket = notify::listen(&self.shared.options.notify(name))?;
        self.shared
            .link
            .store(&format!("{name}.notify"), socket.as_fd())?;
        self.hear_from(name, socket);
        Ok(())
    }

    /// Listens to a notify socket.
    pub(super) fn hear_from(&mut self, name: &str, socket: OwnedFd) {
        let (service, inputs) = (name.to_owned(), self.shared.inputs.clone());
        let ears = Task::spawn(notify::hear(socket, move |message| {
            let _ = inputs.send(Input::Said {
                service: service.clone(),
                message,
            });
        }));
        if let Some(entry) = self.services.get_mut(name) {
            entry.ears = Some(ears);
        }
    }

    /// What a new container of this service writes to; the pipes are made at its first start.
    pub(super) fn streams(&mut self, name: &str) -> anyhow::Result<Streams> {
        if self
            .services
            .get(name)
            .is_some_and(|entry| entry.output.is_none())
        {
            let output = Output::new(Pipe::new()?, Pipe::new()?);
            for stream in Stream::BOTH {
                let stored = format!("{name}.{}", stream.as_str());
                self.shared
                    .link
                    .store(&stored, output.pipe(stream).held())?;
            }
            self.connect_output(name, output);
        }
        let output = self
            .services
            .get(name)
            .and_then(|entry| entry.output.as_ref());
        output
            .context("it has no output pipes")?
            .streams()
            .context("cannot open its output pipes")
    }

    /// Gives a service its pipes and the pipes their reader.
    pub(super) fn connect_output(&mut self, name: &str, output: Output) {
        let log_reads = self
            .services
            .get(LOG)
            .is_some_and(|log| matches!(log.state(), State::Ready { .. }));
        if let Some(entry) = self.services.get_mut(name) {
            entry.output = Some(output);
        }
        if log_reads {
            let pieces = self.pieces(name);
            self.offer(pieces);
        } else if self.log_is_lost() {
            self.drain(name);
        }
    }

    /// Whether nobody will read the output soon: there is no log service, or it does not come up.
    pub(super) fn log_is_lost(&self) -> bool {
        self.services.get(LOG).is_none_or(|log| match log.state() {
            State::Failed { .. } | State::Stopped => true,
            State::Backoff { .. } => log.record.life.streak >= LOST_STREAK,
            _ => false,
        })
    }

    /// After each change of a service: when it was the log service, somebody else may have to read.
    pub(super) fn log_may_have_changed(&mut self, name: &str, before: &State) {
        let Some(log) = self.services.get(LOG).filter(|_| name == LOG) else {
            return;
        };
        let is_ready = matches!(log.state(), State::Ready { .. });
        if is_ready && !matches!(before, State::Ready { .. }) {
            self.give_log_everything();
        } else if !is_ready && self.shutdown.is_none() && self.log_is_lost() {
            for name in self.services.keys().cloned().collect::<Vec<_>>() {
                self.drain(&name);
            }
        }
    }

    /// All pipes to the log service.
    pub(super) fn give_log_everything(&mut self) {
        self.discarding = false;
        let names: Vec<String> = self.services.keys().cloned().collect();
        let mut pieces: Vec<Piece> = names.iter().flat_map(|name| self.pieces(name)).collect();
        let own = self
            .own_output
            .as_ref()
            .and_then(|pipe| pipe.reader(false).ok());
        pieces.extend(own.map(|reader| Piece {
            name: "engine".to_owned(),
            stream: "stderr",
            reader,
        }));
        for entry in self.services.values_mut() {
            entry.drains.clear();
        }
        self.offer(pieces);
    }

    fn pieces(&self, name: &str) -> Vec<Piece> {
        let Some(output) = self
            .services
            .get(name)
            .and_then(|entry| entry.output.as_ref())
        else {
            return Vec::new();
        };
        let piece = |stream: Stream| {
            let reader = output.pipe(stream).reader(false).ok()?;
            Some(Piece {
                name: name.to_owned(),
                stream: stream.as_str(),
                reader,
            })
        };
        Stream::BOTH.into_iter().filter_map(piece).collect()
    }

    fn offer(&self, mut pieces: Vec<Piece>) {
        let Some(log) = self.services.get(LOG) else {
            return;
        };
        let (socket, inputs, attempt) = (
            self.shared.options.log_socket(),
            self.shared.inputs.clone(),
            log.attempt,
        );
        tokio::task::spawn_local(async move {
            let mut result = Ok(());
            for _ in 0..OFFERS_MAX {
                result = hand_over(&socket, &mut pieces).await;
                if result.is_ok() {
                    break;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            let _ = inputs.send(Input::HandedOver { attempt, result });
        });
    }

    /// The log service's answer.
    pub(super) fn handed_over(&mut self, attempt: u64, result: anyhow::Result<()>) {
        let Some(log) = self
            .services
            .get_mut(LOG)
            .filter(|log| log.attempt == attempt)
        else {
            return;
        };
        match result {
            Ok(()) => {
                log.record.handed_over = true;
                self.save(LOG);
            }
            Err(error) => self
                .shared
                .console
                .error(&format!("output of services is not logged: {error:#}")),
        }
    }

    /// Reads the output of a service here, so that the service does not stand still when its pipe is full.
    fn drain(&mut self, name: &str) {
        let system = self.shared.link.is_connected();
        if system && !self.discarding {
            self.discarding = true;
            self.shared
                .console
                .error("there is no log service: the output of services is thrown away");
        }
        let Some(entry) = self
            .services
            .get_mut(name)
            .filter(|entry| entry.drains.is_empty())
        else {
            return;
        };
        let Some(output) = &entry.output else { return };
        for stream in Stream::BOTH {
            let Ok(reader) = output.pipe(stream).reader(true) else {
                continue;
            };
            let name = name.to_owned();
            entry.drains.push(Task::spawn(drain(reader, move |line| {
                if !system {
                    println!("{name} | {line}");
                }
            })));
        }
    }
}
