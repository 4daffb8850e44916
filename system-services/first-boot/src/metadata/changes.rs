//! Hears of new addresses and routes (rtnetlink(7)), so that a service is asked again as soon as it may be reached.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::netlink::SocketAddrNetlink;
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, bind, recv, socket_with};

/// RTMGRP_IPV4_IFADDR, RTMGRP_IPV4_ROUTE, RTMGRP_IPV6_IFADDR, RTMGRP_IPV6_ROUTE of linux/rtnetlink.h.
const GROUPS: u32 = 0x10 | 0x40 | 0x100 | 0x400;
/// One change comes as several messages.
const SETTLES_IN: Duration = Duration::from_millis(50);

/// A socket that hears of changes.
pub(super) struct Changes(OwnedFd);

impl Changes {
    /// Listens from now on.
    pub(super) fn listen() -> io::Result<Self> {
        // Protocol 0 is NETLINK_ROUTE.
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, flags, None)?;
        bind(&socket, &SocketAddrNetlink::new(0, GROUPS))?;
        Ok(Changes(socket))
    }

    /// Waits for a change, at most so long; whether there was one.
    pub(super) fn wait(&mut self, limit: Duration) -> io::Result<bool> {
        if !self.is_readable(limit)? {
            return Ok(false);
        }
        while self.is_readable(SETTLES_IN)? {
            self.drain()?;
        }
        Ok(true)
    }

    fn is_readable(&self, limit: Duration) -> io::Result<bool> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut socket = [PollFd::new(&self.0, PollFlags::IN)];
            match poll(&mut socket, Some(&left)) {
                Ok(ready) => return Ok(ready > 0),
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Reads all that is there: that something changed is all that counts.
    fn drain(&mut self) -> io::Result<()> {
        let mut buffer = [0_u8; 8192];
        loop {
            match recv(&self.0, &mut buffer, RecvFlags::empty()) {
                // More changes than the socket holds are a change, too.
                Ok(_) | Err(rustix::io::Errno::NOBUFS | rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return Ok(()),
                Err(error) => return Err(error.into()),
            }
        }
    }
}
