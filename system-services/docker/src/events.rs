//! Waiting for dockerd to have read its configuration again: it tells so as an event on its API
//! (Docker Engine API, `GET /events`).

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// `{"type":{"daemon":true},"event":{"reload":true}}`
const FILTERS: &str =
    "%7B%22type%22%3A%7B%22daemon%22%3Atrue%7D%2C%22event%22%3A%7B%22reload%22%3Atrue%7D%7D";
const ANSWER_MAX_BYTES: usize = 64 * 1024;

/// Listens to dockerd's events, calls `reload`, and returns when dockerd has reloaded.
///
/// # Errors
/// dockerd does not answer, or has not reloaded within `limit`.
pub fn wait_for_reload(
    socket: &Path,
    limit: Duration,
    reload: impl FnOnce() -> Result<()>,
) -> Result<()> {
    let end = Instant::now() + limit;
    let mut stream = UnixStream::connect(socket)
        .with_context(|| format!("connecting to {}", socket.display()))?;
    // Events from now on: one that comes before dockerd has read this request counts as well.
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    let since = format!("{}.{:09}", now.as_secs(), now.subsec_nanos());
    let request =
        format!("GET /events?since={since}&filters={FILTERS} HTTP/1.1\r\nHost: docker\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .context("asking for events")?;
    reload()?;
    let mut answer = Vec::new();
    while !contains(&answer, b"\"reload\"") {
        if answer.len() > ANSWER_MAX_BYTES {
            bail!("no event of a reload in a long answer");
        }
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            bail!("no event of a reload in time");
        }
        stream
            .set_read_timeout(Some(left))
            .context("setting a deadline")?;
        let mut chunk = [0; 4096];
        match stream
            .read(&mut chunk)
            .context("waiting for the event of a reload")?
        {
            0 => bail!(
                "dockerd ended the stream of events: {}",
                String::from_utf8_lossy(&answer)
            ),
            length => answer.extend_from_slice(&chunk[..length]),
        }
    }
    Ok(())
}

fn contains(haystack: &[u8], needle: &[u8]) -> bool {
    haystack
        .windows(needle.len())
        .any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{BufRead, BufReader};
    use std::os::unix::net::UnixListener;

    fn answer(text: &'static str) -> Result<String> {
        let directory = tempfile::tempdir()?;
        let socket = directory.path().join("docker.sock");
        let listener = UnixListener::bind(&socket)?;
        let server = std::thread::spawn(move || {
            let (mut client, _) = listener.accept().unwrap();
            let mut request = String::new();
            BufReader::new(&client).read_line(&mut request).unwrap();
            for part in text.as_bytes().chunks(7) {
                client.write_all(part).unwrap();
            }
            request
        });
        wait_for_reload(&socket, Duration::from_secs(10), || Ok(()))?;
        Ok(server.join().unwrap())
    }

    #[test]
    fn it_returns_when_the_event_has_come() {
        let event = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2a\r\n{\"Type\":\"daemon\",\"Action\":\"reload\"}\n\r\n";
        let request = answer(event).unwrap();
        assert!(request.starts_with("GET /events?since="), "{request}");
    }

    #[test]
    fn a_refusal_is_told() {
        let error = answer("HTTP/1.1 400 Bad Request\r\n\r\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("400 Bad Request"), "{error}");
    }
}
