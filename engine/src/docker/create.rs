//! `POST /containers/create`.

use super::Context;
use super::error::{blocking, invalid, parse, refused};
use super::images::missing;
use crate::containers::{Outcome, Stored, definition, is_name, key, unix_us, volumes};
use crate::failpoint;
use crate::images;
use crate::record::new_id;
use crate::server::{Refused, Request, ask};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use bollard_stubs::models::{ContainerCreateBody, ContainerCreateResponse};
use serde::Deserialize;
use std::collections::HashMap;
use std::time::SystemTime;

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Parameters {
    name: Option<String>,
}

/// The container is on the disk, whole, when this is answered.
pub(super) async fn create(
    State(context): State<Context>,
    Query(parameters): Query<Parameters>,
    body: Bytes,
) -> Result<(StatusCode, Json<ContainerCreateResponse>), Refused> {
    let mut body: ContainerCreateBody = parse(&body)?;
    let options = &context.paths.options;
    let asked = body.image.clone().unwrap_or_default();
    let image = images::find(options, &asked).map_err(|why| missing(&why))?;
    definition::merge(&mut body, &image.config);
    volumes::name_anonymous(&mut body);
    let id = new_id();
    let name = match parameters.name.as_deref().filter(|name| !name.is_empty()) {
        None => format!("container-{}", key(&id)),
        Some(name) => name.strip_prefix('/').unwrap_or(name).to_owned(),
    };
    if !is_name(&name) {
        return Err(invalid(format!(
            "Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"
        )));
    }
    let stored = Stored {
        id,
        name,
        created_us: unix_us(SystemTime::now()),
        image_id: image.id.clone(),
        layers: image.layers.clone(),
        body,
        outcome: Outcome::default(),
    };
    let place = options.volumes();
    stored.definition(place.directory()).map_err(invalid)?;
    let (store, written, images) = (options.containers(), stored.clone(), images::store(options));
    // Nobody removes it from now on.
    let leased = match image.built_in {
        true => None,
        false => image.id.parse().ok(),
    };
    blocking("store the container", move || {
        for name in volumes::named(&written.body) {
            place.create(&name, HashMap::new())?;
        }
        if let Some(id) = leased {
            images
                .lease(written.key(), &id)
                .map_err(std::io::Error::other)?;
        }
        store.write(&written)?;
        failpoint::reach("create-written");
        Ok(())
    })
    .await?;
    let (id, key) = (stored.id.clone(), stored.key().to_owned());
    let added = ask(&context.engine, |answer| {
        Request::Add(Box::new(stored), answer)
    })
    .await?;
    if let Err(refusal) = added {
        let store = options.containers();
        let images = images::store(options);
        blocking("remove the container", move || {
            store.remove(&key)?;
            images.release(&key).map_err(std::io::Error::other)
        })
        .await?;
        return Err(refused(refusal));
    }
    failpoint::reach("create-added");
    let response = ContainerCreateResponse {
        id,
        warnings: Vec::new(),
    };
    Ok((StatusCode::CREATED, Json(response)))
}
