//! The caller's side of a terminal: listens at a console socket and holds the master.

use std::fs::File;
use std::io::{IoSliceMut, Read as _, Write as _};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::container::Workplace;

/// How long a runtime may take to send a terminal, and a program to print what is waited for.
const DEADLINE: Duration = Duration::from_secs(60);

/// What `--console-socket` names.
pub(crate) struct ConsoleSocket {
    listener: UnixListener,
    path: PathBuf,
}

/// The master of a terminal, and all that was printed on it.
pub(crate) struct Terminal {
    pub(crate) master: File,
    printed: String,
}

impl ConsoleSocket {
    pub(crate) fn listen(place: &Workplace) -> anyhow::Result<Self> {
        let path = place.directory.join("console.sock");
        if path.exists() {
            std::fs::remove_file(&path)?;
        }
        Ok(Self {
            listener: UnixListener::bind(&path)?,
            path,
        })
    }

    /// The socket, as an argument.
    pub(crate) fn argument(&self) -> String {
        self.path.to_string_lossy().into_owned()
    }

    /// Takes the terminal that the runtime has sent or is about to send.
    pub(crate) fn receive(&self) -> anyhow::Result<Terminal> {
        let deadline = Instant::now() + DEADLINE;
        wait_readable(&self.listener, deadline).context("nobody came to the console socket")?;
        let (stream, _) = self.listener.accept()?;
        wait_readable(&stream, deadline).context("nothing came over the console socket")?;
        let mut name = [0; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let parts = &mut [IoSliceMut::new(&mut name)];
        let message = recvmsg(&stream, parts, &mut control, RecvFlags::CMSG_CLOEXEC)?;
        if message.bytes == 0 {
            bail!("the message has no text");
        }
        let master = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
            _ => None,
        });
        let master: OwnedFd = master.context("the message has no descriptor")?;
        Ok(Terminal {
            master: master.into(),
            printed: String::new(),
        })
    }
}

impl Terminal {
    /// Waits until `part` has been printed.
    pub(crate) fn wait_for(&mut self, part: &str) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        while !self.printed.contains(part) {
            if !self.read_some(deadline)? {
                bail!(
                    "the terminal ended with {:?}, without {part:?}",
                    self.printed
                );
            }
        }
        Ok(())
    }

    /// Reads until nobody has the terminal open any more; all that was printed, without carriage returns.
    pub(crate) fn read_to_end(&mut self) -> anyhow::Result<String> {
        let deadline = Instant::now() + DEADLINE;
        while self.read_some(deadline)? {}
        Ok(self.printed.replace('\r', ""))
    }

    /// Types something.
    pub(crate) fn write(&mut self, text: &str) -> anyhow::Result<()> {
        self.master.write_all(text.as_bytes()).context("type")
    }

    fn read_some(&mut self, deadline: Instant) -> anyhow::Result<bool> {
        wait_readable(&self.master, deadline)
            .with_context(|| format!("the terminal has printed {:?}", self.printed))?;
        let mut buffer = [0; 4096];
        match self.master.read(&mut buffer) {
            Ok(length) => {
                let text = buffer.get(..length).unwrap_or_default();
                self.printed.push_str(&String::from_utf8_lossy(text));
                Ok(length > 0)
            }
            // What Linux says once the last process has closed the other end.
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::IO.raw_os_error()) => {
                Ok(false)
            }
            Err(error) => Err(error).context("read the terminal"),
        }
    }
}

fn wait_readable(what: impl AsFd, deadline: Instant) -> anyhow::Result<()> {
    let left = deadline.saturating_duration_since(Instant::now());
    let left = Timespec::try_from(left)?;
    if poll(&mut [PollFd::new(&what, PollFlags::IN)], Some(&left))? == 0 {
        bail!("nothing within {DEADLINE:?}");
    }
    Ok(())
}
