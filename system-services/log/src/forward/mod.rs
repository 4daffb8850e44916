//! Sends the log to syslog servers: a service of its own (`keelson-log forward`), which has the network and may ask for records,
//! and nothing else.
//!
//! Each server is sent to by itself, in the log's order. While it is away nothing is read for it: the log keeps what there is, as long
//! as it has room, and the sending goes on behind the last record that has arrived. A record may be sent twice when a connection
//! breaks, and is lost on the way only by UDP.
//!
//! - [`remote`]: where it is sent
//! - [`message`]: what is sent
//! - [`position`]: how far it was sent

mod message;
mod position;
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
use serde_json::json;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader, Lines};
use tokio::net::UnixStream;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::LocalSet;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};

use message::Record;
use position::{Place, Position};
use remote::Remote;

/// The first pause between two tries, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How often it is kept how far the log was sent.
const SAVE_INTERVAL: Duration = Duration::from_secs(5);
/// How long those who have a connection get to say how far they are.
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
    let _ = timeout(END_TIMEOUT, end.closed()).await;
    for position in positions {
        position
            .borrow_mut()
            .save()
            .context("keep how far the log was sent")?;
    }
    Ok(())
}

/// Sends to one server, until all is to end.
async fn forward(
    places: Rc<Places>,
    remote: Remote,
    position: Rc<RefCell<Position>>,
    mut ending: watch::Receiver<()>,
) {
    let mut pause = FIRST_PAUSE;
    let mut said = String::new();
    loop {
        let before = position.borrow().arrived();
        let ended = session(&places, &remote, &position, &mut said, &mut ending).await;
        let Err(error) = ended else { return };
        let words = format!("{}: {error:#}; it goes on trying", remote.name());
        if words != said {
            eprintln!("<4>{words}");
            said = words;
        }
        pause = match position.borrow().arrived() == before {
            true => (pause * 2).min(LONGEST_PAUSE),
            false => FIRST_PAUSE,
        };
        sleep(pause).await;
    }
}

/// Sends by one connection, until it breaks, or all is to end.
async fn session(
    places: &Places,
    remote: &Remote,
    position: &RefCell<Position>,
    said: &mut String,
    ending: &mut watch::Receiver<()>,
) -> Result<()> {
    let mut connection = remote.connect().await.context("connect")?;
    let arrived = position.borrow().arrived();
    let mut log = Log::open(&places.query, arrived)
        .await
        .context("ask the log")?;
    position.borrow_mut().begin();
    if !said.is_empty() {
        eprintln!("<6>{}: the log is sent again", remote.name());
        said.clear();
    }
    let mut save = interval(SAVE_INTERVAL);
    save.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut host = String::new();
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
                let pending = connection.pending_bytes().context("ask the kernel")?;
                position.borrow_mut().confirm(pending);
                return Ok(());
            }
            error = connection.gone() => return Err(error).context("send"),
            _ = save.tick() => {
                host = fs::read_to_string(HOSTNAME).unwrap_or_default().trim().to_owned();
                let mut position = position.borrow_mut();
                position.confirm(connection.pending_bytes().context("ask the kernel")?);
                position.save().context("keep how far the log was sent")?;
            }
        }
    }
}

/// Records as the log service answers.
struct Log {
    lines: Lines<BufReader<OwnedReadHalf>>,
    /// Held open: the log service ends with those who close it.
    _asking: OwnedWriteHalf,
    /// One that was read to find the place.
    first: Option<Record>,
}

impl Log {
    /// The records behind `after`, or all that there are.
    async fn open(socket: &Path, after: Option<Place>) -> Result<Self> {
        let Some(after) = after else {
            return Self::ask(socket, &json!({"follow": true})).await;
        };
        let from = json!({"follow": true, "after_id": after.id.saturating_sub(1)});
        let mut log = Self::ask(socket, &from).await?;
        let first = log.next().await?;
        match first.id {
            Some(id) if id == after.id && first.time_us == after.time_us => Ok(log),
            // It was overwritten since.
            Some(id) if id > after.id => {
                log.first = Some(first);
                Ok(log)
            }
            // Another log than the one that was sent: after a power cut, or because its disk is another one.
            _ => {
                let since = json!({"follow": true, "since_us": after.time_us.saturating_add(1)});
                Self::ask(socket, &since).await
            }
        }
    }

    async fn ask(socket: &Path, request: &serde_json::Value) -> Result<Self> {
        let (reader, mut asking) = UnixStream::connect(socket).await?.into_split();
        asking.write_all(format!("{request}\n").as_bytes()).await?;
        Ok(Self {
            lines: BufReader::new(reader).lines(),
            _asking: asking,
            first: None,
        })
    }

    /// The next record, as soon as there is one. Nothing is lost when it is not waited for to the end.
    async fn next(&mut self) -> Result<Record> {
        if let Some(first) = self.first.take() {
            return Ok(first);
        }
        match self.lines.next_line().await? {
            Some(line) => serde_json::from_str(&line).with_context(|| format!("{line:.200}")),
            None => bail!("the log service has ended"),
        }
    }
}
