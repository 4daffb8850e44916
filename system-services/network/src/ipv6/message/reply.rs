//! What we accept.

use std::net::Ipv6Addr;

use dhcproto::v6::{MessageType, OptionCode, Status};
use serde::{Deserialize, Serialize};

use super::MOST;
use super::options::{Options, RawOption};
use super::request::Identity;
use crate::dhcp4::options::domain_name;
use crate::ipv6::lease::LONGEST_DUID;
use crate::ipv6::prefix::Prefix;
use crate::ipv6::{is_host, is_reachable};

/// How long a server may have us wait between questions (RFC 8415 21.24, 21.25), in seconds.
const LIMITS_S: std::ops::RangeInclusive<u32> = 60..=86_400;

/// What a server says of one association.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Association<T> {
    /// Addresses or prefixes with preferred and valid lifetimes in seconds.
    pub leases: Vec<(T, u32, u32)>,
    /// T1 in seconds, 0 leaves it to us.
    pub renew_s: u32,
    /// T2 in seconds.
    pub rebind_s: u32,
    /// Why it does not do what was asked.
    pub refusal: Option<Refusal>,
}

impl<T> Default for Association<T> {
    fn default() -> Self {
        Self {
            leases: Vec::new(),
            renew_s: 0,
            rebind_s: 0,
            refusal: None,
        }
    }
}

impl<T> Association<T> {
    /// What it grants: lifetimes that make no sense are as none (RFC 8415 21.6, 21.22).
    pub fn granted(&self) -> impl Iterator<Item = &(T, u32, u32)> {
        let leases = self.leases.iter();
        leases.filter(|(_, preferred, valid)| *valid > 0 && preferred <= valid)
    }

    /// Whether it grants anything.
    pub fn grants(&self) -> bool {
        self.granted().next().is_some()
    }

    fn add(&mut self, lease: (T, u32, u32)) {
        if self.leases.len() < MOST {
            self.leases.push(lease);
        }
    }
}

impl<T: PartialEq> Association<T> {
    /// Whether it says that this is granted no more.
    pub fn takes_back(&self, what: &T) -> bool {
        let mut leases = self.leases.iter();
        leases.any(|(other, _, valid)| other == what && *valid == 0)
    }
}

/// What there is to know beside addresses.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Information {
    /// Name servers.
    pub name_servers: Vec<Ipv6Addr>,
    /// Domains to search.
    pub search: Vec<String>,
    /// Time servers.
    pub time_servers: Vec<Ipv6Addr>,
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
    /// Why it does not do what was asked, as far as it says so of everything.
    pub refusal: Option<Refusal>,
    /// Addresses.
    pub addresses: Association<Ipv6Addr>,
    /// Prefixes.
    pub prefixes: Association<Prefix>,
    /// What else there is to know.
    pub information: Information,
    /// When to ask again for that, in seconds.
    pub refresh_s: Option<u32>,
    /// The longest pause between two questions for a server, in seconds.
    pub longest_solicit_s: Option<u32>,
    /// And between two for information.
    pub longest_information_s: Option<u32>,
}

/// Why a server does not do what was asked (RFC 8415 21.13).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// It has no address.
    NoAddress,
    /// It has no prefix.
    NoPrefix,
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
        let (head, options) = bytes.split_first_chunk::<4>()?;
        let [kind, xid @ ..] = *head;
        let mut reply = Reply {
            is_offer: match MessageType::from(kind) {
                MessageType::Advertise => true,
                MessageType::Reply => false,
                _ => return None,
            },
            xid,
            ..Reply::default()
        };
        let mut is_ours = false;
        for option in Options(options) {
            match OptionCode::from(option.code) {
                OptionCode::ClientId => is_ours = option.value == identity.duid,
                OptionCode::ServerId => reply.server = option.value.to_vec(),
                OptionCode::Preference => reply.preference = option.byte().unwrap_or(0),
                OptionCode::RapidCommit => reply.rapid = true,
                OptionCode::StatusCode => {
                    reply.refusal = option.status().and_then(refusal).or(reply.refusal);
                }
                OptionCode::IANA => reply.read_addresses(option.association(), identity),
                OptionCode::IAPD => reply.read_prefixes(option.association(), identity),
                OptionCode::InformationRefreshTime => reply.refresh_s = option.number(),
                OptionCode::SolMaxRt => reply.longest_solicit_s = limit(option.number()),
                OptionCode::InfMaxRt => reply.longest_information_s = limit(option.number()),
                _ => reply.information.read(option),
            }
        }
        let is_whole = is_ours && (1..=LONGEST_DUID).contains(&reply.server.len());
        is_whole.then_some(reply)
    }

    fn read_addresses(
        &mut self,
        association: Option<(u32, u32, u32, Options<'_>)>,
        identity: &Identity,
    ) {
        let Some(options) = self.addresses.begin(association, identity) else {
            return;
        };
        for option in options {
            match OptionCode::from(option.code) {
                OptionCode::StatusCode => self.addresses.refuse(option.status()),
                OptionCode::IAAddr => {
                    let lease = option.leased_address();
                    let is_usable =
                        |address: Ipv6Addr| is_host(address) && !address.is_unicast_link_local();
                    if let Some(lease) = lease.filter(|(address, ..)| is_usable(*address)) {
                        self.addresses.add(lease);
                    }
                }
                _ => {}
            }
        }
    }

    fn read_prefixes(
        &mut self,
        association: Option<(u32, u32, u32, Options<'_>)>,
        identity: &Identity,
    ) {
        let Some(options) = self.prefixes.begin(association, identity) else {
            return;
        };
        for option in options {
            match OptionCode::from(option.code) {
                OptionCode::StatusCode => self.prefixes.refuse(option.status()),
                OptionCode::IAPrefix => {
                    let lease = option.leased_prefix();
                    if let Some((address, length, preferred, valid)) = lease
                        && let Some(prefix) = Prefix::new(address, length)
                    {
                        self.prefixes.add((prefix, preferred, valid));
                    }
                }
                _ => {}
            }
        }
    }
}

impl<T> Association<T> {
    /// The options of an association that is the client's. T1 behind T2 is a mistake: it does not count (RFC 8415 21.4, 21.21).
    fn begin<'a>(
        &mut self,
        association: Option<(u32, u32, u32, Options<'a>)>,
        identity: &Identity,
    ) -> Option<Options<'a>> {
        let (id, renew_s, rebind_s, options) = association?;
        if id != identity.iaid || (rebind_s > 0 && renew_s > rebind_s) {
            return None;
        }
        (self.renew_s, self.rebind_s) = (renew_s, rebind_s);
        Some(options)
    }

    fn refuse(&mut self, status: Option<u16>) {
        self.refusal = status.and_then(refusal).or(self.refusal);
    }
}

impl Information {
    fn read(&mut self, option: RawOption<'_>) {
        match OptionCode::from(option.code) {
            OptionCode::DomainNameServers => add_hosts(&mut self.name_servers, option.addresses()),
            OptionCode::NtpServer => {
                add_hosts(&mut self.time_servers, option.time_servers().into_iter());
            }
            OptionCode::DomainSearchList => {
                let names = option.domains();
                let names = names.iter().map(|name| domain_name(name.as_bytes()));
                // When one is broken none is trusted.
                let names: Option<Vec<String>> = names.take(MOST).collect();
                self.search = names.unwrap_or_default();
            }
            _ => {}
        }
    }
}

fn add_hosts(list: &mut Vec<Ipv6Addr>, hosts: impl Iterator<Item = Ipv6Addr>) {
    let room = MOST.saturating_sub(list.len());
    list.extend(hosts.filter(|host| is_reachable(*host)).take(room));
}

fn limit(seconds: Option<u32>) -> Option<u32> {
    seconds.filter(|seconds| LIMITS_S.contains(seconds))
}

fn refusal(status: u16) -> Option<Refusal> {
    match Status::from(status) {
        Status::Success => None,
        Status::NoAddrsAvail => Some(Refusal::NoAddress),
        Status::NoPrefixAvail => Some(Refusal::NoPrefix),
        Status::NoBinding => Some(Refusal::NoBinding),
        Status::NotOnLink => Some(Refusal::NotOnLink),
        other => Some(Refusal::Other(other.into())),
    }
}
