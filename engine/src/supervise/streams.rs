//! What a container's standard streams are connected to, and clients that are attached to it.

use super::bundle::Plan;
use super::upgrade::trial_lease;
use super::{Engine, Input};
use crate::compose::{Kind, NetworkMode};
use crate::lifecycle::State;
use crate::output::{Pipe, Stream};
use crate::relay::{Attached, Relay, terminal};
use crate::runtime::Streams;
use crate::server::Refusal;
use anyhow::{Context, anyhow};
use keelson_sys::control::ToInit;
use std::collections::BTreeMap;
use std::io::pipe;
use std::os::fd::{AsFd, OwnedFd};

/// The names under which PID 1 keeps a relayed container's own pipes; what it prints goes on to the log's.
const PRINTED: [(&str, Stream); 2] = [("out", Stream::Stdout), ("err", Stream::Stderr)];

impl Engine {
    /// What a container is made from, its streams connected.
    pub(super) fn plan(&mut self, name: &str) -> anyhow::Result<Plan> {
        let network_of = self.network_of(name)?;
        let wires = self.give_network(name)?;
        let hosts = self.known_hosts(name);
        let entry = self.services.get(name).context("it is gone")?;
        let (definition, stored) = (entry.definition.clone(), entry.stored.clone());
        let pin = entry.pin.clone();
        let lease = match entry.record.trial {
            Some(_) => trial_lease(name),
            None => name.to_owned(),
        };
        if definition.kind == Kind::Service {
            self.listen(name)?;
            self.open_sockets(name)?;
        }
        let mut streams = self.streams(name)?;
        if self.is_relayed(name) {
            streams = self.relayed_streams(name, streams)?;
        }
        streams.sockets = self.sockets(name)?;
        Ok(Plan {
            definition,
            stored,
            pin,
            lease,
            streams,
            network_of,
            wires,
            hosts,
        })
    }

    /// The process whose network a container joins.
    fn network_of(&self, name: &str) -> anyhow::Result<Option<i32>> {
        let entry = self.services.get(name);
        let mode = entry.and_then(|entry| entry.definition.service.network_mode.as_ref());
        let Some(NetworkMode::Container(other)) = mode else {
            return Ok(None);
        };
        let process = self.find(other).and_then(|entry| entry.state().process());
        match process {
            Some(process) => Ok(Some(process.pid)),
            None => Err(anyhow!(
                "cannot join network of a non running container: {other}"
            )),
        }
    }

    /// The one of that name, number or key.
    pub(super) fn find(&self, name: &str) -> Option<&super::Entry> {
        self.services.get(name).or_else(|| {
            self.services
                .values()
                .find(|entry| entry.title() == name || entry.record.id == name)
        })
    }

    /// Whether clients may be attached to it: it has a terminal or an open input, or whoever made it wanted to see.
    fn is_relayed(&self, name: &str) -> bool {
        let Some(entry) = self.services.get(name) else {
            return false;
        };
        let service = &entry.definition.service;
        let wanted = entry.stored.as_ref().is_some_and(|stored| {
            [stored.body.attach_stdout, stored.body.attach_stderr].contains(&Some(true))
        });
        wanted || service.tty || service.stdin_open
    }

    /// The relay of a container, made when it is first needed.
    fn relay(&mut self, name: &str) -> Option<&Relay> {
        if !self.is_relayed(name) {
            return None;
        }
        let entry = self.services.get_mut(name)?;
        let open = entry.definition.service.stdin_open;
        let body = entry.stored.as_ref().map(|stored| &stored.body);
        let once = body.and_then(|body| body.stdin_once).unwrap_or(false);
        Some(entry.relay.get_or_insert_with(|| Relay::new(open, once)))
    }

    /// Connects a relay between the container and the pipes that the log reads.
    fn relayed_streams(&mut self, name: &str, log: Streams) -> anyhow::Result<Streams> {
        let link = self.shared.link.clone();
        let store = |what: &str, fd: &OwnedFd| link.store(&format!("{name}.{what}"), fd.as_fd());
        let inputs = self.shared.inputs.clone();
        let entry = self.services.get(name).context("it is gone")?;
        let (tty, open) = (
            entry.definition.service.tty,
            entry.definition.service.stdin_open,
        );
        let relay = self.relay(name).context("it has no relay")?;
        if tty {
            // The terminal comes when the container is made.
            return Ok(log);
        }
        let mut stdin = None;
        if open {
            let (reader, writer) = pipe()?;
            let writer = terminal::nonblocking(writer.into())?;
            store("stdin", &writer)?;
            let service = name.to_owned();
            relay.carry_input(writer, move || {
                let _ = inputs.send(Input::Untypable { service });
            })?;
            stdin = Some(reader.into());
        }
        let mut printed = Vec::new();
        for ((what, stream), log) in PRINTED.into_iter().zip([log.stdout, log.stderr]) {
            let pipe = Pipe::new()?;
            link.store(&format!("{name}.{what}"), pipe.held())?;
            let log = terminal::nonblocking(log)?;
            relay.carry_pipe(stream, pipe.reader(true)?, Some(log))?;
            printed.push(pipe.writer()?);
        }
        let (stderr, stdout) = (printed.pop(), printed.pop());
        Ok(Streams {
            stdin,
            stdout: stdout.context("there is no pipe")?,
            stderr: stderr.context("there is no pipe")?,
            sockets: Vec::new(),
        })
    }

    /// The terminal of a container that is being made.
    pub(super) fn take_terminal(&mut self, name: &str, master: OwnedFd) {
        let kept = self
            .shared
            .link
            .store(&format!("{name}.terminal"), master.as_fd())
            .map_err(anyhow::Error::from);
        if let Err(error) = kept.and_then(|()| self.carry_terminal(name, master)) {
            let console = &self.shared.console;
            console.error(&format!("container {name}: no terminal: {error:#}"));
        }
    }

    fn carry_terminal(&mut self, name: &str, master: OwnedFd) -> anyhow::Result<()> {
        let log = self.streams(name)?.stdout;
        let relay = self.relay(name).context("it is gone")?;
        Ok(relay.carry_terminal(master, Some(terminal::nonblocking(log)?))?)
    }

    /// Goes on carrying what an earlier engine carried.
    pub(super) fn adopt_streams(&mut self, name: &str, stored: &mut BTreeMap<String, OwnedFd>) {
        let mut kept = |what: &str| stored.remove(&format!("{name}.{what}"));
        let (terminal, stdin) = (kept("terminal"), kept("stdin"));
        let printed = PRINTED.map(|(what, stream)| (kept(what), stream));
        let runs = self
            .services
            .get(name)
            .is_some_and(|entry| entry.state().process().is_some());
        if !runs || !self.is_relayed(name) {
            return;
        }
        let adopted = self.go_on_carrying(name, terminal, stdin, printed);
        if let Err(error) = adopted {
            let console = &self.shared.console;
            console.error(&format!(
                "container {name}: its output stays behind: {error:#}"
            ));
        }
    }

    fn go_on_carrying(
        &mut self,
        name: &str,
        terminal: Option<OwnedFd>,
        stdin: Option<OwnedFd>,
        printed: [(Option<OwnedFd>, Stream); 2],
    ) -> anyhow::Result<()> {
        if let Some(master) = terminal {
            self.carry_terminal(name, master)?;
        }
        let log = self.streams(name)?;
        let inputs = self.shared.inputs.clone();
        let relay = self.relay(name).context("it is gone")?;
        for ((pipe, stream), log) in printed.into_iter().zip([log.stdout, log.stderr]) {
            if let Some(pipe) = pipe {
                let reader = Pipe::adopt(pipe).reader(true)?;
                relay.carry_pipe(stream, reader, Some(terminal::nonblocking(log)?))?;
            }
        }
        if let Some(writer) = stdin {
            let service = name.to_owned();
            relay.carry_input(terminal::nonblocking(writer)?, move || {
                let _ = inputs.send(Input::Untypable { service });
            })?;
        }
        Ok(())
    }

    /// Connects a client to a container; `None` when what it prints goes to the log only.
    pub(super) fn attach(&mut self, name: &str, input: bool) -> Result<Option<Attached>, Refusal> {
        let entry = self
            .services
            .get(name)
            .ok_or_else(|| Refusal::NoSuchService(name.to_owned()))?;
        if entry.record.paused {
            let title = entry.title();
            return Err(Refusal::Conflict(format!(
                "container {title} is paused, unpause the container before attach"
            )));
        }
        Ok(self.relay(name).map(|relay| relay.attach(input)))
    }

    /// Sets the size of a container's terminal.
    pub(super) fn resize(&mut self, name: &str, rows: u16, columns: u16) -> Result<(), Refusal> {
        let runs = self
            .services
            .get(name)
            .is_some_and(|entry| entry.state().process().is_some());
        if !runs {
            return Err(Refusal::Conflict(format!(
                "container {name} is not running"
            )));
        }
        let relay = self.relay(name);
        let resized = relay.map_or(Ok(()), |relay| relay.resize(rows, columns));
        resized.map_err(|error| Refusal::Failed(format!("cannot resize: {error}")))
    }

    /// The container has ended: what it printed last is carried, then its clients are let go.
    pub(super) fn end_relay(&mut self, name: &str, before: &State) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        let ended = before.process().is_some() && entry.state().process().is_none();
        if ended && entry.relay.take().is_some() {
            self.forget_stored(name, &["terminal", "stdin", "out", "err"]);
        }
    }

    /// Has PID 1 drop descriptors.
    pub(super) fn forget_stored(&self, name: &str, what: &[&str]) {
        for what in what {
            let name = format!("{name}.{what}");
            self.shared.link.say(ToInit::Drop { name });
        }
    }
}
