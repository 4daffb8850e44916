//! Images and files in and out: pull, load, save, import, `docker cp`, export. All by the image tool.

use super::Context;
use super::container::{self, Container};
use super::error::{blocking, error, invalid};
use super::images::{failed, needed, tell};
use super::list::is_true;
use crate::events::Attributes;
use crate::images::tool::{self, Running};
use crate::rootfs::{self, Layers};
use crate::server::Refused;
use axum::body::Body;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::alphabet::{STANDARD as LETTERS, URL_SAFE as URL_LETTERS};
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig, STANDARD};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

const JSON: &str = "application/json";
const TAR: &str = "application/x-tar";
/// What a path is, in base64.
const PATH_STAT: &str = "x-docker-container-path-stat";

/// Parameters that may come several times.
pub(super) type Pairs = Vec<(String, String)>;

/// A parameter that says something.
pub(super) fn value<'p>(pairs: &'p Pairs, name: &str) -> Option<&'p str> {
    let pair = pairs
        .iter()
        .find(|(key, value)| key == name && !value.is_empty());
    pair.map(|(_, value)| value.as_str())
}

/// All of one name.
pub(super) fn values(pairs: &Pairs, name: &str) -> Vec<String> {
    let named = pairs.iter().filter(|(key, _)| key == name);
    named.map(|(_, value)| value.clone()).collect()
}

/// `POST /images/create`: a pull, or an import.
pub(super) async fn create(
    State(context): State<Context>,
    Query(pairs): Query<Pairs>,
    headers: HeaderMap,
    request: Request,
) -> Result<Response, Refused> {
    if value(&pairs, "fromSrc").is_some() {
        return import(&context, &pairs, request).await;
    }
    let from =
        value(&pairs, "fromImage").ok_or_else(|| invalid("the parameter fromImage is missing"))?;
    let name = match value(&pairs, "tag") {
        Some(digest) if digest.contains(':') => format!("{from}@{digest}"),
        Some(tag) => format!("{from}:{tag}"),
        None => from.to_owned(),
    };
    let mut command = tool::command(&context.paths.options);
    command.arg("pull").arg(&name);
    if let Some(platform) = value(&pairs, "platform") {
        command.arg("--platform").arg(platform);
    }
    let credentials = credentials(&headers)?;
    if credentials.is_some() {
        command.arg("--auth");
    }
    let running = Running::begin(command, credentials).await.map_err(failed)?;
    tell(&context, "pull", &name, &name).await?;
    Ok(stream_out(running, JSON))
}

/// `X-Registry-Auth`: a JSON object in base64, of either alphabet, with or without padding.
fn credentials(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Refused> {
    let Some(text) = headers.get("x-registry-auth") else {
        return Ok(None);
    };
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let decode = |letters| GeneralPurpose::new(letters, config).decode(text.as_bytes());
    let decoded = decode(&URL_LETTERS).or_else(|_| decode(&LETTERS));
    let decoded =
        decoded.map_err(|why| invalid(format!("X-Registry-Auth is not base64: {why}")))?;
    Ok(Some(decoded).filter(|text| text != b"{}" && !text.is_empty()))
}

/// What the tool prints, as it comes.
fn stream_out(running: Running, kind: &'static str) -> Response {
    let body = stream::try_unfold(running, move |mut running| async move {
        let piece = running.next().await?;
        if piece.is_none() && running.has_failed() && kind == TAR {
            // The client sees an answer that breaks off.
            return Err(io::Error::other("the archive is not whole"));
        }
        Ok::<_, io::Error>(piece.map(|piece| (piece, running)))
    });
    ([(header::CONTENT_TYPE, kind)], Body::from_stream(body)).into_response()
}

/// Types a request's body to the tool while it works, and gives what it prints.
async fn feed(mut command: Command, request: Request) -> Result<Running, Refused> {
    let broken = |why: io::Error| failed(why.into());
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().map_err(broken)?;
    let mut stdin = child
        .stdin
        .take()
        .ok_or_else(|| broken(io::Error::other("it has no input")))?;
    let mut body = request.into_body().into_data_stream();
    let running = Running::of(child).map_err(failed)?;
    tokio::spawn(async move {
        // One that takes no more says why; a body that breaks off is an archive that ends too early.
        while let Some(Ok(bytes)) = body.next().await {
            if stdin.write_all(&bytes).await.is_err() {
                return;
            }
        }
    });
    Ok(running)
}

async fn import(context: &Context, pairs: &Pairs, request: Request) -> Result<Response, Refused> {
    if value(pairs, "fromSrc") != Some("-") {
        return Err(invalid(
            "the system engine does not fetch archives: send it in the request (fromSrc=-)",
        ));
    }
    let mut command = tool::command(&context.paths.options);
    command.arg("import");
    if let Some(repo) = value(pairs, "repo") {
        let name = match value(pairs, "tag") {
            Some(tag) => format!("{repo}:{tag}"),
            None => repo.to_owned(),
        };
        command.arg("--reference").arg(name);
    }
    if let Some(message) = value(pairs, "message") {
        command.arg("--message").arg(message);
    }
    for change in values(pairs, "changes") {
        command.arg("--change").arg(change);
    }
    let text = feed(command, request)
        .await?
        .whole()
        .await
        .map_err(failed)?;
    tell(context, "import", text.trim(), "").await?;
    Ok(([(header::CONTENT_TYPE, JSON)], text).into_response())
}

/// `POST /images/load`.
pub(super) async fn load(
    State(context): State<Context>,
    request: Request,
) -> Result<Response, Refused> {
    let mut command = tool::command(&context.paths.options);
    command.arg("load");
    let text = feed(command, request)
        .await?
        .whole()
        .await
        .map_err(failed)?;
    Ok(([(header::CONTENT_TYPE, JSON)], text).into_response())
}

/// `GET /images/get?names=A&names=B`.
pub(super) async fn save(
    State(context): State<Context>,
    Query(pairs): Query<Pairs>,
) -> Result<Response, Refused> {
    save_all(&context, &values(&pairs, "names")).await
}

/// An archive of images.
pub(super) async fn save_all(context: &Context, names: &[String]) -> Result<Response, Refused> {
    let options = &context.paths.options;
    for name in names {
        let image =
            crate::images::find(options, name).map_err(|why| super::images::missing(&why))?;
        if image.built_in {
            return Err(error(
                StatusCode::CONFLICT,
                format!("{name} belongs to the OS image, and is in no archive but that"),
            ));
        }
    }
    let mut command = tool::command(options);
    command.arg("save").args(names).stdout(Stdio::piped());
    let child = command.spawn().map_err(|why| failed(why.into()))?;
    Ok(stream_out(Running::of(child).map_err(failed)?, TAR))
}

/// Which path, and how.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Place {
    path: Option<String>,
    #[serde(rename = "noOverwriteDirNonDir")]
    keep_kinds: Option<String>,
}

/// Where a container's root is: its process's own, with all that is mounted there, or mounted for this.
async fn root(context: &Context, container: &Container) -> Result<PathBuf, Refused> {
    if let Some(pid) = container.service.pid {
        return Ok(PathBuf::from(format!("/proc/{pid}/root")));
    }
    let Some(stored) = container.stored.clone() else {
        return Err(error(
            StatusCode::CONFLICT,
            format!("container {} is not running", container.id),
        ));
    };
    let options = &context.paths.options;
    let kept = options.containers().container(stored.key());
    let directory = options.container(stored.key());
    blocking("mount the container's root", move || {
        let layers = Layers {
            image: stored.layers.clone(),
            upper: kept.join("upper"),
            work: kept.join("work"),
        };
        rootfs::make_directory(&directory).map_err(io::Error::other)?;
        rootfs::mount_layers(&directory, &layers).map_err(io::Error::other)?;
        Ok(directory.join("rootfs"))
    })
    .await
}

/// The tool knows no names of containers.
fn of_container(mut failed: tool::Failed, name: &str) -> tool::Failed {
    if failed.message.ends_with(" in container") {
        failed.message.push_str(&format!(" {name}"));
    }
    failed
}

/// An event about files of a container.
async fn note(
    context: &Context,
    container: &Container,
    action: &str,
    path: &str,
) -> Result<(), Refused> {
    let attributes = Attributes::from([("path".to_owned(), path.to_owned())]);
    container::tell(&context.engine, &container.key, action, attributes).await
}

async fn path_stat(
    context: &Context,
    root: &std::path::Path,
    path: &str,
    name: &str,
) -> Result<String, Refused> {
    let mut command = tool::command(&context.paths.options);
    command.arg("stat").arg("--root").arg(root).arg(path);
    let begun = Running::begin(command, None).await;
    let running = begun.map_err(|why| failed(of_container(why, name)))?;
    let text = running.whole().await.map_err(failed)?;
    Ok(STANDARD.encode(text.trim()))
}

/// `HEAD /containers/NAME/archive`.
pub(super) async fn look(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<Response, Refused> {
    let container = container::find(&context.engine, &name).await?;
    let root = root(&context, &container).await?;
    let stat = path_stat(&context, &root, needed(&place.path, "path")?, &name).await?;
    Ok([(PATH_STAT, stat)].into_response())
}

/// `GET /containers/NAME/archive`.
pub(super) async fn copy_out(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
) -> Result<Response, Refused> {
    let container = container::find(&context.engine, &name).await?;
    let root = root(&context, &container).await?;
    let path = needed(&place.path, "path")?;
    let stat = path_stat(&context, &root, path, &name).await?;
    note(&context, &container, "archive-path", path).await?;
    let mut command = tool::command(&context.paths.options);
    command
        .arg("copy-out")
        .arg("--root")
        .arg(&root)
        .arg(path)
        .stdout(Stdio::piped());
    let child = command.spawn().map_err(|why| failed(why.into()))?;
    let mut response = stream_out(Running::of(child).map_err(failed)?, TAR);
    if let Ok(value) = stat.parse() {
        response.headers_mut().insert(PATH_STAT, value);
    }
    Ok(response)
}

/// `PUT /containers/NAME/archive`.
pub(super) async fn copy_in(
    State(context): State<Context>,
    Path(name): Path<String>,
    Query(place): Query<Place>,
    request: Request,
) -> Result<StatusCode, Refused> {
    let container = container::find(&context.engine, &name).await?;
    if container.definition.read_only && container.service.pid.is_none() {
        return Err(invalid("container rootfs is marked read-only"));
    }
    let root = root(&context, &container).await?;
    let path = needed(&place.path, "path")?;
    let mut command = tool::command(&context.paths.options);
    command.arg("copy-in").arg("--root").arg(&root).arg(path);
    if is_true(place.keep_kinds.as_deref()) {
        command.arg("--no-overwrite-dir-non-dir");
    }
    let done = feed(command, request).await?.whole().await;
    done.map_err(|why| failed(of_container(why, &name)))?;
    note(&context, &container, "extract-to-dir", path).await?;
    Ok(StatusCode::OK)
}

/// `GET /containers/NAME/export`.
pub(super) async fn export(
    State(context): State<Context>,
    Path(name): Path<String>,
) -> Result<Response, Refused> {
    let container = container::find(&context.engine, &name).await?;
    let mut root = root(&context, &container).await?;
    if container.service.pid.is_some() {
        // Without what is mounted in it: volumes are not the container's own.
        root = context
            .paths
            .options
            .container(&container.key)
            .join("rootfs");
    }
    let mut command = tool::command(&context.paths.options);
    command
        .arg("export")
        .arg("--root")
        .arg(&root)
        .stdout(Stdio::piped());
    let child = command.spawn().map_err(|why| failed(why.into()))?;
    Ok(stream_out(Running::of(child).map_err(failed)?, TAR))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_come_in_base64_of_either_alphabet() {
        let given = |text: &str| {
            let headers =
                HeaderMap::from_iter([("x-registry-auth".parse().unwrap(), text.parse().unwrap())]);
            credentials(&headers).map_err(|_| ())
        };
        assert_eq!(
            given("eyJhIjoiPz8_In0="),
            Ok(Some(br#"{"a":"???"}"#.to_vec()))
        );
        assert_eq!(
            given("eyJhIjoiPz8/In0"),
            Ok(Some(br#"{"a":"???"}"#.to_vec()))
        );
        assert_eq!(given("e30="), Ok(None));
        assert!(given("!").is_err());
    }
}
