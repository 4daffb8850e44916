//! Kernel uevents: the parser, and the netlink socket they come from (`NETLINK_KOBJECT_UEVENT`, group 1).

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt,
    socket, sockopt,
};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};

/// The kernel's own limit of one event, in bytes (`UEVENT_BUFFER_SIZE` and room for the header).
const EVENT_MAX_BYTES: usize = 8192;
const QUEUE_BYTES: usize = 4 * 1024 * 1024;

/// One event: an action on a device, with its properties.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Uevent {
    /// `add`, `change`, `remove` ...
    pub(crate) action: String,
    /// The device's path below /sys.
    pub(crate) path: String,
    properties: Vec<(String, String)>,
}

impl Uevent {
    /// Reads an event as it comes from the kernel: `action@path`, then `KEY=value`, each with a NUL behind it.
    pub(crate) fn parse(bytes: &[u8]) -> Option<Self> {
        let mut fields = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
        let header = fields.next()?;
        let (action, path) = header.split_once('@')?;
        let properties = fields
            .filter_map(|field| {
                field
                    .split_once('=')
                    .map(|(key, value)| (key.to_owned(), value.to_owned()))
            })
            .collect();
        Some(Self {
            action: action.to_owned(),
            path: path.to_owned(),
            properties,
        })
    }

    /// A property, like `SUBSYSTEM` or `MODALIAS`.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.properties
            .iter()
            .find(|(name, _)| name == key)
            .map(|(_, value)| value.as_str())
    }
}

/// What came from the socket.
#[derive(Debug)]
pub(crate) enum Received {
    /// An event.
    Event(Uevent),
    /// Events were lost: look at /sys itself again.
    Lost,
    /// Nothing is waiting.
    Empty,
}

/// A subscription to the kernel's events.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    buffer: Vec<u8>,
}

impl Socket {
    /// Subscribes. Non-blocking: wait with poll or epoll.
    pub(crate) fn open() -> nix::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let fd = socket(
            AddressFamily::Netlink,
            SockType::Datagram,
            flags,
            SockProtocol::NetlinkKObjectUEvent,
        )?;
        setsockopt(&fd, sockopt::RcvBufForce, &QUEUE_BYTES)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 1))?;
        Ok(Self {
            fd,
            buffer: vec![0; EVENT_MAX_BYTES],
        })
    }

    /// Takes the next event off the queue. What does not come from the kernel or is no event is skipped.
    pub(crate) fn receive(&mut self) -> nix::Result<Received> {
        loop {
            match recvfrom::<NetlinkAddr>(self.fd.as_raw_fd(), &mut self.buffer) {
                Ok((length, Some(sender))) if sender.pid() == 0 => {
                    if let Some(event) = self.buffer.get(..length).and_then(Uevent::parse) {
                        return Ok(Received::Event(event));
                    }
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(Errno::ENOBUFS) => return Ok(Received::Lost),
                Err(Errno::EAGAIN) => return Ok(Received::Empty),
                Err(error) => return Err(error),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_partition_is_read_from_its_event() {
        let bytes = b"add@/devices/pci0000:00/virtio1/block/vda/vda2\0ACTION=add\0SUBSYSTEM=block\0DEVTYPE=partition\0PARTNAME=a=b\0";
        let event = Uevent::parse(bytes).unwrap();
        assert_eq!(
            (event.action.as_str(), event.path.as_str()),
            ("add", "/devices/pci0000:00/virtio1/block/vda/vda2")
        );
        assert_eq!(event.get("DEVTYPE"), Some("partition"));
        assert_eq!(event.get("PARTNAME"), Some("a=b"));
        assert_eq!(event.get("MODALIAS"), None);
    }

    #[test]
    fn udevds_own_messages_are_no_events() {
        assert_eq!(Uevent::parse(b"libudev\0\xfe\xed\xca\xfe"), None);
        assert_eq!(Uevent::parse(b""), None);
    }

    proptest! {
        #[test]
        fn properties_come_back(pairs in proptest::collection::btree_map("[A-Z]{1,8}", "[^\0]{0,12}", 0..8)) {
            let mut bytes = b"change@/devices/x".to_vec();
            for (key, value) in &pairs {
                bytes.extend_from_slice(format!("\0{key}={value}").as_bytes());
            }
            let event = Uevent::parse(&bytes).unwrap();
            for (key, value) in &pairs {
                prop_assert_eq!(event.get(key), Some(value.as_str()));
            }
        }

        #[test]
        fn no_bytes_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = Uevent::parse(&bytes);
        }
    }
}
