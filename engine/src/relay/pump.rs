//! One stream of a container, carried to the log and to whoever is attached.

use super::{Chunk, Clients, terminal};
use crate::output::Stream;
use crate::readiness::register;
use axum::body::Bytes;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, SpliceFlags, pipe_with, tee};
use std::io;
use std::os::fd::OwnedFd;
use tokio::io::AsyncWriteExt;
use tokio::io::unix::AsyncFd;
use tokio::net::unix::pipe;
use tokio::sync::watch;

/// Most that is carried at once.
const CHUNK_BYTES: usize = 16 * 1024;

/// Where a stream comes from.
pub(super) struct Source {
    fd: AsyncFd<OwnedFd>,
    /// Of a pipe: holds a copy of what is being carried.
    copy: Option<(OwnedFd, OwnedFd)>,
}

impl Source {
    /// A pipe, whose content stays in it until the log has it: an engine that is killed meanwhile loses nothing.
    pub(super) fn pipe(reader: OwnedFd) -> io::Result<Self> {
        let flags = PipeFlags::CLOEXEC | PipeFlags::NONBLOCK;
        Ok(Self {
            fd: register(reader)?,
            copy: Some(pipe_with(flags)?),
        })
    }

    /// A terminal. What was read of it when the engine is killed is lost.
    pub(super) fn terminal(master: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            fd: register(terminal::nonblocking(master)?)?,
            copy: None,
        })
    }

    /// What is there: nothing when the stream has ended, `WouldBlock` when there is nothing yet.
    fn peek(&self, fd: &OwnedFd) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; CHUNK_BYTES];
        let length = match &self.copy {
            Some((reader, writer)) => {
                let length = tee(fd, writer, CHUNK_BYTES, SpliceFlags::NONBLOCK)?;
                if length > 0 {
                    rustix::io::read(reader, &mut bytes)?
                } else {
                    0
                }
            }
            None => match rustix::io::read(fd, &mut bytes[..]) {
                // Nobody has the terminal open any more.
                Err(Errno::IO) => 0,
                other => other?,
            },
        };
        bytes.truncate(length);
        // Clients may keep it for a while.
        bytes.shrink_to_fit();
        Ok(bytes)
    }

    /// Takes what [`Source::peek`] gave out of the pipe.
    fn consume(&self, length: usize) -> io::Result<()> {
        let (Some(_), mut left) = (&self.copy, length) else {
            return Ok(());
        };
        let mut bytes = vec![0; length];
        while left > 0 {
            match rustix::io::read(self.fd.get_ref(), &mut bytes[..left])? {
                0 => return Ok(()),
                taken => left -= taken,
            }
        }
        Ok(())
    }
}

/// The log's pipe.
pub(super) struct Log(pipe::Sender);

impl Log {
    /// An end to write to that does not block.
    pub(super) fn new(writer: OwnedFd) -> io::Result<Self> {
        pipe::Sender::from_owned_fd(writer).map(Self)
    }
}

/// Carries until the stream or the container has ended.
pub(super) async fn pump(
    stream: Stream,
    source: Source,
    mut log: Option<Log>,
    clients: Clients,
    mut ending: watch::Receiver<bool>,
) {
    loop {
        let at_end = *ending.borrow_and_update();
        let bytes = if at_end {
            // Whatever the container has printed is there by now.
            match source.peek(source.fd.get_ref()) {
                Ok(bytes) if !bytes.is_empty() => bytes,
                _ => return,
            }
        } else {
            let guard = tokio::select! {
                guard = source.fd.readable() => guard,
                changed = ending.changed() => match changed {
                    Ok(()) => continue,
                    Err(_) => return,
                },
            };
            let Ok(mut guard) = guard else { return };
            match guard.try_io(|fd| source.peek(fd.get_ref())) {
                Ok(Ok(bytes)) if !bytes.is_empty() => bytes,
                Err(_would_block) => continue,
                _ => return,
            }
        };
        if let Some(Log(writer)) = &mut log
            && writer.write_all(&bytes).await.is_err()
        {
            log = None;
        }
        if source.consume(bytes.len()).is_err() {
            return;
        }
        let bytes = Bytes::from(bytes);
        let listening = clients.borrow().clone();
        for client in &listening {
            // One that has gone is taken out below.
            let _ = client
                .send(Chunk {
                    stream,
                    bytes: bytes.clone(),
                })
                .await;
        }
        if listening.iter().any(|client| client.is_closed()) {
            clients.borrow_mut().retain(|client| !client.is_closed());
        }
    }
}
