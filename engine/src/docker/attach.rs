//! `POST /containers/NAME/attach`, `/resize`.

use super::Context;
use super::container;
use super::detach::Detach;
use super::error::{invalid, refused};
use super::hijack::{Wanted, carry, upgrade};
use super::list::is_true;
use super::logs;
use crate::relay::Attached;
use crate::server::{Engine, Refused, Request as Asked, ask};
use axum::extract::{Path, Query, Request, State};
use axum::http::StatusCode;
use axum::response::Response;
use serde::Deserialize;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    stream: Option<String>,
    stdin: Option<String>,
    stdout: Option<String>,
    stderr: Option<String>,
    #[serde(rename = "detachKeys")]
    detach_keys: Option<String>,
}

pub(super) async fn attach(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
    mut request: Request,
) -> Result<Response, Refused> {
    let detach = Detach::parse(parameters.detach_keys.as_deref()).map_err(invalid)?;
    let container = container::find(&context.engine, &name).await?;
    let tty = container.definition.tty;
    let streams = is_true(parameters.stream.as_deref());
    let input = streams && is_true(parameters.stdin.as_deref());
    let attached = ask(&context.engine, |answer| Asked::Attach {
        key: container.key.clone(),
        input,
        answer,
    })
    .await?
    .map_err(refused)?;
    let attached = match attached {
        Some(attached) => attached,
        None => Attached {
            output: logs::follow(&context, &container).await?,
            input: None,
        },
    };
    let wanted = Wanted {
        stdout: streams && is_true(parameters.stdout.as_deref()),
        stderr: streams && is_true(parameters.stderr.as_deref()),
        raw: tty,
    };
    let detach = if tty { detach } else { Detach::never() };
    Ok(carry(upgrade(&mut request), attached, wanted, detach))
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Size {
    h: u16,
    w: u16,
}

impl Size {
    /// Lines and columns.
    pub(super) fn lines_and_columns(&self) -> (u16, u16) {
        (self.h, self.w)
    }
}

pub(super) async fn resize(
    State(engine): State<Engine>,
    Path(name): Path<String>,
    Query(size): Query<Size>,
) -> Result<StatusCode, Refused> {
    let container = container::find(&engine, &name).await?;
    let (rows, columns) = size.lines_and_columns();
    let request = |answer| Asked::Resize {
        key: container.key,
        rows,
        columns,
        answer,
    };
    ask(&engine, request).await?.map_err(refused)?;
    Ok(StatusCode::OK)
}
