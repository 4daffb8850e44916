//! A connection that a client takes over for a container's streams: `Upgrade: tcp`, then raw bytes both ways.
//!
//! What a container prints without a terminal comes in frames: stream (1 or 2), three zeros, the length as a
//! big-endian number of four bytes, the bytes.

use super::detach::Detach;
use crate::output::Stream;
use crate::relay::{Attached, Chunk};
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use std::io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::mpsc;

pub(super) const MULTIPLEXED: &str = "application/vnd.docker.multiplexed-stream";
pub(super) const RAW: &str = "application/vnd.docker.raw-stream";

/// Which streams a client wants to see.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) stdout: bool,
    pub(super) stderr: bool,
    /// As it comes, without frames.
    pub(super) raw: bool,
}

impl Wanted {
    /// A piece as it is sent; `None` when it is not wanted.
    fn encode(self, chunk: Chunk) -> Option<Bytes> {
        let (number, wanted) = match chunk.stream {
            Stream::Stdout => (1, self.stdout),
            Stream::Stderr => (2, self.stderr),
        };
        match (wanted, self.raw) {
            (false, _) => None,
            (true, true) => Some(chunk.bytes),
            (true, false) => {
                let length = u32::try_from(chunk.bytes.len()).unwrap_or(u32::MAX);
                let mut frame = vec![number, 0, 0, 0];
                frame.extend_from_slice(&length.to_be_bytes());
                frame.extend_from_slice(&chunk.bytes);
                Some(frame.into())
            }
        }
    }

    /// What the answer says of its own format.
    pub(super) fn content_type(self) -> &'static str {
        if self.raw { RAW } else { MULTIPLEXED }
    }
}

/// The client's wish to take the connection over, when it has one.
pub(super) fn upgrade(request: &mut Request) -> Option<OnUpgrade> {
    let wished = request.headers().contains_key(header::UPGRADE);
    let upgrade = request.extensions_mut().remove::<OnUpgrade>();
    upgrade.filter(|_| wished)
}

/// Answers, and carries until one side has enough. A client that does not take the connection over only listens.
pub(super) fn carry(
    upgrade: Option<OnUpgrade>,
    attached: Attached,
    wanted: Wanted,
    detach: Detach,
) -> Response {
    let kind = [(header::CONTENT_TYPE, wanted.content_type())];
    let Some(upgrade) = upgrade else {
        let body = stream::unfold(attached.output, move |mut output| async move {
            loop {
                if let Some(bytes) = wanted.encode(output.recv().await?) {
                    return Some((Ok::<_, io::Error>(bytes), output));
                }
            }
        });
        return (kind, Body::from_stream(body)).into_response();
    };
    tokio::spawn(async move {
        if let Ok(connection) = upgrade.await {
            let (reader, writer) = tokio::io::split(TokioIo::new(connection));
            let output = print(attached.output, writer, wanted);
            match attached.input {
                None => output.await,
                Some(input) => {
                    let typing = type_in(reader, input, detach);
                    tokio::pin!(output);
                    tokio::select! {
                        () = &mut output => {}
                        // Who has typed all that there is still wants to see; who detaches does not.
                        left = typing => if !left { output.await },
                    }
                }
            }
        }
    });
    let headers = [(header::CONNECTION, "Upgrade"), (header::UPGRADE, "tcp")];
    (StatusCode::SWITCHING_PROTOCOLS, kind, headers, ()).into_response()
}

async fn print(
    mut output: mpsc::Receiver<Chunk>,
    mut writer: impl AsyncWriteExt + Unpin,
    wanted: Wanted,
) {
    while let Some(chunk) = output.recv().await {
        if let Some(bytes) = wanted.encode(chunk)
            && writer.write_all(&bytes).await.is_err()
        {
            return;
        }
    }
    // The client may have gone first.
    let _ = writer.shutdown().await;
}

/// Takes what is typed to the container; true when the client has typed the keys to leave.
async fn type_in(
    mut reader: impl AsyncReadExt + Unpin,
    input: mpsc::Sender<Bytes>,
    mut detach: Detach,
) -> bool {
    let mut buffer = vec![0; 16 * 1024];
    loop {
        let length = match reader.read(&mut buffer).await {
            Ok(0) | Err(_) => return false,
            Ok(length) => length,
        };
        let (bytes, left) = detach.scan(&buffer[..length]);
        // A container that reads no more takes nothing; its output still comes.
        let _ = input.send(bytes.into()).await;
        if left {
            return true;
        }
    }
}
