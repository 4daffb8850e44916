//! Signals, changed files and a changed hostname, waited for together.

use std::ffi::OsString;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, WatchDescriptor};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// What has happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    /// A child may have ended.
    Child,
    /// We are to end.
    Stop,
    /// A file of a watched directory was written or replaced.
    Changed { directory: usize, name: OsString },
    /// The host has another name.
    Hostname,
}

/// Where events come from.
pub(crate) struct Events {
    signals: SignalFd,
    inotify: Inotify,
    watches: Vec<WatchDescriptor>,
    hostname: Option<File>,
}

impl Events {
    /// Blocks the signals that are waited for from now on; children start with none blocked.
    pub(crate) fn new() -> Result<Self> {
        let mut mask = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
        ] {
            mask.add(signal);
        }
        mask.thread_block().context("block signals")?;
        let signals = SignalFd::with_flags(&mask, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("make a signalfd")?;
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)
            .context("make an inotify instance")?;
        let mut events = Events {
            signals,
            inotify,
            watches: Vec::new(),
            hostname: File::open(HOSTNAME).ok(),
        };
        events.read_hostname();
        Ok(events)
    }

    /// Watches the files of `path`; events name the directory by its place in the order of these calls.
    pub(crate) fn watch(&mut self, path: &Path) -> Result<()> {
        let flags =
            AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CREATE;
        let watch = self
            .inotify
            .add_watch(path, flags)
            .with_context(|| format!("watch {}", path.display()))?;
        self.watches.push(watch);
        Ok(())
    }

    /// Waits until something happens or `deadline` has come.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) -> Result<Vec<Event>> {
        let timeout = match deadline {
            None => PollTimeout::NONE,
            // Rounded up, so that the deadline has come when the wait ends.
            Some(deadline) => {
                let milliseconds = deadline
                    .saturating_duration_since(Instant::now())
                    .as_millis()
                    + 1;
                PollTimeout::try_from(i32::try_from(milliseconds).unwrap_or(i32::MAX))
                    .unwrap_or(PollTimeout::MAX)
            }
        };
        let mut sources = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.inotify.as_fd(), PollFlags::POLLIN),
        ];
        if let Some(file) = &self.hostname {
            sources.push(PollFd::new(file.as_fd(), PollFlags::POLLPRI));
        }
        match poll(&mut sources, timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for events"),
        }
        let hostname_changed = sources
            .get(2)
            .and_then(PollFd::revents)
            .is_some_and(|events| events.contains(PollFlags::POLLPRI));
        let mut found = Vec::new();
        if hostname_changed {
            self.read_hostname();
            found.push(Event::Hostname);
        }
        self.take_signals(&mut found)?;
        self.take_changes(&mut found)?;
        Ok(found)
    }

    fn take_signals(&mut self, found: &mut Vec<Event>) -> Result<()> {
        while let Some(signal) = self.signals.read_signal().context("read a signal")? {
            let is_child = i32::try_from(signal.ssi_signo)
                .is_ok_and(|number| number == Signal::SIGCHLD as i32);
            found.push(if is_child { Event::Child } else { Event::Stop });
        }
        Ok(())
    }

    fn take_changes(&mut self, found: &mut Vec<Event>) -> Result<()> {
        loop {
            let events = match self.inotify.read_events() {
                Ok(events) => events,
                Err(Errno::EAGAIN) => return Ok(()),
                Err(error) => return Err(error).context("read inotify events"),
            };
            for event in events {
                let directory = self.watches.iter().position(|watch| *watch == event.wd);
                if let (Some(directory), Some(name)) = (directory, event.name) {
                    found.push(Event::Changed { directory, name });
                }
            }
        }
    }

    /// Each change is announced once to those that have read the value before it.
    fn read_hostname(&mut self) {
        use std::io::Seek;
        let Some(file) = &mut self.hostname else {
            return;
        };
        let mut name = String::new();
        if file
            .rewind()
            .and_then(|()| file.read_to_string(&mut name))
            .is_err()
        {
            self.hostname = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_replaced_file_is_an_event_and_a_deadline_is_none() {
        let directory = tempfile::tempdir().unwrap();
        let mut events = Events::new().unwrap();
        events.watch(directory.path()).unwrap();
        let mut found = events.wait(Some(Instant::now())).unwrap();
        // Signals are the process's: other tests of this program have children.
        found.retain(|event| *event != Event::Child);
        assert_eq!(found, []);
        std::fs::write(directory.path().join("new"), "x").unwrap();
        std::fs::rename(directory.path().join("new"), directory.path().join("name")).unwrap();
        let replaced = Event::Changed {
            directory: 0,
            name: "name".into(),
        };
        while !found.contains(&replaced) {
            found = events
                .wait(Some(Instant::now() + Duration::from_secs(10)))
                .unwrap();
            assert_ne!(found, [], "no event in ten seconds");
        }
    }
}
