//! The control protocol between PID 1 and the system engine: one JSON object a packet over a `SOCK_SEQPACKET`
//! pair, file descriptors beside it as `SCM_RIGHTS`.
//!
//! - [`ToEngine`], [`ToInit`]: the vocabulary, with `encode` and `decode`
//! - [`pair`], [`send`], [`recv`]: the socket
//!
//! The vocabulary is fixed and the objects are flat, so PID 1 carries a scanner of a hundred lines and no general
//! JSON parser.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod json;
mod transport;

pub use transport::{PACKET_MAX_BYTES, Packet, pair, recv, send};

use json::Object;
use std::fmt;
use std::time::Duration;

/// The environment variable that tells the engine the number of its control socket.
pub const FD_VARIABLE: &str = "KEELSON_INIT_FD";

/// Appends `text` to `out` as a JSON string, quotes included.
pub fn quote_json(text: &str, out: &mut String) {
    json::quote(text, out);
}

/// How the machine goes down.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// Start again.
    Reboot,
    /// Start again without the firmware: the kernel that the upgrade service has laid out.
    Kexec,
    /// Turn the power off.
    Poweroff,
    /// Stop, power stays on.
    Halt,
}

impl Action {
    /// The word on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reboot => "reboot",
            Self::Kexec => "kexec",
            Self::Poweroff => "poweroff",
            Self::Halt => "halt",
        }
    }

    /// The action of that word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::Reboot, Self::Kexec, Self::Poweroff, Self::Halt]
            .into_iter()
            .find(|action| action.as_str() == word)
    }
}

impl fmt::Display for Action {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.as_str())
    }
}

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Ending {
    /// It exited with this status.
    Code(i32),
    /// This signal killed it.
    Signal(i32),
}

impl fmt::Display for Ending {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(formatter, "exit status {code}"),
            Self::Signal(signal) => write!(formatter, "signal {signal}"),
        }
    }
}

/// What PID 1 tells the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToEngine {
    /// A descriptor that was stored under this name; it is in the packet.
    Stored {
        /// The name given with [`ToInit::Store`].
        name: String,
    },
    /// A child of PID 1 was reaped. Repeated to the next engine until it is acknowledged.
    Exited {
        /// Counts up by one with each exit, over engine restarts.
        seq: u64,
        /// The process's number, which may be in use again.
        pid: i32,
        /// How it ended.
        ending: Ending,
    },
    /// Everything that was held for the engine has been sent.
    HelloEnd,
    /// Stop all services in reverse order, then answer [`ToInit::Stopped`].
    Shutdown {
        /// What PID 1 does afterwards.
        action: Action,
        /// How long the engine may take; millisecond precision.
        deadline: Duration,
    },
}

/// What the engine tells PID 1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToInit {
    /// Keep the descriptor in this packet over engine restarts; replaces one of the same name.
    Store {
        /// Chosen by the engine, like `network.stdout`.
        name: String,
    },
    /// Forget a stored descriptor.
    Drop {
        /// The name given with [`ToInit::Store`].
        name: String,
    },
    /// All exits up to and including this one are recorded by the engine.
    Ack {
        /// From [`ToEngine::Exited`].
        seq: u64,
    },
    /// Begin the shutdown.
    Power {
        /// What is wanted.
        action: Action,
    },
    /// Set the kernel's host name.
    Hostname {
        /// The new name.
        name: String,
    },
    /// The engine is up: its restart back-off starts afresh.
    Ready,
    /// The services of the `user` slice are up, or will not be: what was hurried for their sake goes on as always.
    UserSettled,
    /// This boot is good: nothing has to be done about its having been a trial.
    Healthy,
    /// The answer to [`ToEngine::Shutdown`].
    Stopped,
}

/// Why a packet is not of the vocabulary.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Malformed {
    /// Not UTF-8.
    Utf8,
    /// Not one flat JSON object of strings and integers.
    Syntax,
    /// A key stands twice.
    Duplicate(String),
    /// The `type` is not known.
    Type(String),
    /// A key is missing.
    Missing(&'static str),
    /// A key that does not belong there.
    Unknown(String),
    /// A string where a number is due, or the other way round.
    Kind(&'static str),
    /// A value outside its range.
    Range(&'static str),
}

impl fmt::Display for Malformed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("control message: ")?;
        match self {
            Self::Utf8 => formatter.write_str("not utf-8"),
            Self::Syntax => formatter.write_str("not a flat json object"),
            Self::Duplicate(key) => write!(formatter, "key `{key}` stands twice"),
            Self::Type(kind) => write!(formatter, "unknown type `{kind}`"),
            Self::Missing(key) => write!(formatter, "key `{key}` is missing"),
            Self::Unknown(key) => write!(formatter, "unknown key `{key}`"),
            Self::Kind(key) => write!(formatter, "key `{key}` has a value of the wrong kind"),
            Self::Range(key) => write!(formatter, "key `{key}` has a value outside its range"),
        }
    }
}

impl std::error::Error for Malformed {}

/// Unsigned numbers travel as JSON integers below 2^63; none of ours gets there.
fn wire(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn object(kind: &str) -> Object {
    Object::default().text("type", kind)
}

fn take_action(object: &mut Object) -> Result<Action, Malformed> {
    Action::parse(&object.take_text("action")?).ok_or(Malformed::Range("action"))
}

impl ToEngine {
    /// The message as a packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Stored { name } => object("stored").text("name", name),
            Self::Exited { seq, pid, ending } => {
                let (key, number) = match ending {
                    Ending::Code(code) => ("code", *code),
                    Ending::Signal(signal) => ("signal", *signal),
                };
                object("exited")
                    .integer("seq", wire(*seq))
                    .integer("pid", (*pid).into())
                    .integer(key, number.into())
            }
            Self::HelloEnd => object("hello-end"),
            Self::Shutdown { action, deadline } => {
                let milliseconds = u64::try_from(deadline.as_millis()).unwrap_or(u64::MAX);
                object("shutdown")
                    .text("action", action.as_str())
                    .integer("deadline_ms", wire(milliseconds))
            }
        }
        .encode()
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut object = Object::decode(bytes)?;
        let kind = object.take_text("type")?;
        let message = match kind.as_str() {
            "stored" => Self::Stored {
                name: object.take_text("name")?,
            },
            "exited" => {
                let (seq, pid) = (object.take_integer("seq")?, object.take_integer("pid")?);
                let ending = match object.take_integer("signal") {
                    Err(Malformed::Missing(_)) => Ending::Code(object.take_integer("code")?),
                    signal => Ending::Signal(signal?),
                };
                Self::Exited { seq, pid, ending }
            }
            "hello-end" => Self::HelloEnd,
            "shutdown" => Self::Shutdown {
                action: take_action(&mut object)?,
                deadline: Duration::from_millis(object.take_integer("deadline_ms")?),
            },
            _ => return Err(Malformed::Type(kind)),
        };
        object.finish()?;
        Ok(message)
    }
}

impl ToInit {
    /// The message as a packet.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        match self {
            Self::Store { name } => object("store").text("name", name),
            Self::Drop { name } => object("drop").text("name", name),
            Self::Ack { seq } => object("ack").integer("seq", wire(*seq)),
            Self::Power { action } => object("power").text("action", action.as_str()),
            Self::Hostname { name } => object("hostname").text("name", name),
            Self::Ready => object("ready"),
            Self::UserSettled => object("user-settled"),
            Self::Healthy => object("healthy"),
            Self::Stopped => object("stopped"),
        }
        .encode()
    }

    /// Reads a packet.
    ///
    /// # Errors
    /// [`Malformed`] says what is wrong with it.
    pub fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut object = Object::decode(bytes)?;
        let kind = object.take_text("type")?;
        let message = match kind.as_str() {
            "store" => Self::Store {
                name: object.take_text("name")?,
            },
            "drop" => Self::Drop {
                name: object.take_text("name")?,
            },
            "ack" => Self::Ack {
                seq: object.take_integer("seq")?,
            },
            "power" => Self::Power {
                action: take_action(&mut object)?,
            },
            "hostname" => Self::Hostname {
                name: object.take_text("name")?,
            },
            "ready" => Self::Ready,
            "user-settled" => Self::UserSettled,
            "healthy" => Self::Healthy,
            "stopped" => Self::Stopped,
            _ => return Err(Malformed::Type(kind)),
        };
        object.finish()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests;
