//! `/keelson/v1/services`: what is done with services, and with the files that define the machine's own.

use super::{Refusal, Refused, Request, ask};
use crate::api::{Failure, Reloaded, Service};
use crate::compose::valid_name;
use crate::docker::{Command, Context};
use crate::images;
use crate::supervise::{check, trial_lease};
use axum::Router;
use axum::extract::{Path, Query, State};
use axum::http::StatusCode;
use axum::response::Json;
use axum::routing::{get, post, put};
use keelson_sys::durable::{Access, Tree};
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::Path as FilePath;

pub(super) fn routes() -> Router<Context> {
    Router::new()
        .route("/keelson/v1/services", get(list))
        .route("/keelson/v1/services/{name}/{verb}", post(act))
        .route("/keelson/v1/reload", post(reload))
        .route(
            "/keelson/v1/service-files/{name}",
            put(write_file).delete(remove_file),
        )
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Parameters {
    image: Option<String>,
}

async fn list(State(context): State<Context>) -> Result<Json<Vec<Service>>, Refused> {
    ask(&context.engine, Request::Services).await.map(Json)
}

async fn reload(State(context): State<Context>) -> Result<Json<Reloaded>, Refused> {
    ask(&context.engine, Request::Reload).await.map(Json)
}

async fn act(
    State(context): State<Context>,
    Path((name, verb)): Path<(String, String)>,
    Query(parameters): Query<Parameters>,
) -> Result<StatusCode, Refused> {
    let engine = &context.engine;
    let control = |command: Command| {
        let name = name.clone();
        ask(engine, move |answer| {
            Request::Control(name, command, answer)
        })
    };
    let outcome = match verb.as_str() {
        "start" => control(Command::Up).await?,
        "stop" => control(Command::Stop(None)).await?,
        "restart" => control(Command::Restart(None)).await?,
        "up" => ask(engine, |answer| Request::Up(name, answer)).await?,
        "down" => ask(engine, |answer| Request::Down(name, answer)).await?,
        "enable" | "disable" => {
            let enabled = verb == "enable";
            ask(engine, |answer| Request::Enable(name, enabled, answer)).await?
        }
        "choose" | "upgrade" => {
            let image = parameters.image.filter(|image| !image.is_empty());
            let image = image.ok_or_else(|| bad("the parameter `image` is missing"))?;
            hold(&context, &name, &image).await?;
            if verb == "choose" {
                let request = |answer| Request::Choose(name, image, answer);
                return ask(engine, request)
                    .await?
                    .map_err(refused)
                    .map(|()| StatusCode::NO_CONTENT);
            }
            let request = |answer| Request::Upgrade {
                name,
                image,
                answer,
            };
            ask(engine, request).await?
        }
        _ => return Err(Refused(StatusCode::NOT_FOUND, "page not found".to_owned())),
    };
    outcome.map_err(refused)?;
    Ok(StatusCode::NO_CONTENT)
}

/// Has nobody remove the image that a service is about to be tried with.
async fn hold(context: &Context, name: &str, image: &str) -> Result<(), Refused> {
    let options = context.paths.options.clone();
    let (lease, image) = (trial_lease(name), image.to_owned());
    blocking(move || {
        let found = images::find(&options, &image).map_err(|why| bad(&why.to_string()))?;
        if found.built_in {
            return Ok(());
        }
        let id = found.id.parse().map_err(|why: String| bad(&why))?;
        let held = images::store(&options).lease(&lease, &id);
        held.map_err(|why| failed(&why.to_string()))
    })
    .await
}

/// Takes a Compose file in, whole and for good, or says what is wrong with it.
async fn write_file(
    State(context): State<Context>,
    Path(name): Path<String>,
    text: String,
) -> Result<Json<Reloaded>, Refused> {
    let options = context.paths.options.clone();
    if !valid_name(&name) {
        let rule = "lower-case letters, digits, `-`, `_` and `.`";
        return Err(bad(&format!(
            "`{name}` is no name for a file of services: {rule}"
        )));
    }
    blocking(move || {
        let directory = &options.own_services;
        let file = format!("{name}.yml");
        check(&options, &directory.join(&file), &text)
            .map_err(|failure| bad(&describe(&failure)))?;
        let written = fs::create_dir_all(directory)
            .and_then(|()| Tree::open(directory))
            .and_then(|tree| {
                tree.write(FilePath::new(&file), text.as_bytes(), Access::root(0o644))
            });
        written.map_err(|error| {
            failed(&format!(
                "cannot write {}/{file}: {error}",
                directory.display()
            ))
        })
    })
    .await?;
    ask(&context.engine, Request::Reload).await.map(Json)
}

/// Removes a Compose file of the machine's own; its services are stopped and removed.
async fn remove_file(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Json<Reloaded>, Refused> {
    let options = context.paths.options.clone();
    let missing = Refused(
        StatusCode::NOT_FOUND,
        format!("there is no file of services `{name}`"),
    );
    if !valid_name(&name) {
        return Err(missing);
    }
    blocking(move || {
        let directory = &options.own_services;
        let removed = ["yml", "yaml"].map(|end| {
            let removed = fs::remove_file(directory.join(format!("{name}.{end}")));
            removed.map_err(|error| (error.kind() == io::ErrorKind::NotFound, error))
        });
        match removed {
            [Err((true, _)), Err((true, _))] => return Err(missing),
            [Err((false, error)), _] | [_, Err((false, error))] => {
                return Err(failed(&format!("cannot remove {name}.yml: {error}")));
            }
            _ => {}
        }
        let synced = fs::File::open(directory).and_then(|directory| directory.sync_all());
        synced.map_err(|error| failed(&format!("cannot remove {name}.yml for good: {error}")))
    })
    .await?;
    ask(&context.engine, Request::Reload).await.map(Json)
}

/// `FILE:LINE:COLUMN: MESSAGE`.
fn describe(failure: &Failure) -> String {
    let mut text = failure.file.clone().unwrap_or_default();
    for number in [failure.line, failure.column].into_iter().flatten() {
        text.push_str(&format!(":{number}"));
    }
    format!("{text}: {}", failure.message)
}

fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::NoSuchService(name) => {
            Refused(StatusCode::NOT_FOUND, format!("no such service: {name}"))
        }
        Refusal::Invalid(why) => bad(&why),
        Refusal::Forbidden(why) => Refused(StatusCode::FORBIDDEN, why),
        Refusal::Conflict(why) => Refused(StatusCode::CONFLICT, why),
        Refusal::Failed(why) => failed(&why),
    }
}

fn bad(why: &str) -> Refused {
    Refused(StatusCode::BAD_REQUEST, why.to_owned())
}

fn failed(why: &str) -> Refused {
    Refused(StatusCode::INTERNAL_SERVER_ERROR, why.to_owned())
}

/// Runs what blocks on the disk beside the event loop.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refused> + Send + 'static,
) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    done.unwrap_or_else(|error| Err(failed(&error.to_string())))
}
