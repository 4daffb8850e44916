//! PID 1's event loop on the real root: one thread, one epoll, nothing that waits for anything else.
//!
//! - [`engine`]: the child that is supervised, and its control socket
//! - [`damage`]: a slot that decays while it runs
//! - [`lifecycle`]: start, end, rescue, shutdown
//! - [`backoff`]: when a dead engine is started again
//! - [`store`]: descriptors and exits that outlive the engine
//! - [`trial`]: a version that has to show that it is good
//! - [`watchdog`]: the hardware watchdog
//! - [`requests`]: what the engine asks for
//!
//! The lifecycle is [`Phase`]:
//!
//! ```text
//! Waiting --start--> Running --ended--> Waiting ... --too often--> Rescue --shell left--> Waiting
//! any --signal, `power`--> Stopping --`stopped`, ended, deadline--> shutdown::finish
//! ```

mod backoff;
mod damage;
mod engine;
mod lifecycle;
mod requests;
mod store;
mod trial;
pub(crate) mod watchdog;

use crate::cmdline::Options;
use crate::root::cgroups;
use crate::timeline::{Timeline, now_us};
use crate::uevent::{Received, Socket};
use crate::{HOUSEKEEPING, NEXT_PROGRAM, files, kmsg, rescue, root};
use anyhow::{Context as _, Result};
use backoff::Backoff;
use damage::Damage;
use engine::Engine;
use keelson_sys::control::{Action, Ending};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::reboot::set_cad_enabled;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::os::fd::OwnedFd;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};
use store::{Descriptors, Exits};
use trial::Trial;
use watchdog::Watchdog;

/// The name of the engine's own output in the store.
const ENGINE_OUTPUT: &str = "engine.output";
/// Room in the pipe of the engine's output for the time in which nobody reads it.
const ENGINE_OUTPUT_BYTES: i32 = 256 * 1024;
/// How long the engine may take to stop all services. What follows takes less than the rest of 15 s.
const STOP_DEADLINE: Duration = Duration::from_secs(9);
/// What the engine is told, so that its answer arrives in time.
const STOP_DEADLINE_TOLD: Duration = Duration::from_millis(8500);

/// Files that PID 1 and the engine may have open.
const FILES_MAX: u64 = 65_536;

const TOKEN_SIGNALS: u64 = 1;
const TOKEN_EVENTS: u64 = 2;
const TOKEN_ENGINE: u64 = 3;

/// What PID 1 is doing.
#[derive(Debug)]
enum Phase {
    /// No engine; the next one starts then.
    Waiting(Instant),
    /// The engine runs.
    Running(Engine),
    /// No engine; shells with these process numbers are open.
    Rescue(Vec<i32>),
    /// The engine stops the services; at the latest then the rest is brought down.
    Stopping(Option<Engine>, Action, Instant),
}

struct Supervisor {
    epoll: Epoll,
    signals: SignalFd,
    events: Option<Socket>,
    phase: Phase,
    backoff: Backoff,
    descriptors: Descriptors,
    exits: Exits,
    /// The write end of the engine's output.
    output: OwnedFd,
    watchdog: Option<Watchdog>,
    trial: Trial,
    damage: Damage,
    /// PID 1's own child that nobody waits for.
    housekeeper: Option<i32>,
    starts: u64,
}

/// Runs the root stage; never returns.
pub(crate) fn run() -> ! {
    let start_us = now_us();
    kmsg::report_panics();
    let text = kmsg::tolerate("read the kernel command line", files::get("/proc/cmdline"));
    let options = Options::parse(&text.unwrap_or_default());
    let mut timeline = Timeline::default();
    // The engine holds some descriptors for each container, and PID 1 keeps them for it.
    let raised = setrlimit(Resource::RLIMIT_NOFILE, FILES_MAX, FILES_MAX);
    kmsg::tolerate("raise the limit of open files", raised);
    let prepared = catch_unwind(AssertUnwindSafe(|| root::prepare(&options, &mut timeline)));
    if prepared.is_err() {
        kmsg::error("preparing the root was cut short by an internal error (see above); going on");
    }
    let asked_for_rescue = options.rescue;
    let mut supervisor = match Supervisor::new(options) {
        Ok(supervisor) => supervisor,
        Err(error) => rescue::last_resort(&format!("{error:#}"), asked_for_rescue),
    };
    if asked_for_rescue {
        supervisor.open_rescue("the kernel command line asks for a rescue shell");
    } else {
        supervisor.step(Supervisor::start_engine);
    }
    // What was refused before anybody listened.
    supervisor.step(|this| this.damage.look());
    timeline.add("root", start_us);
    kmsg::tolerate("write the time line", timeline.write());
    supervisor.step(Supervisor::start_housekeeping);
    loop {
        supervisor.turn();
    }
}

impl Supervisor {
    fn new(options: Options) -> Result<Self> {
        let wanted = [
            Signal::SIGCHLD,
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGPWR,
        ];
        let mut set = SigSet::empty();
        wanted.into_iter().for_each(|signal| set.add(signal));
        set.thread_block().context("block signals")?;
        let signals = SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("make a signalfd")?;
        kmsg::tolerate("let ctrl-alt-del be a signal", set_cad_enabled(false));
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).context("make an epoll")?;
        let event = |token| EpollEvent::new(EpollFlags::EPOLLIN, token);
        epoll
            .add(&signals, event(TOKEN_SIGNALS))
            .context("watch signals")?;
        let events = kmsg::tolerate("subscribe to kernel events", Socket::open());
        if let Some(events) = &events {
            kmsg::tolerate(
                "watch kernel events",
                epoll.add(events, event(TOKEN_EVENTS)),
            );
        }
        let (reader, output) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
            .context("make the engine's output pipe")?;
        let enlarged = nix::fcntl::fcntl(
            &reader,
            nix::fcntl::FcntlArg::F_SETPIPE_SZ(ENGINE_OUTPUT_BYTES),
        );
        kmsg::tolerate("enlarge the engine's output pipe", enlarged);
        let mut descriptors = Descriptors::default();
        // The store is empty: it takes one.
        let _ = descriptors.store(ENGINE_OUTPUT.to_owned(), reader);
        Ok(Self {
            epoll,
            signals,
            events,
            phase: Phase::Waiting(Instant::now()),
            backoff: Backoff::default(),
            descriptors,
            exits: Exits::default(),
            output,
            watchdog: None,
            trial: Trial::begin(options.kexec.clone()),
            damage: Damage::none(options),
            housekeeper: None,
            starts: 0,
        })
    }

    /// Runs one step; an internal error in it is reported by the panic hook and does not end PID 1.
    fn step(&mut self, step: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| step(self))).is_err() {
            kmsg::error("a step of PID 1 was cut short by an internal error (see above); going on");
        }
    }

    /// Waits for the next event or deadline and handles what is due.
    fn turn(&mut self) {
        let timeout = match self.next_deadline() {
            Some(deadline) => {
                let left = deadline.saturating_duration_since(Instant::now());
                // Rounded up, so that the deadline has passed when the wait ends.
                let milliseconds = left.as_micros().div_ceil(1000);
                EpollTimeout::try_from(u64::try_from(milliseconds).unwrap_or(u64::MAX))
                    .unwrap_or(EpollTimeout::MAX)
            }
            None => EpollTimeout::NONE,
        };
        let mut ready = [EpollEvent::empty(); 8];
        let count = match self.epoll.wait(&mut ready, timeout) {
            Ok(count) => count,
            Err(nix::errno::Errno::EINTR) => 0,
            Err(error) => {
                kmsg::error(format_args!("wait for events: {error}"));
                0
            }
        };
        for event in ready.iter().take(count) {
            match event.data() {
                TOKEN_SIGNALS => self.step(Self::on_signals),
                TOKEN_EVENTS => self.step(Self::on_kernel_events),
                _ => {
                    let flags = event.events();
                    self.step(|this| this.on_engine(flags));
                }
            }
        }
        self.step(Self::on_deadlines);
    }

    fn next_deadline(&self) -> Option<Instant> {
        let phase = match &self.phase {
            Phase::Waiting(at) | Phase::Stopping(_, _, at) => Some(*at),
            Phase::Running(_) | Phase::Rescue(_) => None,
        };
        phase
            .into_iter()
            .chain(self.watchdog.as_ref().map(Watchdog::next))
            .chain(self.trial.deadline())
            .chain(self.damage.deadline())
            .min()
    }

    fn on_deadlines(&mut self) {
        let now = Instant::now();
        if let Some(watchdog) = self
            .watchdog
            .as_mut()
            .filter(|watchdog| watchdog.next() <= now)
        {
            watchdog.feed();
        }
        if self
            .trial
            .deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.trial_is_over();
        }
        if self
            .damage
            .deadline()
            .is_some_and(|deadline| deadline <= now)
        {
            self.leave_slot();
        }
        match &self.phase {
            Phase::Waiting(at) if *at <= now => self.start_engine(),
            Phase::Stopping(_, action, at) if *at <= now => {
                kmsg::error("the engine has not stopped all services in time; going on without it");
                self.finish(*action);
            }
            _ => {}
        }
    }

    fn start_housekeeping(&mut self) {
        let procs = std::fs::OpenOptions::new()
            .write(true)
            .open(cgroups::file(cgroups::INIT, "cgroup.procs"))
            .ok();
        let setup = keelson_sys::process::Setup {
            cgroup_procs: procs.as_ref(),
            ..Default::default()
        };
        let mut command = std::process::Command::new(NEXT_PROGRAM);
        self.housekeeper = kmsg::tolerate(
            "housekeeping",
            keelson_sys::process::spawn(command.arg(HOUSEKEEPING), &setup),
        );
        self.watchdog = Watchdog::open();
    }

    fn on_signals(&mut self) {
        while let Ok(Some(info)) = self.signals.read_signal() {
            match Signal::try_from(i32::try_from(info.ssi_signo).unwrap_or(0)) {
                Ok(Signal::SIGCHLD) => self.reap(),
                Ok(Signal::SIGTERM | Signal::SIGUSR2 | Signal::SIGPWR) => {
                    self.begin_shutdown(Action::Poweroff)
                }
                Ok(Signal::SIGINT) => self.begin_shutdown(Action::Reboot),
                Ok(Signal::SIGUSR1) => self.begin_shutdown(Action::Halt),
                _ => {}
            }
        }
        self.flush_engine();
    }

    fn reap(&mut self) {
        loop {
            match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
                Ok(WaitStatus::Exited(pid, code)) => self.on_exit(pid.as_raw(), Ending::Code(code)),
                Ok(WaitStatus::Signaled(pid, signal, _)) => {
                    self.on_exit(pid.as_raw(), Ending::Signal(signal as i32))
                }
                Ok(WaitStatus::StillAlive) | Err(nix::errno::Errno::ECHILD) => return,
                Ok(_) | Err(nix::errno::Errno::EINTR) => {}
                Err(error) => {
                    kmsg::error(format_args!("reap: {error}"));
                    return;
                }
            }
        }
    }

    fn on_exit(&mut self, pid: i32, ending: Ending) {
        if self.housekeeper == Some(pid) {
            self.housekeeper = None;
            return;
        }
        match &mut self.phase {
            Phase::Running(engine) if engine.pid() == pid => self.engine_ended(ending),
            Phase::Stopping(Some(engine), action, _) if engine.pid() == pid => {
                kmsg::error(format_args!("the engine ended during shutdown ({ending})"));
                let action = *action;
                self.finish(action);
            }
            Phase::Rescue(shells) if shells.contains(&pid) => self.leave_rescue(pid),
            phase => {
                let (message, overflow) = self.exits.record(pid, ending);
                if overflow {
                    kmsg::error("too many exits wait for the engine; the oldest is forgotten");
                }
                if let Phase::Running(engine) | Phase::Stopping(Some(engine), ..) = phase {
                    engine.queue(message);
                }
            }
        }
    }

    /// Looks for blocks that dm-verity has refused, and for a watchdog that has appeared.
    fn on_kernel_events(&mut self) {
        let Some(events) = &mut self.events else {
            return;
        };
        loop {
            match events.receive() {
                Ok(Received::Event(event)) => {
                    self.damage.hear(&event);
                    if self.watchdog.is_none()
                        && event.get("DEVNAME") == Some("watchdog0")
                        && event.action == "add"
                    {
                        self.watchdog = Watchdog::open();
                    }
                }
                Ok(Received::Lost) => self.damage.look(),
                Ok(Received::Empty) => return,
                Err(error) => {
                    kmsg::error(format_args!("receive kernel events: {error}"));
                    return;
                }
            }
        }
    }
}
