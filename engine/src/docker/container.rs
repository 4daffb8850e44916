//! A service as Docker's API shows it: a container.

use super::error::{error, no_such_container};
use crate::api;
use crate::clock::now_us;
use crate::compose;
use crate::containers::{Stored, moment};
use crate::events::Attributes;
use crate::network::Connection;
use crate::server::{Engine, Refused, Request, ask};
use axum::http::StatusCode;
use bollard_stubs::models::{ContainerStateStatusEnum as Status, HealthStatusEnum};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// What the handlers know of a service.
#[derive(Clone, Debug)]
pub struct Container {
    /// 64 hexadecimal digits, the same for as long as the machine is up.
    pub id: String,
    /// What names it in the system: the service's name, or the beginning of its number.
    pub key: String,
    /// Of one that a client made: what is kept of it.
    pub stored: Option<Arc<Stored>>,
    /// Exit status of its last run; 127 or 128 when its program could not be started.
    pub exit_code: i32,
    /// The kernel ended its last run for want of memory.
    pub out_of_memory: bool,
    /// It stands still.
    pub paused: bool,
    /// What the engine's own API shows.
    pub service: api::Service,
    /// Its definition.
    pub definition: compose::Service,
    /// Program and arguments.
    pub arguments: Vec<String>,
    /// The signal that asks it to end, and how long it then has.
    pub stop: (i32, Duration),
    /// When its last run ended, in microseconds of `CLOCK_BOOTTIME`.
    pub ended_us: Option<u64>,
    /// Its addresses and ports, while it runs.
    pub connection: Connection,
    /// What its health check says; `None` without one, or while it does not run.
    pub health: Option<HealthStatusEnum>,
}

impl Container {
    /// Docker's word for what it is doing.
    pub(super) fn status(&self) -> Status {
        let fresh = self.stored.as_ref().is_some_and(|stored| {
            stored.outcome.started_us.is_none() && self.service.started_us.is_none()
        });
        match self.service.state {
            _ if self.paused => Status::PAUSED,
            api::State::Stopped if fresh => Status::CREATED,

            api::State::Waiting | api::State::Listening => Status::CREATED,
            api::State::Starting if self.service.pid.is_none() => Status::CREATED,
            api::State::Starting
            | api::State::Ready
            | api::State::Running
            | api::State::Stopping => Status::RUNNING,
            api::State::Backoff => Status::RESTARTING,
            api::State::Finished | api::State::Failed | api::State::Stopped => Status::EXITED,
        }
    }

    /// Whether it is there for `docker ps` without `--all`.
    pub(super) fn is_up(&self) -> bool {
        matches!(
            self.status(),
            Status::RUNNING | Status::RESTARTING | Status::PAUSED
        )
    }

    /// When it was made.
    pub(super) fn created(&self) -> SystemTime {
        match &self.stored {
            Some(stored) => moment(stored.created_us),
            None => wall(self.service.created_us.unwrap_or_default()),
        }
    }

    /// When its program was last started.
    pub(super) fn started(&self) -> Option<SystemTime> {
        let before = self
            .stored
            .as_ref()
            .and_then(|stored| stored.outcome.started_us);
        self.service.started_us.map(wall).or(before.map(moment))
    }

    /// When its last run ended.
    pub(super) fn ended(&self) -> Option<SystemTime> {
        let before = self
            .stored
            .as_ref()
            .and_then(|stored| stored.outcome.ended_us);
        self.ended_us.map(wall).or(before.map(moment))
    }
}

/// The moment of `CLOCK_REALTIME` that a moment of `CLOCK_BOOTTIME` was, by what the clock says now.
pub(super) fn wall(boot_us: u64) -> SystemTime {
    let ago = Duration::from_micros(now_us().saturating_sub(boot_us));
    SystemTime::now()
        .checked_sub(ago)
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

/// Those who listen are told of something that a handler did.
pub(super) async fn tell(
    engine: &Engine,
    key: &str,
    action: &str,
    attributes: Attributes,
) -> Result<(), Refused> {
    let request = |answer| Request::TellOfContainer {
        key: key.to_owned(),
        action: action.to_owned(),
        attributes,
        answer,
    };
    ask(engine, request).await
}

/// All of them, in order of name.
pub(super) async fn all(engine: &Engine) -> Result<Vec<Container>, Refused> {
    ask(engine, Request::Containers).await
}

/// The one that is meant: by its name, its number, or the beginning of its number that no other has.
pub(super) async fn find(engine: &Engine, name: &str) -> Result<Container, Refused> {
    let mut containers = all(engine).await?;
    let plain = name.strip_prefix('/').unwrap_or(name);
    let exact = containers
        .iter()
        .position(|container| container.service.name == plain || container.id == name);
    if let Some(at) = exact {
        return Ok(containers.swap_remove(at));
    }
    containers.retain(|container| container.id.starts_with(name));
    match containers.len() {
        0 => Err(no_such_container(name)),
        1 => Ok(containers.swap_remove(0)),
        _ => Err(error(
            StatusCode::BAD_REQUEST,
            format!("multiple IDs found with provided prefix: {name}"),
        )),
    }
}
