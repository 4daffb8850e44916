//! `/volumes`: named volumes of containers.

use super::Context;
use super::container::{self, Container};
use super::error::{blocking, error, parse};
use super::filters::Filters;
use super::list::pass_labels;
use crate::containers::volumes::{is_anonymous, named};
use crate::events::Attributes;
use crate::record::new_id;
use crate::server::{Refused, Request, ask};
use axum::body::Bytes;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use bollard_stubs::models::{
    EventMessageTypeEnum, Volume, VolumeListResponse, VolumePruneResponse, VolumeUsageData,
};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet, HashMap};

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    filters: Option<String>,
    force: Option<String>,
}

/// What a client says of a new volume.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub(super) struct New {
    name: Option<String>,
    driver: Option<String>,
    driver_opts: Option<HashMap<String, String>>,
    labels: Option<HashMap<String, String>>,
}

/// The names of volumes that containers have mounted or will mount.
fn in_use(containers: &[Container]) -> BTreeSet<String> {
    let stored = containers
        .iter()
        .filter_map(|container| container.stored.as_ref());
    stored.flat_map(|stored| named(&stored.body)).collect()
}

fn matches(volume: &Volume, filters: &Filters, used: &BTreeSet<String>) -> bool {
    let labels: BTreeMap<String, String> = volume.labels.clone().into_iter().collect();
    filters.pass("name", |name| volume.name.contains(name))
        && filters.pass("driver", |driver| driver == "local")
        && filters.pass("dangling", |word| {
            matches!(word, "true" | "1") != used.contains(&volume.name)
        })
        && pass_labels(filters, &labels)
}

async fn all(context: &Context) -> Result<Vec<Volume>, Refused> {
    let volumes = context.paths.options.volumes();
    blocking("read the volumes", move || volumes.list()).await
}

pub(super) async fn list(
    State(context): State<Context>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<VolumeListResponse>, Refused> {
    let known = ["dangling", "driver", "label", "label!", "name"];
    let filters = Filters::parse(parameters.filters.as_deref(), &known)?;
    let used = in_use(&container::all(&context.engine).await?);
    let mut volumes = all(&context).await?;
    volumes.retain(|volume| matches(volume, &filters, &used));
    Ok(Json(VolumeListResponse {
        volumes: Some(volumes),
        warnings: Some(Vec::new()),
    }))
}

/// All volumes with their sizes and how many containers mount each, for `docker system df`.
pub(super) async fn usage(
    context: &Context,
    containers: &[Container],
) -> Result<Vec<Volume>, Refused> {
    let mut volumes = all(context).await?;
    for volume in &mut volumes {
        let (place, name) = (context.paths.options.volumes(), volume.name.clone());
        let size = blocking("measure the volumes", move || Ok(place.size_bytes(&name))).await?;
        let stored = containers
            .iter()
            .filter_map(|container| container.stored.as_ref());
        let users = stored
            .filter(|stored| named(&stored.body).contains(&volume.name))
            .count();
        volume.usage_data = Some(VolumeUsageData {
            size: i64::try_from(size).unwrap_or(i64::MAX),
            ref_count: i64::try_from(users).unwrap_or(i64::MAX),
        });
    }
    Ok(volumes)
}

pub(super) async fn create(
    State(context): State<Context>,
    body: Bytes,
) -> Result<(StatusCode, Json<Volume>), Refused> {
    let new: New = parse(&body)?;
    if let Some(driver) = new
        .driver
        .filter(|driver| !matches!(driver.as_str(), "" | "local"))
    {
        return Err(error(
            StatusCode::NOT_FOUND,
            format!("error looking up volume plugin {driver}: plugin \"{driver}\" not found"),
        ));
    }
    if new.driver_opts.is_some_and(|options| !options.is_empty()) {
        return Err(super::error::invalid(
            "the system engine does not do this: options of the local volume driver",
        ));
    }
    let name = new
        .name
        .filter(|name| !name.is_empty())
        .unwrap_or_else(new_id);
    let (volumes, labels) = (
        context.paths.options.volumes(),
        new.labels.unwrap_or_default(),
    );
    let volume = blocking("make the volume", move || volumes.create(&name, labels)).await?;
    tell(&context, &volume.name, "create").await?;
    Ok((StatusCode::CREATED, Json(volume)))
}

async fn tell(context: &Context, name: &str, action: &'static str) -> Result<(), Refused> {
    let attributes = Attributes::from([("driver".to_owned(), "local".to_owned())]);
    let request = |answer| Request::Tell {
        kind: EventMessageTypeEnum::VOLUME,
        action,
        id: name.to_owned(),
        attributes,
        answer,
    };
    ask(&context.engine, request).await
}

fn missing(name: &str) -> Refused {
    error(StatusCode::NOT_FOUND, format!("get {name}: no such volume"))
}

async fn find(context: &Context, name: &str) -> Result<Volume, Refused> {
    let (volumes, wanted) = (context.paths.options.volumes(), name.to_owned());
    let volume = blocking("read the volume", move || volumes.read(&wanted)).await?;
    volume.ok_or_else(|| missing(name))
}

pub(super) async fn inspect(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<Volume>, Refused> {
    find(&context, &name).await.map(Json)
}

pub(super) async fn remove(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(parameters): Query<Parameters>,
) -> Result<StatusCode, Refused> {
    let force = super::list::is_true(parameters.force.as_deref());
    match find(&context, &name).await {
        Err(Refused(StatusCode::NOT_FOUND, _)) if force => return Ok(StatusCode::NO_CONTENT),
        other => other.map(drop)?,
    }
    let containers = container::all(&context.engine).await?;
    let users: Vec<String> = containers
        .iter()
        .filter(|container| {
            let stored = container.stored.as_ref();
            stored.is_some_and(|stored| named(&stored.body).contains(&name))
        })
        .map(|container| container.id.clone())
        .collect();
    if !users.is_empty() {
        return Err(error(
            StatusCode::CONFLICT,
            format!("remove {name}: volume is in use - [{}]", users.join(", ")),
        ));
    }
    remove_one(&context, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn remove_one(context: &Context, name: &str) -> Result<(), Refused> {
    let (volumes, gone) = (context.paths.options.volumes(), name.to_owned());
    blocking("remove the volume", move || volumes.remove(&gone)).await?;
    tell(context, name, "destroy").await
}

/// Volumes that nobody uses: those without a name, and with the filter `all=true` every one.
pub(super) async fn prune(
    State(context): State<Context>,
    Query(parameters): Query<Parameters>,
) -> Result<Json<VolumePruneResponse>, Refused> {
    let filters = Filters::parse(parameters.filters.as_deref(), &["all", "label", "label!"])?;
    let every = filters
        .values("all")
        .iter()
        .any(|word| matches!(word.as_str(), "true" | "1"));
    let used = in_use(&container::all(&context.engine).await?);
    let (mut deleted, mut reclaimed) = (Vec::new(), 0);
    for volume in all(&context).await? {
        if used.contains(&volume.name)
            || !(every || is_anonymous(&volume.name))
            || !matches(&volume, &filters, &used)
        {
            continue;
        }
        let (place, name) = (context.paths.options.volumes(), volume.name.clone());
        reclaimed += blocking("measure the volume", move || Ok(place.size_bytes(&name))).await?;
        remove_one(&context, &volume.name).await?;
        deleted.push(volume.name);
    }
    Ok(Json(VolumePruneResponse {
        volumes_deleted: Some(deleted),
        space_reclaimed: i64::try_from(reclaimed).ok(),
    }))
}
