//! Whether a boot is good: every system service and the user engine are up, within a deadline.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use keelson_engine::api::{Service, State, Status};
use keelson_engine::client;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::AsFd as _;

/// This service: it would wait for itself.
const SELF: &str = "upgrade";
const STATUS_PATH: &str = "/keelson/v1/status";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);

/// How a boot stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Standing {
    /// All is up.
    Good,
    /// Something may still come: what it is, for a person.
    Waiting(String),
    /// Something will not come.
    Bad(String),
}

/// How the system stands by the engine's word. What was `down` before the upgrade says nothing against it, nor do services of the
/// machine's own.
pub fn standing(status: &Status, down: &[String]) -> Standing {
    let counts = |service: &&Service| {
        service.enabled && !service.own && service.name != SELF && !down.contains(&service.name)
    };
    let mut waiting = Vec::new();
    for service in status.services.iter().filter(counts) {
        let name = &service.name;
        let detail = service.detail.as_deref().unwrap_or("no reason is known");
        match service.state {
            State::Ready | State::Finished | State::Listening => {}
            // By somebody's wish.
            State::Stopped | State::Stopping => {}
            State::Failed if status.boot_complete_us.is_some() => {
                return Standing::Bad(format!("service {name} has failed: {detail}"));
            }
            state => waiting.push(format!("{name} is {} ({detail})", state.as_str())),
        }
    }
    if !waiting.is_empty() {
        return Standing::Waiting(waiting.join("; "));
    }
    match status.boot_complete_us {
        Some(_) => Standing::Good,
        None => Standing::Waiting("the boot is not complete".to_owned()),
    }
}

/// The services of the system that have failed or were stopped: a new version is not blamed for them. While the machine starts nothing is known.
pub fn down(status: &Status) -> Vec<String> {
    let is_down = |service: &&Service| {
        status.boot_complete_us.is_some()
            && !service.own
            && matches!(service.state, State::Failed | State::Stopped)
    };
    let services = status.services.iter().filter(is_down);
    services.map(|service| service.name.clone()).collect()
}

/// Who is asked, and what tells that there is something new to ask about.
#[derive(Clone, Debug)]
pub struct Engine {
    /// The engine's socket.
    pub socket: PathBuf,
    /// Directories in which a file changes whenever a service does.
    pub signs: Vec<PathBuf>,
    /// All has to be up for so long, and nothing be started again, before it counts.
    pub steady: Duration,
}

impl Engine {
    /// What the engine says of the system.
    ///
    /// # Errors
    /// It does not answer.
    pub fn status(&self) -> Result<Status> {
        let answer = client::ask(&self.socket, "GET", STATUS_PATH, &[], ANSWER_TIMEOUT);
        let answer = answer.context("ask the system engine")?;
        serde_json::from_slice(&answer.body).context("read the system engine's answer")
    }

    /// Waits until the system is up, or will not be: that is at the deadline.
    ///
    /// # Errors
    /// Changes cannot be heard of.
    pub fn verdict(&self, down: &[String], deadline: Duration) -> Result<Result<(), String>> {
        let signs = watch(&self.signs)?;
        let end = Instant::now() + deadline;
        // Since when all is up, and how often services had been started again by then.
        let mut up: Option<(Instant, u64)> = None;
        loop {
            let (standing, restarts) = match self.status() {
                Ok(status) => (standing(&status, down), restarts(&status)),
                // It is being started again, perhaps.
                Err(error) => (Standing::Waiting(format!("{error:#}")), 0),
            };
            let now = Instant::now();
            let why = match standing {
                Standing::Bad(why) => return Ok(Err(why)),
                Standing::Waiting(why) => {
                    up = None;
                    why
                }
                Standing::Good => {
                    let (since, before) = *up.get_or_insert((now, restarts));
                    if before != restarts {
                        up = Some((now, restarts));
                    } else if now.duration_since(since) >= self.steady {
                        return Ok(Ok(()));
                    }
                    "services are started again and again".to_owned()
                }
            };
            let next = up.map_or(end, |(since, _)| end.min(since + self.steady));
            if !wait(&signs, next)? && now >= end {
                let seconds = deadline.as_secs();
                return Ok(Err(format!("not up within {seconds} s: {why}")));
            }
        }
    }
}

/// How often services of the system were started again.
fn restarts(status: &Status) -> u64 {
    let services = status.services.iter().filter(|service| !service.own);
    services.map(|service| u64::from(service.restarts)).sum()
}

fn watch(directories: &[PathBuf]) -> Result<Inotify> {
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
    for directory in directories {
        add(&inotify, directory).with_context(|| format!("watch {}", directory.display()))?;
    }
    Ok(inotify)
}

fn add(inotify: &Inotify, directory: &Path) -> nix::Result<()> {
    let changes = AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE;
    inotify.add_watch(directory, changes).map(drop)
}

/// Until something has changed; false at the end of time.
fn wait(signs: &Inotify, end: Instant) -> Result<bool> {
    let left = end.saturating_duration_since(Instant::now());
    let timeout =
        PollTimeout::try_from(left + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX);
    let mut ready = [PollFd::new(signs.as_fd(), PollFlags::POLLIN)];
    match poll(&mut ready, timeout) {
        Ok(0) => return Ok(Instant::now() < end),
        Ok(_) | Err(Errno::EINTR) => {}
        Err(error) => return Err(error).context("wait for changes"),
    }
    // All that has come counts as one.
    while signs.read_events().is_ok() {}
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::os::unix::net::UnixListener;

    fn status(complete: bool, services: &[(&str, &str, bool)]) -> serde_json::Value {
        let service = |(name, state, own): &(&str, &str, bool)| {
            serde_json::json!({
                "name": name, "image": "", "state": state, "detail": "why", "restarts": 0,
                "depends_on": [], "after": [], "own": own, "enabled": true,
                "privileges": {"capabilities": [], "privileged": false},
            })
        };
        serde_json::json!({
            "version": "1", "hostname": "h", "uptime_us": 1, "state": {"persistent": true}, "failures": [],
            "services": services.iter().map(service).collect::<Vec<_>>(),
            "boot_complete_us": complete.then_some(1),
        })
    }

    fn of(complete: bool, services: &[(&str, &str, bool)]) -> Standing {
        let status = serde_json::from_value(status(complete, services)).unwrap();
        standing(&status, &["broken".to_owned()])
    }

    #[test]
    fn a_boot_is_good_when_all_system_services_are_up() {
        let up = [
            ("docker", "ready", false),
            ("udev-coldplug", "finished", false),
        ];
        assert_eq!(of(true, &up), Standing::Good);
        assert!(matches!(of(false, &up), Standing::Waiting(_)));
        let spared = [
            ("broken", "failed", false),
            ("mine", "failed", true),
            ("upgrade", "starting", false),
        ];
        assert_eq!(of(true, &spared), Standing::Good);
        assert_eq!(
            of(true, &[("docker", "failed", false)]),
            Standing::Bad("service docker has failed: why".into())
        );
        for state in ["backoff", "starting", "running", "waiting"] {
            assert!(
                matches!(of(true, &[("docker", state, false)]), Standing::Waiting(_)),
                "{state}"
            );
        }
        assert!(matches!(
            of(false, &[("docker", "failed", false)]),
            Standing::Waiting(_)
        ));
    }

    #[test]
    fn the_verdict_comes_with_the_change_that_brings_it_or_at_the_deadline() {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("sock");
        let signs = directory.path().join("signs");
        std::fs::create_dir(&signs).unwrap();
        let listener = UnixListener::bind(&socket).unwrap();
        let sign = signs.clone();
        std::thread::spawn(move || {
            for state in ["starting", "ready", "starting"] {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                let body = status(true, &[("docker", state, false)]).to_string();
                write!(
                    stream,
                    "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                )
                .unwrap();
                std::fs::write(sign.join("docker.json"), state).unwrap();
                drop(stream);
            }
            // Whoever asks once more is not answered.
        });
        let engine = Engine {
            socket,
            signs: vec![signs],
            steady: Duration::ZERO,
        };
        assert_eq!(
            engine.verdict(&[], Duration::from_secs(60)).unwrap(),
            Ok(())
        );
        let why = engine
            .verdict(&[], Duration::from_millis(300))
            .unwrap()
            .unwrap_err();
        assert!(why.starts_with("not up within 0 s: "), "{why}");
    }
}
