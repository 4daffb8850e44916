//! HTTP/1.1 over a Unix socket, as far as clients of the engine's API need it: one request a connection, a body of known length.
//!
//! Blocking and without a runtime: hyper would bring tokio, and ureq's way of taking another transport is not a stable one.
//! The answer's head is parsed by `httparse`.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

/// How long sending a request may take.
const SEND_TIMEOUT: Duration = Duration::from_secs(20);
const MAX_ANSWER_BYTES: u64 = 64 * 1024 * 1024;
const MAX_HEADERS: usize = 64;

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub struct Answer {
    /// Status of HTTP.
    pub status: u16,
    /// The body.
    pub body: Vec<u8>,
}

/// Asks whoever listens on `socket` and waits at most `timeout` for each piece of the answer.
///
/// # Errors
/// What the system calls report; `TimedOut`; `InvalidData` when the answer is not HTTP.
pub fn ask(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    timeout: Duration,
) -> io::Result<Answer> {
    exchange(socket, method, path, body, timeout, "close\r\n")
}

/// Asks for a connection to be taken over (`Upgrade: tcp`), and reads all that comes over it; nothing is sent. Waits at most `timeout` for each piece.
///
/// # Errors
/// As [`ask`]. A status other than 101 is an answer like any other.
pub fn listen(socket: &Path, path: &str, body: &[u8], timeout: Duration) -> io::Result<Answer> {
    let connection = "Upgrade\r\nUpgrade: tcp\r\n";
    exchange(socket, "POST", path, body, timeout, connection)
}

fn exchange(
    socket: &Path,
    method: &str,
    path: &str,
    body: &[u8],
    timeout: Duration,
    connection: &str,
) -> io::Result<Answer> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(timeout))?;
    stream.set_write_timeout(Some(SEND_TIMEOUT))?;
    let length = match method {
        "GET" => String::new(),
        _ => format!("Content-Length: {}\r\n", body.len()),
    };
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nHost: keelson\r\nConnection: {connection}{length}\r\n"
    )?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    stream
        .take(MAX_ANSWER_BYTES)
        .read_to_end(&mut bytes)
        .map_err(|error| match error.kind() {
            // A blocking socket whose timeout is over says that it would block.
            io::ErrorKind::WouldBlock => {
                io::Error::new(io::ErrorKind::TimedOut, "no answer in time")
            }
            _ => error,
        })?;
    parse(&bytes)
}

fn parse(bytes: &[u8]) -> io::Result<Answer> {
    let invalid = |what: &str| {
        io::Error::new(
            io::ErrorKind::InvalidData,
            format!("its answer is not HTTP: {what}"),
        )
    };
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let head = match response.parse(bytes) {
        Ok(httparse::Status::Complete(head)) => head,
        Ok(httparse::Status::Partial) => return Err(invalid("it ends too early")),
        Err(error) => return Err(invalid(&error.to_string())),
    };
    let status = response.code.ok_or_else(|| invalid("no status"))?;
    let header = |name: &str| {
        response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name))
    };
    if header("transfer-encoding").is_some() {
        return Err(invalid("a body of unknown length"));
    }
    let mut body = bytes.get(head..).unwrap_or_default().to_vec();
    if let Some(length) = header("content-length") {
        let length = std::str::from_utf8(length.value)
            .ok()
            .and_then(|text| text.trim().parse::<usize>().ok());
        let length = length.ok_or_else(|| invalid("a wrong length"))?;
        if body.len() < length {
            return Err(invalid("it ends too early"));
        }
        body.truncate(length);
    }
    Ok(Answer { status, body })
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn a_request_is_sent_and_its_answer_read() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("sock");
        let listener = UnixListener::bind(&path).unwrap();
        let server = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let mut request = Vec::new();
            while !request.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                stream.read_exact(&mut byte).unwrap();
                request.push(byte[0]);
            }
            stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n[]")
                .unwrap();
            String::from_utf8(request).unwrap()
        });
        let answer = ask(&path, "GET", "/keelson/v1/services", &[], SEND_TIMEOUT).unwrap();
        assert_eq!(
            answer,
            Answer {
                status: 200,
                body: b"[]".to_vec()
            }
        );
        let request = server.join().unwrap();
        assert!(
            request.starts_with("GET /keelson/v1/services HTTP/1.1\r\nHost: keelson\r\n"),
            "{request}"
        );
    }

    #[test]
    fn answers_are_checked() {
        assert_eq!(
            parse(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap(),
            Answer {
                status: 204,
                body: Vec::new()
            }
        );
        for bytes in [
            &b""[..],
            b"HTTP/1.1 200 OK\r\n",
            b"hello\r\n\r\n",
            b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[]",
            b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n[]",
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        ] {
            assert_eq!(parse(bytes).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
