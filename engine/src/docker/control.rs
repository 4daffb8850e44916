//! `POST /containers/NAME/start`, `stop`, `restart`, `kill`, `wait`.

use super::container;
use super::error::{error, invalid, refused};
use crate::containers::definition::grace_period;
use crate::events::Attributes;
use crate::server::{Engine, Refusal, Refused, Request, ask};
use crate::supervise::failed_start;
use axum::body::Body;
use axum::extract::{Path, Query, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use bollard_stubs::models::{ContainerStateStatusEnum as Status, ContainerWaitResponse};
use futures_util::stream;
use nix::sys::signal::Signal;
use serde::Deserialize;
use std::time::Duration;

/// What is done with a container; answered when it has been.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Its program is started.
    Start,
    /// Its program is started, and comes to something: it is ready, or has failed.
    Up,
    /// It ends, within this time if its own is not wanted.
    Stop(Option<Duration>),
    /// It ends and its program is started again.
    Restart(Option<Duration>),
    /// It is killed, and stays down.
    Kill,
    /// Its first process gets a signal.
    Signal(i32),
}

/// What somebody waits for who wants to know an exit status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It does not run.
    NotRunning,
    /// A run ends from now on.
    NextExit,
    /// It is there no more.
    Removed,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    t: Option<i64>,
    signal: Option<String>,
    condition: Option<String>,
}

impl Parameters {
    /// How long it may take to end; a negative number is for ever.
    fn grace(&self) -> Option<Duration> {
        self.t.map(grace_period)
    }
}

async fn tell(engine: &Engine, name: &str, command: Command) -> Result<(), Refused> {
    let request = |answer| Request::Control(name.to_owned(), command, answer);
    ask(engine, request).await?.map_err(refused)
}

pub(super) async fn start(
    State(engine): State<Engine>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    let container = container::find(&engine, &name).await?;
    match container.status() {
        Status::RUNNING => return Ok(StatusCode::NOT_MODIFIED),
        Status::PAUSED => {
            return Err(error(
                StatusCode::CONFLICT,
                "cannot start a paused container, try unpause instead",
            ));
        }
        _ => {}
    }
    let started = ask(&engine, |answer| {
        Request::Control(container.key.clone(), Command::Start, answer)
    })
    .await?;
    started.map_err(|refusal| match refusal {
        // It is the image that has no such program.
        Refusal::Failed(why) if container.stored.is_some() && failed_start(&why) != 128 => {
            invalid(why)
        }
        other => refused(other),
    })?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn stop(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<StatusCode, Refused> {
    let container = container::find(&engine, &name).await?;
    if matches!(container.status(), Status::EXITED | Status::CREATED) && container.stored.is_some()
        || container.status() == Status::EXITED
    {
        return Ok(StatusCode::NOT_MODIFIED);
    }
    tell(&engine, &container.key, Command::Stop(parameters.grace())).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn restart(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<StatusCode, Refused> {
    let container = container::find(&engine, &name).await?;
    tell(
        &engine,
        &container.key,
        Command::Restart(parameters.grace()),
    )
    .await?;
    container::tell(&engine, &container.key, "restart", Attributes::new()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `KILL` ends a container for good, whatever its restart policy; other signals are up to its program.
pub(super) async fn kill(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<StatusCode, Refused> {
    let text = parameters.signal.as_deref().unwrap_or("KILL");
    let wrong = || {
        invalid(format!(
            "cannot kill container: {name}: invalid signal: {text}"
        ))
    };
    let signal = signal(text).ok_or_else(wrong)?;
    let container = container::find(&engine, &name).await?;
    if container.service.pid.is_none() {
        return Err(error(
            StatusCode::CONFLICT,
            format!(
                "cannot kill container: {name}: container {} is not running",
                container.id
            ),
        ));
    }
    let command = if signal == Signal::SIGKILL as i32 {
        Command::Kill
    } else {
        Command::Signal(signal)
    };
    tell(&engine, &container.key, command).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub(super) async fn pause(
    State(engine): State<Engine>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    freeze(&engine, &name, true).await
}

pub(super) async fn unpause(
    State(engine): State<Engine>,
    Path(name): Path<String>,
) -> Result<StatusCode, Refused> {
    freeze(&engine, &name, false).await
}

async fn freeze(engine: &Engine, name: &str, frozen: bool) -> Result<StatusCode, Refused> {
    let container = container::find(engine, name).await?;
    let request = |answer| Request::Freeze {
        key: container.key,
        frozen,
        answer,
    };
    ask(engine, request).await?.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Answers at once with the status, and with the body when there is an exit status to tell: clients start what they
/// wait for only when they have the first.
pub(super) async fn wait(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<Response, Refused> {
    let condition = match parameters.condition.as_deref() {
        None | Some("" | "not-running") => Condition::NotRunning,
        Some("next-exit") => Condition::NextExit,
        Some("removed") => Condition::Removed,
        Some(other) => return Err(invalid(format!("invalid condition: \"{other}\""))),
    };
    let container = container::find(&engine, &name).await?;
    let request = |answer| Request::Wait(container.key, condition, answer);
    let exit = ask(&engine, request).await?.map_err(refused)?;
    let body = stream::once(async move {
        let code = exit.await.map_err(std::io::Error::other)?;
        let answer = ContainerWaitResponse {
            status_code: code.into(),
            error: None,
        };
        let mut text = serde_json::to_vec(&answer)?;
        text.push(b'\n');
        Ok::<_, std::io::Error>(text)
    });
    let json = [(header::CONTENT_TYPE, "application/json")];
    Ok((json, Body::from_stream(body)).into_response())
}

/// A signal by its name, with or without `SIG`, or by its number.
fn signal(text: &str) -> Option<i32> {
    if let Ok(number) = text.parse() {
        return (1..=64).contains(&number).then_some(number);
    }
    let name = text.to_ascii_uppercase();
    let name = name.strip_prefix("SIG").unwrap_or(&name);
    format!("SIG{name}")
        .parse()
        .ok()
        .map(|signal: Signal| signal as i32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_names_or_numbers() {
        assert_eq!(signal("KILL"), Some(9));
        assert_eq!(signal("sigterm"), Some(15));
        assert_eq!(signal("1"), Some(1));
        for wrong in ["0", "65", "-1", "NOTHING", ""] {
            assert_eq!(signal(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_negative_grace_period_is_for_ever() {
        let grace = |t| {
            Parameters {
                t,
                ..Parameters::default()
            }
            .grace()
        };
        assert_eq!(grace(None), None);
        assert_eq!(grace(Some(3)), Some(Duration::from_secs(3)));
        assert!(grace(Some(-1)) > Some(Duration::from_secs(1_000_000)));
    }
}
