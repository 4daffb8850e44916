//! Output and input of a container that clients may be attached to: what it prints goes to the log and to them, what
//! they type goes to it.
//!
//! - [`Relay`]: one container's, from before its start to its end
//! - `pump`: one stream; `terminal`: the pseudo terminal's own calls, and the socket that it comes by
//!
//! A client that reads slowly slows its container down, as a pipe would, and nobody else.

mod pump;
pub mod terminal;

use crate::output::Stream;
use axum::body::Bytes;
use pump::{Log, Source, pump};
use std::cell::{Cell, RefCell};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, watch};

/// So many pieces of output wait for a client before its container does. A piece has 16 KiB at most.
const BEHIND_MAX: usize = 16;

/// A piece of output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Where it was printed; a terminal has standard output only.
    pub stream: Stream,
    /// What.
    pub bytes: Bytes,
}

/// What an attached client holds.
#[derive(Debug)]
pub struct Attached {
    /// What is printed from now on; ends with the container.
    pub output: mpsc::Receiver<Chunk>,
    /// What is typed, when that was asked for and is open.
    pub input: Option<mpsc::Sender<Bytes>>,
}

/// Those that listen.
type Clients = Rc<RefCell<Vec<mpsc::Sender<Chunk>>>>;

/// One container's output and input.
#[derive(Debug)]
pub struct Relay {
    clients: Clients,
    ending: watch::Sender<bool>,
    input: RefCell<Option<mpsc::Sender<Bytes>>>,
    waiting: RefCell<Option<mpsc::Receiver<Bytes>>>,
    /// The input is closed when the first client that has it goes.
    once: bool,
    terminal: RefCell<Option<Rc<OwnedFd>>>,
    size: Cell<Option<(u16, u16)>>,
}

impl Relay {
    /// A relay without a container yet. With `open`, clients may type; `once` closes that when the first of them goes.
    pub fn new(open: bool, once: bool) -> Self {
        let (input, waiting) = mpsc::channel(BEHIND_MAX);
        Self {
            clients: Rc::default(),
            ending: watch::Sender::new(false),
            input: RefCell::new(open.then_some(input)),
            waiting: RefCell::new(open.then_some(waiting)),
            once,
            terminal: RefCell::default(),
            size: Cell::new(None),
        }
    }

    /// Connects a client; it hears from now on.
    pub fn attach(&self, input: bool) -> Attached {
        let (sender, output) = mpsc::channel(BEHIND_MAX);
        self.clients.borrow_mut().push(sender);
        let input = match (input, self.once) {
            (false, _) => None,
            (true, false) => self.input.borrow().clone(),
            (true, true) => self.input.borrow_mut().take(),
        };
        Attached { output, input }
    }

    /// Begins to carry a pipe's content to the log and to the clients.
    ///
    /// # Errors
    /// When the descriptors cannot be waited for.
    pub fn carry_pipe(
        &self,
        stream: Stream,
        reader: OwnedFd,
        log: Option<OwnedFd>,
    ) -> std::io::Result<()> {
        self.carry(stream, Source::pipe(reader)?, log)
    }

    /// Begins to carry a terminal's content, and what is typed to it.
    ///
    /// # Errors
    /// When the descriptors cannot be waited for.
    pub fn carry_terminal(&self, master: OwnedFd, log: Option<OwnedFd>) -> std::io::Result<()> {
        let master = Rc::new(master);
        if let Some((rows, columns)) = self.size.get() {
            let _ = terminal::resize(&*master, rows, columns);
        }
        if let Some(typed) = self.waiting.borrow_mut().take() {
            let writer = terminal::Terminal::new(master.try_clone()?)?;
            tokio::task::spawn_local(write_terminal(writer, typed));
        }
        self.carry(Stream::Stdout, Source::terminal(master.try_clone()?)?, log)?;
        self.terminal.replace(Some(master));
        Ok(())
    }

    /// Begins to carry what is typed to a pipe; `closed` is called when no more can come.
    ///
    /// # Errors
    /// When the descriptor is no pipe.
    pub fn carry_input(
        &self,
        writer: OwnedFd,
        closed: impl FnOnce() + 'static,
    ) -> std::io::Result<()> {
        let Some(mut typed) = self.waiting.borrow_mut().take() else {
            return Ok(());
        };
        let mut writer = tokio::net::unix::pipe::Sender::from_owned_fd(writer)?;
        tokio::task::spawn_local(async move {
            while let Some(bytes) = typed.recv().await {
                // Its program has closed its input: whatever is typed goes nowhere.
                if writer.write_all(&bytes).await.is_err() {
                    break;
                }
            }
            closed();
        });
        Ok(())
    }

    fn carry(&self, stream: Stream, source: Source, log: Option<OwnedFd>) -> std::io::Result<()> {
        let log = log.map(Log::new).transpose()?;
        let (clients, ending) = (self.clients.clone(), self.ending.subscribe());
        tokio::task::spawn_local(pump(stream, source, log, clients, ending));
        Ok(())
    }

    /// Sets the size of the terminal's window; remembered when there is none yet.
    ///
    /// # Errors
    /// What the terminal reports.
    pub fn resize(&self, rows: u16, columns: u16) -> std::io::Result<()> {
        self.size.set(Some((rows, columns)));
        match &*self.terminal.borrow() {
            Some(master) => terminal::resize(&**master, rows, columns),
            None => Ok(()),
        }
    }
}

impl Drop for Relay {
    /// The container has ended, or goes: what is still in its pipes is carried, then the clients are let go.
    fn drop(&mut self) {
        let _ = self.ending.send(true);
    }
}

async fn write_terminal(writer: terminal::Terminal, mut typed: mpsc::Receiver<Bytes>) {
    while let Some(bytes) = typed.recv().await {
        if writer.write_all(&bytes).await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::output::Pipe;
    use std::fs::File;
    use std::io::{Read, Write};
    use tokio::task::LocalSet;

    #[tokio::test]
    async fn output_goes_to_the_log_and_to_every_client_and_ends_with_the_container() {
        let body = async {
            let (pipe, log) = (Pipe::new().unwrap(), Pipe::new().unwrap());
            let relay = Relay::new(false, false);
            let (mut one, mut two) = (relay.attach(true), relay.attach(false));
            assert!(one.input.is_none());
            let writer = log.nonblocking_writer().unwrap();
            relay
                .carry_pipe(Stream::Stdout, pipe.reader(true).unwrap(), Some(writer))
                .unwrap();
            let mut printed = File::from(pipe.writer().unwrap());
            printed.write_all(b"first").unwrap();
            assert_eq!(one.output.recv().await.unwrap().bytes, "first");
            printed.write_all(b"last").unwrap();
            drop(relay);
            assert_eq!(one.output.recv().await.unwrap().bytes, "last");
            assert_eq!(one.output.recv().await, None);
            assert_eq!(two.output.recv().await.unwrap().bytes, "first");
            let mut text = [0; 9];
            File::from(log.reader(false).unwrap())
                .read_exact(&mut text)
                .unwrap();
            assert_eq!(&text, b"firstlast");
        };
        LocalSet::new().run_until(body).await;
    }

    #[tokio::test]
    async fn input_is_closed_when_the_one_client_goes() {
        let body = async {
            let (reader, writer) = std::io::pipe().unwrap();
            let relay = Relay::new(true, true);
            let one = relay.attach(true);
            assert!(relay.attach(true).input.is_none());
            let (told, closed) = tokio::sync::oneshot::channel();
            let nonblocking = terminal::nonblocking(writer.into()).unwrap();
            relay
                .carry_input(nonblocking, || told.send(()).unwrap())
                .unwrap();
            let input = one.input.unwrap();
            input.send(Bytes::from_static(b"typed")).await.unwrap();
            drop(input);
            closed.await.unwrap();
            let mut text = String::new();
            File::from(OwnedFd::from(reader))
                .read_to_string(&mut text)
                .unwrap();
            assert_eq!(text, "typed");
        };
        LocalSet::new().run_until(body).await;
    }

    #[tokio::test]
    async fn a_terminal_carries_both_ways_and_has_a_size() {
        let body = async {
            let pty = nix::pty::openpty(None, None).unwrap();
            let relay = Relay::new(true, false);
            relay.resize(30, 90).unwrap();
            let mut client = relay.attach(true);
            relay.carry_terminal(pty.master, None).unwrap();
            let mut slave = File::from(pty.slave);
            slave.write_all(b"prompt\n").unwrap();
            assert_eq!(client.output.recv().await.unwrap().bytes, "prompt\r\n");
            let size = rustix::termios::tcgetwinsize(&slave).unwrap();
            assert_eq!((size.ws_row, size.ws_col), (30, 90));
            client.input.unwrap().send("word\n".into()).await.unwrap();
            let line = tokio::task::spawn_blocking(move || {
                let mut line = [0; 5];
                slave.read_exact(&mut line).map(|()| line)
            });
            assert_eq!(&line.await.unwrap().unwrap(), b"word\n");
        };
        LocalSet::new().run_until(body).await;
    }
}
