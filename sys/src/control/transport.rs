//! Sending and receiving packets of the control protocol, with at most one file descriptor each.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recvmsg,
    sendmsg, socketpair,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

/// The longest packet, in bytes.
pub const PACKET_MAX_BYTES: usize = 16 * 1024;

/// `SCM_MAX_FD` of the kernel: what one packet can carry at most.
const SCM_MAX_FD: usize = 253;

/// One packet as it came from the peer.
#[derive(Debug)]
pub struct Packet {
    /// The message: give it to `decode`.
    pub bytes: Vec<u8>,
    /// The descriptor that came with it (close-on-exec is set).
    pub fd: Option<OwnedFd>,
}

/// A connected pair of control sockets, both close-on-exec: the first for PID 1 (non-blocking), the second for
/// the engine.
///
/// # Errors
/// What socketpair(2) and fcntl(2) report.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (init, engine) = socketpair(
        AddressFamily::Unix,
        SockType::SeqPacket,
        None,
        SockFlag::SOCK_CLOEXEC,
    )?;
    nix::fcntl::fcntl(
        &init,
        nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK),
    )?;
    Ok((init, engine))
}

/// Sends one packet, with a descriptor when given. Never raises SIGPIPE.
///
/// # Errors
/// `InvalidInput` when the packet is longer than [`PACKET_MAX_BYTES`] or empty; `WouldBlock` on a full
/// non-blocking socket; what sendmsg(2) reports otherwise.
pub fn send(socket: BorrowedFd<'_>, bytes: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
    if bytes.is_empty() || bytes.len() > PACKET_MAX_BYTES {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "control packet is empty or too long",
        ));
    }
    let iov = [IoSlice::new(bytes)];
    let fds: Vec<RawFd> = fd.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    loop {
        match sendmsg::<()>(
            socket.as_raw_fd(),
            &iov,
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        ) {
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
            Ok(_) => return Ok(()),
        }
    }
}

/// Receives one packet; `None` when the peer has closed its end.
///
/// # Errors
/// `InvalidData` for a packet that is too long or carries more than one descriptor; `WouldBlock` when nothing is
/// there on a non-blocking socket; what recvmsg(2) reports otherwise.
pub fn recv(socket: BorrowedFd<'_>) -> io::Result<Option<Packet>> {
    let mut bytes = vec![0; PACKET_MAX_BYTES];
    // Room for as many as the kernel passes at once, so that none is ever cut off and leaked.
    let mut control = nix::cmsg_space!([RawFd; SCM_MAX_FD]);
    let (length, truncated, mut fds) = loop {
        let mut iov = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut iov, Some(&mut control), flags) {
            Err(Errno::EINTR) => continue,
            // Our end of a pair whose other end died with data unread.
            Err(Errno::ECONNRESET) => return Ok(None),
            other => other?,
        };
        let mut fds = Vec::new();
        for received in message.cmsgs()? {
            let ControlMessageOwned::ScmRights(raw) = received else {
                continue;
            };
            for fd in raw {
                // SAFETY: the kernel has just installed this descriptor for us and nobody else knows it.
                fds.push(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        break (
            message.bytes,
            message.flags.contains(MsgFlags::MSG_TRUNC),
            fds,
        );
    };
    if length == 0 {
        return Ok(None);
    }
    if truncated || fds.len() > 1 {
        return Err(io::Error::new(
            io::ErrorKind::InvalidData,
            "control packet is too long or has too many descriptors",
        ));
    }
    bytes.truncate(length);
    Ok(Some(Packet {
        bytes,
        fd: fds.pop(),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::os::fd::AsFd as _;

    #[test]
    fn a_packet_arrives_with_its_descriptor() {
        let (init, engine) = pair().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        send(engine.as_fd(), b"hello", Some(reader.as_fd())).unwrap();
        send(engine.as_fd(), b"again", None).unwrap();
        let packet = recv(init.as_fd()).unwrap().unwrap();
        assert_eq!(packet.bytes, b"hello");
        File::from(writer).write_all(b"x").unwrap();
        let mut byte = [0];
        File::from(packet.fd.unwrap())
            .read_exact(&mut byte)
            .unwrap();
        assert_eq!(&byte, b"x");
        let packet = recv(init.as_fd()).unwrap().unwrap();
        assert_eq!(
            (packet.bytes.as_slice(), packet.fd.is_none()),
            (&b"again"[..], true)
        );
        assert_eq!(
            recv(init.as_fd()).unwrap_err().kind(),
            io::ErrorKind::WouldBlock
        );
    }

    #[test]
    fn a_closed_peer_is_the_end() {
        let (init, engine) = pair().unwrap();
        drop(engine);
        assert!(recv(init.as_fd()).unwrap().is_none());
        assert!(send(init.as_fd(), b"x", None).is_err());
    }

    #[test]
    fn several_descriptors_are_refused_and_closed() {
        let (init, engine) = pair().unwrap();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let fds = [reader.as_raw_fd(), writer.as_raw_fd()];
        let rights = [ControlMessage::ScmRights(&fds)];
        sendmsg::<()>(
            engine.as_raw_fd(),
            &[IoSlice::new(b"x")],
            &rights,
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        assert_eq!(
            recv(init.as_fd()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
        drop(writer);
        assert_eq!(
            File::from(reader).read(&mut [0]).unwrap(),
            0,
            "the received copy of the writer is still open"
        );
    }

    #[test]
    fn a_long_packet_is_refused_on_both_sides() {
        let (init, engine) = pair().unwrap();
        let long = vec![b'x'; PACKET_MAX_BYTES + 1];
        assert_eq!(
            send(engine.as_fd(), &long, None).unwrap_err().kind(),
            io::ErrorKind::InvalidInput
        );
        sendmsg::<()>(
            engine.as_raw_fd(),
            &[IoSlice::new(&long)],
            &[],
            MsgFlags::empty(),
            None,
        )
        .unwrap();
        assert_eq!(
            recv(init.as_fd()).unwrap_err().kind(),
            io::ErrorKind::InvalidData
        );
    }
}
