//! Descriptors that the parent process left open for this one.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd, RawFd};

/// A duplicate of the inherited descriptor with that number. Both are close-on-exec afterwards; the original stays
/// open for as long as this process lives.
///
/// # Errors
/// `EBADF` when no such descriptor is open.
pub fn duplicate(number: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: fcntl with F_SETFD takes no pointers; a number that is not open gives EBADF.
    if unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: as above.
    let copy = unsafe { libc::fcntl(number, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the duplicate was just made and nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};
    use std::os::fd::AsRawFd;

    #[test]
    fn the_duplicate_is_the_same_pipe() {
        let (mut reader, writer) = std::io::pipe().unwrap();
        let mut copy = std::fs::File::from(duplicate(writer.as_raw_fd()).unwrap());
        copy.write_all(b"x").unwrap();
        let mut byte = [0];
        reader.read_exact(&mut byte).unwrap();
        assert_eq!(byte, *b"x");
    }

    #[test]
    fn a_number_that_is_not_open_is_refused() {
        assert_eq!(
            duplicate(9999).unwrap_err().raw_os_error(),
            Some(libc::EBADF)
        );
    }
}
