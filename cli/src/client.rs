//! Requests to the engine.

use std::path::Path;
use std::time::Duration;

use keelson_engine::api::{ErrorBody, SOCKET};
use keelson_engine::client::{Answer, ask};
use serde::de::DeserializeOwned;

use crate::failure::Failure;

const ENGINE: &str = "the engine";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
/// A service may take its time to be ready.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(15 * 60);

/// Asks the engine for the resource `path`.
pub(crate) fn get<T: DeserializeOwned>(path: &str) -> Result<T, Failure> {
    let answer = ask(Path::new(SOCKET), "GET", path, &[], ANSWER_TIMEOUT)
        .map_err(|error| Failure::unreachable(ENGINE, error))?;
    if answer.status != 200 {
        return Err(Failure::Failed(message(&answer)));
    }
    serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::Failed(format!("read the engine's answer to {path}: {error}")))
}

/// Has the engine do something (`POST`, `PUT`, `DELETE`) and waits for that. Gives `None` when it answers that there is
/// no such thing.
pub(crate) fn command(method: &str, path: &str, body: &[u8]) -> Result<Option<Vec<u8>>, Failure> {
    let answer = ask(Path::new(SOCKET), method, path, body, COMMAND_TIMEOUT)
        .map_err(|error| Failure::unreachable(ENGINE, error))?;
    match answer.status {
        200..=299 => Ok(Some(answer.body)),
        404 => Ok(None),
        _ => Err(Failure::Failed(message(&answer))),
    }
}

/// What the engine says is wrong.
fn message(answer: &Answer) -> String {
    match serde_json::from_slice::<ErrorBody>(&answer.body) {
        Ok(error) => error.message,
        Err(_) => format!("the engine answers with status {}", answer.status),
    }
}

/// A name as one part of a path (RFC 3986, section 2.1).
pub(crate) fn escape(name: &str) -> String {
    let mut escaped = String::new();
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_part_of_the_path() {
        assert_eq!(escape("a/../b ?"), "a%2F..%2Fb%20%3F");
        assert_eq!(escape("udev-coldplug"), "udev-coldplug");
    }

    #[test]
    fn nobody_at_the_socket_is_status_3() {
        let error = ask(
            Path::new("/nonexistent/sock"),
            "GET",
            "/",
            &[],
            ANSWER_TIMEOUT,
        )
        .unwrap_err();
        let failure = Failure::unreachable(ENGINE, error);
        assert_eq!(failure.status(), 3);
        assert!(
            failure.to_string().contains("is this a Keelson system?"),
            "{failure}"
        );
    }
}
