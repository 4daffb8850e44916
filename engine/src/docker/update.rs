//! `POST /containers/NAME/rename`, `/update`.

use super::container;
use super::error::{invalid, parse, refused};
use crate::containers::is_name;
use crate::server::{Engine, Refused, Request, ask};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use bollard_stubs::models::{ContainerUpdateBody, ContainerUpdateResponse, HostConfig};
use serde::Deserialize;

/// What changes of a container.
#[derive(Clone, Debug)]
pub struct Update(ContainerUpdateBody);

impl Update {
    /// Puts it into what was asked for before. A number of 0 changes nothing, as in Docker.
    pub fn apply(&self, host: &mut HostConfig) {
        let new = &self.0;
        for (own, given) in [
            (&mut host.memory, new.memory),
            (&mut host.memory_reservation, new.memory_reservation),
            (&mut host.memory_swap, new.memory_swap),
            (&mut host.nano_cpus, new.nano_cpus),
            (&mut host.cpu_quota, new.cpu_quota),
            (&mut host.cpu_period, new.cpu_period),
            (&mut host.pids_limit, new.pids_limit),
        ] {
            if let Some(given) = given.filter(|given| *given != 0) {
                *own = Some(given);
            }
        }
        if let Some(shares) = new.cpu_shares.filter(|shares| *shares != 0) {
            host.cpu_shares = Some(shares);
        }
        if let Some(set) = new.cpuset_cpus.as_ref().filter(|set| !set.is_empty()) {
            host.cpuset_cpus = Some(set.clone());
        }
        let named = |policy: &bollard_stubs::models::RestartPolicy| {
            policy.name.is_some_and(|name| !name.to_string().is_empty())
        };
        if let Some(policy) = new.restart_policy.as_ref().filter(|policy| named(policy)) {
            host.restart_policy = Some(policy.clone());
        }
    }
}

pub(super) async fn update(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    body: Bytes,
) -> Result<Json<ContainerUpdateResponse>, Refused> {
    let update = Box::new(Update(parse(&body)?));
    let container = container::find(&engine, &name).await?;
    let request = |answer| Request::Update {
        key: container.key,
        update,
        answer,
    };
    ask(&engine, request).await?.map_err(refused)?;
    Ok(Json(ContainerUpdateResponse {
        warnings: Some(Vec::new()),
    }))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    name: String,
}

pub(super) async fn rename(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<StatusCode, Refused> {
    let new = parameters
        .name
        .strip_prefix('/')
        .unwrap_or(&parameters.name)
        .to_owned();
    if new.is_empty() {
        return Err(invalid("New name cannot be empty"));
    }
    if !is_name(&new) {
        return Err(invalid(format!(
            "Invalid container name ({new}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    let container = container::find(&engine, &name).await?;
    if container.service.name == new {
        return Err(invalid(
            "Renaming a container with the same name as its current name",
        ));
    }
    let request = |answer| Request::Rename {
        key: container.key,
        name: new,
        answer,
    };
    ask(&engine, request).await?.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}
