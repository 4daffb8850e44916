//! Packet sockets: frames of one protocol on one interface, filtered in the kernel (packet(7), socket(7)).

use std::io;
use std::mem::{size_of, zeroed};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// One instruction of a classic BPF program, as `SO_ATTACH_FILTER` takes it.
pub type Instruction = libc::sock_filter;

/// IPv4, as `open` takes it.
pub const ETHERTYPE_IPV4: u16 = libc::ETH_P_IP as u16;
/// IPv6, as `open` takes it.
pub const ETHERTYPE_IPV6: u16 = libc::ETH_P_IPV6 as u16;
/// ARP, as `open` takes it.
pub const ETHERTYPE_ARP: u16 = libc::ETH_P_ARP as u16;

/// A non-blocking packet socket that sends and receives what comes after the Ethernet header.
#[derive(Debug)]
pub struct PacketSocket {
    fd: OwnedFd,
    index: i32,
    protocol: u16,
}

/// What is known of a received packet beside its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Received {
    /// Bytes written to the buffer; a longer packet was cut.
    pub length: usize,
    /// The packet never left this machine and its transport checksum is not filled in yet.
    pub checksum_pending: bool,
    /// The packet belongs to this VLAN, not to the interface itself; 0 is none.
    pub vlan: u16,
}

impl PacketSocket {
    /// Opens a socket for `protocol` (an Ethernet type) on the interface with that index. Only what `filter` lets pass
    /// is received; an empty filter lets everything pass.
    ///
    /// # Errors
    /// What socket(2), setsockopt(2) and bind(2) report: without `CAP_NET_RAW` it is `EPERM`.
    pub fn open(index: u32, protocol: u16, filter: &[Instruction]) -> io::Result<Self> {
        let index = i32::try_from(index).map_err(|_| io::Error::from_raw_os_error(libc::ENODEV))?;
        let kind = libc::SOCK_DGRAM | libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
        // Protocol 0 receives nothing: no packet can slip in before the filter stands.
        // SAFETY: socket(2) takes no pointers.
        let fd = check(unsafe { libc::socket(libc::AF_PACKET, kind, 0) })?;
        // SAFETY: the descriptor was just made and nobody else owns it.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        let socket = Self {
            fd,
            index,
            protocol,
        };
        if !filter.is_empty() {
            socket.attach(filter)?;
        }
        let on: libc::c_int = 1;
        // SAFETY: the pointer and the length describe `on`, which outlives the call.
        check(unsafe {
            libc::setsockopt(
                socket.fd.as_raw_fd(),
                libc::SOL_PACKET,
                libc::PACKET_AUXDATA,
                (&raw const on).cast(),
                size_of::<libc::c_int>() as libc::socklen_t,
            )
        })?;
        let address = socket.address([0; 6]);
        // SAFETY: the pointer and the length describe `address`, which outlives the call.
        check(unsafe {
            libc::bind(
                socket.fd.as_raw_fd(),
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        })?;
        Ok(socket)
    }

    fn attach(&self, filter: &[Instruction]) -> io::Result<()> {
        let length =
            u16::try_from(filter.len()).map_err(|_| io::Error::from_raw_os_error(libc::EINVAL))?;
        let program = libc::sock_fprog {
            len: length,
            filter: filter.as_ptr().cast_mut(),
        };
        // SAFETY: `program` names `len` instructions that outlive the call; the kernel copies them and writes nothing.
        check(unsafe {
            libc::setsockopt(
                self.fd.as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_ATTACH_FILTER,
                (&raw const program).cast(),
                size_of_val(&program) as libc::socklen_t,
            )
        })?;
        Ok(())
    }

    fn address(&self, hardware: [u8; 6]) -> libc::sockaddr_ll {
        // SAFETY: sockaddr_ll is plain data for which zeros are valid.
        let mut address: libc::sockaddr_ll = unsafe { zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = self.protocol.to_be();
        address.sll_ifindex = self.index;
        address.sll_halen = 6;
        address.sll_addr[..6].copy_from_slice(&hardware);
        address
    }

    /// Sends one packet to a hardware address.
    ///
    /// # Errors
    /// What sendto(2) reports, `ENETDOWN` while the interface is down among others.
    pub fn send(&self, destination: [u8; 6], packet: &[u8]) -> io::Result<()> {
        let address = self.address(destination);
        // SAFETY: both pointers come with the length of what they point to, which outlives the call.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                packet.as_ptr().cast(),
                packet.len(),
                0,
                (&raw const address).cast(),
                size_of_val(&address) as libc::socklen_t,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }

    /// Receives one packet.
    ///
    /// # Errors
    /// What recvmsg(2) reports: `WouldBlock` when there is none, `ENETDOWN` once when the interface went down.
    pub fn receive(&self, buffer: &mut [u8]) -> io::Result<Received> {
        let mut control = [0_u64; 8]; // 64 bytes, aligned for cmsghdr; one tpacket_auxdata takes 40
        let mut part = libc::iovec {
            iov_base: buffer.as_mut_ptr().cast(),
            iov_len: buffer.len(),
        };
        // SAFETY: msghdr is plain data for which zeros are valid.
        let mut message: libc::msghdr = unsafe { zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = control.as_mut_ptr().cast();
        message.msg_controllen = size_of_val(&control);
        // SAFETY: `message` names the buffer and the control area with their true lengths; both outlive the call.
        let length = unsafe { libc::recvmsg(self.fd.as_raw_fd(), &raw mut message, 0) };
        let length = usize::try_from(length).map_err(|_| io::Error::last_os_error())?;
        let mut received = Received {
            length,
            checksum_pending: false,
            vlan: 0,
        };
        // SAFETY: the kernel filled the control area in and set its length; the CMSG macros stay within that.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        while !header.is_null() {
            // SAFETY: `header` is not null and points into the control area, which is aligned for it.
            let (level, kind) = unsafe { ((*header).cmsg_level, (*header).cmsg_type) };
            if level == libc::SOL_PACKET && kind == libc::PACKET_AUXDATA {
                // SAFETY: a PACKET_AUXDATA message carries one tpacket_auxdata; it may stand unaligned.
                let data = unsafe {
                    libc::CMSG_DATA(header)
                        .cast::<libc::tpacket_auxdata>()
                        .read_unaligned()
                };
                received.checksum_pending = data.tp_status & libc::TP_STATUS_CSUMNOTREADY != 0;
                if data.tp_status & libc::TP_STATUS_VLAN_VALID != 0 {
                    received.vlan = data.tp_vlan_tci & 0xfff;
                }
            }
            // SAFETY: as above.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        Ok(received)
    }
}

impl AsFd for PacketSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
