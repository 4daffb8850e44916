//! Waiting for a file descriptor.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Lets the event loop watch a descriptor.
///
/// tokio deprecates `AsyncFd::new` for types whose descriptor may change behind its back; an [`OwnedFd`] is one and
/// the same until it is closed.
///
/// # Errors
/// What `epoll_ctl(2)` reports: the descriptor is of a kind that cannot be watched.
#[allow(deprecated)]
pub fn watch(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    AsyncFd::new(fd)
}
