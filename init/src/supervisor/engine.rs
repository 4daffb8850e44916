//! The one child that PID 1 supervises: the system engine, with its control socket.

use super::store::Descriptors;
use crate::kmsg;
use crate::root::cgroups;
use anyhow::{Context as _, Result};
use keelson_sys::control::{self, FD_VARIABLE, Packet, ToEngine};
use keelson_sys::process::{Setup, spawn};
use std::collections::VecDeque;
use std::fs::OpenOptions;
use std::io::ErrorKind;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::process::{Command, Stdio};

const PROGRAM: &str = "/usr/lib/keelson/keelson-engine";
/// The engine is the last to go when memory runs out, after PID 1.
const OOM_SCORE_ADJ: i32 = -900;

/// A running engine.
#[derive(Debug)]
pub(super) struct Engine {
    pid: i32,
    socket: OwnedFd,
    outbox: VecDeque<ToEngine>,
}

impl Engine {
    /// Starts the engine in its control group, `output` as its standard output and error.
    pub(super) fn start(output: BorrowedFd<'_>) -> Result<Self> {
        let (socket, theirs) = control::pair().context("make the control socket")?;
        let procs = OpenOptions::new()
            .write(true)
            .open(cgroups::file(cgroups::ENGINE, "cgroup.procs"));
        // Without its group the engine is better than no engine.
        let procs = kmsg::tolerate("put the engine into its control group", procs);
        let output = || {
            output
                .try_clone_to_owned()
                .map(Stdio::from)
                .context("duplicate the output pipe")
        };
        let mut command = Command::new(PROGRAM);
        command
            .env_clear()
            .env("PATH", "/usr/lib/keelson:/usr/sbin:/usr/bin:/sbin:/bin")
            .env(FD_VARIABLE, "3")
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(output()?)
            .stderr(output()?);
        let setup = Setup {
            fd3: Some(theirs.as_fd()),
            cgroup_procs: procs.as_ref(),
            oom_score_adj: Some(OOM_SCORE_ADJ),
            controlling_terminal: false,
        };
        let pid = spawn(&mut command, &setup).with_context(|| format!("start {PROGRAM}"))?;
        Ok(Self {
            pid,
            socket,
            outbox: VecDeque::new(),
        })
    }

    /// Its process number.
    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    /// PID 1's end of the control socket.
    pub(super) fn socket(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Puts a message behind those that wait; [`Self::flush`] sends it.
    pub(super) fn queue(&mut self, message: ToEngine) {
        self.outbox.push_back(message);
    }

    /// Sends what waits until the socket is full; true when everything is sent.
    pub(super) fn flush(&mut self, descriptors: &Descriptors) -> std::io::Result<bool> {
        while let Some(message) = self.outbox.front() {
            let fd = match message {
                ToEngine::Stored { name } => match descriptors.get(name) {
                    Some(fd) => Some(fd),
                    // Dropped before its turn came.
                    None => {
                        self.outbox.pop_front();
                        continue;
                    }
                },
                _ => None,
            };
            match control::send(self.socket.as_fd(), &message.encode(), fd) {
                Ok(()) => drop(self.outbox.pop_front()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// The next packet: `Ok(None)` when there is none now, an error of `UnexpectedEof` when the engine has closed
    /// its end.
    pub(super) fn receive(&self) -> std::io::Result<Option<Packet>> {
        match control::recv(self.socket.as_fd()) {
            Ok(Some(packet)) => Ok(Some(packet)),
            Ok(None) => Err(ErrorKind::UnexpectedEof.into()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}
