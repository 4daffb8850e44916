//! `DELETE /containers/NAME`, `POST /containers/prune`.

use super::Context;
use super::container::{self, Container};
use super::error::{blocking, refused};
use super::filters::Filters;
use super::list::{has_label, is_true};
use crate::containers::volumes::{is_anonymous, named, size_bytes};
use crate::server::{Refused, Request, ask};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use bollard_stubs::models::{ContainerPruneResponse, ContainerStateStatusEnum as Status};
use serde::Deserialize;
use std::time::{Duration, SystemTime};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    v: Option<String>,
    force: Option<String>,
    filters: Option<String>,
}

pub(super) async fn remove(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<StatusCode, Refused> {
    let container = container::find(&context.engine, &name).await?;
    let with_volumes = is_true(parameters.v.as_deref());
    remove_one(
        &context,
        &container,
        is_true(parameters.force.as_deref()),
        with_volumes,
    )
    .await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_one(
    context: &Context,
    container: &Container,
    force: bool,
    with_volumes: bool,
) -> Result<(), Refused> {
    let request = |answer| Request::Remove {
        key: container.key.clone(),
        force,
        answer,
    };
    ask(&context.engine, request).await?.map_err(refused)?;
    let Some(stored) = container.stored.clone().filter(|_| with_volumes) else {
        return Ok(());
    };
    let volumes = context.paths.options.volumes();
    blocking("remove the container's volumes", move || {
        let mine = named(&stored.body)
            .into_iter()
            .filter(|name| is_anonymous(name));
        mine.filter(|name| matches!(volumes.read(name), Ok(Some(_))))
            .try_for_each(|name| volumes.remove(&name))
    })
    .await
}

pub(super) async fn prune(
    State(context): State<Context>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<ContainerPruneResponse>, Refused> {
    let filters = Filters::parse(parameters.filters.as_deref(), &["label", "label!", "until"])?;
    let until = filters.values("until").first().map(|text| moment(text));
    let until = until.transpose()?;
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for container in container::all(&context.engine).await? {
        let Some(stored) = &container.stored else {
            continue;
        };
        let labels = &container.definition.labels.0;
        let matches = filters
            .values("label")
            .iter()
            .all(|label| has_label(labels, label))
            && !filters
                .values("label!")
                .iter()
                .any(|label| has_label(labels, label))
            && until.is_none_or(|until| container.created() < until);
        if !matches!(container.status(), Status::EXITED | Status::CREATED) || !matches {
            continue;
        }
        let upper = context
            .paths
            .options
            .containers()
            .container(stored.key())
            .join("upper");
        let size = blocking("look at the container", move || Ok(size_bytes(&upper))).await?;
        // One that was started meanwhile stays.
        if remove_one(&context, &container, false, false).await.is_ok() {
            deleted.push(stored.id.clone());
            reclaimed += size;
        }
    }
    Ok(Json(ContainerPruneResponse {
        containers_deleted: Some(deleted),
        space_reclaimed: i64::try_from(reclaimed).ok(),
    }))
}

/// A moment as Docker's filters have it: seconds of Unix time, a date, or a span back from now.
pub(super) fn moment(text: &str) -> Result<SystemTime, Refused> {
    let seconds = text
        .split('.')
        .next()
        .and_then(|seconds| seconds.parse().ok());
    let moment = seconds.map(|seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let span = || {
        let span = humantime::parse_duration(text).ok()?;
        SystemTime::now().checked_sub(span)
    };
    moment
        .or_else(|| humantime::parse_rfc3339_weak(text).ok())
        .or_else(span)
        .ok_or_else(|| super::error::invalid(format!("invalid filter 'until={text}'")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_numbers_dates_or_spans() {
        let unix = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(moment("12").unwrap(), unix(12));
        assert_eq!(moment("1970-01-01T00:01:00Z").unwrap(), unix(60));
        let moment_of_2h = moment("2h").unwrap();
        let ago = SystemTime::now().duration_since(moment_of_2h).unwrap();
        assert!(ago >= Duration::from_secs(7200) && ago < Duration::from_secs(7260));
        assert!(moment("yesterday").is_err());
    }
}
