//! Answers that are no success: Docker's status codes, `{"message": ...}` as the body.

use super::{VERSION, VERSIONS};
use crate::server::{Refusal, Refused};
use axum::http::{Method, StatusCode, Uri};

/// An answer with a message for a person.
pub(super) fn error(status: StatusCode, message: impl Into<String>) -> Refused {
    Refused(status, message.into())
}

/// A parameter that cannot be understood.
pub(super) fn invalid(message: impl Into<String>) -> Refused {
    error(StatusCode::BAD_REQUEST, message)
}

/// No container of that name or number.
pub(super) fn no_such_container(name: &str) -> Refused {
    error(StatusCode::NOT_FOUND, format!("No such container: {name}"))
}

/// What the engine did not do.
pub(super) fn refused(refusal: Refusal) -> Refused {
    match refusal {
        Refusal::NoSuchService(name) => no_such_container(&name),
        Refusal::Invalid(why) => invalid(why),
        Refusal::Forbidden(why) => error(StatusCode::FORBIDDEN, why),
        Refusal::Conflict(why) => error(StatusCode::CONFLICT, why),
        Refusal::Failed(why) => error(StatusCode::INTERNAL_SERVER_ERROR, why),
    }
}

/// What the disk did not do.
pub(super) fn disk(what: &str, why: &std::io::Error) -> Refused {
    let status = match why.kind() {
        std::io::ErrorKind::InvalidInput => return invalid(why.to_string()),
        std::io::ErrorKind::StorageFull => StatusCode::INSUFFICIENT_STORAGE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    error(status, format!("cannot {what}: {why}"))
}

/// Reads a body as Docker does: whatever its declared type.
pub(super) fn parse<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, Refused> {
    if body.is_empty() {
        return Err(invalid("got EOF while reading request body"));
    }
    serde_json::from_slice(body).map_err(|error| invalid(format!("invalid JSON: {error}")))
}

/// Runs what blocks on the disk beside the event loop.
pub(super) async fn blocking<T: Send + 'static>(
    what: &str,
    work: impl FnOnce() -> std::io::Result<T> + Send + 'static,
) -> Result<T, Refused> {
    let done = tokio::task::spawn_blocking(work).await;
    let done = done.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    done.map_err(|error| disk(what, &error))
}

/// Paths that Docker knows by their first word and system containers have no use for, or not yet.
const NOT_HERE: [&str; 16] = [
    "build",
    "configs",
    "containers",
    "distribution",
    "events",
    "exec",
    "images",
    "networks",
    "nodes",
    "plugins",
    "secrets",
    "services",
    "session",
    "swarm",
    "system",
    "volumes",
];

/// What no route takes: a version that is not spoken, a part of Docker's API that is not here, or nothing at all.
pub(crate) async fn unknown_path(method: Method, uri: Uri) -> Refused {
    let mut words = uri.path().split('/').filter(|word| !word.is_empty());
    let mut word = words.next().unwrap_or_default();
    if let Some(version) = word.strip_prefix('v').and_then(number) {
        let (oldest, newest) = (VERSIONS[0], VERSION);
        let spoken = word.strip_prefix('v').unwrap_or_default();
        if Some(version) < number(oldest) {
            return invalid(format!(
                "client version {spoken} is too old. Minimum supported API version is {oldest}, please upgrade your client to a newer version"
            ));
        }
        if Some(version) > number(newest) {
            return invalid(format!(
                "client version {spoken} is too new. Maximum supported API version is {newest}"
            ));
        }
        word = words.next().unwrap_or_default();
    }
    let rest: Vec<&str> = words.collect();
    if method == Method::GET
        && let Some(message) = nothing_of_that_name(word, &rest)
    {
        return error(StatusCode::NOT_FOUND, message);
    }
    if NOT_HERE.contains(&word) {
        return error(
            StatusCode::NOT_IMPLEMENTED,
            format!("the system engine does not do this: {}", uri.path()),
        );
    }
    error(StatusCode::NOT_FOUND, "page not found")
}

/// What dockerd says of an object that it does not have. There are none of these kinds, and `docker inspect` asks for all.
fn nothing_of_that_name(kind: &str, rest: &[&str]) -> Option<String> {
    match (kind, rest) {
        ("containers", [name @ .., "json"]) if name.len() > 1 => {
            Some(format!("No such container: {}", name.join("/")))
        }
        ("plugins", [name, "json"]) => Some(format!("plugin \"{name}\" not found")),
        _ => None,
    }
}

/// A version of the API as two numbers.
fn number(version: &str) -> Option<(u32, u32)> {
    let (major, minor) = version.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn status(path: &str) -> StatusCode {
        unknown_path(Method::GET, path.parse().unwrap()).await.0
    }

    #[tokio::test]
    async fn versions_and_parts_that_are_not_here_are_told_apart() {
        assert_eq!(status("/v1.24/info").await, StatusCode::BAD_REQUEST);
        assert_eq!(status("/v1.99/info").await, StatusCode::BAD_REQUEST);
        assert_eq!(status("/v1.45/swarm").await, StatusCode::NOT_IMPLEMENTED);
        assert_eq!(status("/networks/a/b/c").await, StatusCode::NOT_IMPLEMENTED);
        assert_eq!(status("/plugins/a/json").await, StatusCode::NOT_FOUND);
        assert_eq!(status("/v1.45/nothing").await, StatusCode::NOT_FOUND);
        assert_eq!(status("/").await, StatusCode::NOT_FOUND);
    }
}
