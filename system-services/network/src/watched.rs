//! Waiting for descriptors that the runtime has no type for.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use tokio::io::unix::AsyncFd;

/// Something with a non-blocking descriptor, and the event loop's view of it.
#[derive(Debug)]
pub struct Watched<T> {
    inner: T,
    ready: AsyncFd<OwnedFd>,
}

impl<T: AsFd> Watched<T> {
    /// Lets the event loop watch a duplicate of the descriptor.
    ///
    /// # Errors
    /// What dup(2) and epoll_ctl(2) report.
    pub fn new(inner: T) -> io::Result<Self> {
        let duplicate = inner.as_fd().try_clone_to_owned()?;
        // Deprecated for types whose descriptor may change behind the runtime's back; an OwnedFd keeps the same one
        // until it is dropped.
        #[expect(deprecated)]
        let ready = AsyncFd::new(duplicate)?;
        Ok(Self { inner, ready })
    }

    /// What is watched.
    pub fn get(&self) -> &T {
        &self.inner
    }

    /// Calls `read` when there is something to read, until it says otherwise than `WouldBlock`.
    ///
    /// # Errors
    /// What `read` or the event loop reports.
    pub async fn read<R>(&self, mut read: impl FnMut(&T) -> io::Result<R>) -> io::Result<R> {
        loop {
            let mut ready = self.ready.readable().await?;
            if let Ok(result) = ready.try_io(|_| read(&self.inner)) {
                return result;
            }
        }
    }
}
