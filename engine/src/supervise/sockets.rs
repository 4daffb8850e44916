//! Sockets that are listened at for services: opened before a service runs, kept over its restarts and the engine's,
//! closed when it is stopped or given up.

use super::entry::Task;
use super::{Engine, Input};
use crate::compose::socket::{Socket, Start};
use crate::lifecycle::{Event, State};
use crate::readiness::register;
use crate::sockets;
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};

/// A socket, and its end that is listened at.
pub(super) type Open = (Socket, OwnedFd);

impl Engine {
    /// Takes over what an earlier engine listened at.
    pub(super) fn adopt_sockets(&mut self, name: &str, stored: &mut BTreeMap<String, OwnedFd>) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        for socket in &entry.definition.service.keelson.sockets {
            if let Some(fd) = stored.remove(&format!("{name}.{}", socket.key())) {
                entry.sockets.push((socket.clone(), fd));
            }
        }
    }

    /// Listens for a service as its definition says, in the order of that; what was listened at before stays so.
    ///
    /// # Errors
    /// The first socket that cannot be listened at; at the others it is listened, until the service is given up.
    pub(super) fn open_sockets(&mut self, name: &str) -> anyhow::Result<()> {
        let Some(entry) = self.services.get_mut(name) else {
            return Ok(());
        };
        let wanted = &entry.definition.service.keelson.sockets;
        let is_open = entry.sockets.iter().map(|(socket, _)| socket);
        if is_open.eq(wanted.iter()) {
            return Ok(());
        }
        let wanted = wanted.clone();
        let before = std::mem::take(&mut entry.sockets);
        let (unwanted, mut kept): (Vec<Open>, Vec<Open>) = before
            .into_iter()
            .partition(|(socket, _)| !wanted.contains(socket));
        self.close(name, unwanted);
        let (mut open, mut failed) = (Vec::new(), None);
        for socket in wanted {
            let fd = match kept.iter().position(|(other, _)| *other == socket) {
                Some(at) => Ok(kept.swap_remove(at).1),
                None => self.listen_at(name, &socket),
            };
            match fd {
                Ok(fd) => open.push((socket, fd)),
                Err(error) => failed = failed.or(Some(error)),
            }
        }
        if let Some(entry) = self.services.get_mut(name) {
            entry.sockets = open;
            // Who waits does so at other sockets.
            entry.caller = None;
        }
        failed.map_or(Ok(()), Err)
    }

    fn listen_at(&self, name: &str, socket: &Socket) -> anyhow::Result<OwnedFd> {
        let fd = sockets::open(socket)?;
        let stored = format!("{name}.{}", socket.key());
        self.shared.link.store(&stored, fd.as_fd())?;
        Ok(fd)
    }

    /// What a new container of a service finds from descriptor 3 on.
    pub(super) fn sockets(&self, name: &str) -> std::io::Result<Vec<OwnedFd>> {
        let entry = self.services.get(name);
        let open = entry
            .map(|entry| entry.sockets.iter())
            .into_iter()
            .flatten();
        open.map(|(_, fd)| fd.try_clone()).collect()
    }

    /// After each change of a service: who waits for it to be called, and what is listened at no longer.
    pub(super) fn listen_as_its_state_says(&mut self, name: &str) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        if entry.definition.service.keelson.sockets.is_empty() && entry.sockets.is_empty() {
            return;
        }
        match entry.state() {
            State::Listening => self.await_call(name),
            State::Stopped | State::Failed { .. } | State::Finished => {
                entry.caller = None;
                let open = std::mem::take(&mut entry.sockets);
                self.close(name, open);
            }
            _ => entry.caller = None,
        }
    }

    /// Listens for every service that starts with the machine, before any of them runs: who connects waits until it
    /// is answered.
    pub(super) fn listen_for_all(&mut self) {
        let names: Vec<String> = self.services.keys().cloned().collect();
        for name in names {
            let state = self.services.get(&name).map(|entry| entry.state().clone());
            match state {
                Some(State::Listening) => self.await_call(&name),
                // What fails here fails again, and is told, when it starts.
                Some(State::Waiting) => drop(self.open_sockets(&name)),
                _ => {}
            }
        }
    }

    fn await_call(&mut self, name: &str) {
        if let Err(error) = self.open_sockets(name) {
            let event = Event::LaunchFailed {
                why: format!("{error:#}"),
                permanent: true,
            };
            return self.apply(name, event);
        }
        let Some(entry) = self
            .services
            .get_mut(name)
            .filter(|entry| entry.caller.is_none())
        else {
            return;
        };
        let open = entry.sockets.iter();
        let waiting: Vec<_> = open
            .filter_map(|(_, fd)| register(fd.try_clone().ok()?).ok())
            .collect();
        if waiting.is_empty() {
            return;
        }
        let (service, inputs) = (name.to_owned(), self.shared.inputs.clone());
        entry.caller = Some(Task::spawn(async move {
            let called = waiting.iter().map(|fd| Box::pin(fd.readable()));
            let _ = futures_util::future::select_all(called).await;
            let _ = inputs.send(Input::Called { service });
        }));
    }

    /// Somebody has connected to a service that does not run yet, or sent something there.
    pub(super) fn called(&mut self, name: &str) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        entry.caller = None;
        if *entry.state() == State::Listening {
            self.shared
                .console
                .info(&format!("service {name} is started: somebody has called"));
            self.apply(name, Event::Start);
        }
    }

    fn close(&self, name: &str, open: Vec<Open>) {
        for (socket, fd) in open {
            self.forget_stored(name, &[&socket.key()]);
            drop(fd);
            sockets::remove(&socket);
        }
    }
}

impl super::Entry {
    /// Whether it is started by who connects to it.
    pub(super) fn starts_when_called(&self) -> bool {
        self.definition.service.keelson.start == Start::Socket
    }
}
