//! The services' side of the conversation: sd_notify(3) datagrams, and `X_KEELSON_*` for what a service asks of the
//! engine.

use crate::rootfs::make_directory;
use anyhow::Context;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, bind, socket};
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::Path;
use std::time::Duration;
use tokio::net::UnixDatagram;

/// Datagrams may be of this size; what is beyond is cut.
const DATAGRAM_MAX_BYTES: usize = 4096;

/// One datagram: what of it means something here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    /// `READY=1`.
    pub ready: bool,
    /// `WATCHDOG=1`.
    pub alive: bool,
    /// `STATUS=`: what it is doing, for a person.
    pub status: Option<String>,
    /// `EXTEND_TIMEOUT_USEC=`.
    pub extend: Option<Duration>,
    /// `X_KEELSON_HOSTNAME=`.
    pub hostname: Option<String>,
    /// `X_KEELSON_POWER=`.
    pub power: Option<String>,
    /// `X_KEELSON_CONFIGURE=1`.
    pub configure: bool,
    /// `X_KEELSON_HEALTHY=1`.
    pub healthy: bool,
}

impl Message {
    /// Reads a datagram: `NAME=VALUE` lines; names that mean nothing here are passed over, as sd_notify(3) asks.
    pub fn parse(datagram: &[u8]) -> Self {
        let mut message = Self::default();
        for line in String::from_utf8_lossy(datagram).lines() {
            let Some((name, value)) = line.split_once('=') else {
                continue;
            };
            match (name, value) {
                ("READY", "1") => message.ready = true,
                ("WATCHDOG", "1") => message.alive = true,
                ("STATUS", _) => message.status = Some(value.trim().to_owned()),
                ("EXTEND_TIMEOUT_USEC", _) => {
                    message.extend = value.parse().ok().map(Duration::from_micros)
                }
                ("X_KEELSON_HOSTNAME", _) => message.hostname = Some(value.to_owned()),
                ("X_KEELSON_POWER", _) => message.power = Some(value.to_owned()),
                ("X_KEELSON_CONFIGURE", "1") => message.configure = true,
                ("X_KEELSON_HEALTHY", "1") => message.healthy = true,
                _ => {}
            }
        }
        message
    }
}

/// A host name as RFC 1123 has it.
pub fn is_hostname(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || letter == '-')
    };
    name.len() <= 64 && name.split('.').all(label)
}

/// Makes the socket of a service: `DIRECTORY/notify.sock`. The directory is what its container sees.
///
/// # Errors
/// Says which step failed.
pub fn listen(directory: &Path) -> anyhow::Result<OwnedFd> {
    make_directory(directory)?;
    let path = directory.join("notify.sock");
    let _ = fs::remove_file(&path);
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd = socket(AddressFamily::Unix, SockType::Datagram, flags, None)
        .context("cannot make a socket")?;
    let address =
        UnixAddr::new(&path).with_context(|| format!("bad socket path {}", path.display()))?;
    bind(fd.as_raw_fd(), &address).with_context(|| format!("cannot bind {}", path.display()))?;
    // Whoever runs in the container may speak for it; nobody else sees the directory.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666))
        .with_context(|| format!("cannot open {} to the service", path.display()))?;
    Ok(fd)
}

/// Reads datagrams and gives each to `heard`. Ends only when the socket breaks or the task is aborted.
pub async fn hear(socket: OwnedFd, mut heard: impl FnMut(Message)) {
    let socket = StdDatagram::from(socket);
    let Ok(socket) = socket
        .set_nonblocking(true)
        .and_then(|()| UnixDatagram::from_std(socket))
    else {
        return;
    };
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    // Descriptors that come along (FDSTORE, BARRIER) are closed by the kernel: no room is given for them.
    while let Ok(length) = socket.recv(&mut buffer).await {
        heard(Message::parse(&buffer[..length]));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_datagram_is_read_line_by_line() {
        let message =
            Message::parse(b"READY=1\nSTATUS=up and running \nMAINPID=7\nEXTEND_TIMEOUT_USEC=5\n");
        assert!(message.ready && !message.alive);
        assert_eq!(message.status.as_deref(), Some("up and running"));
        assert_eq!(message.extend, Some(Duration::from_micros(5)));
        assert_eq!(
            Message::parse(b"READY=0\nnonsense\n\xff=\xff"),
            Message::default()
        );
        assert_eq!(
            Message::parse(b"X_KEELSON_POWER=reboot").power.as_deref(),
            Some("reboot")
        );
    }

    #[test]
    fn host_names_follow_rfc_1123() {
        for good in ["a", "web-1", "web1.example.org", "1"] {
            assert!(is_hostname(good), "{good}");
        }
        for bad in ["", "-a", "a-", "a..b", "a_b", "a b", "ä", &"x".repeat(65)] {
            assert!(!is_hostname(bad), "{bad}");
        }
    }

    #[tokio::test]
    async fn words_sent_to_the_socket_are_heard() {
        let directory = tempfile::tempdir().unwrap();
        let socket = listen(directory.path()).unwrap();
        let sender = StdDatagram::unbound().unwrap();
        sender
            .send_to(b"READY=1", directory.path().join("notify.sock"))
            .unwrap();
        let (heard, mut words) = tokio::sync::mpsc::unbounded_channel();
        let task = tokio::spawn(hear(socket, move |message| heard.send(message).unwrap()));
        assert!(words.recv().await.unwrap().ready);
        task.abort();
    }
}
