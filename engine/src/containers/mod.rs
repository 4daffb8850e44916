//! Containers that clients of Docker's API make: what is kept of them over reboots.
//!
//! - [`Stored`]: one container; [`store`]: the directory of them, each write whole and durable
//! - [`definition`]: from what a client asks for to what the engine runs
//! - [`volumes`]: named volumes
//!
//! Below `/state/engine`:
//!
//! ```text
//!   containers/KEY/container.json   what was asked for, and how its last run ended
//!   containers/KEY/upper, work      what it has written
//!   volumes/NAME/volume.json, _data
//! ```

pub mod definition;
pub mod store;
pub mod volumes;

pub use store::Store;

use crate::compose::{Definition, Kind, Restart, position};
use bollard_stubs::models::ContainerCreateBody;
use serde::{Deserialize, Serialize};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

/// So many digits of a container's number name it in the system: cgroup, bundle, log.
pub(crate) const KEY_LENGTH: usize = 12;

/// How its last run went. Times are microseconds of Unix time.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outcome {
    /// When its program was started.
    pub started_us: Option<u64>,
    /// When its program had ended.
    pub ended_us: Option<u64>,
    /// Its exit status: 128 + n after signal n.
    pub exit_code: Option<i32>,
    /// Why it could not be started.
    pub error: Option<String>,
    /// It is to run: it was started, and neither ended for good nor was stopped on request.
    pub up: bool,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Stored {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What people call it, without a slash.
    pub name: String,
    /// When it was made, in microseconds of Unix time.
    pub created_us: u64,
    /// The image it was made from.
    pub image_id: String,
    /// Its image's layers, the topmost first.
    pub layers: Vec<PathBuf>,
    /// What was asked for, with what the image adds.
    pub body: ContainerCreateBody,
    /// How its last run went.
    #[serde(default)]
    pub outcome: Outcome,
}

impl Stored {
    /// What names it in the system.
    pub fn key(&self) -> &str {
        key(&self.id)
    }

    /// Whether it is removed when it has ended.
    pub fn auto_remove(&self) -> bool {
        let host = self.body.host_config.as_ref();
        host.and_then(|host| host.auto_remove).unwrap_or(false)
    }

    /// Whether it is started with the machine.
    pub fn starts_at_boot(&self, restart: Restart) -> bool {
        match restart {
            Restart::No => false,
            Restart::Always => self.outcome.started_us.is_some(),
            Restart::UnlessStopped | Restart::OnFailure(_) => self.outcome.up,
        }
    }

    /// What the engine runs.
    ///
    /// # Errors
    /// For a person: what was asked for that cannot be done.
    pub fn definition(&self, volumes: &Path) -> Result<Definition, String> {
        let service = definition::service(&self.body, self.key(), volumes)?;
        let definition = Definition {
            name: self.key().to_owned(),
            kind: Kind::Container,
            own: true,
            file: PathBuf::new(),
            positions: position::Keys::default(),
            reasons: Vec::new(),
            service,
        };
        Ok(definition)
    }
}

/// What names a container in the system, from its number.
pub fn key(id: &str) -> &str {
    id.get(..KEY_LENGTH).unwrap_or(id)
}

/// Microseconds of Unix time.
pub fn unix_us(moment: SystemTime) -> u64 {
    let since = moment.duration_since(SystemTime::UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_micros()).unwrap_or(u64::MAX)
}

/// The moment that [`unix_us`] told.
pub fn moment(unix_us: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(unix_us)
}

/// Whether a container may have this name: Docker's rule.
pub fn is_name(name: &str) -> bool {
    let mut letters = name.chars();
    letters
        .next()
        .is_some_and(|first| first.is_ascii_alphanumeric())
        && name.len() >= 2
        && letters.all(|letter| letter.is_ascii_alphanumeric() || "_.-".contains(letter))
}
