//! `x-keelson.sockets`: what is listened at for a service before its program runs (socket activation).

use super::values::{Mode, words};
use super::volume::{absolute, short_or_long};
use serde::de::{Deserialize, Deserializer};
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::str::FromStr;

words! {
    /// How bytes travel through a socket (socket(2)).
    Transport {
        /// `SOCK_STREAM`.
        Stream = "stream",
        /// `SOCK_DGRAM`.
        Datagram = "dgram",
        /// `SOCK_SEQPACKET`, of Unix sockets only.
        SequentialPacket = "seqpacket",
    }
}

words! {
    /// When a service is started.
    #[derive(Default)]
    Start {
        /// With the machine.
        #[default]
        Boot = "boot",
        /// When somebody first connects to one of its sockets, or sends something there.
        Socket = "socket",
    }
}

/// Where a socket is found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Address {
    /// A path of the host: a Unix socket.
    Path(String),
    /// A port at every address of the host, of IPv6 and IPv4.
    Port(u16),
    /// A port at one address, which the host need not have yet.
    At(SocketAddr),
}

impl FromStr for Address {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text.starts_with('/') {
            return absolute(text).map(Self::Path);
        }
        match (text.parse(), text.parse()) {
            (Ok(port), _) if port > 0 => Ok(Self::Port(port)),
            (_, Ok(address)) if SocketAddr::port(&address) > 0 => Ok(Self::At(address)),
            _ => Err(format!(
                "`{text}` is not a socket: write a path, a port, or ADDRESS:PORT ([ADDRESS]:PORT for IPv6)"
            )),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => formatter.write_str(path),
            Self::Port(port) => write!(formatter, "{port}"),
            Self::At(address) => write!(formatter, "{address}"),
        }
    }
}

/// One socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    /// Where it is found.
    pub listen: Address,
    /// How bytes travel through it.
    pub transport: Transport,
    /// What the program knows it by (`LISTEN_FDNAMES`): the service's name unless told.
    pub name: Option<String>,
    /// Permissions of a Unix socket: 0666 unless told.
    pub mode: Option<Mode>,
}

impl Socket {
    /// The same for the same socket: the name under which PID 1 keeps it.
    pub fn key(&self) -> String {
        format!("{}:{}", self.transport.as_str(), self.listen)
    }

    /// Whether anybody on another machine can reach it, if the network lets them.
    pub fn is_public(&self) -> bool {
        match &self.listen {
            Address::Path(_) => false,
            Address::Port(_) => true,
            Address::At(address) => match address.ip() {
                IpAddr::V4(ip) => !ip.is_loopback(),
                IpAddr::V6(ip) => !ip.is_loopback(),
            },
        }
    }
}

impl FromStr for Socket {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Ok(Self {
            listen: text.parse()?,
            transport: Transport::Stream,
            name: None,
            mode: None,
        })
    }
}

/// The long syntax.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    listen: Address,
    #[serde(rename = "type")]
    transport: Option<Transport>,
    name: Option<String>,
    mode: Option<Mode>,
}

impl TryFrom<Long> for Socket {
    type Error = String;

    fn try_from(long: Long) -> Result<Self, String> {
        let transport = long.transport.unwrap_or(Transport::Stream);
        let is_path = matches!(long.listen, Address::Path(_));
        if transport == Transport::SequentialPacket && !is_path {
            return Err("only a Unix socket can be of type seqpacket".to_owned());
        }
        if long.mode.is_some() && !is_path {
            return Err("only a Unix socket has a mode".to_owned());
        }
        let wrong = |name: &String| {
            let plain = |letter: char| letter.is_ascii_graphic() && letter != ':';
            name.is_empty() || name.len() > 255 || !name.chars().all(plain)
        };
        if let Some(name) = long.name.as_ref().filter(|name| wrong(name)) {
            return Err(format!(
                "`{name}` is not the name of a socket: ASCII without `:` and spaces"
            ));
        }
        Ok(Self {
            listen: long.listen,
            transport,
            name: long.name,
            mode: long.mode,
        })
    }
}

impl<'de> Deserialize<'de> for Socket {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        short_or_long::<D, Self, Long>(deserializer, "a path, a port, or a map with listen")
    }
}

super::values::scalars!(Address);

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Socket, String> {
        serde_yaml::from_str(text).map_err(|error| error.to_string())
    }

    #[test]
    fn sockets_are_paths_ports_and_addresses() {
        for (text, listen, public) in [
            ("/run/web.sock", "/run/web.sock", false),
            ("80", "80", true),
            ("\"127.0.0.1:80\"", "127.0.0.1:80", false),
            ("\"[::1]:80\"", "[::1]:80", false),
            ("192.0.2.1:80", "192.0.2.1:80", true),
        ] {
            let socket = read(text).unwrap();
            assert_eq!(socket.listen.to_string(), listen);
            assert_eq!(socket.is_public(), public, "{text}");
            assert_eq!(socket.key(), format!("stream:{listen}"));
        }
        let long = read("{listen: /run/a, type: seqpacket, name: a, mode: 0600}").unwrap();
        assert_eq!(long.transport, Transport::SequentialPacket);
        assert_eq!(
            (long.name.as_deref(), long.mode),
            (Some("a"), Some(Mode(0o600)))
        );
    }

    #[test]
    fn what_is_no_socket_is_refused() {
        for (text, part) in [
            ("0", "is not a socket"),
            ("web.sock", "is not a socket"),
            ("/run/../etc/x", "`..`"),
            ("\"1.2.3.4\"", "is not a socket"),
            ("{listen: 80, mode: 0600}", "has a mode"),
            ("{listen: 80, type: seqpacket}", "seqpacket"),
            ("{listen: 80, type: raw}", "is not one of"),
            ("{listen: 80, name: \"a:b\"}", "without `:`"),
            ("{path: /x}", "unknown field"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
