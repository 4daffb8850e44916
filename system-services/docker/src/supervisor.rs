//! The loop: signals, dockerd's word, and time.
//!
//! | what comes | what is done |
//! |---|---|
//! | a daemon ends | it is started again, after a pause if it goes on failing |
//! | an orphan ends (a shim, mostly) | it is reaped |
//! | dockerd says `READY=1` | the engine is told |
//! | SIGHUP | dockerd alone starts again, with the settings read anew |
//! | SIGUSR1, other addresses of the machine's | the same, when the settings are others |
//! | SIGTERM, SIGINT | [`crate::stop`] |

use crate::bridge;
use crate::cgroup;
use crate::daemon::Daemon;
use crate::paths::Paths;
use crate::settings::{self, Refused, Settings};
use anyhow::{Context, Result};
use keelson_sys::notify::{field, notify};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::time::{Duration, Instant};

/// dockerd that does not end for so long when it is to start again is killed. It needs time to let go of requests,
/// not of applications.
const RESTART_LIMIT: Duration = Duration::from_secs(15);
const NOTIFY_MAX_BYTES: usize = 4096;
/// The network service's file of the machine's addresses.
const ADDRESSES: &str = "addresses";

/// Both daemons and what is known about them.
#[derive(Debug)]
pub struct Supervisor {
    pub(crate) paths: Paths,
    pub(crate) containerd: Daemon,
    pub(crate) dockerd: Daemon,
    pub(crate) settings: Settings,
    /// What dockerd did not start with.
    refused: Refused,
    /// dockerd was told to end, to start again.
    restarting: bool,
    /// The dockerd that runs now has said so.
    pub(crate) ready: bool,
    /// Nothing is started again any more.
    pub(crate) stopping: bool,
    kill_dockerd_at: Option<Instant>,
    signals: SignalFd,
    notified: UnixDatagram,
    /// Hears of changes of the machine's networks.
    networks: Option<Inotify>,
}

/// Runs until it is told to stop and everything has ended.
///
/// # Errors
/// Something without which neither daemon could run.
pub fn run(paths: Paths) -> Result<()> {
    let mut supervisor = Supervisor::prepare(paths)?;
    loop {
        supervisor.start_daemons();
        if supervisor.turn(None)? {
            return crate::stop::run(&mut supervisor);
        }
    }
}

impl Supervisor {
    fn prepare(paths: Paths) -> Result<Self> {
        let mut watched = SigSet::empty();
        for signal in [
            Signal::SIGCHLD,
            Signal::SIGHUP,
            Signal::SIGUSR1,
            Signal::SIGTERM,
            Signal::SIGINT,
        ] {
            watched.add(signal);
        }
        // Children get an empty mask: the standard library resets it.
        watched.thread_block().context("blocking signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let signals = SignalFd::with_flags(&watched, flags).context("making a signalfd")?;
        for complaint in cgroup::prepare(&paths.cgroup).context("preparing the control groups")? {
            eprintln!("<4>going on without a control group setting: {complaint}");
        }
        let run = &paths.run_directory;
        fs::create_dir_all(run).with_context(|| format!("making {}", run.display()))?;
        let socket = paths.notify_socket();
        // Not there is what it should be.
        let _ = fs::remove_file(&socket);
        let notified =
            UnixDatagram::bind(&socket).with_context(|| format!("making {}", socket.display()))?;
        notified
            .set_nonblocking(true)
            .context("making the notify socket non-blocking")?;
        let file = paths.settings();
        let dockerd = Daemon::new(
            "dockerd",
            paths.dockerd.clone(),
            paths.docker_socket.clone(),
        )
        .arguments(&["--config-file", &file.to_string_lossy()])
        .notify_socket(socket);
        let containerd = Daemon::new(
            "containerd",
            paths.containerd.clone(),
            paths.containerd_socket.clone(),
        );
        let mut supervisor = Self {
            settings: settings::load(&paths, &Refused::default()),
            refused: Refused::default(),
            restarting: false,
            containerd,
            dockerd,
            ready: false,
            stopping: false,
            kill_dockerd_at: None,
            signals,
            notified,
            networks: watch(&paths.network),
            paths,
        };
        supervisor.apply_settings()?;
        Ok(supervisor)
    }

    fn apply_settings(&mut self) -> Result<()> {
        for complaint in self.settings.complaints.drain(..) {
            complain(&complaint);
        }
        let file = self.paths.settings();
        settings::write(&self.settings.keys, &file)
            .with_context(|| format!("writing {}", file.display()))
    }

    /// Both at once: dockerd waits for containerd's socket by itself, and has much to do before it needs it.
    fn start_daemons(&mut self) {
        let now = Instant::now();
        for daemon in [&mut self.containerd, &mut self.dockerd] {
            if let Err(error) = daemon.start_if_due(now) {
                complain(&format!("{error:#}"));
            }
        }
    }

    /// Waits for whatever comes next, until `limit` at the latest, and handles it. Gives `true` when it was the signal
    /// to stop.
    pub(crate) fn turn(&mut self, limit: Option<Instant>) -> Result<bool> {
        let deadlines = [
            self.containerd.due(),
            self.dockerd.due(),
            self.kill_dockerd_at,
        ];
        // While stopping nothing is started again: then only the limit counts.
        let next = limit.or_else(|| deadlines.into_iter().flatten().min());
        let mut fds = vec![
            PollFd::new(self.signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.notified.as_fd(), PollFlags::POLLIN),
        ];
        let networks = self.networks.iter();
        fds.extend(networks.map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN)));
        match poll(&mut fds, timeout(next)) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("waiting for events"),
        }
        self.hear_dockerd();
        if self.networks_changed() && !self.stopping {
            self.follow_settings()?;
        }
        let mut stop = false;
        while let Some(info) = self.signals.read_signal().context("reading signals")? {
            match Signal::try_from(info.ssi_signo as i32) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(Signal::SIGHUP) => self.restart_dockerd()?,
                Ok(Signal::SIGUSR1) => self.follow_settings()?,
                _ => stop = true,
            }
        }
        if self.kill_dockerd_at.is_some_and(|at| at <= Instant::now()) {
            self.kill_dockerd_at = None;
            complain("dockerd does not end: killed");
            self.dockerd.signal(Signal::SIGKILL)?;
        }
        Ok(stop)
    }

    /// Passes dockerd's word on.
    fn hear_dockerd(&mut self) {
        let mut buffer = [0; NOTIFY_MAX_BYTES];
        while let Ok(length) = self.notified.recv(&mut buffer) {
            let message = String::from_utf8_lossy(&buffer[..length]);
            if field(&message, "READY") == Some("1") {
                self.ready = true;
                tell_engine("READY=1\nSTATUS=Docker answers");
            }
        }
    }

    /// Whether the machine has other addresses than before.
    fn networks_changed(&self) -> bool {
        let mut changed = false;
        while let Some(Ok(events)) = self.networks.as_ref().map(Inotify::read_events) {
            let mut events = events.into_iter();
            changed |= events.any(|event| event.name.is_some_and(|name| name == ADDRESSES));
        }
        changed
    }

    /// Starts dockerd again when its settings are others.
    fn follow_settings(&mut self) -> Result<()> {
        match self.wanted().keys == self.settings.keys {
            true => Ok(()),
            false => self.restart_dockerd(),
        }
    }

    /// The settings; docker0 stays where containers are.
    fn wanted(&self) -> Settings {
        let mut wanted = settings::load(&self.paths, &self.refused);
        let is_moved = wanted.chosen_bip.is_some() && wanted.chosen_bip != self.settings.chosen_bip;
        if is_moved && bridge::in_use(&self.paths) {
            println!(
                "<4>docker0 is in a network of the machine's own, and stays there as long as containers run"
            );
            wanted.keys.remove(settings::BIP);
            wanted.chosen_bip.clone_from(&self.settings.chosen_bip);
            let bip = wanted.chosen_bip.iter();
            let bip = bip.map(|bip| (settings::BIP.to_owned(), bip.clone().into()));
            wanted.keys.extend(bip);
        }
        wanted
    }

    fn restart_dockerd(&mut self) -> Result<()> {
        println!("<6>starting dockerd again; applications go on");
        self.settings = self.wanted();
        self.apply_settings()?;
        // One that waits to be started again finds the new settings then.
        if self.dockerd.pid().is_none() {
            return Ok(());
        }
        self.restarting = true;
        self.dockerd.expect_end();
        self.kill_dockerd_at = Some(Instant::now() + RESTART_LIMIT);
        self.dockerd.signal(Signal::SIGTERM)
    }

    /// All that have ended: the daemons, and whoever lost its parent.
    fn reap(&mut self) {
        while let Ok(status) = waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            let Some(pid) = status.pid() else { break };
            if self.dockerd.pid() == Some(pid) {
                self.dockerd_ended(status);
            } else if self.containerd.pid() == Some(pid) {
                let pause = self.containerd.ended(Instant::now());
                self.tell_end("containerd", status, pause);
            }
        }
    }

    fn tell_end(&self, name: &str, status: WaitStatus, pause: Duration) {
        let how = match status {
            WaitStatus::Exited(_, code) => format!("ended with status {code}"),
            WaitStatus::Signaled(_, signal, _) => format!("was ended by {signal}"),
            other => format!("ended: {other:?}"),
        };
        if self.stopping {
            println!("<6>{name} {how}");
            return;
        }
        let text = format!(
            "{name} {how}; it starts again after {} ms",
            pause.as_millis()
        );
        println!("<5>{text}");
        tell_engine(&format!("STATUS={text}"));
    }

    fn dockerd_ended(&mut self, status: WaitStatus) {
        let was_ready = std::mem::take(&mut self.ready);
        self.kill_dockerd_at = None;
        let pause = self.dockerd.ended(Instant::now());
        self.tell_end("dockerd", status, pause);
        let was_told = std::mem::take(&mut self.restarting);
        if was_ready || was_told || self.stopping {
            return;
        }
        // It may be our choice that it does not start with; if it is not, what the user wrote is left out next.
        let ours = self.settings.chosen_bip.take();
        match ours {
            Some(bip) => self.refused.bips.push(bip),
            None if self.settings.from_user => {
                self.refused.user_settings = settings::text_of(&self.paths);
                self.refused.bips.clear();
            }
            None => return,
        }
        self.settings = settings::load(&self.paths, &self.refused);
        if let Err(error) = self.apply_settings() {
            complain(&format!("{error:#}"));
        }
    }
}

/// Hears of files that are replaced there; `None` when that is not possible: then docker0 stays until Docker starts again.
fn watch(directory: &Path) -> Option<Inotify> {
    let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
    let inotify = Inotify::init(flags).ok()?;
    inotify
        .add_watch(directory, AddWatchFlags::IN_MOVED_TO)
        .ok()?;
    Some(inotify)
}

/// For the log, and as what `keelson status` shows.
pub(crate) fn complain(text: &str) {
    eprintln!("<3>{text}");
    tell_engine(&format!("STATUS={text}"));
}

fn tell_engine(message: &str) {
    // The engine may be starting anew; what is running goes on all the same.
    if let Err(error) = notify(message) {
        eprintln!("<4>cannot tell the engine {message:?}: {error}");
    }
}

fn timeout(next: Option<Instant>) -> PollTimeout {
    let Some(next) = next else {
        return PollTimeout::NONE;
    };
    // Rounded up: waking a little early would mean to turn in circles until it is time.
    let milliseconds = next
        .saturating_duration_since(Instant::now())
        .as_micros()
        .div_ceil(1000);
    PollTimeout::try_from(milliseconds).unwrap_or(PollTimeout::MAX)
}
