//! DHCPv6 messages: what we send, what we accept (RFC 8415).

use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, Message, MessageType, NtpSuboption, ORO, OptionCode,
    Status,
};
use dhcproto::{Decodable, Decoder, Encodable, Encoder};

use super::{is_host, is_reachable};
use crate::dhcp4::options::domain_name;

/// The port that clients listen on.
pub const CLIENT_PORT: u16 = 546;
/// The port that servers listen on.
pub const SERVER_PORT: u16 = 547;
/// All servers and relays on the link (RFC 8415 7.1).
pub const SERVERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 1, 2);
/// More of anything from one server are a mistake or an attack.
const MOST: usize = 16;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who is there?
    Solicit,
    /// May I have what you offered?
    Request,
    /// May I keep it? Of the server that granted it.
    Renew,
    /// The same, of any.
    Rebind,
    /// Somebody else has it.
    Decline,
    /// What else is there to know?
    Information,
}

/// A question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// What is asked.
    pub kind: Kind,
    /// Which question an answer is for.
    pub xid: [u8; 3],
    /// How long we have been asking.
    pub elapsed: Duration,
    /// The server that is asked; `None` asks all.
    pub server: Option<Vec<u8>>,
    /// The addresses that it is about.
    pub addresses: Vec<Ipv6Addr>,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The client's identifier (RFC 8415 11).
    pub duid: Vec<u8>,
    /// The number of its one association of addresses.
    pub iaid: u32,
}

impl Identity {
    /// That of an interface: a DUID-LL (RFC 8415 11.4), by which servers know whom they expect.
    pub fn of(hardware_address: [u8; 6]) -> Self {
        let [_, _, a, b, c, d] = hardware_address;
        let mut duid = vec![0, 3, 0, 1];
        duid.extend(hardware_address);
        Identity {
            duid,
            iaid: u32::from_be_bytes([a, b, c, d]),
        }
    }
}

impl Request {
    /// The bytes on the wire; `None` when they cannot be made.
    pub fn encode(&self, identity: &Identity) -> Option<Vec<u8>> {
        let kind = match self.kind {
            Kind::Solicit => MessageType::Solicit,
            Kind::Request => MessageType::Request,
            Kind::Renew => MessageType::Renew,
            Kind::Rebind => MessageType::Rebind,
            Kind::Decline => MessageType::Decline,
            Kind::Information => MessageType::InformationRequest,
        };
        let mut message = Message::new_with_id(kind, self.xid);
        let options = message.opts_mut();
        options.insert(DhcpOption::ClientId(identity.duid.clone()));
        if let Some(server) = &self.server {
            options.insert(DhcpOption::ServerId(server.clone()));
        }
        // In hundredths of a second, as many as there is room for.
        let hundredths = u16::try_from(self.elapsed.as_millis() / 10).unwrap_or(u16::MAX);
        options.insert(DhcpOption::ElapsedTime(hundredths));
        if self.kind != Kind::Information {
            let addresses = self.addresses.iter().map(|address| {
                DhcpOption::IAAddr(IAAddr {
                    addr: *address,
                    preferred_life: 0,
                    valid_life: 0,
                    opts: DhcpOptions::new(),
                })
            });
            options.insert(DhcpOption::IANA(IANA {
                id: identity.iaid,
                t1: 0,
                t2: 0,
                opts: addresses.collect(),
            }));
        }
        if self.kind == Kind::Solicit {
            options.insert(DhcpOption::RapidCommit);
        }
        if self.kind != Kind::Decline {
            let mut opts = vec![
                // SOL_MAX_RT, which servers must be asked for (RFC 8415 18.2.1).
                OptionCode::from(82),
                OptionCode::DomainNameServers,
                OptionCode::DomainSearchList,
                OptionCode::NtpServer,
            ];
            if self.kind == Kind::Information {
                opts.push(OptionCode::InformationRefreshTime);
            }
            options.insert(DhcpOption::ORO(ORO { opts }));
        }
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).ok()?;
        Some(bytes)
    }
}

/// An answer.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// An offer (Advertise), or an answer that counts (Reply).
    pub is_offer: bool,
    /// The question that it is for.
    pub xid: [u8; 3],
    /// The server.
    pub server: Vec<u8>,
    /// How much the server wants to be chosen.
    pub preference: u8,
    /// The server answers at once what was only asked for an offer.
    pub rapid: bool,
    /// Why it does not do what was asked.
    pub refusal: Option<Refusal>,
    /// Addresses with preferred and valid lifetimes in seconds.
    pub addresses: Vec<(Ipv6Addr, u32, u32)>,
    /// T1 in seconds, 0 leaves it to us.
    pub renew_s: u32,
    /// T2 in seconds.
    pub rebind_s: u32,
    /// Name servers.
    pub name_servers: Vec<Ipv6Addr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Time servers.
    pub time_servers: Vec<Ipv6Addr>,
    /// When to ask again for what else there is to know, in seconds.
    pub refresh_s: Option<u32>,
}

/// Why a server does not do what was asked (RFC 8415 21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has none.
    NoAddress,
    /// It does not know of a lease.
    NoBinding,
    /// The addresses are of another link.
    NotOnLink,
    /// Something else.
    Other(u16),
}

impl Reply {
    /// Reads an answer to the client that `identity` is of; `None` for anything else, broken messages among it.
    pub fn decode(bytes: &[u8], identity: &Identity) -> Option<Self> {
        let message = Message::decode(&mut Decoder::new(bytes)).ok()?;
        let mut reply = Reply {
            is_offer: match message.msg_type() {
                MessageType::Advertise => true,
                MessageType::Reply => false,
                _ => return None,
            },
            xid: message.xid(),
            ..Reply::default()
        };
        let mut is_ours = false;
        for option in message.opts().iter() {
            match option {
                DhcpOption::ClientId(duid) => is_ours = *duid == identity.duid,
                DhcpOption::ServerId(duid) => reply.server.clone_from(duid),
                DhcpOption::Preference(preference) => reply.preference = *preference,
                DhcpOption::RapidCommit => reply.rapid = true,
                DhcpOption::StatusCode(code) => {
                    reply.refusal = refusal(code.status).or(reply.refusal);
                }
                DhcpOption::IANA(association) if association.id == identity.iaid => {
                    reply.read_addresses(association);
                }
                DhcpOption::DomainNameServers(servers) => {
                    let servers = servers
                        .iter()
                        .copied()
                        .filter(|server| is_reachable(*server));
                    reply.name_servers.extend(servers.take(MOST));
                }
                DhcpOption::DomainSearchList(names) => {
                    let names = names
                        .iter()
                        .map(|name| domain_name(name.to_ascii().as_bytes()));
                    // When one is broken none is trusted.
                    let names: Option<Vec<String>> = names.take(MOST).collect();
                    reply.search = names.unwrap_or_default();
                }
                DhcpOption::NtpServer(servers) => {
                    let servers = servers.iter().filter_map(|server| match server {
                        NtpSuboption::ServerAddress(address) => Some(*address),
                        _ => None,
                    });
                    reply
                        .time_servers
                        .extend(servers.filter(|server| is_reachable(*server)).take(MOST));
                }
                DhcpOption::InformationRefreshTime(seconds) => reply.refresh_s = Some(*seconds),
                _ => {}
            }
        }
        let is_whole = is_ours && !reply.server.is_empty() && reply.server.len() <= 130;
        is_whole.then_some(reply)
    }

    fn read_addresses(&mut self, association: &IANA) {
        // T1 behind T2 is a mistake: the association does not count (RFC 8415 21.4).
        if association.t2 > 0 && association.t1 > association.t2 {
            return;
        }
        (self.renew_s, self.rebind_s) = (association.t1, association.t2);
        for option in association.opts.iter() {
            match option {
                DhcpOption::StatusCode(code) => {
                    self.refusal = refusal(code.status).or(self.refusal);
                }
                DhcpOption::IAAddr(IAAddr {
                    addr,
                    preferred_life,
                    valid_life,
                    ..
                }) if self.addresses.len() < MOST
                    && is_host(*addr)
                    && !addr.is_unicast_link_local() =>
                {
                    self.addresses.push((*addr, *preferred_life, *valid_life));
                }
                _ => {}
            }
        }
    }
}

fn refusal(status: Status) -> Option<Refusal> {
    match status {
        Status::Success => None,
        Status::NoAddrsAvail => Some(Refusal::NoAddress),
        Status::NoBinding => Some(Refusal::NoBinding),
        Status::NotOnLink => Some(Refusal::NotOnLink),
        other => Some(Refusal::Other(other.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use dhcproto::v6::StatusCode;
    use proptest::prelude::*;

    fn identity() -> Identity {
        Identity::of([2, 0, 0x5e, 0x10, 0, 1])
    }

    #[test]
    fn a_question_says_who_asks_and_what() {
        let request = Request {
            kind: Kind::Request,
            xid: [1, 2, 3],
            elapsed: Duration::from_millis(1230),
            server: Some(vec![9]),
            addresses: vec!["2001:db8::5".parse().unwrap()],
        };
        let bytes = request.encode(&identity()).unwrap();
        assert_eq!(bytes[..4], [3, 1, 2, 3]);
        let message = Message::decode(&mut Decoder::new(&bytes)).unwrap();
        let options = message.opts();
        assert_eq!(
            options.get(OptionCode::ClientId),
            Some(&DhcpOption::ClientId(vec![
                0, 3, 0, 1, 2, 0, 0x5e, 0x10, 0, 1
            ]))
        );
        assert_eq!(
            options.get(OptionCode::ElapsedTime),
            Some(&DhcpOption::ElapsedTime(123))
        );
    }

    fn reply(kind: MessageType, options: Vec<DhcpOption>) -> Vec<u8> {
        let mut message = Message::new_with_id(kind, [1, 2, 3]);
        message.set_opts(options.into_iter().collect());
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).unwrap();
        bytes
    }

    #[test]
    fn an_answer_is_read_when_it_is_ours() {
        let address = IAAddr {
            addr: "2001:db8::5".parse().unwrap(),
            preferred_life: 60,
            valid_life: 120,
            opts: DhcpOptions::new(),
        };
        let options = vec![
            DhcpOption::ClientId(identity().duid),
            DhcpOption::ServerId(vec![7]),
            DhcpOption::IANA(IANA {
                id: identity().iaid,
                t1: 30,
                t2: 50,
                opts: [DhcpOption::IAAddr(address)].into_iter().collect(),
            }),
            DhcpOption::DomainNameServers(vec![
                "2001:db8::53".parse().unwrap(),
                "ff02::1".parse().unwrap(),
            ]),
        ];
        let found =
            Reply::decode(&reply(MessageType::Reply, options.clone()), &identity()).unwrap();
        assert_eq!(found.addresses, [("2001:db8::5".parse().unwrap(), 60, 120)]);
        assert_eq!(
            (found.renew_s, found.rebind_s, found.name_servers.len()),
            (30, 50, 1)
        );
        let other = Identity::of([2; 6]);
        assert_eq!(
            Reply::decode(&reply(MessageType::Reply, options.clone()), &other),
            None
        );
        assert_eq!(
            Reply::decode(&reply(MessageType::Solicit, options), &identity()),
            None
        );
        let refused = vec![
            DhcpOption::ClientId(identity().duid),
            DhcpOption::ServerId(vec![7]),
            DhcpOption::StatusCode(StatusCode {
                status: Status::NoAddrsAvail,
                msg: String::new(),
            }),
        ];
        let found = Reply::decode(&reply(MessageType::Advertise, refused), &identity()).unwrap();
        assert_eq!(found.refusal, Some(Refusal::NoAddress));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200), plausible in any::<bool>()) {
            if plausible && !bytes.is_empty() {
                bytes[0] = 7;
            }
            let _ = Reply::decode(&bytes, &identity());
        }
    }
}
