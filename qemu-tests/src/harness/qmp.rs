//! QEMU's control socket: the QEMU Machine Protocol.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::mpsc::{self, Receiver, Sender};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use serde_json::{Value, json};

/// How long QEMU may take to answer a command that does not move data.
const ANSWER_DEADLINE: Duration = Duration::from_secs(30);

/// A connection to QEMU. Events are kept until somebody waits for them.
pub struct Qmp {
    stream: UnixStream,
    answers: Receiver<Value>,
    events: Arc<Events>,
}

#[derive(Default)]
struct Events {
    list: Mutex<(Vec<Value>, bool)>,
    changed: Condvar,
}

impl Qmp {
    /// Accepts QEMU's connection (a client `-chardev socket`) and leaves negotiation mode.
    ///
    /// # Errors
    /// When QEMU does not connect or speak within the deadline.
    pub fn accept(listener: &UnixListener) -> Result<Self> {
        let stream =
            accept(listener, ANSWER_DEADLINE).context("waiting for QEMU's control connection")?;
        let (sender, answers) = mpsc::channel();
        let events = Arc::new(Events::default());
        let reader = stream
            .try_clone()
            .context("sharing QEMU's control connection")?;
        let keeper = Arc::clone(&events);
        thread::spawn(move || read(reader, &sender, &keeper));
        let mut qmp = Qmp {
            stream,
            answers,
            events,
        };
        qmp.execute("qmp_capabilities", json!({}))?;
        Ok(qmp)
    }

    /// Runs a command and gives what it returns.
    ///
    /// # Errors
    /// When QEMU refuses it, is gone, or does not answer in time.
    pub fn execute(&mut self, command: &str, arguments: Value) -> Result<Value> {
        let mut line = json!({ "execute": command, "arguments": arguments }).to_string();
        line.push('\n');
        self.stream
            .write_all(line.as_bytes())
            .with_context(|| format!("sending {command} to QEMU"))?;
        let answer = self
            .answers
            .recv_timeout(ANSWER_DEADLINE)
            .map_err(|_| anyhow!("QEMU did not answer {command}"))?;
        match answer.get("return") {
            Some(value) => Ok(value.clone()),
            None => bail!(
                "QEMU refused {command}: {}",
                answer["error"]["desc"]
                    .as_str()
                    .unwrap_or("no reason given")
            ),
        }
    }

    /// Runs a command of the human monitor and gives its text.
    ///
    /// # Errors
    /// As [`Qmp::execute`].
    pub fn human(&mut self, line: &str) -> Result<String> {
        let text = self.execute("human-monitor-command", json!({ "command-line": line }))?;
        Ok(text.as_str().unwrap_or_default().to_owned())
    }

    /// Waits for the event `name`, which may have come already, and takes it.
    ///
    /// # Errors
    /// At the deadline, or when QEMU ends.
    pub fn wait_event(&self, name: &str, deadline: Duration) -> Result<Value> {
        self.wait_event_where(name, deadline, |_| true)
    }

    /// As [`Qmp::wait_event`], for one whose data pleases `wanted`.
    ///
    /// # Errors
    /// At the deadline, or when QEMU ends.
    pub fn wait_event_where(
        &self,
        name: &str,
        deadline: Duration,
        wanted: impl Fn(&Value) -> bool,
    ) -> Result<Value> {
        let until = Instant::now() + deadline;
        let mut list = self
            .events
            .list
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        loop {
            if let Some(index) = list
                .0
                .iter()
                .position(|event| event["event"] == name && wanted(&event["data"]))
            {
                return Ok(list.0.remove(index));
            }
            let left = until.saturating_duration_since(Instant::now());
            if list.1 || left.is_zero() {
                let why = if list.1 {
                    "QEMU ended".into()
                } else {
                    format!("after {deadline:?}")
                };
                bail!("waiting for QEMU's event {name}: {why}");
            }
            list = self
                .events
                .changed
                .wait_timeout(list, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Writes the guest's memory and devices to `path` and waits until that is done; the guest is stopped then. A write that the host
    /// refuses (seen: "Bad address", once in some hundred) is tried once more.
    ///
    /// # Errors
    /// When QEMU cannot do it.
    pub fn save_to(&mut self, path: &str, deadline: Duration) -> Result<()> {
        self.execute("stop", json!({}))?;
        let capability = json!({ "capabilities": [{ "capability": "events", "state": true }] });
        self.execute("migrate-set-capabilities", capability)?;
        self.execute(
            "migrate-set-parameters",
            json!({ "max-bandwidth": 4_u64 << 30 }),
        )?;
        self.migrate(path, deadline).or_else(|error| {
            println!("    {error:#}; once more");
            self.migrate(path, deadline)
        })
    }

    fn migrate(&mut self, path: &str, deadline: Duration) -> Result<()> {
        self.execute("migrate", json!({ "uri": format!("file:{path}") }))?;
        let ended = |data: &Value| data["status"] == "completed" || data["status"] == "failed";
        let event = self.wait_event_where("MIGRATION", deadline, ended)?;
        if event["data"]["status"] == "failed" {
            let info = self.execute("query-migrate", json!({}))?;
            bail!(
                "QEMU could not save the machine: {}",
                info["error-desc"].as_str().unwrap_or("no reason given")
            );
        }
        Ok(())
    }
}

/// Accepts one connection before the deadline.
///
/// # Errors
/// When nobody connects.
pub fn accept(listener: &UnixListener, deadline: Duration) -> Result<UnixStream> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use std::os::fd::AsFd;
    let mut wanted = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
    let limit = PollTimeout::try_from(deadline).unwrap_or(PollTimeout::MAX);
    if poll(&mut wanted, limit).context("waiting on a socket")? == 0 {
        bail!("nobody connected within {deadline:?}");
    }
    Ok(listener.accept().context("accepting a connection")?.0)
}

fn read(stream: UnixStream, answers: &Sender<Value>, events: &Events) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        let Ok(value) = serde_json::from_str::<Value>(&line) else {
            continue;
        };
        if value.get("event").is_some() {
            events
                .list
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .0
                .push(value);
            events.changed.notify_all();
        } else if value.get("QMP").is_none() && answers.send(value).is_err() {
            break;
        }
    }
    events.list.lock().unwrap_or_else(PoisonError::into_inner).1 = true;
    events.changed.notify_all();
}
