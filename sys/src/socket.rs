//! What the kernel knows of a connection.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _};

mod request {
    //! The ioctls, by their names in the kernel's headers.
    nix::ioctl_read_bad!(siocoutq, libc::TIOCOUTQ, libc::c_int);
}

/// How many bytes were written to a TCP connection that the other side's kernel has not acknowledged (tcp(7), SIOCOUTQ).
///
/// # Errors
/// What the ioctl reports.
pub fn unacknowledged_bytes(connection: impl AsFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which is TIOCOUTQ, writes one int to the address given.
    unsafe { request::siocoutq(connection.as_fd().as_raw_fd(), &raw mut bytes) }?;
    Ok(u64::try_from(bytes).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn what_nobody_has_room_for_is_not_acknowledged() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut server, _) = listener.accept().unwrap();
        client.set_nonblocking(true).unwrap();
        while client.write(&[0; 65536]).is_ok() {}
        assert!(unacknowledged_bytes(&client).unwrap() > 0);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        let mut all = Vec::new();
        server.read_to_end(&mut all).unwrap();
        assert!(!all.is_empty());
        assert_eq!(unacknowledged_bytes(&client).unwrap(), 0);
    }
}
