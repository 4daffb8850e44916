//! What we send.

use std::net::Ipv6Addr;
use std::time::Duration;

use dhcproto::v6::{
    DhcpOption, DhcpOptions, IAAddr, IANA, IAPD, IAPrefix, Message, MessageType, ORO, OptionCode,
};
use dhcproto::{Encodable, Encoder};
use serde::{Deserialize, Serialize};

use crate::ipv6::prefix::Prefix;

/// What is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Who is there?
    Solicit,
    /// May I have what you offered?
    Request,
    /// Are my addresses of this link? Of any server.
    Confirm,
    /// May I keep it? Of the server that granted it.
    Renew,
    /// The same, of any.
    Rebind,
    /// Somebody else has it.
    Decline,
    /// I need it no more.
    Release,
    /// What else is there to know?
    Information,
}

/// What a question is about. Without an association the server is not asked for anything of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Subject {
    /// Addresses of the one association of addresses (IA_NA); an empty one asks for any.
    pub addresses: Option<Vec<Ipv6Addr>>,
    /// Prefixes of the one association of prefixes (IA_PD).
    pub prefixes: Option<Vec<Prefix>>,
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
    /// What it is about.
    pub subject: Subject,
}

/// Who asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identity {
    /// The client's identifier (RFC 8415 11).
    pub duid: Vec<u8>,
    /// The number of its one association of addresses, and of that of prefixes.
    pub iaid: u32,
}

impl Identity {
    /// That of the interface with that Ethernet address and name: a DUID-LL (RFC 8415 11.4), by which servers know whom they
    /// expect. A VLAN has the address of the interface that it is on; the number of the association is of the name, so that
    /// theirs differ (RFC 8415 12). Both are the same after each start (RFC 9096 3.1, WPD-10).
    pub fn of(hardware_address: [u8; 6], name: &str) -> Self {
        let mut duid = vec![0, 3, 0, 1];
        duid.extend(hardware_address);
        Identity {
            duid,
            iaid: hash(name),
        }
    }
}

/// FNV-1a, which is the same everywhere and for ever.
fn hash(name: &str) -> u32 {
    name.bytes().fold(0x811c_9dc5, |hash, byte| {
        (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193)
    })
}

impl Request {
    /// The bytes on the wire; `None` when they cannot be made.
    pub fn encode(&self, identity: &Identity) -> Option<Vec<u8>> {
        let kind = match self.kind {
            Kind::Solicit => MessageType::Solicit,
            Kind::Request => MessageType::Request,
            Kind::Confirm => MessageType::Confirm,
            Kind::Renew => MessageType::Renew,
            Kind::Rebind => MessageType::Rebind,
            Kind::Decline => MessageType::Decline,
            Kind::Release => MessageType::Release,
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
        if let Some(addresses) = &self.subject.addresses {
            options.insert(association(addresses, identity));
        }
        if let Some(prefixes) = &self.subject.prefixes {
            options.insert(delegation(prefixes, identity));
        }
        if self.kind == Kind::Solicit {
            options.insert(DhcpOption::RapidCommit);
        }
        if let Some(opts) = self.asks_for() {
            options.insert(DhcpOption::ORO(ORO { opts }));
        }
        let mut bytes = Vec::new();
        message.encode(&mut Encoder::new(&mut bytes)).ok()?;
        Some(bytes)
    }

    /// What the server is to say beside addresses (RFC 8415 21.7); `None` where that has no place.
    fn asks_for(&self) -> Option<Vec<OptionCode>> {
        let servers = [
            OptionCode::DomainNameServers,
            OptionCode::DomainSearchList,
            OptionCode::NtpServer,
        ];
        // Servers must be asked for the limits (RFC 8415 18.2.1, 18.2.6).
        let more: &[OptionCode] = match self.kind {
            Kind::Confirm | Kind::Decline | Kind::Release => return None,
            Kind::Information => &[OptionCode::InformationRefreshTime, OptionCode::InfMaxRt],
            _ => &[OptionCode::SolMaxRt],
        };
        Some(servers.iter().chain(more).copied().collect())
    }
}

/// Lifetimes are for the server to say.
fn association(addresses: &[Ipv6Addr], identity: &Identity) -> DhcpOption {
    let addresses = addresses.iter().map(|address| {
        DhcpOption::IAAddr(IAAddr {
            addr: *address,
            preferred_life: 0,
            valid_life: 0,
            opts: DhcpOptions::new(),
        })
    });
    DhcpOption::IANA(IANA {
        id: identity.iaid,
        t1: 0,
        t2: 0,
        opts: addresses.collect(),
    })
}

fn delegation(prefixes: &[Prefix], identity: &Identity) -> DhcpOption {
    let prefixes = prefixes.iter().map(|prefix| {
        DhcpOption::IAPrefix(IAPrefix {
            preferred_lifetime: 0,
            valid_lifetime: 0,
            prefix_len: prefix.length,
            prefix_ip: prefix.address,
            opts: DhcpOptions::new(),
        })
    });
    DhcpOption::IAPD(IAPD {
        id: identity.iaid,
        t1: 0,
        t2: 0,
        opts: prefixes.collect(),
    })
}
