//! Pipes for the output of services: one for each of a service's two streams, kept over its restarts and the engine's.
//!
//! The descriptor that is kept is open for reading and writing. So the pipe always has a reader and a writer, whoever
//! of container, engine and log service is away: no end of file for the log, no SIGPIPE for the service, no line lost.

use crate::runtime::Streams;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::unistd::pipe2;
use std::fs::OpenOptions;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;

/// Holds what a busy service writes while the log service restarts.
const PIPE_BYTES: i32 = 256 * 1024;

/// Which of a service's streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Stdout, Self::Stderr];

    /// The word in the log service's protocol and in the names of stored descriptors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Stdout => "stdout",
            Self::Stderr => "stderr",
        }
    }
}

/// One pipe.
#[derive(Debug)]
pub struct Pipe {
    held: OwnedFd,
}

impl Pipe {
    /// Makes a pipe.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub fn new() -> io::Result<Self> {
        let (reader, _writer) = pipe2(OFlag::O_CLOEXEC)?;
        // Root may exceed the system's limit for one pipe; elsewhere the usual 64 KiB have to do.
        let _ = fcntl(&reader, FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
        Ok(Self {
            held: reopen(reader.as_fd(), true, true, false)?,
        })
    }

    /// A pipe that an earlier engine made.
    pub fn adopt(held: OwnedFd) -> Self {
        Self { held }
    }

    /// What is given to PID 1 for keeping.
    pub fn held(&self) -> BorrowedFd<'_> {
        self.held.as_fd()
    }

    /// An end to write to.
    ///
    /// # Errors
    /// As [`Pipe::new`].
    pub fn writer(&self) -> io::Result<OwnedFd> {
        reopen(self.held.as_fd(), false, true, false)
    }

    /// An end to write to that does not block.
    ///
    /// # Errors
    /// As [`Pipe::new`].
    pub fn nonblocking_writer(&self) -> io::Result<OwnedFd> {
        reopen(self.held.as_fd(), false, true, true)
    }

    /// An end to read from, with flags of its own.
    ///
    /// # Errors
    /// As [`Pipe::new`].
    pub fn reader(&self, nonblocking: bool) -> io::Result<OwnedFd> {
        reopen(self.held.as_fd(), true, false, nonblocking)
    }
}

/// Opens a pipe anew: other flags than the descriptor at hand.
fn reopen(fd: BorrowedFd<'_>, read: bool, write: bool, nonblocking: bool) -> io::Result<OwnedFd> {
    let flags = if nonblocking {
        OFlag::O_NONBLOCK.bits()
    } else {
        0
    };
    let path = format!("/proc/self/fd/{}", fd.as_raw_fd());
    OpenOptions::new()
        .read(read)
        .write(write)
        .custom_flags(flags)
        .open(path)
        .map(OwnedFd::from)
}

/// Both pipes of a service.
#[derive(Debug)]
pub struct Output {
    stdout: Pipe,
    stderr: Pipe,
}

impl Output {
    /// From two pipes.
    pub fn new(stdout: Pipe, stderr: Pipe) -> Self {
        Self { stdout, stderr }
    }

    /// The pipe of a stream.
    pub fn pipe(&self, stream: Stream) -> &Pipe {
        match stream {
            Stream::Stdout => &self.stdout,
            Stream::Stderr => &self.stderr,
        }
    }

    /// What a new container writes to.
    ///
    /// # Errors
    /// As [`Pipe::new`].
    pub fn streams(&self) -> io::Result<Streams> {
        Ok(Streams {
            stdin: None,
            stdout: self.stdout.writer()?,
            stderr: self.stderr.writer()?,
            sockets: Vec::new(),
        })
    }
}

/// Reads a pipe for as long as there is no log service to do it, and gives each line to `line`.
/// Ends only when it is aborted.
pub async fn drain(reader: OwnedFd, mut line: impl FnMut(&str)) {
    let Ok(mut reader) = pipe::Receiver::from_owned_fd(reader) else {
        return;
    };
    let (mut buffer, mut pending) = (vec![0; 4096], Vec::new());
    loop {
        match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return,
            Ok(length) => pending.extend_from_slice(&buffer[..length]),
        }
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            line(&String::from_utf8_lossy(&pending[..end]));
            pending.drain(..=end);
        }
        // A line without end is told in pieces.
        if pending.len() > 64 * 1024 {
            line(&String::from_utf8_lossy(&pending));
            pending.clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read, Write};

    #[test]
    fn a_pipe_keeps_what_was_written_while_nobody_else_had_it_open() {
        let pipe = Pipe::new().unwrap();
        File::from(pipe.writer().unwrap())
            .write_all(b"line\n")
            .unwrap();
        drop(pipe.reader(false).unwrap());
        let pipe = Pipe::adopt(pipe.held().try_clone_to_owned().unwrap());
        let mut text = [0; 5];
        File::from(pipe.reader(false).unwrap())
            .read_exact(&mut text)
            .unwrap();
        assert_eq!(&text, b"line\n");
    }

    #[tokio::test]
    async fn lines_are_told_one_by_one() {
        let pipe = Pipe::new().unwrap();
        File::from(pipe.writer().unwrap())
            .write_all(b"one\ntwo\nhalf")
            .unwrap();
        let (sender, mut receiver) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(drain(pipe.reader(true).unwrap(), move |line: &str| {
            sender.send(line.to_owned()).unwrap();
        }));
        assert_eq!(receiver.recv().await.unwrap(), "one");
        assert_eq!(receiver.recv().await.unwrap(), "two");
        task.abort();
    }
}
