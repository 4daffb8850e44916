//! The socket to DHCPv6 servers.

use std::io;
use std::net::{Ipv6Addr, SocketAddrV6, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockProtocol, SockType, SockaddrIn6, bind, setsockopt, socket, sockopt,
};

use crate::ipv6::message::{CLIENT_PORT, Identity, Request, SERVER_PORT, SERVERS};
use crate::watched::Watched;

/// Sends a question to all servers on a link, from `servers`, which is opened when it is not yet.
///
/// # Errors
/// What the kernel answers: there may be no address yet that it can be sent from.
pub(super) fn send(
    servers: &mut Option<Watched<UdpSocket>>,
    index: u32,
    request: &Request,
    identity: &Identity,
) -> io::Result<()> {
    let bytes = request
        .encode(identity)
        .ok_or_else(|| io::Error::other("the message cannot be made"))?;
    let socket = match servers.take() {
        Some(socket) => socket,
        None => Watched::new(open(index)?)?,
    };
    let socket = servers.insert(socket);
    let everybody = SocketAddrV6::new(SERVERS, SERVER_PORT, 0, index);
    socket.get().send_to(&bytes, everybody)?;
    Ok(())
}

/// A socket for answers to clients, on this interface alone.
fn open(index: u32) -> io::Result<UdpSocket> {
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let fd: OwnedFd = socket(
        AddressFamily::Inet6,
        SockType::Datagram,
        flags,
        SockProtocol::Udp,
    )?;
    let name = nix::net::if_::if_indextoname(index)?;
    setsockopt(
        &fd,
        sockopt::BindToDevice,
        &std::os::unix::ffi::OsStringExt::from_vec(name.into_bytes()),
    )?;
    setsockopt(&fd, sockopt::Ipv6V6Only, &true)?;
    let any = SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, CLIENT_PORT, 0, index);
    bind(fd.as_raw_fd(), &SockaddrIn6::from(any))?;
    Ok(fd.into())
}

/// Receives a message; without a socket it waits forever. Gives its length.
pub(super) async fn receive(
    socket: Option<&Watched<UdpSocket>>,
    buffer: &mut [u8],
) -> io::Result<usize> {
    let Some(socket) = socket else {
        return std::future::pending().await;
    };
    socket.read(|socket| socket.recv(buffer)).await
}
