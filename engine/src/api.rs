//! Types of the engine's HTTP API on `/run/keelson/system.sock` (HTTP/1.1, JSON).
//!
//! | request | answer |
//! |---|---|
//! | `GET /keelson/v1/services` | `200` [`Vec<Service>`], in order of name |
//! | `POST /keelson/v1/services/NAME/start`, `stop`, `restart` | `204` when it is ready, or down |
//! | `POST /keelson/v1/services/NAME/up` | `204` when it is ready; one that is outdated is started again |
//! | `POST /keelson/v1/services/NAME/down` | `204` when it is down; its root is thrown away |
//! | `POST /keelson/v1/services/NAME/enable`, `disable` | `204`; from the machine's next start on |
//! | `POST /keelson/v1/services/NAME/upgrade?image=REF` | `204` when it is ready with that image; `500` when it is back on the old one |
//! | `POST /keelson/v1/services/NAME/choose?image=REF` | `204`; that image counts from the machine's next start on |
//! | `POST /keelson/v1/reload` | `200` [`Reloaded`]: the definitions are read again; new services are not started |
//! | `PUT /keelson/v1/service-files/NAME`, body: a Compose file | `200` [`Reloaded`]; `400` when it cannot be used |
//! | `DELETE /keelson/v1/service-files/NAME` | `200` [`Reloaded`] |
//! | `GET /keelson/v1/status` | `200` [`Status`] |
//! | `GET /keelson/v1/boot` | `200` [`Boot`] |
//!
//! Whatever is no success has an [`ErrorBody`]: `404` for a service that there is not, `409` for what cannot be done as
//! things are, `500` for what did not work. Times are microseconds of `CLOCK_BOOTTIME`; a step that has not been reached is `null`.

use serde::{Deserialize, Serialize};

/// Where the engine listens.
pub const SOCKET: &str = "/run/keelson/system.sock";

/// What a service is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// Not started yet: something it needs is not ready.
    Waiting,
    /// Its sockets are listened at; it starts when somebody connects.
    Listening,
    /// Its container is being made, or runs and has not said that it is ready.
    Starting,
    /// Running, and ready by its own word.
    Ready,
    /// Running, and no longer healthy by its own health check.
    Running,
    /// A one-shot that ended well.
    Finished,
    /// Given up: it cannot be started or its restart policy is exhausted.
    Failed,
    /// Ended, and about to be started again.
    Backoff,
    /// Being stopped.
    Stopping,
    /// Stopped on request.
    Stopped,
}

impl State {
    /// The name used in JSON and in tables.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Waiting => "waiting",
            State::Listening => "listening",
            State::Starting => "starting",
            State::Ready => "ready",
            State::Running => "running",
            State::Finished => "finished",
            State::Failed => "failed",
            State::Backoff => "backoff",
            State::Stopping => "stopping",
            State::Stopped => "stopped",
        }
    }
}

/// What a service may do beyond an ordinary process.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privileges {
    /// Capabilities without the `CAP_` prefix; everything else is dropped.
    pub capabilities: Vec<String>,
    /// All capabilities and all devices, no seccomp filter.
    pub privileged: bool,
    /// All of these and whatever else an ordinary process in a container may not, each with its reason.
    #[serde(default)]
    pub all: Vec<Privilege>,
}

/// One thing that a service may do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Privilege {
    /// As its definition has it.
    pub what: String,
    /// The comment that stands beside it there.
    pub why: Option<String>,
}

/// What came of reading the definitions again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reloaded {
    /// Services that were not there before.
    pub added: Vec<String>,
    /// Services that are defined otherwise; those that run go on as they are until they are started anew.
    pub changed: Vec<String>,
    /// Services that are not defined any more.
    pub removed: Vec<String>,
    /// Files and services that cannot be used.
    pub failures: Vec<Failure>,
}

/// One system service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Service {
    /// Name in its service.yml.
    pub name: String,
    /// Image, as `keelson/NAME`; empty when its service.yml could not be read.
    pub image: String,
    /// What it is doing.
    pub state: State,
    /// Why, for a person: set for failed, backoff and waiting, and to the service's own `STATUS=` otherwise.
    pub detail: Option<String>,
    /// Process id of the container's first process, as the host sees it.
    pub pid: Option<i32>,
    /// How often it was started again since boot, by its restart policy or on request.
    pub restarts: u32,
    /// Exit status of its last run; 128 + signal when a signal ended it.
    pub exit_code: Option<i32>,
    /// When its container was asked for.
    pub created_us: Option<u64>,
    /// When its process was started.
    pub started_us: Option<u64>,
    /// When it was ready.
    pub ready_us: Option<u64>,
    /// Services that it needs.
    pub depends_on: Vec<String>,
    /// Services that it only starts after.
    pub after: Vec<String>,
    /// What it may do.
    pub privileges: Privileges,
    /// The file that defines it; `null` when it could not be read.
    #[serde(default)]
    pub file: Option<String>,
    /// It is the machine's own, not the OS image's.
    #[serde(default)]
    pub own: bool,
    /// It starts with the machine.
    #[serde(default)]
    pub enabled: bool,
    /// The image that was chosen for the machine's next start.
    #[serde(default)]
    pub next_image: Option<String>,
    /// It would run otherwise if it were started anew: its definition or its image has changed.
    #[serde(default)]
    pub outdated: bool,
    /// Memory charged to its cgroup.
    pub memory_bytes: Option<u64>,
}

/// Whether what is written to `/state` is kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Storage {
    /// False when the state is in RAM.
    pub persistent: bool,
    /// The block device, when persistent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device: Option<String>,
    /// Why it is not persistent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// Something that went wrong and that a person should know.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// Name of the service, or of the part of the system.
    pub source: String,
    /// What was being done and why it failed.
    pub message: String,
    /// File at fault, when there is one.
    pub file: Option<String>,
    /// Line in that file, from 1.
    pub line: Option<u64>,
    /// Column in that line, from 1.
    pub column: Option<u64>,
}

/// State of the whole system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of the engine.
    pub version: String,
    /// The kernel's hostname.
    pub hostname: String,
    /// Time since boot.
    pub uptime_us: u64,
    /// The state partition.
    pub state: Storage,
    /// All services, in order of name.
    pub services: Vec<Service>,
    /// What went wrong in this boot and still stands.
    pub failures: Vec<Failure>,
    /// When every service had been started and was ready, finished or failed.
    pub boot_complete_us: Option<u64>,
}

/// What a line of the boot's time line is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BootKind {
    /// The machine's firmware, before the boot loader.
    Firmware,
    /// The boot loader.
    Loader,
    /// The kernel, until it started the first program.
    Kernel,
    /// A step of PID 1.
    Init,
    /// A service.
    Service,
}

/// One step of the boot. Firmware and boot loader come before time 0, which is the kernel's start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BootEntry {
    /// Name of the step or service.
    pub name: String,
    /// Whose step it is.
    pub kind: BootKind,
    /// When it began; for a service, when its container was asked for.
    pub start_us: i64,
    /// When the process was started (services only).
    pub started_us: Option<i64>,
    /// When it was ready (services only).
    pub ready_us: Option<i64>,
    /// When it ended; `null` while it goes on (a service that keeps running).
    pub end_us: Option<i64>,
}

/// The time line of this boot, in order of `start_us`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Boot {
    /// The steps.
    pub entries: Vec<BootEntry>,
}

/// Body of every answer that is not a success.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorBody {
    /// What went wrong.
    pub message: String,
}
