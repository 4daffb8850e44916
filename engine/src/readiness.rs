//! Waiting for descriptors that tokio has no type for: packet sockets and pidfds.

use std::io;
use std::os::fd::OwnedFd;
use tokio::io::unix::AsyncFd;

/// Registers a descriptor with the event loop.
///
/// # Errors
/// When the descriptor cannot be polled.
pub fn register(fd: OwnedFd) -> io::Result<AsyncFd<OwnedFd>> {
    // Deprecated because of types whose descriptor may change or be closed meanwhile. An `OwnedFd` cannot.
    #[allow(deprecated)]
    AsyncFd::new(fd)
}
