//! Pseudo terminals: size, non-blocking reads and writes, and the socket that an OCI runtime sends one by
//! (`--console-socket`, runtime specification, "process.terminal").

use crate::readiness::register;
use anyhow::{Context, bail};
use keelson_sys::control;
use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::termios::{Winsize, tcgetwinsize, tcsetwinsize};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;

/// Sets the size of a terminal's window.
///
/// # Errors
/// When it is no terminal.
pub fn resize(terminal: impl AsFd, rows: u16, columns: u16) -> io::Result<()> {
    let size = Winsize {
        ws_row: rows,
        ws_col: columns,
        ..tcgetwinsize(terminal.as_fd())?
    };
    Ok(tcsetwinsize(terminal, size)?)
}

/// Makes reads and writes return at once.
///
/// # Errors
/// What fcntl(2) reports.
pub fn nonblocking(fd: OwnedFd) -> io::Result<OwnedFd> {
    let flags = fcntl_getfl(&fd)?;
    fcntl_setfl(&fd, flags | OFlags::NONBLOCK)?;
    Ok(fd)
}

/// The master side of a terminal.
#[derive(Debug)]
pub struct Terminal(AsyncFd<OwnedFd>);

impl Terminal {
    /// From its descriptor.
    ///
    /// # Errors
    /// When it cannot be waited for.
    pub fn new(master: OwnedFd) -> io::Result<Self> {
        Ok(Self(register(nonblocking(master)?)?))
    }

    /// Writes everything.
    ///
    /// # Errors
    /// When nobody has the terminal open any more.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let mut guard = self.0.writable().await?;
            if let Ok(written) = guard.try_io(|fd| Ok(rustix::io::write(fd.get_ref(), bytes)?)) {
                bytes = &bytes[written?..];
            }
        }
        Ok(())
    }

    /// Reads what is there, `most` bytes at most, and waits for something when there is nothing.
    ///
    /// # Errors
    /// When nobody has the terminal open any more.
    pub async fn read(&self, most: usize) -> io::Result<Vec<u8>> {
        loop {
            let mut guard = self.0.readable().await?;
            let mut bytes = vec![0; most];
            let read = guard.try_io(|fd| Ok(rustix::io::read(fd.get_ref(), &mut bytes[..])?));
            if let Ok(length) = read {
                bytes.truncate(length?);
                return Ok(bytes);
            }
        }
    }
}

/// The socket that a runtime sends a terminal by.
#[derive(Debug)]
pub struct Socket(UnixListener);

impl Socket {
    /// Listens at `path`.
    ///
    /// # Errors
    /// With the path.
    pub fn bind(path: &Path) -> anyhow::Result<Self> {
        let _ = std::fs::remove_file(path);
        UnixListener::bind(path)
            .map(Self)
            .with_context(|| format!("cannot listen on {}", path.display()))
    }

    /// Takes the terminal. The runtime sends it before it ends.
    ///
    /// # Errors
    /// When something else is sent.
    pub async fn receive(&self) -> anyhow::Result<OwnedFd> {
        let (stream, _) = self.0.accept().await.context("no terminal was sent")?;
        loop {
            stream.readable().await?;
            let received = stream.try_io(tokio::io::Interest::READABLE, || {
                control::recv(stream.as_fd())
            });
            match received {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error).context("no terminal was sent"),
                Ok(Some(control::Packet { fd: Some(fd), .. })) => return Ok(fd),
                Ok(_) => bail!("the runtime sent something that is no terminal"),
            }
        }
    }
}
