//! The socket on which the engine hands over the containers' output pipes: one packet
//! `{"name":"network","stream":"stdout"}` with the pipe's read end as `SCM_RIGHTS`, answered by `{"ok":true}` or
//! `{"error":"..."}`.
//!
//! `{"flush":"NAME"}` is answered when what the pipes of that name hold can be queried; `{"forget":"NAME"}` when they
//! have been read to their end and let go.

use crate::pipes::{Label, Pipes, parse_stream};
use crate::watch::watch;
use keelson_sys::control;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, getsockopt, listen, socket, sockopt,
};
use nix::unistd::geteuid;
use serde::Deserialize;
use std::cell::RefCell;
use std::fs;
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::rc::Rc;
use tokio::io::unix::AsyncFd;
use tokio::net::UnixListener;

/// Longest name of a service.
const NAME_MAX_BYTES: usize = 64;
const CONNECTIONS_WAITING: i32 = 16;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Offer {
    name: String,
    stream: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Flush {
    flush: String,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Forget {
    forget: String,
}

/// What is asked; told apart by its first word, so that what is wrong with it is said of the right one.
#[derive(Debug)]
enum Packet {
    Offer(Offer),
    Flush(Flush),
    Forget(Forget),
}

impl Packet {
    fn parse(bytes: &[u8]) -> serde_json::Result<Self> {
        let value: serde_json::Value = serde_json::from_slice(bytes)?;
        if value.get("flush").is_some() {
            serde_json::from_value(value).map(Self::Flush)
        } else if value.get("forget").is_some() {
            serde_json::from_value(value).map(Self::Forget)
        } else {
            serde_json::from_value(value).map(Self::Offer)
        }
    }
}

/// Binds the socket; only root and the log's own user may connect.
///
/// # Errors
/// What socket(2), bind(2) or listen(2) report.
pub fn bind_socket(path: &Path) -> io::Result<OwnedFd> {
    remove_stale(path)?;
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let listener = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
    bind(listener.as_raw_fd(), &UnixAddr::new(path)?)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listen(&listener, Backlog::new(CONNECTIONS_WAITING)?)?;
    Ok(listener)
}

/// Removes what an earlier run has left.
///
/// # Errors
/// What unlink(2) reports, except that nothing was there.
pub fn remove_stale(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Takes pipes over, for ever.
///
/// # Errors
/// What accept(2) reports.
pub async fn run(listener: OwnedFd, pipes: Rc<RefCell<Pipes>>) -> io::Result<()> {
    // accept(2) is the same for both types of socket.
    let listener = UnixListener::from_std(listener.into())?;
    loop {
        let (connection, _) = listener.accept().await?;
        let connection = OwnedFd::from(connection.into_std()?);
        let pipes = Rc::clone(&pipes);
        tokio::task::spawn_local(async move {
            // A connection that breaks takes nothing with it: the pipes taken over stay.
            let _ = serve(connection, &pipes).await;
        });
    }
}

async fn serve(connection: OwnedFd, pipes: &RefCell<Pipes>) -> io::Result<()> {
    let peer = getsockopt(&connection, sockopt::PeerCredentials)?.uid();
    let connection = watch(connection)?;
    if peer != 0 && peer != geteuid().as_raw() {
        return answer(
            &connection,
            Err("only the system engine hands over pipes".to_owned()),
        );
    }
    loop {
        let mut guard = connection.readable().await?;
        match control::recv(connection.get_ref().as_fd()) {
            Ok(Some(packet)) => answer(&connection, obey(packet, pipes))?,
            Ok(None) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => guard.clear_ready(),
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                answer(&connection, Err(error.to_string()))?;
            }
            Err(error) => return Err(error),
        }
    }
}

fn obey(packet: control::Packet, pipes: &RefCell<Pipes>) -> Result<(), String> {
    let asked = Packet::parse(&packet.bytes).map_err(|error| format!("bad packet: {error}"))?;
    let mut pipes = pipes.borrow_mut();
    let done = match asked {
        Packet::Flush(Flush { flush }) => pipes.flush(&flush),
        Packet::Forget(Forget { forget }) => pipes.forget(&forget),
        Packet::Offer(Offer { name, stream }) => {
            let is_name =
                |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
            if !(1..=NAME_MAX_BYTES).contains(&name.len()) || !name.chars().all(is_name) {
                return Err(format!("not a service's name: {name:?}"));
            }
            let stream = parse_stream(&stream)
                .ok_or_else(|| format!("no such stream: {stream:?} (stdout or stderr)"))?;
            let fd = packet.fd.ok_or("no file descriptor came with the packet")?;
            pipes.add(Label { name, stream }, fd)
        }
    };
    done.map_err(|error| error.to_string())
}

fn answer(connection: &AsyncFd<OwnedFd>, result: Result<(), String>) -> io::Result<()> {
    let answer = match result {
        Ok(()) => serde_json::json!({"ok": true}),
        Err(error) => serde_json::json!({"error": error}),
    };
    control::send(
        connection.get_ref().as_fd(),
        answer.to_string().as_bytes(),
        None,
    )
}
