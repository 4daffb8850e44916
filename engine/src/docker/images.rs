//! `/images`: what containers are made from.

use super::Context;
use super::container;
use super::error::{error, invalid};
use super::filters::Filters;
use super::list::{has_label, is_true};
use super::remove::moment;
use crate::events::Attributes;
use crate::images::{self, Image, tool};
use crate::server::{Refused, Request, ask};
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Json, Response};
use bollard_stubs::models::{
    EventMessageTypeEnum, ImageHistoryResponseItem, ImageInspect, ImageInspectRootFs, ImageSummary,
};
use keelson_image::store::Error;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::time::SystemTime;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    filters: Option<String>,
    all: Option<String>,
    repo: Option<String>,
    tag: Option<String>,
    force: Option<String>,
}

/// What the store did not find.
pub(super) fn missing(why: &Error) -> Refused {
    let status = match why {
        Error::Missing(_) => StatusCode::NOT_FOUND,
        Error::Ambiguous(_) | Error::Invalid(_) => StatusCode::BAD_REQUEST,
        Error::Io(..) => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, why.to_string())
}

/// What the image tool did not do.
pub(super) fn failed(failed: tool::Failed) -> Refused {
    let status = StatusCode::from_u16(failed.status);
    error(
        status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR),
        failed.message,
    )
}

fn created(image: &Image) -> SystemTime {
    let text = image.configuration.created.as_deref().unwrap_or_default();
    humantime::parse_rfc3339_weak(text).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn labels(image: &Image) -> HashMap<String, String> {
    image.config.labels.clone().unwrap_or_default()
}

pub(super) async fn list(
    State(context): State<Context>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<Vec<ImageSummary>>, Refused> {
    let known = ["before", "dangling", "label", "reference", "since", "until"];
    let filters = Filters::parse(parameters.filters.as_deref(), &known)?;
    // Images that only others are made of do not exist here: `all` adds nothing.
    let _ = parameters.all;
    let images = images::all(&context.paths.options).map_err(|why| missing(&why))?;
    let bound = |key: &str| -> Result<Option<SystemTime>, Refused> {
        let Some(name) = filters.values(key).first() else {
            return Ok(None);
        };
        let image = images::find(&context.paths.options, name).map_err(|why| missing(&why))?;
        Ok(Some(created(&image)))
    };
    let (before, since) = (bound("before")?, bound("since")?);
    let until = filters
        .values("until")
        .first()
        .map(|text| moment(text))
        .transpose()?;
    let containers = container::all(&context.engine).await?;
    let mut shown: Vec<ImageSummary> = images
        .iter()
        .filter(|image| {
            let labels: BTreeMap<String, String> = labels(image).into_iter().collect();
            filters.pass("reference", |pattern| {
                image.tags.iter().any(|tag| matches(pattern, tag))
            }) && filters.pass("dangling", |word| {
                matches!(word, "true" | "1") == image.tags.is_empty()
            }) && filters
                .values("label")
                .iter()
                .all(|label| has_label(&labels, label))
                && before.is_none_or(|before| created(image) < before)
                && since.is_none_or(|since| created(image) > since)
                && until.is_none_or(|until| created(image) < until)
        })
        .map(|image| {
            let users = containers.iter().filter(|container| {
                container
                    .stored
                    .as_ref()
                    .is_some_and(|stored| stored.image_id == image.id)
            });
            summary(image, users.count())
        })
        .collect();
    shown.sort_by_key(|summary| std::cmp::Reverse(summary.created));
    Ok(Json(shown))
}

/// An image as lists show it.
pub(super) fn summary(image: &Image, containers: usize) -> ImageSummary {
    let since = created(image)
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    ImageSummary {
        id: image.id.clone(),
        parent_id: String::new(),
        repo_tags: image.tags.clone(),
        repo_digests: image.digests.clone(),
        created: i64::try_from(since.as_secs()).unwrap_or(0),
        size: i64::try_from(image.size_bytes()).unwrap_or(i64::MAX),
        shared_size: -1,
        labels: labels(image),
        containers: i64::try_from(containers).unwrap_or(-1),
        manifests: None,
        descriptor: None,
    }
}

/// A pattern of a shell: `*` stands for anything but `/`, `?` for one letter; with or without a tag.
fn matches(pattern: &str, tag: &str) -> bool {
    fn fits(pattern: &[u8], text: &[u8]) -> bool {
        match (pattern.first(), text.first()) {
            (None, None) => true,
            (Some(b'*'), _) if fits(&pattern[1..], text) => true,
            (Some(b'*'), Some(letter)) => *letter != b'/' && fits(pattern, &text[1..]),
            (Some(b'?'), Some(letter)) => *letter != b'/' && fits(&pattern[1..], &text[1..]),
            (Some(wanted), Some(letter)) => wanted == letter && fits(&pattern[1..], &text[1..]),
            _ => false,
        }
    }
    let name = tag.rsplit_once(':').map_or(tag, |(name, _)| name);
    [tag, name]
        .iter()
        .any(|text| fits(pattern.as_bytes(), text.as_bytes()))
}

fn find(context: &Context, name: &str) -> Result<Image, Refused> {
    images::find(&context.paths.options, name).map_err(|why| missing(&why))
}

/// `GET /images/NAME/json`, `/history`, `/get`: names have slashes.
pub(super) async fn get(
    State(context): State<Context>,
    Path(path): Path<String>,
) -> Result<Response, Refused> {
    match path.rsplit_once('/') {
        Some((name, "json")) => Ok(Json(inspected(&find(&context, name)?)).into_response()),
        Some((name, "history")) => Ok(Json(history(&find(&context, name)?)).into_response()),
        Some((name, "get")) => super::transfer::save_all(&context, &[name.to_owned()]).await,
        _ => Err(error(StatusCode::NOT_FOUND, "page not found")),
    }
}

fn inspected(image: &Image) -> ImageInspect {
    let configuration = &image.configuration;
    let diff_ids = configuration.rootfs.diff_ids.iter();
    ImageInspect {
        id: Some(image.id.clone()),
        repo_tags: Some(image.tags.clone()),
        repo_digests: Some(image.digests.clone()),
        comment: Some(
            configuration
                .history
                .last()
                .and_then(|last| last.comment.clone())
                .unwrap_or_default(),
        ),
        created: Some(humantime::format_rfc3339_nanos(created(image)).to_string()),
        author: Some(configuration.author.clone().unwrap_or_default()),
        config: Some(image.config.clone()),
        architecture: Some(configuration.architecture.clone()),
        variant: configuration.variant.clone(),
        os: Some(configuration.os.clone()),
        size: i64::try_from(image.size_bytes()).ok(),
        root_fs: Some(ImageInspectRootFs {
            typ: "layers".to_owned(),
            layers: Some(diff_ids.map(ToString::to_string).collect()),
        }),
        ..ImageInspect::default()
    }
}

/// The newest first; only the top has a number and names.
fn history(image: &Image) -> Vec<ImageHistoryResponseItem> {
    let mut sizes = image.layer_bytes.iter().rev();
    let steps = image.configuration.history.iter().rev().enumerate();
    steps
        .map(|(at, step)| {
            let size = if step.empty_layer { None } else { sizes.next() };
            let text = step.created.as_deref().unwrap_or_default();
            let moment = humantime::parse_rfc3339_weak(text).unwrap_or(SystemTime::UNIX_EPOCH);
            let since = moment
                .duration_since(SystemTime::UNIX_EPOCH)
                .unwrap_or_default();
            ImageHistoryResponseItem {
                id: if at == 0 {
                    image.id.clone()
                } else {
                    "<missing>".to_owned()
                },
                created: i64::try_from(since.as_secs()).unwrap_or(0),
                created_by: step.created_by.clone().unwrap_or_default(),
                tags: if at == 0 {
                    image.tags.clone()
                } else {
                    Vec::new()
                },
                size: size.and_then(|size| i64::try_from(*size).ok()).unwrap_or(0),
                comment: step.comment.clone().unwrap_or_default(),
            }
        })
        .collect()
}

/// `POST /images/NAME/tag`.
pub(super) async fn post(
    State(context): State<Context>,
    Path(path): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<StatusCode, Refused> {
    let Some((name, "tag")) = path.rsplit_once('/') else {
        return Err(error(
            StatusCode::NOT_IMPLEMENTED,
            format!("the system engine does not do this: /images/{path}"),
        ));
    };
    let image = changeable(&context, name)?;
    let repo = parameters.repo.unwrap_or_default();
    let target = match parameters.tag.filter(|tag| !tag.is_empty()) {
        Some(tag) => format!("{repo}:{tag}"),
        None => repo,
    };
    let mut command = tool::command(&context.paths.options);
    command.arg("tag").arg(&image.id).arg(&target);
    let running = tool::Running::begin(command, None).await.map_err(failed)?;
    running.whole().await.map_err(failed)?;
    tell(&context, "tag", &image.id, &target).await?;
    Ok(StatusCode::CREATED)
}

fn changeable(context: &Context, name: &str) -> Result<Image, Refused> {
    let image = find(context, name)?;
    match image.built_in {
        true => Err(error(
            StatusCode::CONFLICT,
            format!("{name} belongs to the OS image, which cannot be changed"),
        )),
        false => Ok(image),
    }
}

/// `DELETE /images/NAME`.
pub(super) async fn remove(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<Value>, Refused> {
    let image = changeable(&context, &name)?;
    let mut command = tool::command(&context.paths.options);
    command.arg("remove").arg(&name);
    if is_true(parameters.force.as_deref()) {
        command.arg("--force");
    }
    let told = run(command).await?;
    for item in told.as_array().into_iter().flatten() {
        let action = if item["Deleted"].is_string() {
            "delete"
        } else {
            "untag"
        };
        let name = item["Untagged"].as_str().unwrap_or(&image.id);
        tell(&context, action, &image.id, name).await?;
    }
    Ok(Json(told))
}

async fn run(command: tokio::process::Command) -> Result<Value, Refused> {
    let running = tool::Running::begin(command, None).await.map_err(failed)?;
    let text = running.whole().await.map_err(failed)?;
    serde_json::from_str(&text).map_err(|why| {
        error(
            StatusCode::INTERNAL_SERVER_ERROR,
            format!("the image tool said {text:?}: {why}"),
        )
    })
}

/// `POST /images/prune`: images without a name, or with `dangling=false` all that no container is made from.
pub(super) async fn prune(
    State(context): State<Context>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<Value>, Refused> {
    let filters = Filters::parse(parameters.filters.as_deref(), &["dangling"])?;
    let all = filters
        .values("dangling")
        .iter()
        .any(|word| matches!(word.as_str(), "false" | "0"));
    let mut command = tool::command(&context.paths.options);
    command.arg("prune");
    if all {
        command.arg("--all");
    }
    run(command).await.map(Json)
}

/// Tells an event about an image.
pub(super) async fn tell(
    context: &Context,
    action: &'static str,
    id: &str,
    name: &str,
) -> Result<(), Refused> {
    let request = |answer| Request::Tell {
        kind: EventMessageTypeEnum::IMAGE,
        action,
        id: id.to_owned(),
        attributes: Attributes::from([("name".to_owned(), name.to_owned())]),
        answer,
    };
    ask(&context.engine, request).await
}

/// A parameter that has to be there.
pub(super) fn needed<'p>(value: &'p Option<String>, name: &str) -> Result<&'p str, Refused> {
    match value.as_deref() {
        Some(value) if !value.is_empty() => Ok(value),
        _ => Err(invalid(format!("the parameter {name} is missing"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_fits_a_name_with_or_without_its_tag() {
        for (pattern, tag, fits) in [
            ("app", "app:1", true),
            ("app:1", "app:1", true),
            ("a*", "app:1", true),
            ("a?p", "app:1", true),
            ("*/app", "team/app:1", true),
            ("*", "team/app:1", false),
            ("ap", "app:1", false),
            ("app:2", "app:1", false),
        ] {
            assert_eq!(matches(pattern, tag), fits, "{pattern} {tag}");
        }
    }
}
