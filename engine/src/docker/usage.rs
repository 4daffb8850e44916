//! `GET /system/df`: what takes room on the disk.

use super::Context;
use super::container;
use super::error::blocking;
use super::images::{missing, summary as image_summary};
use super::list::summary;
use super::volumes;
use crate::containers::volumes::size_bytes;
use crate::images;
use crate::server::Refused;
use axum::extract::State;
use axum::response::Json;
use serde_json::{Value, json};

/// In the form of API 1.45: whole lists, which clients add up.
pub(super) async fn usage(State(context): State<Context>) -> Result<Json<Value>, Refused> {
    let all = container::all(&context.engine).await?;
    let mut containers = Vec::new();
    for container in all.iter().filter(|container| container.stored.is_some()) {
        let upper = context
            .paths
            .options
            .containers()
            .container(&container.key)
            .join("upper");
        let size = blocking("measure the containers", move || Ok(size_bytes(&upper))).await?;
        let mut summary = summary(container);
        summary.size_rw = i64::try_from(size).ok();
        summary.size_root_fs = summary.size_rw;
        containers.push(summary);
    }
    let images = images::all(&context.paths.options).map_err(|why| missing(&why))?;
    let users = |image: &images::Image| {
        let stored = all.iter().filter_map(|container| container.stored.as_ref());
        stored.filter(|stored| stored.image_id == image.id).count()
    };
    let shown: Vec<_> = images
        .iter()
        .map(|image| image_summary(image, users(image)))
        .collect();
    let volumes = volumes::usage(&context, &all).await?;
    Ok(Json(json!({
        "LayersSize": images.iter().map(|image| image.size_bytes()).sum::<u64>(),
        "Images": shown,
        "Containers": containers,
        "Volumes": volumes,
        "BuildCache": [],
    })))
}
