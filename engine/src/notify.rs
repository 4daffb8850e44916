//! The services' side of the conversation: sd_notify(3) datagrams, and `X_KEELSON_*` for what a service asks of the
//! engine.

use crate::rootfs::make_directory;
use anyhow::Context;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials,
    bind, recvmsg, setsockopt, socket, sockopt,
};
use nix::unistd::geteuid;
use std::fs;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixDatagram as StdDatagram;
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
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
    /// It asked for something and does not speak for its service: the user who sent it.
    pub refused: Option<u32>,
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

    /// What is heard of a message by this user: all of it when that is the service's own; of others it may tell how the service is, and ask for nothing.
    fn sent_by(self, user: Option<u32>) -> Self {
        let asks =
            self.hostname.is_some() || self.power.is_some() || self.configure || self.healthy;
        if !asks || user == Some(geteuid().as_raw()) {
            return self;
        }
        Message {
            hostname: None,
            power: None,
            configure: false,
            healthy: false,
            refused: Some(user.unwrap_or(u32::MAX)),
            ..self
        }
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

/// Reads datagrams and gives each to `heard`; the kernel says who sent it (unix(7), `SCM_CREDENTIALS`). Ends only when the socket breaks or the task is aborted.
pub async fn hear(socket: OwnedFd, mut heard: impl FnMut(Message)) {
    if setsockopt(&socket, sockopt::PassCred, &true).is_err() {
        return;
    }
    let socket = StdDatagram::from(socket);
    let Ok(socket) = socket
        .set_nonblocking(true)
        .and_then(|()| UnixDatagram::from_std(socket))
    else {
        return;
    };
    let mut buffer = vec![0; DATAGRAM_MAX_BYTES];
    loop {
        let received = socket.async_io(Interest::READABLE, || receive(&socket, &mut buffer));
        let Ok((length, user)) = received.await else {
            return;
        };
        let datagram = buffer.get(..length).unwrap_or_default();
        heard(Message::parse(datagram).sent_by(user));
    }
}

/// One datagram; gives its length and the user who sent it. Descriptors that come along (FDSTORE, BARRIER) are closed by the kernel: no room is given for them.
fn receive(socket: &UnixDatagram, buffer: &mut [u8]) -> io::Result<(usize, Option<u32>)> {
    let mut room = nix::cmsg_space!(UnixCredentials);
    let mut pieces = [IoSliceMut::new(buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<()>(socket.as_raw_fd(), &mut pieces, Some(&mut room), flags)?;
    let user = message.cmsgs()?.find_map(|part| match part {
        ControlMessageOwned::ScmCredentials(sender) => Some(sender.uid()),
        _ => None,
    });
    Ok((message.bytes, user))
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
        sender
            .send_to(b"X_KEELSON_HEALTHY=1", directory.path().join("notify.sock"))
            .unwrap();
        let message = words.recv().await.unwrap();
        assert!(message.healthy && message.refused.is_none());
        task.abort();
    }

    #[test]
    fn another_user_may_tell_and_not_ask() {
        let own = geteuid().as_raw();
        let text = b"READY=1\nX_KEELSON_POWER=reboot\nX_KEELSON_HEALTHY=1";
        assert_eq!(
            Message::parse(text).sent_by(Some(own)),
            Message::parse(text)
        );
        for (user, refused) in [(Some(own + 1), own + 1), (None, u32::MAX)] {
            let message = Message::parse(text).sent_by(user);
            assert!(message.ready && !message.healthy && message.power.is_none());
            assert_eq!(message.refused, Some(refused));
        }
        let ready = Message::parse(b"READY=1").sent_by(Some(own + 1));
        assert_eq!(ready, Message::parse(b"READY=1"));
    }
}
