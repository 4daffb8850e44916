//! The engine itself: one task that owns all services, hears what happens and acts on it.
//!
//! - [`Engine`]: what it knows; [`Engine::run`] is the loop
//! - `entry`: one service
//! - `apply`: from an event to what has to be done; who may start
//! - `definitions`: reads them again, and what people decide about services; `upgrade`: a service gets another image
//! - `worker`: makes, starts and removes containers, one step after the other for each service; `bundle`: how one is
//!   made; `image`: what from; `files`: what it finds in `/etc`; `volumes`: what in
//!   new volumes
//! - `containers`: those that clients made; `change`: what is changed of one; `remove`: its end
//! - `networks`: addresses and ports that containers have; `connect`: further ones while they run
//! - `streams`: their output and input, and clients that are attached
//! - `sockets`: what is listened at for services; `resolver`: the name servers that containers are told
//! - `tell`: what becomes an event
//! - `adopt`: goes on where an earlier engine was killed
//! - `shutdown`: everything down, in reverse order, by a deadline
//! - `words`: what services say and ask
//! - `logs`: pipes, and who reads them
//! - `view`: what the API shows, `privileges` among it; `control`: what its clients have done

mod adopt;
mod apply;
mod bundle;
mod change;
mod connect;
mod containers;
mod control;
mod definitions;
mod entry;
mod files;
mod image;
mod logs;
mod networks;
mod privileges;
mod remove;
mod resolver;
mod shutdown;
mod sockets;
mod start;
mod streams;
mod tell;
mod upgrade;
mod view;
mod volumes;
mod words;
mod worker;

pub(crate) use definitions::check;
pub(crate) use entry::failed_start;
pub use start::start;
pub use upgrade::Trial;
pub(crate) use upgrade::trial_lease;

use crate::api;
use crate::choices::Choices;
use crate::clock::now_us;
use crate::console::Console;
use crate::events::Events;
use crate::lifecycle::{Ending, Event};
use crate::link::{Incoming, Link};
use crate::network::Switchboard;
use crate::notify::Message;
use crate::options::Options;
use crate::output::Pipe;
use crate::runtime::Runtime;
use crate::server::Request;
use entry::Entry;
use keelson_sys::control::{ToEngine, ToInit};
use std::cell::Cell;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::{Duration, SystemTime};
use tokio::signal::unix::Signal;
use tokio::sync::{Semaphore, mpsc};

/// So many exits of processes that nobody claims are remembered: one of them may be a container's whose number is
/// about to be learnt.
const UNCLAIMED_MAX: usize = 64;

/// What reaches the engine from its own tasks.
#[derive(Debug)]
enum Input {
    /// A worker or a health check about a service; counts only while that attempt lasts.
    Event {
        service: String,
        attempt: u64,
        event: Event,
        fault: Option<&'static str>,
    },
    /// A service's own words.
    Said { service: String, message: Message },
    /// A process ended that this engine watches itself.
    Exited { pid: i32, ending: Ending },
    /// The runtime sent the terminal of a container that is being made.
    Terminal { service: String, master: OwnedFd },
    /// Somebody has connected to a service that does not run yet.
    Called { service: String },
    /// The host's name servers may be others now.
    Resolver,
    /// Nobody can type to a container any more.
    Untypable { service: String },
    /// What is known of a container is on the disk, or could not be written.
    Stored {
        service: String,
        result: anyhow::Result<()>,
    },
    /// A container stands still or goes on, or would not.
    Frozen {
        service: String,
        frozen: bool,
        result: anyhow::Result<()>,
        answer: containers::Answer,
    },
    /// The limits of a container that runs have been changed, or not.
    Updated {
        service: String,
        result: anyhow::Result<()>,
        answer: containers::Answer,
    },
    /// A container is connected to a network, or could not be.
    Connected {
        service: String,
        network: String,
        result: Result<(), crate::server::Refusal>,
        answer: containers::Answer,
    },
    /// A container that is to end can move again.
    Thawed {
        service: String,
        command: crate::docker::Command,
        answer: containers::Answer,
    },
    /// A container is gone, or could not be removed.
    Disposed {
        service: String,
        result: anyhow::Result<()>,
    },
    /// The log service took the pipes, or did not.
    HandedOver {
        attempt: u64,
        result: anyhow::Result<()>,
    },
}

/// What every task may look at.
#[derive(Debug)]
struct Shared {
    options: Options,
    console: Console,
    runtime: Runtime,
    link: Link,
    /// Whether services can be limited.
    limits: bool,
    /// Services run without seccomp, and that was said.
    unfiltered: Cell<bool>,
    /// So many containers are made at once as there are processors: making one is nothing but work for them.
    making: Semaphore,
    switchboard: Switchboard,
    inputs: mpsc::UnboundedSender<Input>,
    events: Events,
}

/// The engine.
#[derive(Debug)]
pub struct Engine {
    shared: Rc<Shared>,
    services: BTreeMap<String, Entry>,
    /// What people have decided about services.
    choices: Choices,
    /// The machine's own files of services, as they were when they were last read.
    files: BTreeMap<PathBuf, (SystemTime, u64)>,
    /// Files and services that cannot be used.
    broken: Vec<api::Failure>,
    /// What this engine and its predecessors printed.
    own_output: Option<Pipe>,
    shutdown: Option<shutdown::Shutdown>,
    boot_complete_us: Option<u64>,
    /// PID 1 knows that the services of the user slice have settled.
    user_settled: bool,
    unclaimed: VecDeque<(i32, Ending)>,
    /// The output of services is thrown away, and that was said.
    discarding: bool,
}

/// Where the engine hears from.
#[derive(Debug)]
pub struct Ears {
    incoming: mpsc::UnboundedReceiver<Incoming>,
    inputs: mpsc::UnboundedReceiver<Input>,
    requests: mpsc::Receiver<Request>,
    terminate: Signal,
}

impl Engine {
    /// Runs until everything is stopped on request.
    pub async fn run(&mut self, mut ears: Ears) {
        loop {
            self.settle();
            if self.is_shut_down() {
                return;
            }
            let pause = self
                .next_deadline_us()
                .map(|at| Duration::from_micros(at.saturating_sub(now_us())));
            let system = self.shared.link.is_connected();
            tokio::select! {
                biased;
                message = ears.incoming.recv(), if system => match message {
                    Some((message, _)) => self.hear_init(message),
                    None => return self.shared.console.error("PID 1 closed the control socket"),
                },
                Some(input) = ears.inputs.recv() => self.hear(input),
                Some(request) = ears.requests.recv() => self.answer(request),
                _ = ears.terminate.recv() => {
                    if system {
                        // The containers go on; PID 1 starts the next engine.
                        return self.shared.console.info("asked to end: the services go on");
                    }
                    self.begin_shutdown(Duration::from_secs(30));
                }
                () = tokio::time::sleep(pause.unwrap_or(Duration::MAX)), if pause.is_some() => self.fire_deadlines(),
            }
        }
    }

    fn hear_init(&mut self, message: ToEngine) {
        match message {
            ToEngine::Exited { seq, pid, ending } => {
                self.exited(pid, ending.into());
                self.shared.link.say(ToInit::Ack { seq });
            }
            ToEngine::Shutdown { deadline, .. } => self.begin_shutdown(deadline),
            ToEngine::Stored { .. } | ToEngine::HelloEnd => {}
        }
    }

    fn hear(&mut self, input: Input) {
        match input {
            Input::Event {
                service,
                attempt,
                event,
                fault,
            } => {
                let Some(entry) = self
                    .services
                    .get_mut(&service)
                    .filter(|entry| entry.attempt == attempt)
                else {
                    return;
                };
                if fault.is_some() {
                    entry.record.fault = fault.map(str::to_owned);
                }
                self.apply(&service, event);
            }
            Input::Said { service, message } => self.said(&service, message),
            Input::Exited { pid, ending } => self.exited(pid, ending),
            Input::HandedOver { attempt, result } => self.handed_over(attempt, result),
            Input::Terminal { service, master } => self.take_terminal(&service, master),
            Input::Called { service } => self.called(&service),
            Input::Resolver => self.tell_name_servers(),
            Input::Untypable { service } => self.forget_stored(&service, &["stdin"]),
            Input::Stored { service, result } => self.stored(&service, result),
            Input::Disposed { service, result } => self.disposed(&service, result),
            Input::Frozen {
                service,
                frozen,
                result,
                answer,
            } => self.frozen(&service, frozen, result, answer),
            Input::Updated {
                service,
                result,
                answer,
            } => self.updated(&service, result, answer),
            Input::Connected {
                service,
                network,
                result,
                answer,
            } => self.joined_network(&service, &network, result, answer),
            Input::Thawed {
                service,
                command,
                answer,
            } => {
                if let Some(entry) = self.services.get_mut(&service) {
                    entry.record.paused = false;
                }
                self.control(service, command, answer);
            }
        }
    }

    /// The first moment at which something is due.
    fn next_deadline_us(&self) -> Option<u64> {
        let services = self
            .services
            .values()
            .filter_map(|entry| entry.record.life.state.deadline_us());
        services
            .chain(self.shutdown.as_ref().map(|shutdown| shutdown.next_us()))
            .min()
    }

    fn fire_deadlines(&mut self) {
        let now = now_us();
        let due: Vec<String> = self
            .services
            .iter()
            .filter(|(_, entry)| {
                entry
                    .record
                    .life
                    .state
                    .deadline_us()
                    .is_some_and(|at| at <= now)
            })
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.apply(&name, Event::Timeout);
        }
        self.press_shutdown(now);
    }
}

impl From<keelson_sys::control::Ending> for Ending {
    fn from(ending: keelson_sys::control::Ending) -> Self {
        match ending {
            keelson_sys::control::Ending::Code(code) => Self::Code(code),
            keelson_sys::control::Ending::Signal(signal) => Self::Signal(signal),
        }
    }
}
