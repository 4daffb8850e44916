//! The smallest HTTP client: one request, one answer.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

/// Fetches `path` from a forwarded port and gives the body.
///
/// # Errors
/// When nobody answers within the deadline, or not with status 200.
pub fn get(port: u16, path: &str, deadline: Duration) -> Result<String> {
    let mut stream =
        TcpStream::connect(("127.0.0.1", port)).context("connecting to the published port")?;
    stream
        .set_read_timeout(Some(deadline))
        .context("setting a time limit")?;
    write!(stream, "GET {path} HTTP/1.0\r\nHost: keelson\r\n\r\n").context("sending a request")?;
    let mut answer = String::new();
    stream
        .read_to_string(&mut answer)
        .context("reading the answer of the published port")?;
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .context("the answer has no header")?;
    ensure!(
        head.contains(" 200 "),
        "the answer is {}",
        head.lines().next().unwrap_or_default()
    );
    Ok(body.to_owned())
}
