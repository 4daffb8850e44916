//! Gives the pipes of services to the log service: on its `SOCK_SEQPACKET` socket, one packet
//! `{"name":...,"stream":...}` with the pipe's reading end, answered with `{"ok":true}`.

use crate::readiness::register;
use anyhow::{Context, bail};
use keelson_sys::control;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use serde_json::{Value, json};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// How long the log service may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// One pipe to hand over.
#[derive(Debug)]
pub struct Piece {
    /// Name of the service.
    pub name: String,
    /// `stdout` or `stderr`.
    pub stream: &'static str,
    /// The reading end.
    pub reader: OwnedFd,
}

/// Hands over pipes, one after the other, and takes each that was taken off `pieces`.
///
/// # Errors
/// Which pipe the log service did not take, and why. That one and those after it stay in `pieces`.
pub async fn hand_over(socket_path: &Path, pieces: &mut Vec<Piece>) -> anyhow::Result<()> {
    while let Some(piece) = pieces.last() {
        let offer = offer(socket_path, piece);
        let taken = tokio::time::timeout(ANSWER_TIMEOUT, offer).await;
        taken
            .unwrap_or_else(|_| bail!("no answer within {ANSWER_TIMEOUT:?}"))
            .with_context(|| {
                format!(
                    "the log service did not take {}.{}",
                    piece.name, piece.stream
                )
            })?;
        pieces.pop();
    }
    Ok(())
}

/// Has the log service read what the pipes of a name hold; it can be queried when this returns.
///
/// # Errors
/// When the log service does not answer.
pub async fn flush(socket_path: &Path, name: &str) -> anyhow::Result<()> {
    let packet = json!({ "flush": name }).to_string();
    let asked = ask(socket_path, &packet, None);
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await?
}

/// Has the log service let go of the pipes of a name, to which nobody writes any more.
///
/// # Errors
/// When the log service does not answer.
pub async fn forget(socket_path: &Path, name: &str) -> anyhow::Result<()> {
    let packet = json!({ "forget": name }).to_string();
    let asked = ask(socket_path, &packet, None);
    tokio::time::timeout(ANSWER_TIMEOUT, asked).await?
}

async fn offer(path: &Path, piece: &Piece) -> anyhow::Result<()> {
    let packet = json!({ "name": piece.name, "stream": piece.stream }).to_string();
    ask(path, &packet, Some(piece.reader.as_fd())).await
}

async fn ask(path: &Path, packet: &str, with: Option<BorrowedFd<'_>>) -> anyhow::Result<()> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)
        .context("cannot make a socket")?;
    let address =
        UnixAddr::new(path).with_context(|| format!("bad socket path {}", path.display()))?;
    connect(fd.as_raw_fd(), &address)
        .with_context(|| format!("cannot connect to {}", path.display()))?;
    control::send(fd.as_fd(), packet.as_bytes(), with).context("cannot send")?;
    let fd = register(fd).context("cannot wait for the answer")?;
    let answer = loop {
        let mut guard = fd.readable().await?;
        if let Ok(result) = guard.try_io(|fd| control::recv(fd.as_fd())) {
            break result.context("cannot receive the answer")?;
        }
    };
    let Some(packet) = answer else {
        bail!("the connection was closed without an answer")
    };
    let answer: Value = serde_json::from_slice(&packet.bytes).context("the answer is not json")?;
    match answer["ok"].as_bool() {
        Some(true) => Ok(()),
        _ => bail!("it said {answer}"),
    }
}
