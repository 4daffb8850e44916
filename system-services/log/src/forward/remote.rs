//! Where the log is sent, and the connection to it.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use keelson_sys::socket::unacknowledged_bytes;
use rustix::net::sockopt;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket, lookup_host};
use tokio::time::timeout;

const LOOKUP_TIMEOUT: Duration = Duration::from_secs(20);
/// Of each of its addresses.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// What nobody acknowledges for so long was sent to nobody. Shorter breaks of a network cost nothing but time.
const ANSWER_TIMEOUT_MS: u32 = 180_000;

/// How messages are told from one another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// Each is a datagram of UDP (RFC 5426).
    Datagram,
    /// Each is a line of TCP (RFC 6587, section 3.4.2).
    Line,
    /// Each has its length before it, over TCP (RFC 6587, section 3.4.1).
    Counted,
}

/// Where the log is sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remote {
    /// How messages travel.
    pub framing: Framing,
    /// Messages of this urgency and more urgent ones are sent; 7 is all.
    pub level: u8,
    /// Name or address.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl Remote {
    /// Reads `FRAMING,LEVEL,HOST,PORT`, where FRAMING is `udp`, `tcp` or `tcp-counted`.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split(',');
        let framing = match parts.next()? {
            "udp" => Framing::Datagram,
            "tcp" => Framing::Line,
            "tcp-counted" => Framing::Counted,
            _ => return None,
        };
        let level = parts.next()?.parse().ok().filter(|level| *level <= 7)?;
        let host = parts.next().filter(|host| !host.is_empty())?.to_owned();
        let port = parts.next()?.parse().ok()?;
        let whole = parts.next().is_none();
        whole.then_some(Remote {
            framing,
            level,
            host,
            port,
        })
    }

    /// Its name, for people and for the file of its position.
    #[must_use]
    pub fn name(&self) -> String {
        let transport = match self.framing {
            Framing::Datagram => "udp",
            Framing::Line | Framing::Counted => "tcp",
        };
        format!("{transport}:{}:{}", self.host, self.port)
    }

    /// Connects to the first address that takes the connection.
    pub(super) async fn connect(&self) -> io::Result<Connection> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let place = (self.host.as_str(), self.port);
        for address in within(LOOKUP_TIMEOUT, lookup_host(place)).await? {
            match within(CONNECT_TIMEOUT, self.connect_to(address)).await {
                Ok(connection) => return Ok(connection),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn connect_to(&self, address: SocketAddr) -> io::Result<Connection> {
        match self.framing {
            Framing::Datagram => {
                let any: SocketAddr = match address.is_ipv4() {
                    true => ([0; 4], 0).into(),
                    false => ([0; 16], 0).into(),
                };
                let socket = UdpSocket::bind(any).await?;
                socket.connect(address).await?;
                Ok(Connection::Datagrams(socket))
            }
            Framing::Line | Framing::Counted => {
                let stream = TcpStream::connect(address).await?;
                watch(&stream)?;
                Ok(Connection::Stream(stream))
            }
        }
    }
}

/// One that takes no time that the others would need.
async fn within<T>(limit: Duration, doing: impl Future<Output = io::Result<T>>) -> io::Result<T> {
    timeout(limit, doing)
        .await
        .unwrap_or_else(|_| Err(io::Error::from(io::ErrorKind::TimedOut)))
}

/// Has the kernel notice that the other side is gone without a word.
fn watch(stream: &TcpStream) -> io::Result<()> {
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_user_timeout(stream, ANSWER_TIMEOUT_MS)?;
    Ok(())
}

/// A connection to it.
pub(super) enum Connection {
    Datagrams(UdpSocket),
    Stream(TcpStream),
}

impl Connection {
    /// Sends a message.
    pub(super) async fn send(&mut self, message: &[u8]) -> io::Result<()> {
        match self {
            Connection::Datagrams(socket) => socket.send(message).await.map(drop),
            Connection::Stream(stream) => stream.write_all(message).await,
        }
    }

    /// How many of the bytes that were sent may still get lost. Of datagrams nobody ever knows.
    pub(super) fn pending_bytes(&self) -> io::Result<u64> {
        match self {
            Connection::Datagrams(_) => Ok(0),
            Connection::Stream(stream) => unacknowledged_bytes(stream),
        }
    }

    /// Says that nothing more comes, and waits until the other side has read it all and says the same.
    pub(super) async fn end(&mut self) -> io::Result<()> {
        let Connection::Stream(stream) = self else {
            return Ok(());
        };
        stream.shutdown().await?;
        let mut ignored = [0; 256];
        while stream.read(&mut ignored).await? > 0 {}
        Ok(())
    }

    /// Until the other side has gone; what it says is not listened to.
    pub(super) async fn gone(&mut self) -> io::Error {
        let mut ignored = [0; 256];
        match self {
            Connection::Datagrams(socket) => loop {
                if let Err(error) = socket.recv(&mut ignored).await {
                    return error;
                }
            },
            Connection::Stream(stream) => loop {
                match stream.read(&mut ignored).await {
                    Ok(0) => {
                        return io::Error::new(
                            io::ErrorKind::ConnectionAborted,
                            "it has closed the connection",
                        );
                    }
                    Ok(_) => {}
                    Err(error) => return error,
                }
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_remote_is_read_as_a_whole_or_not_at_all() {
        let remote = Remote::parse("tcp-counted,4,2001:db8::1,601").unwrap();
        assert_eq!(
            (remote.framing, remote.level, remote.port),
            (Framing::Counted, 4, 601)
        );
        assert_eq!(remote.name(), "tcp:2001:db8::1:601");
        for text in [
            "",
            "udp",
            "tls,7,h,1",
            "udp,8,h,1",
            "udp,7,,1",
            "udp,7,h,x",
            "udp,7,h,1,2",
        ] {
            assert_eq!(Remote::parse(text), None, "{text}");
        }
    }
}
