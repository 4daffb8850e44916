//! The engine's end of the control socket to PID 1, and what stands in for PID 1 when there is none.

use crate::readiness::register;
use anyhow::Context;
use keelson_sys::control::{self, ToEngine, ToInit};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;

/// A message from PID 1 and the descriptor that came with it.
pub type Incoming = (ToEngine, Option<OwnedFd>);

/// The connection to PID 1; without PID 1 everything said to it goes nowhere.
#[derive(Clone, Debug)]
pub struct Link {
    outgoing: Option<mpsc::UnboundedSender<(ToInit, Option<OwnedFd>)>>,
}

impl Link {
    /// No PID 1: the engine was started by hand.
    pub fn none() -> Self {
        Self { outgoing: None }
    }

    /// Takes the socket over. Messages from PID 1 arrive at the receiver, which closes when PID 1 does. Must be called
    /// within a `LocalSet`.
    ///
    /// # Errors
    /// When the descriptor is not a socket.
    pub fn open(socket: OwnedFd) -> anyhow::Result<(Self, mpsc::UnboundedReceiver<Incoming>)> {
        let flags = OFlag::from_bits_retain(fcntl(&socket, FcntlArg::F_GETFL)?);
        fcntl(&socket, FcntlArg::F_SETFL(flags | OFlag::O_NONBLOCK))?;
        let socket =
            Rc::new(register(socket).context("the control descriptor cannot be waited for")?);
        let (outgoing, mut to_send) = mpsc::unbounded_channel::<(ToInit, Option<OwnedFd>)>();
        let (received, incoming) = mpsc::unbounded_channel();
        let reading = socket.clone();
        tokio::task::spawn_local(async move {
            while let Some(message) = receive(&reading).await {
                if received.send(message).is_err() {
                    return;
                }
            }
        });
        tokio::task::spawn_local(async move {
            while let Some((message, fd)) = to_send.recv().await {
                transmit(&socket, &message.encode(), fd.as_ref().map(AsFd::as_fd)).await;
            }
        });
        Ok((
            Self {
                outgoing: Some(outgoing),
            },
            incoming,
        ))
    }

    /// Whether there is a PID 1 that reaps and keeps descriptors.
    pub fn is_connected(&self) -> bool {
        self.outgoing.is_some()
    }

    /// Says something to PID 1. Messages arrive in order.
    pub fn say(&self, message: ToInit) {
        if let Some(outgoing) = &self.outgoing {
            let _ = outgoing.send((message, None));
        }
    }

    /// Gives PID 1 a descriptor to keep under a name.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn store(&self, name: &str, fd: BorrowedFd<'_>) -> std::io::Result<()> {
        if let Some(outgoing) = &self.outgoing {
            let _ = outgoing.send((
                ToInit::Store {
                    name: name.to_owned(),
                },
                Some(fd.try_clone_to_owned()?),
            ));
        }
        Ok(())
    }
}

/// `None` when PID 1 is gone.
async fn receive(socket: &AsyncFd<OwnedFd>) -> Option<Incoming> {
    loop {
        let mut guard = socket.readable().await.ok()?;
        let packet = match guard.try_io(|socket| control::recv(socket.as_fd())) {
            Err(_would_block) => continue,
            Ok(Ok(packet)) => packet?,
            // A packet that does not follow the protocol is skipped.
            Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => continue,
            Ok(Err(_)) => return None,
        };
        if let Ok(message) = ToEngine::decode(&packet.bytes) {
            return Some((message, packet.fd));
        }
    }
}

async fn transmit(socket: &AsyncFd<OwnedFd>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) {
    loop {
        let Ok(mut guard) = socket.writable().await else {
            return;
        };
        let sent = guard.try_io(|socket| control::send(socket.as_fd(), bytes, fd));
        if sent.is_ok() {
            return;
        }
    }
}

/// The control socket that PID 1 left open, when `KEELSON_INIT_FD` names one.
///
/// # Errors
/// When the variable names no open descriptor.
pub fn inherited() -> anyhow::Result<Option<OwnedFd>> {
    let Ok(number) = std::env::var(control::FD_VARIABLE) else {
        return Ok(None);
    };
    let number = number
        .parse()
        .with_context(|| format!("{} is not a number", control::FD_VARIABLE))?;
    let socket = keelson_sys::inherited::duplicate(number).with_context(|| {
        format!(
            "descriptor {number} of {} is not open",
            control::FD_VARIABLE
        )
    })?;
    Ok(Some(socket))
}
