//! DHCP messages: what we send, what we accept (RFC 2131 2 and 4.4.1).

use std::net::Ipv4Addr;

use super::options::{self, Options};

/// The largest message we take: what one Ethernet frame holds beside the headers.
const LARGEST_MESSAGE: u16 = 1472;
/// Some relays and servers drop what is shorter than BOOTP's message (RFC 1542 2.1).
const SHORTEST_MESSAGE: usize = 300;
/// Up to the options, the magic number in front of them included.
const HEADER: usize = 240;
const MAGIC: [u8; 4] = [99, 130, 83, 99];
const BOOT_REQUEST: u8 = 1;
const BOOT_REPLY: u8 = 2;
/// The hardware type Ethernet (RFC 1700) and the length of its addresses.
const ETHERNET: u8 = 1;
const ETHERNET_LENGTH: u8 = 6;

/// Which request it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum RequestKind {
    /// Is there a server?
    Discover = 1,
    /// I want this address, or go on having it.
    Request = 3,
    /// Somebody else has this address already.
    Decline = 4,
}

/// A message to servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// Which it is.
    pub kind: RequestKind,
    /// The transaction that it belongs to.
    pub xid: u32,
    /// Seconds since we began to look for an address.
    pub elapsed_s: u16,
    /// The address that we have and answer to, if any (`ciaddr`).
    pub client: Option<Ipv4Addr>,
    /// The address that we want or decline (option 50).
    pub requested: Option<Ipv4Addr>,
    /// The server that we mean (option 54).
    pub server: Option<Ipv4Addr>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The interface's Ethernet address; also our client identifier, so that reservations by address work.
    pub hardware_address: [u8; 6],
    /// The machine's name, for the server's records and its DNS.
    pub host_name: Option<String>,
}

impl Request {
    /// The bytes of the message.
    pub fn encode(&self, identity: &Identity) -> Vec<u8> {
        let mut bytes = vec![0; HEADER];
        bytes[..3].copy_from_slice(&[BOOT_REQUEST, ETHERNET, ETHERNET_LENGTH]);
        bytes[4..8].copy_from_slice(&self.xid.to_be_bytes());
        bytes[8..10].copy_from_slice(&self.elapsed_s.to_be_bytes());
        bytes[12..16].copy_from_slice(&self.client.unwrap_or(Ipv4Addr::UNSPECIFIED).octets());
        bytes[28..34].copy_from_slice(&identity.hardware_address);
        bytes[236..].copy_from_slice(&MAGIC);
        let mut options = Options::default();
        options.set(options::MESSAGE_TYPE, &[self.kind as u8]);
        let mut client_id = vec![ETHERNET];
        client_id.extend_from_slice(&identity.hardware_address);
        options.set(options::CLIENT_IDENTIFIER, &client_id);
        if let Some(address) = self.requested {
            options.set(options::REQUESTED_ADDRESS, &address.octets());
        }
        if let Some(server) = self.server {
            options.set(options::SERVER_IDENTIFIER, &server.octets());
        }
        if self.kind != RequestKind::Decline {
            options.set(options::LARGEST_MESSAGE, &LARGEST_MESSAGE.to_be_bytes());
            options.set(options::PARAMETER_LIST, &WANTED);
            if let Some(name) = &identity.host_name {
                options.set(options::HOST_NAME, name.as_bytes());
            }
        }
        options.write(&mut bytes);
        bytes.resize(bytes.len().max(SHORTEST_MESSAGE), 0);
        bytes
    }
}

/// What we ask servers to tell; routes before the router (RFC 3442).
const WANTED: [u8; 11] = [
    options::SUBNET_MASK,
    options::CLASSLESS_ROUTES,
    options::ROUTER,
    options::NAME_SERVER,
    options::HOST_NAME,
    options::DOMAIN_NAME,
    options::DOMAIN_SEARCH,
    options::INTERFACE_MTU,
    options::NTP_SERVER,
    options::RENEWAL_TIME,
    options::REBINDING_TIME,
];

/// Which answer it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReplyKind {
    /// You could have this address.
    Offer,
    /// You have this address.
    Ack,
    /// You cannot have that address.
    Nak,
}

/// A message from a server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    /// Which it is.
    pub kind: ReplyKind,
    /// The transaction that it belongs to.
    pub xid: u32,
    /// Whom it is for.
    pub hardware_address: [u8; 6],
    /// The address that it is about (`yiaddr`).
    pub address: Ipv4Addr,
    /// Who sent it (option 54).
    pub server: Option<Ipv4Addr>,
    /// All that it tells.
    pub options: Options,
}

impl Reply {
    /// Reads a message; `None` for what is no answer of a DHCP server to an Ethernet client.
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (header, rest) = bytes.split_first_chunk::<HEADER>()?;
        if header[..3] != [BOOT_REPLY, ETHERNET, ETHERNET_LENGTH] || header[236..] != MAGIC {
            return None;
        }
        let mut options = Options::default();
        options.read(rest);
        let overload = options.byte(options::OVERLOAD).unwrap_or(0);
        for (bit, field) in [(1, &header[108..236]), (2, &header[44..108])] {
            if overload & bit != 0 {
                options.read(field);
            }
        }
        let kind = match options.byte(options::MESSAGE_TYPE)? {
            2 => ReplyKind::Offer,
            5 => ReplyKind::Ack,
            6 => ReplyKind::Nak,
            _ => return None,
        };
        let [.., a, b, c, d] = header[..20] else {
            return None;
        };
        Some(Self {
            kind,
            xid: u32::from_be_bytes(*header[4..].first_chunk()?),
            hardware_address: *header[28..].first_chunk()?,
            address: Ipv4Addr::new(a, b, c, d),
            server: options
                .address(options::SERVER_IDENTIFIER)
                .filter(|server| options::is_host(*server)),
            options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::v4::{Decodable, DhcpOption, Message, MessageType, OptionCode};
    use proptest::prelude::*;

    const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 7];

    fn reply_bytes(kind: u8, more: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 240];
        bytes[..4].copy_from_slice(&[2, 1, 6, 0]);
        bytes[4..8].copy_from_slice(&0xdead_beef_u32.to_be_bytes());
        bytes[16..20].copy_from_slice(&[10, 0, 0, 5]);
        bytes[28..34].copy_from_slice(&HARDWARE);
        bytes[236..240].copy_from_slice(&[99, 130, 83, 99]);
        bytes.extend_from_slice(&[53, 1, kind, 54, 4, 10, 0, 0, 1]);
        bytes.extend_from_slice(more);
        bytes.push(255);
        bytes
    }

    #[test]
    fn another_implementation_reads_our_requests() {
        let request = Request {
            kind: RequestKind::Request,
            xid: 77,
            elapsed_s: 3,
            client: None,
            requested: Some(Ipv4Addr::new(10, 0, 0, 5)),
            server: Some(Ipv4Addr::new(10, 0, 0, 1)),
        };
        let identity = Identity {
            hardware_address: HARDWARE,
            host_name: Some("node".into()),
        };
        let bytes = request.encode(&identity);
        assert!(bytes.len() >= SHORTEST_MESSAGE);
        let read = Message::from_bytes(&bytes).unwrap();
        assert_eq!(
            (read.xid(), read.secs(), read.chaddr()),
            (77, 3, &HARDWARE[..])
        );
        assert_eq!(read.opts().msg_type(), Some(MessageType::Request));
        let option = |code| read.opts().get(code).cloned();
        assert_eq!(
            option(OptionCode::Hostname),
            Some(DhcpOption::Hostname("node".into()))
        );
        assert_eq!(
            option(OptionCode::RequestedIpAddress),
            Some(DhcpOption::RequestedIpAddress(Ipv4Addr::new(10, 0, 0, 5)))
        );
        assert_eq!(Reply::decode(&bytes), None, "a request is no reply");
    }

    #[test]
    fn a_reply_is_read_with_its_overloaded_fields() {
        let mut bytes = reply_bytes(5, &[52, 1, 3]);
        bytes[108..115].copy_from_slice(&[51, 4, 0, 0, 14, 16, 255]);
        bytes[44..51].copy_from_slice(&[1, 4, 255, 255, 0, 0, 255]);
        let reply = Reply::decode(&bytes).unwrap();
        assert_eq!(
            (reply.kind, reply.xid, reply.hardware_address),
            (ReplyKind::Ack, 0xdead_beef, HARDWARE)
        );
        assert_eq!(reply.address, Ipv4Addr::new(10, 0, 0, 5));
        assert_eq!(reply.server, Some(Ipv4Addr::new(10, 0, 0, 1)));
        assert_eq!(reply.options.word(options::LEASE_TIME), Some(3600));
        assert_eq!(reply.options.prefix_len(), Some(16));
    }

    #[test]
    fn what_is_not_an_answer_to_an_ethernet_client_is_dropped() {
        let good = reply_bytes(2, &[]);
        assert!(Reply::decode(&good).is_some());
        for (at, value) in [
            (0, 1),
            (1, 6),
            (2, 16),
            (2, 255),
            (236, 0),
            (242, 1),
            (242, 8),
        ] {
            let mut bad = good.clone();
            bad[at] = value;
            assert_eq!(Reply::decode(&bad), None, "byte {at} = {value}");
        }
        assert_eq!(Reply::decode(&good[..239]), None);
        assert_eq!(Reply::decode(&good[..240]), None);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(options in prop::collection::vec(any::<u8>(), 0..400),
                                  header in prop::collection::vec(any::<u8>(), 236), plausible in any::<bool>()) {
            let mut bytes = header;
            if plausible {
                bytes[..3].copy_from_slice(&[2, 1, 6]);
            }
            bytes.extend_from_slice(&[99, 130, 83, 99, 53, 1, 5]);
            bytes.extend_from_slice(&options);
            if let Some(reply) = Reply::decode(&bytes) {
                let _ = crate::dhcp4::lease::Lease::from_reply(&reply, None);
            }
            let _ = Reply::decode(&options);
        }
    }
}
