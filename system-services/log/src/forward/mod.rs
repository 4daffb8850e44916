//! Sends the log to syslog servers: a service of its own (`keelson-log forward`), which has the network and may ask for records,
//! and nothing else.
//!
//! Each server is sent to by itself, in the log's order. While it is away nothing is read for it: the log keeps what there is, as long
//! as it has room, and the sending goes on behind the last record that has arrived: by TCP, of which the other side's kernel has
//! said that it has it. A record may be sent twice when a connection breaks; it is lost where the server ends before it has read
//! what its kernel has, and by UDP wherever nobody takes it.
//!
//! - [`remote`]: where it is sent
//! - [`message`]: what is sent
//! - [`position`]: how far it was sent
//! - [`records`]: what there is to send

mod message;
mod position;
mod records;
pub mod remote;

use std::cell::RefCell;
use std::env;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use keelson_sys::durable::Tree;
use keelson_sys::notify::notify;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use position::{Place, Position};
use records::Log;
use remote::Remote;

/// The first pause between two tries, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often it is kept how far the log was sent.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// A connection that holds so long is told of as one. One that breaks at once is not worth a word.
const GOOD_AFTER: Duration = Duration::from_secs(10);
/// How long a server gets to read the last messages, and all of this twice that.
const END_TIMEOUT: Duration = Duration::from_secs(1);
const HOSTNAME: &str = "/proc/sys/kernel/hostname";

/// Where things are.
struct Places {
    /// The log service's socket for queries.
    query: PathBuf,
    /// Positions, one file a server.
    positions: PathBuf,
}

/// Sends until it is to end. Each argument is a server, as [`Remote::parse`] reads it.
///
/// # Errors
/// An argument is no server, or positions cannot be kept.
pub fn run(arguments: &[String]) -> Result<()> {
    let path = |name: &str, default: &str| {
        env::var_os(name).map_or_else(|| PathBuf::from(default), PathBuf::from)
    };
    let places = Places {
        query: path("KEELSON_LOG_RUN_DIRECTORY", "/run/keelson/log").join("query.sock"),
        positions: path("KEELSON_LOG_FORWARD_DIRECTORY", "/state/log-forward"),
    };
    let mut remotes = Vec::new();
    for argument in arguments {
        match Remote::parse(argument) {
            Some(remote) => remotes.push(remote),
            None => bail!("`{argument}` is no server, as tcp,7,HOST,514"),
        }
    }
    forget_others(&places.positions, &remotes)
        .with_context(|| format!("read {}", places.positions.display()))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("making the event loop")?;
    let result = LocalSet::new().block_on(&runtime, serve(Rc::new(places), remotes));
    // Nobody waits for a name server that does not answer.
    runtime.shutdown_background();
    result
}

/// Removes the positions of servers that nothing is sent to any more.
fn forget_others(directory: &Path, remotes: &[Remote]) -> io::Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        let is_wanted = remotes
            .iter()
            .any(|remote| *remote.name() == *entry.file_name());
        if !is_wanted {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}

async fn serve(places: Rc<Places>, remotes: Vec<Remote>) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listening to SIGTERM")?;
    let (end, ending) = watch::channel(());
    let mut positions = Vec::new();
    for remote in remotes {
        let open = || Position::read(Tree::open(&places.positions)?, &remote.name());
        let position = open().with_context(|| format!("read the position of {}", remote.name()))?;
        let position = Rc::new(RefCell::new(position));
        positions.push(Rc::clone(&position));
        let task = forward(Rc::clone(&places), remote, position, ending.clone());
        tokio::task::spawn_local(task);
    }
    drop(ending);
    if let Err(error) = notify("READY=1") {
        eprintln!("<4>tell the engine: {error}");
    }
    terminate.recv().await;
    // Those that have a connection ask how much has arrived by it; the others have nothing to ask.
    end.send_replace(());
    let _ = timeout(END_TIMEOUT * 2, end.closed()).await;
    for position in positions {
        position
            .borrow_mut()
            .save()
            .context("keep how far the log was sent")?;
    }
    Ok(())
}

/// What was said of a server, so that it is not said again: it becomes part of the log, and is to be sent itself.
#[derive(Default)]
struct Words {
    /// Why it cannot be sent to; empty when it can.
    trouble: String,
    /// Behind this place records are missing.
    lost: Option<Place>,
}

/// Sends to one server, until all is to end.
async fn forward(
    places: Rc<Places>,
    remote: Remote,
    position: Rc<RefCell<Position>>,
    mut ending: watch::Receiver<()>,
) {
    let mut pause = FIRST_PAUSE;
    let mut words = Words::default();
    loop {
        let mut began = None;
        let state = (&*position, &mut words, &mut began);
        let Err(error) = session(&places, &remote, state, &mut ending).await else {
            return;
        };
        let trouble = format!("{}: {error:#}; it goes on trying", remote.name());
        if trouble != words.trouble {
            eprintln!("<4>{trouble}");
            words.trouble = trouble;
        }
        // A server that takes a connection, or a datagram, and nothing else is as good as none.
        if began.is_some_and(|began: Instant| began.elapsed() >= LONGEST_PAUSE) {
            pause = FIRST_PAUSE;
        }
        tokio::select! {
            () = sleep(pause) => {}
            _ = ending.changed() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Sends by one connection, until it breaks, or all is to end. `began` is when the sending began.
async fn session(
    places: &Places,
    remote: &Remote,
    (position, words, began): (&RefCell<Position>, &mut Words, &mut Option<Instant>),
    ending: &mut watch::Receiver<()>,
) -> Result<()> {
    let arrived = position.borrow().arrived();
    let opening = async {
        let connection = remote.connect().await.context("connect")?;
        let log = Log::open(&places.query, arrived)
            .await
            .context("ask the log")?;
        anyhow::Ok((connection, log))
    };
    let (mut connection, mut log) = tokio::select! {
        opened = opening => opened?,
        _ = ending.changed() => return Ok(()),
    };
    if log.has_lost {
        words.say_that_some_are_lost(remote, arrived);
    }
    position.borrow_mut().begin();
    let began = *began.insert(Instant::now());
    let mut save = interval(SAVE_INTERVAL);
    save.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut host = host_name();
    loop {
        tokio::select! {
            record = log.next() => {
                let record = record.context("read the log")?;
                let message = match record.severity() <= remote.level {
                    true => record.framed(&host, remote.framing),
                    false => Vec::new(),
                };
                if !message.is_empty() {
                    connection.send(&message).await.context("send")?;
                }
                let mut position = position.borrow_mut();
                if let Some(id) = record.id {
                    let place = Place { id, time_us: record.time_us };
                    position.sent(place, message.len());
                }
                position.confirm(connection.pending_bytes().context("ask the kernel")?);
            }
            _ = ending.changed() => {
                let ended = timeout(END_TIMEOUT, connection.end()).await;
                // Of one that breaks just now, what has arrived before counts.
                if !matches!(ended, Ok(Err(_))) && let Ok(pending) = connection.pending_bytes() {
                    position.borrow_mut().confirm(pending);
                }
                return Ok(());
            }
            error = connection.gone() => return Err(error).context("send"),
            // On an idle machine nothing is due.
            _ = save.tick(), if position.borrow().is_due() || !words.trouble.is_empty() => {
                host = host_name();
                words.say_that_it_is_good(remote, began);
                let mut position = position.borrow_mut();
                position.confirm(connection.pending_bytes().context("ask the kernel")?);
                position.save().context("keep how far the log was sent")?;
            }
        }
    }
}

impl Words {
    /// Says that trouble is over, when the sending that `began` then has held for long enough.
    fn say_that_it_is_good(&mut self, remote: &Remote, began: Instant) {
        if !self.trouble.is_empty() && began.elapsed() >= GOOD_AFTER {
            eprintln!("<6>{}: the log is sent again", remote.name());
            self.trouble.clear();
        }
    }

    /// Says, once for a place, that records behind it are missing.
    fn say_that_some_are_lost(&mut self, remote: &Remote, place: Option<Place>) {
        if self.lost != place {
            self.lost = place;
            eprintln!(
                "<4>{}: records were overwritten before they could be sent",
                remote.name()
            );
        }
    }
}

/// The machine's; empty when it cannot be read, which is a field without a value.
fn host_name() -> String {
    let name = fs::read_to_string(HOSTNAME).unwrap_or_default();
    name.trim().to_owned()
}
