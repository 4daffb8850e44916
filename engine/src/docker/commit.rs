//! `POST /commit`: an image of a container. `POST /auth`: whether a registry takes credentials.

use super::Context;
use super::container;
use super::error::{error, invalid, parse, refused};
use super::images::failed;
use super::inspect::config_of;
use super::list::is_true;
use super::transfer::{Pairs, value, values};
use crate::events::Attributes;
use crate::images::tool::{self, Running};
use crate::server::{Refused, Request, ask};
use axum::body::Bytes;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use bollard_stubs::models::{AuthConfig, ContainerStateStatusEnum as Status};
use serde_json::{Value, json};
use tokio::process::Command;

pub(super) async fn commit(
    State(context): State<Context>,
    Query(pairs): Query<Pairs>,
    body: Bytes,
) -> Result<(StatusCode, Json<Value>), Refused> {
    let name =
        value(&pairs, "container").ok_or_else(|| invalid("the parameter container is missing"))?;
    let container = container::find(&context.engine, name).await?;
    let Some(stored) = container.stored.clone() else {
        return Err(error(
            StatusCode::CONFLICT,
            format!("{name} is a service of the system: its image is made otherwise"),
        ));
    };
    let options = &context.paths.options;
    let image = crate::images::find(options, &stored.image_id)
        .map_err(|why| super::images::missing(&why))?;
    if image.built_in {
        return Err(error(
            StatusCode::CONFLICT,
            format!(
                "{name} was made from an image of the OS image, which is in no store: export it instead"
            ),
        ));
    }
    let mut command = tool::command(options);
    command.arg("commit").arg("--root");
    command.arg(options.containers().container(stored.key()).join("upper"));
    command.arg(&stored.image_id);
    if let Some(repo) = value(&pairs, "repo") {
        let tag = value(&pairs, "tag").unwrap_or("latest");
        command.arg("--reference").arg(format!("{repo}:{tag}"));
    }
    for (option, key) in [("--message", "comment"), ("--author", "author")] {
        if let Some(text) = value(&pairs, key) {
            command.arg(option).arg(text);
        }
    }
    for change in values(&pairs, "changes")
        .iter()
        .flat_map(|text| text.lines())
    {
        command.arg("--change").arg(change);
    }
    // What the client sends takes the place of the container's own.
    let given: Value = if body.is_empty() {
        Value::Null
    } else {
        parse(&body)?
    };
    let mut config = config_of(&stored);
    for (key, value) in given.as_object().into_iter().flatten() {
        if !value.is_null() {
            config[key] = value.clone();
        }
    }
    let pauses = is_true(Some(value(&pairs, "pause").unwrap_or("1")))
        && container.status() == Status::RUNNING;
    let input = config.to_string().into_bytes();
    let (maker, key) = (context.clone(), container.key.clone());
    // A client that goes away meanwhile must not leave the container paused.
    let made = tokio::spawn(async move {
        match pauses {
            true => while_paused(&maker, &key, run(command, input)).await,
            false => run(command, input).await,
        }
    });
    let text = made
        .await
        .map_err(|why| error(StatusCode::INTERNAL_SERVER_ERROR, why.to_string()))??;
    let id = serde_json::from_str::<Value>(text.trim()).unwrap_or_default()["status"].clone();
    let attributes = Attributes::from([
        (
            "comment".to_owned(),
            value(&pairs, "comment").unwrap_or_default().to_owned(),
        ),
        (
            "imageID".to_owned(),
            id.as_str().unwrap_or_default().to_owned(),
        ),
        (
            "imageRef".to_owned(),
            value(&pairs, "repo").unwrap_or_default().to_owned(),
        ),
    ]);
    container::tell(&context.engine, &container.key, "commit", attributes).await?;
    Ok((StatusCode::CREATED, Json(json!({ "Id": id }))))
}

/// Runs the image tool; what it prints.
async fn run(command: Command, input: Vec<u8>) -> Result<String, Refused> {
    let running = Running::begin(command, Some(input)).await.map_err(failed)?;
    running.whole().await.map_err(failed)
}

async fn while_paused<T>(
    context: &Context,
    key: &str,
    work: impl Future<Output = Result<T, Refused>>,
) -> Result<T, Refused> {
    let freeze = |frozen| {
        let key = key.to_owned();
        ask(&context.engine, move |answer| Request::Freeze {
            key,
            frozen,
            answer,
        })
    };
    freeze(true).await?.map_err(refused)?;
    let done = work.await;
    freeze(false).await?.map_err(refused)?;
    done
}

pub(super) async fn auth(
    State(context): State<Context>,
    body: Bytes,
) -> Result<Json<Value>, Refused> {
    let credentials: AuthConfig = parse(&body)?;
    let registry = credentials.serveraddress.clone().unwrap_or_default();
    let mut command = tool::command(&context.paths.options);
    command.arg("login").arg(&registry);
    run(command, body.to_vec()).await?;
    Ok(Json(
        json!({ "Status": "Login Succeeded", "IdentityToken": "" }),
    ))
}
