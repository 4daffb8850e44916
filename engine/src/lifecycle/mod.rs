//! The life of one service: one enum with its data, and one function through which every change goes.
//!
//! - [`Lifecycle::transition`] in `transition`: what an event means in each state, and what has to be done; `stopping`: on the
//!   way to its end
//! - [`policy`]: what the definition says about restarts and time limits; the back-off
//!
//! ```text
//!             Unblocked            Created             Ready
//!   Waiting ------------> Creating -------> Starting --------> Ready <-> unhealthy
//!      |  ^                |   ^               |                 |
//!      |  | Restart        |   | Timeout       | Exited          | Exited
//!      |  |                |   | (back-off)    v                 v
//!      |  |                |   +------------ Backoff <--- restart policy ---> Finished | Failed
//!      |  |  LaunchFailed  |                                ^
//!      |  |  (as an exit)  +--------------------------------+
//!      |  |
//!      |  +-- Failed (Unblocked: what it needs is there again)
//!      |
//!      +--Blocked--> Failed        Creating, Starting, Ready --Stop, Restart, Timeout--> Stopping
//!                                  Stopping --Exited--> Stopped | Creating | restart policy
//! ```
//!
//! A service that is started by who connects to it begins as `Listening`, and is that again when it has ended well: it
//! is down, and `Start` takes it to `Waiting`.
//!
//! A container that a client made begins as `Stopped`; `Start` takes whatever is down, and is nothing to whatever is not.
//!
//! The machine knows no clock and no container: events carry what happened, actions say what to do. It is stored as
//! it is, so that the next engine goes on where this one was killed.

pub mod policy;
mod stopping;
mod transition;

pub use policy::Policy;

use serde::{Deserialize, Serialize};
use std::fmt;

/// A container's first process; number and start time together name it for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its number, as the host sees it.
    pub pid: i32,
    /// When it was started, in clock ticks since boot (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Ending {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
    /// The kernel killed it because memory ran out.
    OutOfMemory,
    /// It is gone and nobody knows how.
    Unknown,
}

impl Ending {
    /// Exit status as a shell tells it: 128 + signal when a signal ended it.
    pub fn exit_code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(signal) => Some(128 + signal),
            Self::OutOfMemory => Some(128 + nix::libc::SIGKILL),
            Self::Unknown => None,
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "ended with exit status {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(formatter, "was killed by {signal}"),
                Err(_) => write!(formatter, "was killed by signal {number}"),
            },
            Self::OutOfMemory => formatter.write_str("was killed because memory ran out"),
            Self::Unknown => {
                formatter.write_str("ended while the engine was away, nobody knows how")
            }
        }
    }
}

/// What follows once a service has been brought to its end.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Then {
    /// It stays down.
    Stop,
    /// It is started again.
    Restart,
    /// It counts as having failed for this reason; its restart policy decides.
    Fail(String),
}

/// What a service is doing. Times are microseconds of `CLOCK_BOOTTIME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Something that it needs is not ready.
    #[default]
    Waiting,
    /// Its sockets are listened at; it starts when somebody connects.
    Listening,
    /// Its container is being made.
    Creating,
    /// Its process is there and has not said that it is ready.
    Starting {
        /// The container's first process.
        process: Process,
        /// False while the process waits for the word to run the service's program.
        launched: bool,
        /// When patience ends.
        until_us: Option<u64>,
    },
    /// It runs and has said that it is ready.
    Ready {
        /// The container's first process.
        process: Process,
        /// What its health check says.
        healthy: bool,
        /// When it must have said `WATCHDOG=1` again.
        until_us: Option<u64>,
    },
    /// It ended and will be started again.
    Backoff {
        /// When.
        until_us: u64,
        /// Why it ended.
        why: String,
    },
    /// A one-shot that ended well, or a service that ended well and need not run again.
    Finished,
    /// Given up.
    Failed {
        /// Why.
        why: String,
        /// It failed because this one did, and comes back with it.
        blocked_by: Option<String>,
    },
    /// It was told to end.
    Stopping {
        /// The container's first process; `None` while the container is still being made.
        process: Option<Process>,
        /// What follows.
        then: Then,
        /// When it is killed.
        until_us: Option<u64>,
    },
    /// Ended on request.
    Stopped,
}

impl State {
    /// The container's first process, while there is one.
    pub fn process(&self) -> Option<Process> {
        match self {
            Self::Starting { process, .. } | Self::Ready { process, .. } => Some(*process),
            Self::Stopping { process, .. } => *process,
            _ => None,
        }
    }

    /// When [`Event::Timeout`] is due.
    pub fn deadline_us(&self) -> Option<u64> {
        match self {
            Self::Starting { until_us, .. }
            | Self::Ready { until_us, .. }
            | Self::Stopping { until_us, .. } => *until_us,
            Self::Backoff { until_us, .. } => Some(*until_us),
            _ => None,
        }
    }

    /// Nothing is under way: it is down and stays so unless something is asked of it.
    pub fn is_down(&self) -> bool {
        matches!(
            self,
            Self::Listening | Self::Finished | Self::Failed { .. } | Self::Stopped
        )
    }

    /// Whether those who only wait for their turn need wait no longer.
    pub fn is_settled(&self) -> bool {
        matches!(self, Self::Ready { .. }) || self.is_down()
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// What it needs is ready.
    Unblocked,
    /// What it needs has failed.
    Blocked {
        /// Which service.
        by: String,
        /// For a person.
        why: String,
    },
    /// The container stands and its first process waits.
    Created(Process),
    /// The service's program runs.
    Launched,
    /// The container could not be made, or its program not be started.
    LaunchFailed {
        /// For a person.
        why: String,
        /// Trying again cannot help.
        permanent: bool,
    },
    /// It says that it is ready.
    Ready,
    /// Its health check says so.
    Health(bool),
    /// It said `WATCHDOG=1`.
    Alive,
    /// It asks for so much more time to start (`EXTEND_TIMEOUT_USEC=`).
    Extend(std::time::Duration),
    /// Its first process ended.
    Exited(Ending),
    /// The deadline of the present state has passed.
    Timeout,
    /// It shall end.
    Stop,
    /// It shall run; nothing happens when it does, or is about to.
    Start,
    /// Its sockets shall be listened at, if it is down.
    Listen,
    /// It shall end and be started again.
    Restart,
    /// What is ending has no longer than this, whatever its definition says.
    Within(std::time::Duration),
}

/// What has to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Make the container; answered with `Created` or `LaunchFailed`.
    Create,
    /// Let its first process run the program; answered with `Launched` or `LaunchFailed`.
    Launch,
    /// Send a signal to its first process.
    Signal(i32),
    /// Remove what is left of the container.
    Delete,
    /// Tell the person at the machine that something failed.
    Error(String),
    /// Tell what happened.
    Info(String),
}

/// A service's state and its history.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifecycle {
    /// What it is doing.
    pub state: State,
    /// How often it was started again.
    pub restarts: u32,
    /// Ends in a row without a stable run between them: the back-off's exponent.
    pub streak: u32,
    /// How its last run ended.
    pub last: Option<Ending>,
    /// When its container was asked for.
    pub created_us: Option<u64>,
    /// When its program was started.
    pub started_us: Option<u64>,
    /// When it was ready, or when a one-shot had ended.
    pub ready_us: Option<u64>,
    /// When its last run ended.
    #[serde(default)]
    pub ended_us: Option<u64>,
}

#[cfg(test)]
mod tests;
