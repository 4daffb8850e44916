//! Sockets that are listened at for a service (`x-keelson.sockets`), as systemd.socket(5) makes them.

use crate::compose::socket::{Address, Socket, Transport};
use crate::rootfs::make_directory;
use anyhow::Context;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, SockaddrLike, SockaddrStorage, UnixAddr, bind,
    listen, setsockopt, socket, sockopt,
};
use std::fs;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

/// Makes a socket and listens at it.
///
/// # Errors
/// With its address: somebody else has it, or its directory cannot be made.
pub fn open(socket: &Socket) -> anyhow::Result<OwnedFd> {
    let made = match &socket.listen {
        Address::Path(path) => at_path(Path::new(path), socket),
        Address::At(address) => at(*address, socket.transport).map_err(Into::into),
        Address::Port(port) => {
            // Takes IPv4 as well; a machine may have no IPv6.
            let every = SocketAddr::from((Ipv6Addr::UNSPECIFIED, *port));
            let made = match at(every, socket.transport) {
                Err(Errno::EAFNOSUPPORT) => {
                    at((Ipv4Addr::UNSPECIFIED, *port).into(), socket.transport)
                }
                made => made,
            };
            made.map_err(Into::into)
        }
    };
    made.with_context(|| format!("cannot listen at {}", socket.listen))
}

/// Takes a socket's file away; fine when there is none.
pub fn remove(socket: &Socket) {
    if let Address::Path(path) = &socket.listen {
        let _ = remove_file(Path::new(path));
    }
}

fn at(address: SocketAddr, transport: Transport) -> nix::Result<OwnedFd> {
    let family = match address {
        SocketAddr::V4(_) => AddressFamily::Inet,
        SocketAddr::V6(_) => AddressFamily::Inet6,
    };
    let fd = new(family, transport)?;
    setsockopt(&fd, sockopt::ReuseAddr, &true)?;
    // The address may come later.
    setsockopt(&fd, sockopt::IpFreebind, &true)?;
    if address.is_ipv6() {
        setsockopt(&fd, sockopt::Ipv6V6Only, &!address.ip().is_unspecified())?;
    }
    begin(fd, transport, &SockaddrStorage::from(address), || Ok(()))
}

fn at_path(path: &Path, socket: &Socket) -> anyhow::Result<OwnedFd> {
    if let Some(directory) = path.parent() {
        make_directory(directory)?;
    }
    remove_file(path)?;
    let fd = new(AddressFamily::Unix, socket.transport)?;
    let mode = socket.mode.map_or(0o666, |mode| mode.0);
    // Nobody can connect before it is listened at.
    let permit = || {
        let set = fs::set_permissions(path, fs::Permissions::from_mode(mode));
        set.map_err(|error| Errno::from_raw(error.raw_os_error().unwrap_or(0)))
    };
    Ok(begin(fd, socket.transport, &UnixAddr::new(path)?, permit)?)
}

/// What is no socket is not removed.
fn remove_file(path: &Path) -> std::io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => fs::remove_file(path),
        _ => Ok(()),
    }
}

fn new(family: AddressFamily, transport: Transport) -> nix::Result<OwnedFd> {
    let kind = match transport {
        Transport::Stream => SockType::Stream,
        Transport::Datagram => SockType::Datagram,
        Transport::SequentialPacket => SockType::SeqPacket,
    };
    socket(family, kind, SockFlag::SOCK_CLOEXEC, None)
}

fn begin(
    fd: OwnedFd,
    transport: Transport,
    address: &dyn SockaddrLike,
    before: impl FnOnce() -> nix::Result<()>,
) -> nix::Result<OwnedFd> {
    use std::os::fd::AsRawFd;
    bind(fd.as_raw_fd(), address)?;
    before()?;
    if transport != Transport::Datagram {
        listen(&fd, Backlog::MAXALLOWABLE)?;
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::net::{TcpStream, UdpSocket};
    use std::os::fd::AsRawFd;
    use std::os::unix::net::{UnixListener, UnixStream};

    fn port_of(fd: &OwnedFd) -> u16 {
        let name: SockaddrStorage = nix::sys::socket::getsockname(fd.as_raw_fd()).unwrap();
        name.as_sockaddr_in().map_or_else(
            || name.as_sockaddr_in6().unwrap().port(),
            |name| name.port(),
        )
    }

    #[test]
    fn a_unix_socket_has_its_mode_and_replaces_one_that_was_left_behind() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("deep/web.sock");
        let socket = Socket {
            mode: Some(crate::compose::values::Mode(0o640)),
            ..path.to_str().unwrap().parse().unwrap()
        };
        drop(open(&socket).unwrap());
        let listener = UnixListener::from(open(&socket).unwrap());
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o640);
        UnixStream::connect(&path).unwrap().write_all(b"x").unwrap();
        let mut text = String::new();
        listener
            .accept()
            .unwrap()
            .0
            .read_to_string(&mut text)
            .unwrap();
        assert_eq!(text, "x");
        remove(&socket);
        assert!(!path.exists());
        fs::write(&path, "no socket").unwrap();
        let error = format!("{:#}", open(&socket).unwrap_err());
        assert!(error.contains("cannot listen at"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "no socket");
    }

    #[test]
    fn ports_are_of_both_families_and_addresses_need_not_be_there() {
        let any = at((Ipv6Addr::UNSPECIFIED, 0).into(), Transport::Stream).unwrap();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port_of(&any))).unwrap();
        TcpStream::connect((Ipv6Addr::LOCALHOST, port_of(&any))).unwrap();
        at("192.0.2.77:0".parse().unwrap(), Transport::Stream).unwrap();
        let local = at((Ipv4Addr::LOCALHOST, 0).into(), Transport::Datagram).unwrap();
        let port = port_of(&local);
        let client = UdpSocket::bind("127.0.0.1:0").unwrap();
        client.send_to(b"ask", ("127.0.0.1", port)).unwrap();
        let mut text = [0; 3];
        UdpSocket::from(local).recv(&mut text).unwrap();
        assert_eq!(&text, b"ask");
    }

    #[test]
    fn one_that_somebody_has_is_told() {
        let first = at((Ipv4Addr::LOCALHOST, 0).into(), Transport::Stream).unwrap();
        let socket: Socket = format!("127.0.0.1:{}", port_of(&first)).parse().unwrap();
        let error = format!("{:#}", open(&socket).unwrap_err());
        assert!(error.contains("EADDRINUSE"), "{error}");
    }
}
