//! The containers' output: pipes that the engine hands over, read into the store.
//!
//! All pipes hang on one epoll instance of our own, edge-triggered: a pipe whose writers are gone for now (its
//! container restarts) stays silent instead of reporting the hang-up for ever, and speaks again when it is written to.

use crate::clock::Time;
use crate::lines::next_run;
use crate::record::{Lines, Stream};
use crate::spool::{Spool, Taken};
use crate::store::SharedStore;
use crate::watch::watch;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::stat::{SFlag, fstat};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::unix::AsyncFd;
use tokio::time::{Instant, sleep_until};

/// A line that got no end for so long is stored as it is.
const PARTIAL_LINE_TIMEOUT: Duration = Duration::from_secs(5);
/// When a pipe could not be read, it is tried again after this.
const RETRY_AFTER: Duration = Duration::from_secs(1);
/// Two for each of so many containers that other limits come first.
const PIPES_MAX: usize = 8192;
const EVENTS_AT_ONCE: usize = 64;
/// At the end a pipe is read so many times; that empties one of the largest size (pipe(7)).
const DRAIN_ROUNDS: usize = 17;

/// Whose output a pipe carries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The service.
    pub name: String,
    /// [`Stream::Stdout`] or [`Stream::Stderr`].
    pub stream: Stream,
}

/// All pipes that are read, by inode.
#[derive(Debug)]
pub struct Pipes {
    epoll: Epoll,
    /// The epoll instance once more, as the event loop sees it: readable when a pipe has something.
    wake: Rc<AsyncFd<OwnedFd>>,
    directory: PathBuf,
    store: SharedStore,
    pipes: BTreeMap<u64, Pipe>,
    ready: BTreeSet<u64>,
}

#[derive(Debug)]
struct Pipe {
    label: Label,
    /// `None` for what an earlier run of this program has left, until the pipe is handed over again.
    fd: Option<OwnedFd>,
    spool: Spool,
    path: PathBuf,
    /// When to look again although nothing was reported.
    deadline: Option<Instant>,
    failed: bool,
}

impl Pipes {
    /// Takes up what an earlier run has left in `directory`, which is in memory.
    ///
    /// # Errors
    /// The directory cannot be used, or the store takes nothing.
    pub fn open(directory: &Path, store: SharedStore) -> io::Result<Self> {
        fs::create_dir_all(directory)?;
        fs::set_permissions(directory, fs::Permissions::from_mode(0o700))?;
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        let mut pipes = Self {
            wake: Rc::new(watch(epoll.0.try_clone()?)?),
            epoll,
            directory: directory.to_owned(),
            store,
            pipes: BTreeMap::new(),
            ready: BTreeSet::new(),
        };
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            if let Some((label, inode)) = entry.file_name().to_str().and_then(parse_file_name) {
                pipes.insert(inode, label, None)?;
                pipes.store_lines(inode, false)?;
            } else {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(pipes)
    }

    /// Takes a pipe over. The one that is read already is kept; another pipe of the same label is read to its end
    /// and replaced.
    ///
    /// # Errors
    /// The descriptor is no pipe; there are too many; the store takes nothing.
    pub fn add(&mut self, label: Label, fd: OwnedFd) -> io::Result<()> {
        let status = fstat(&fd)?;
        if SFlag::from_bits_truncate(status.st_mode) & SFlag::S_IFMT != SFlag::S_IFIFO {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "the descriptor is no pipe",
            ));
        }
        let inode = status.st_ino;
        if self.pipes.get(&inode).is_some_and(|pipe| pipe.fd.is_some()) {
            return Ok(());
        }
        let others = |(other, pipe): (&u64, &Pipe)| {
            (*other != inode && pipe.label == label).then_some(*other)
        };
        let replaced: Vec<u64> = self.pipes.iter().filter_map(others).collect();
        for other in replaced {
            self.retire(other)?;
        }
        if self.pipes.len() >= PIPES_MAX {
            return Err(io::Error::other(format!(
                "{PIPES_MAX} pipes are read already"
            )));
        }
        let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLET;
        self.epoll.add(&fd, EpollEvent::new(flags, inode))?;
        match self.pipes.get_mut(&inode) {
            Some(pipe) => {
                pipe.fd = Some(fd);
                pipe.deadline = None;
            }
            None => self.insert(inode, label, Some(fd))?,
        }
        // The last run may have ended before it could read what is there.
        self.ready.insert(inode);
        Ok(())
    }

    fn insert(&mut self, inode: u64, label: Label, fd: Option<OwnedFd>) -> io::Result<()> {
        let path = self.directory.join(file_name(&label, inode));
        let spool = Spool::open(&path, self.store.borrow().position(inode))?;
        let pipe = Pipe {
            label,
            fd,
            spool,
            path,
            deadline: None,
            failed: false,
        };
        self.pipes.insert(inode, pipe);
        Ok(())
    }

    /// Reads to the end and lets go.
    fn retire(&mut self, inode: u64) -> io::Result<()> {
        while self.turn(inode)? {}
        self.store_lines(inode, true)?;
        if let Some(pipe) = self.pipes.remove(&inode) {
            if let Some(fd) = &pipe.fd {
                self.epoll.delete(fd)?;
            }
            fs::remove_file(&pipe.path)?;
        }
        self.ready.remove(&inode);
        self.store.borrow_mut().forget(inode);
        Ok(())
    }

    fn of(&self, name: &str) -> Vec<u64> {
        let named = |(inode, pipe): (&u64, &Pipe)| (pipe.label.name == name).then_some(*inode);
        self.pipes.iter().filter_map(named).collect()
    }

    /// Stores what the pipes of a name hold at this moment, lines without an end as well.
    ///
    /// # Errors
    /// The store takes nothing.
    pub fn flush(&mut self, name: &str) -> io::Result<()> {
        for inode in self.of(name) {
            for _ in 0..DRAIN_ROUNDS {
                if !self.turn(inode)? {
                    break;
                }
            }
            self.store_lines(inode, true)?;
        }
        Ok(())
    }

    /// Lets the pipes of a name go, read to their end: nobody will write to them any more.
    ///
    /// # Errors
    /// The store takes nothing.
    pub fn forget(&mut self, name: &str) -> io::Result<()> {
        self.of(name)
            .into_iter()
            .try_for_each(|inode| self.retire(inode))
    }

    /// One chunk of one pipe; `false` when there is nothing more now.
    fn turn(&mut self, inode: u64) -> io::Result<bool> {
        let Some(pipe) = self.pipes.get_mut(&inode) else {
            return Ok(false);
        };
        let Some(fd) = &pipe.fd else { return Ok(false) };
        match pipe.spool.take(fd.as_fd()) {
            Ok(Taken::Bytes(_)) => {
                pipe.failed = false;
                self.store_lines(inode, false)?;
                Ok(true)
            }
            Ok(Taken::Nothing) => Ok(false),
            Ok(Taken::NoWriter) => {
                self.store_lines(inode, true)?;
                Ok(false)
            }
            Err(error) => {
                pipe.deadline = Some(Instant::now() + RETRY_AFTER);
                if !std::mem::replace(&mut pipe.failed, true) {
                    let text = format!(
                        "cannot read the output of {}: {error}; trying again",
                        pipe.label.name
                    );
                    self.store.borrow_mut().note(3, &text)?;
                }
                Ok(false)
            }
        }
    }

    /// Moves whole lines to the store, and what has no end as well if `all`.
    fn store_lines(&mut self, inode: u64, all: bool) -> io::Result<()> {
        let Some(pipe) = self.pipes.get_mut(&inode) else {
            return Ok(());
        };
        let now = Time::now();
        let mut taken = 0;
        let pending = pipe.spool.pending();
        while let Some(run) = next_run(&pending[taken..], all) {
            let bytes = &pending[taken..taken + run.taken_bytes];
            taken += run.taken_bytes;
            let lines = Lines {
                first_id: 0,
                time_us: now.real_us,
                boot_us: now.boot_us,
                source: inode,
                position: pipe.spool.position() + taken as u64,
                stream: pipe.label.stream,
                service: &pipe.label.name,
                bytes,
            };
            self.store.borrow_mut().append_lines(&lines, run)?;
        }
        pipe.spool.consume(taken);
        let waiting = !pipe.spool.pending().is_empty();
        pipe.deadline = waiting.then(|| Instant::now() + PARTIAL_LINE_TIMEOUT);
        Ok(())
    }

    /// Asks the kernel which pipes have something.
    fn collect_ready(&mut self) -> io::Result<bool> {
        let mut events = [EpollEvent::empty(); EVENTS_AT_ONCE];
        let count = match self.epoll.wait(&mut events, EpollTimeout::ZERO) {
            Ok(count) => count,
            Err(Errno::EINTR) => 0,
            Err(error) => return Err(error.into()),
        };
        self.ready
            .extend(events[..count].iter().map(EpollEvent::data));
        Ok(count > 0)
    }

    /// One chunk of each pipe that has something, so that none waits long for another.
    fn round(&mut self) -> io::Result<()> {
        for inode in std::mem::take(&mut self.ready) {
            if self.turn(inode)? {
                self.ready.insert(inode);
            }
        }
        Ok(())
    }

    fn next_deadline(&self) -> Option<Instant> {
        self.pipes.values().filter_map(|pipe| pipe.deadline).min()
    }

    /// Stores lines whose end did not come, and tries again what could not be read.
    fn handle_deadlines(&mut self, now: Instant) -> io::Result<()> {
        let due = |(inode, pipe): (&u64, &Pipe)| {
            pipe.deadline.is_some_and(|at| at <= now).then_some(*inode)
        };
        let due: Vec<u64> = self.pipes.iter().filter_map(due).collect();
        for inode in due {
            let Some(pipe) = self.pipes.get_mut(&inode) else {
                continue;
            };
            pipe.deadline = None;
            if pipe.failed {
                self.ready.insert(inode);
            } else if pipe.fd.is_none() {
                self.retire(inode)?;
            } else {
                self.store_lines(inode, true)?;
            }
        }
        Ok(())
    }

    /// Reads what the pipes hold at this moment, even if somebody goes on writing.
    ///
    /// # Errors
    /// The store takes nothing.
    pub fn drain(&mut self) -> io::Result<()> {
        self.ready.extend(self.pipes.keys());
        for _ in 0..DRAIN_ROUNDS {
            self.round()?;
        }
        Ok(())
    }
}

/// Reads all pipes for ever.
///
/// # Errors
/// The store takes nothing, or epoll fails.
pub async fn run(pipes: Rc<RefCell<Pipes>>) -> io::Result<()> {
    let wake = Rc::clone(&pipes.borrow().wake);
    loop {
        let deadline = {
            let mut pipes = pipes.borrow_mut();
            while pipes.collect_ready()? {}
            pipes.round()?;
            pipes.handle_deadlines(Instant::now())?;
            if pipes.ready.is_empty() {
                Some(pipes.next_deadline())
            } else {
                None
            }
        };
        match deadline {
            None => tokio::task::yield_now().await,
            Some(deadline) => wait(&wake, &pipes, deadline).await?,
        }
    }
}

/// Until a pipe has something or the deadline has come.
async fn wait(
    wake: &AsyncFd<OwnedFd>,
    pipes: &RefCell<Pipes>,
    deadline: Option<Instant>,
) -> io::Result<()> {
    let pause = async {
        match deadline {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = pause => Ok(()),
        guard = wake.readable() => {
            if !pipes.borrow_mut().collect_ready()? {
                guard?.clear_ready();
            }
            Ok(())
        }
    }
}

fn file_name(label: &Label, inode: u64) -> String {
    format!("{}.{}.{inode}", label.name, label.stream.as_str())
}

fn parse_file_name(name: &str) -> Option<(Label, u64)> {
    let mut parts = name.rsplitn(3, '.');
    let inode = parts.next()?.parse().ok()?;
    let stream = parse_stream(parts.next()?)?;
    let name = parts.next()?.to_owned();
    Some((Label { name, stream }, inode))
}

/// The stream of a pipe by its name.
#[must_use]
pub fn parse_stream(word: &str) -> Option<Stream> {
    [Stream::Stdout, Stream::Stderr]
        .into_iter()
        .find(|stream| stream.as_str() == word)
}
