//! DHCP messages: what we send, what we accept (RFC 2131 2 and 4.4.1).

use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::{self, DhcpOptionIterator};
use dhcproto::v4::{
    Decoder, DhcpOption, Encodable, EncodeResult, HType, MIN_PACKET_SIZE, Message, MessageType,
    Opcode, OptionCode,
};

use super::options::{self, Options};

/// The largest message we take: what one Ethernet frame holds beside the headers.
const LARGEST_MESSAGE: u16 = 1472;
/// The length of an Ethernet address.
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
    /// I have no use for this address any more.
    Release = 7,
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
    ///
    /// # Errors
    /// Those of the encoder, which has no reason for any with these options.
    pub fn encode(&self, identity: &Identity) -> EncodeResult<Vec<u8>> {
        let none = Ipv4Addr::UNSPECIFIED;
        let client = self.client.unwrap_or(none);
        let hardware_address = &identity.hardware_address;
        let mut message =
            Message::new_with_id(self.xid, client, none, none, none, hardware_address);
        message.set_secs(self.elapsed_s);
        let options = message.opts_mut();
        options.insert(DhcpOption::MessageType((self.kind as u8).into()));
        options.insert(DhcpOption::ClientIdentifier(
            [&[HType::Eth.into()], &hardware_address[..]].concat(),
        ));
        if let Some(address) = self.requested {
            options.insert(DhcpOption::RequestedIpAddress(address));
        }
        if let Some(server) = self.server {
            options.insert(DhcpOption::ServerIdentifier(server));
        }
        // Nothing is asked for in the others (RFC 2131 table 5).
        if matches!(self.kind, RequestKind::Discover | RequestKind::Request) {
            options.insert(DhcpOption::MaxMessageSize(LARGEST_MESSAGE));
            options.insert(DhcpOption::ParameterRequestList(WANTED.to_vec()));
            if let Some(name) = &identity.host_name {
                options.insert(DhcpOption::Hostname(name.clone()));
            }
        }
        let mut bytes = message.to_vec()?;
        // Some relays and servers drop what is shorter than BOOTP's message (RFC 1542 2.1).
        bytes.resize(bytes.len().max(MIN_PACKET_SIZE), 0);
        Ok(bytes)
    }
}

/// What we ask servers to tell; routes before the router (RFC 3442).
const WANTED: [OptionCode; 11] = [
    OptionCode::SubnetMask,
    OptionCode::ClasslessStaticRoute,
    OptionCode::Router,
    OptionCode::DomainNameServer,
    OptionCode::Hostname,
    OptionCode::DomainName,
    OptionCode::DomainSearch,
    OptionCode::InterfaceMtu,
    OptionCode::NtpServers,
    OptionCode::Renewal,
    OptionCode::Rebinding,
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
        let message = borrowed::Message::new(bytes).ok()?;
        // Before `chaddr` is called, which trusts the length.
        if message.opcode() != Opcode::BootReply
            || message.htype() != HType::Eth
            || message.hlen() != ETHERNET_LENGTH
        {
            return None;
        }
        // None without the magic number in front of them, and then there is no message type either.
        let options = Options::from_iter(message.opts());
        let overload = options.decode(OptionCode::OptionOverload, Decoder::read_u8);
        // Not `fname` and `sname`: these end at the first zero.
        let fields = [(1, &bytes[108..236]), (2, &bytes[44..108])]
            .into_iter()
            .filter(|(bit, _)| overload.unwrap_or(0) & bit != 0)
            .flat_map(|(_, field)| DhcpOptionIterator::new(field));
        let options = Options::from_iter(message.opts().chain(fields));
        let kind = match options
            .decode(OptionCode::MessageType, Decoder::read_u8)?
            .into()
        {
            MessageType::Offer => ReplyKind::Offer,
            MessageType::Ack => ReplyKind::Ack,
            MessageType::Nak => ReplyKind::Nak,
            _ => return None,
        };
        Some(Self {
            kind,
            xid: message.xid(),
            hardware_address: message.chaddr().try_into().ok()?,
            address: message.yiaddr(),
            server: options
                .decode(OptionCode::ServerIdentifier, Decoder::read_u32)
                .map(Ipv4Addr::from)
                .filter(|server| options::is_host(*server)),
            options,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

    fn request(kind: RequestKind) -> Request {
        Request {
            kind,
            xid: 0xdead_beef,
            elapsed_s: 259,
            client: None,
            requested: None,
            server: None,
        }
    }

    fn encoded(request: &Request, host_name: Option<&str>) -> Vec<u8> {
        let identity = Identity {
            hardware_address: HARDWARE,
            host_name: host_name.map(str::to_owned),
        };
        request.encode(&identity).unwrap()
    }

    /// A request written out by hand (RFC 2131 2), filled up to what BOOTP's relays let through.
    fn request_bytes(client: [u8; 4], options: &[&[u8]]) -> Vec<u8> {
        let mut bytes = vec![1, 1, 6, 0, 0xde, 0xad, 0xbe, 0xef, 1, 3, 0, 0];
        bytes.extend_from_slice(&client);
        bytes.extend_from_slice(&[0; 12]);
        bytes.extend_from_slice(&HARDWARE);
        bytes.resize(236, 0);
        bytes.extend_from_slice(&[99, 130, 83, 99]);
        bytes.extend(options.concat());
        bytes.push(255);
        bytes.resize(bytes.len().max(300), 0);
        bytes
    }

    const WANTS: &[u8] = &[
        55, 11, 1, 121, 3, 6, 12, 15, 119, 26, 42, 58, 59, // what we want to know
        57, 2, 5, 192, // the largest message
        61, 7, 1, 2, 0, 0, 0, 0, 7, // who we are
    ];

    #[test]
    fn a_discovery_and_a_renewal_say_who_asks_and_for_what() {
        assert_eq!(
            encoded(&request(RequestKind::Discover), None),
            request_bytes([0; 4], &[&[53, 1, 1], WANTS])
        );
        let renewal = Request {
            client: Some(Ipv4Addr::new(10, 0, 0, 5)),
            ..request(RequestKind::Request)
        };
        assert_eq!(
            encoded(&renewal, None),
            request_bytes([10, 0, 0, 5], &[&[53, 1, 3], WANTS])
        );
    }

    #[test]
    fn a_request_names_the_address_the_server_and_the_host() {
        let request = Request {
            requested: Some(Ipv4Addr::new(10, 0, 0, 5)),
            server: Some(Ipv4Addr::new(10, 0, 0, 1)),
            ..request(RequestKind::Request)
        };
        for name in ["node", &"n".repeat(64)] {
            let name_option = [&[12, name.len() as u8], name.as_bytes()].concat();
            let options: [&[u8]; 5] = [
                &name_option,
                &[50, 4, 10, 0, 0, 5],
                &[53, 1, 3],
                &[54, 4, 10, 0, 0, 1],
                WANTS,
            ];
            let bytes = encoded(&request, Some(name));
            assert_eq!(bytes, request_bytes([0; 4], &options));
            assert_eq!(Reply::decode(&bytes), None, "a request is no reply");
        }
    }

    #[test]
    fn who_declines_an_address_asks_for_nothing() {
        let decline = Request {
            requested: Some(Ipv4Addr::new(10, 0, 0, 5)),
            server: Some(Ipv4Addr::new(10, 0, 0, 1)),
            ..request(RequestKind::Decline)
        };
        let options: [&[u8]; 4] = [
            &[50, 4, 10, 0, 0, 5],
            &[53, 1, 4],
            &[54, 4, 10, 0, 0, 1],
            &[61, 7, 1, 2, 0, 0, 0, 0, 7],
        ];
        assert_eq!(
            encoded(&decline, Some("node")),
            request_bytes([0; 4], &options)
        );
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
        assert_eq!(
            reply
                .options
                .decode(OptionCode::AddressLeaseTime, Decoder::read_u32),
            Some(3600)
        );
        assert_eq!(reply.options.prefix_len(), Some(16));
    }

    #[test]
    fn an_option_may_go_on_in_the_other_fields() {
        let mut bytes = reply_bytes(5, &[52, 1, 3, 15, 2, b'e', b'x']);
        bytes[108..114].copy_from_slice(&[15, 3, b'a', b'm', b'p', 255]);
        bytes[44..49].copy_from_slice(&[15, 2, b'l', b'e', 255]);
        let reply = Reply::decode(&bytes).unwrap();
        assert_eq!(reply.options.search(), ["example"]);
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
