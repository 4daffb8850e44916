//! Ports of the host that lead to containers: a socket that is bound and never listens keeps each from everybody else.

use super::{Protocol, Publish, Published};
use anyhow::anyhow;
use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket};
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::{AsRawFd, OwnedFd};

/// Keeps the first free one of some ports of the host from everybody else.
pub(super) fn reserve(publish: &Publish) -> anyhow::Result<(Published, OwnedFd)> {
    let (first, last) = publish.ports;
    let mut refused = None;
    for port in first..=last {
        match reserve_one(publish.protocol, publish.address, port) {
            Ok((port, socket)) => {
                let published = Published {
                    protocol: publish.protocol,
                    address: publish.address,
                    port,
                    target: publish.target,
                };
                return Ok((published, socket));
            }
            Err(error) => refused = Some(error),
        }
    }
    let refused = refused.unwrap_or_else(|| anyhow!("no such port"));
    Err(refused.context(format!("Bind for {}:{first} failed", publish.address)))
}

/// Keeps one port; 0 is any.
pub(super) fn reserve_one(
    protocol: Protocol,
    address: Ipv4Addr,
    port: u16,
) -> anyhow::Result<(u16, OwnedFd)> {
    let kind = match protocol {
        Protocol::Tcp => SockType::Stream,
        Protocol::Udp => SockType::Datagram,
    };
    let socket = socket(AddressFamily::Inet, kind, SockFlag::SOCK_CLOEXEC, None)?;
    let wanted = SockaddrIn::from(SocketAddrV4::new(address, port));
    bind(socket.as_raw_fd(), &wanted).map_err(|error| match error {
        Errno::EADDRINUSE => anyhow!("port is already allocated"),
        error => error.into(),
    })?;
    let bound: SockaddrIn = getsockname(socket.as_raw_fd())?;
    Ok((bound.port(), socket))
}
