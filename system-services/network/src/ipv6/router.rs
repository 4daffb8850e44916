//! Router advertisements (RFC 4861 4.2), with name servers and domains (RFC 8106); and the question for them.

use std::net::Ipv6Addr;

use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};
use keelson_sys::packet::Instruction;

use super::is_reachable;
use crate::dhcp4::options::domain_name;

const HEADER: usize = 40;
const ICMPV6: u8 = 58;
const HOP_LIMIT: u8 = 255;
const SOLICITATION: u8 = 133;
const ADVERTISEMENT: u8 = 134;
/// Bytes of an advertisement before its options.
const FIXED: usize = 16;
const OPTION_NAME_SERVERS: u8 = 25;
const OPTION_SEARCH: u8 = 31;
/// All routers on the link, and their Ethernet address.
const ROUTERS: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 2);
/// [`ROUTERS`] by Ethernet (RFC 2464 7).
pub const ROUTERS_HARDWARE: [u8; 6] = [0x33, 0x33, 0, 0, 0, 2];
/// More of anything from one router are a mistake or an attack.
const MOST: usize = 16;

/// What a router says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Advertisement {
    /// Its address on the link.
    pub router: Ipv6Addr,
    /// Addresses are had by DHCPv6 (the flag M).
    pub managed: bool,
    /// Other settings are (the flag O).
    pub other: bool,
    /// Name servers, each with the seconds that it holds: `u32::MAX` for good, 0 no longer.
    pub name_servers: Vec<(Ipv6Addr, u32)>,
    /// Domains to search, in the same way.
    pub search: Vec<(String, u32)>,
}

impl Advertisement {
    /// Reads an IPv6 packet; `None` for anything else, and for what RFC 4861 6.1.2 has silently discarded.
    pub fn parse(packet: &[u8]) -> Option<Self> {
        let (header, rest) = packet.split_at_checked(HEADER)?;
        let length = usize::from(u16::from_be_bytes([header[4], header[5]]));
        if header[0] >> 4 != 6 || header[6] != ICMPV6 || header[7] != HOP_LIMIT {
            return None;
        }
        let message = rest.get(..length)?;
        let router = address(header.get(8..24)?)?;
        if !router.is_unicast_link_local()
            || message.len() < FIXED
            || message[..2] != [ADVERTISEMENT, 0]
            || checksum(&header[8..40], message) != 0
        {
            return None;
        }
        let mut found = Advertisement {
            router,
            managed: message[5] & 0x80 != 0,
            other: message[5] & 0x40 != 0,
            name_servers: Vec::new(),
            search: Vec::new(),
        };
        let mut options = &message[FIXED..];
        while let [kind, eights, ..] = *options {
            let length = usize::from(eights) * 8;
            if length == 0 || length > options.len() {
                return None;
            }
            let (option, others) = options.split_at(length);
            options = others;
            let Some((lifetime_s, value)) =
                option.get(4..).and_then(<[u8]>::split_first_chunk::<4>)
            else {
                continue;
            };
            let lifetime_s = u32::from_be_bytes(*lifetime_s);
            match kind {
                OPTION_NAME_SERVERS => {
                    let servers = value.chunks_exact(16).filter_map(address);
                    let servers = servers.filter(|server| is_reachable(*server)).take(MOST);
                    found
                        .name_servers
                        .extend(servers.map(|server| (server, lifetime_s)));
                }
                OPTION_SEARCH => {
                    let domains = domains(value).into_iter().take(MOST);
                    found
                        .search
                        .extend(domains.map(|domain| (domain, lifetime_s)));
                }
                _ => {}
            }
        }
        Some(found)
    }
}

/// Names as DNS writes them, with zeros behind them. When one is broken none is trusted.
fn domains(bytes: &[u8]) -> Vec<String> {
    let (mut decoder, mut names) = (BinDecoder::new(bytes), Vec::new());
    while decoder.peek().is_some_and(|byte| byte.unverified() != 0) {
        let name = Name::read(&mut decoder).ok();
        let name = name.and_then(|name| domain_name(name.to_ascii().as_bytes()));
        match name {
            Some(name) => names.push(name),
            None => return Vec::new(),
        }
    }
    names
}

fn address(bytes: &[u8]) -> Option<Ipv6Addr> {
    <[u8; 16]>::try_from(bytes).ok().map(Ipv6Addr::from)
}

/// An IPv6 packet that asks the routers on the link to speak (RFC 4861 4.1), from no address: they answer everybody.
pub fn solicitation() -> Vec<u8> {
    let mut message = [SOLICITATION, 0, 0, 0, 0, 0, 0, 0];
    let mut packet = vec![0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, HOP_LIMIT];
    packet.extend(Ipv6Addr::UNSPECIFIED.octets());
    packet.extend(ROUTERS.octets());
    let sum = checksum(&packet[8..40], &message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    packet.extend(message);
    packet
}

/// Over the pseudo header and the message (RFC 8200 8.1); zero over one with a right checksum.
fn checksum(addresses: &[u8], message: &[u8]) -> u16 {
    let words = |bytes: &[u8]| -> u64 {
        let pairs = bytes.chunks(2);
        pairs
            .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
            .sum()
    };
    let mut sum = words(addresses) + words(message) + message.len() as u64 + u64::from(ICMPV6);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

/// Lets router advertisements through, and nothing else.
pub fn filter() -> [Instruction; 8] {
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let op = |code, jt, jf, k| Instruction { code, jt, jf, k };
    [
        op(LOAD_BYTE, 0, 0, 6),
        op(EQUAL, 0, 5, u32::from(ICMPV6)),
        op(LOAD_BYTE, 0, 0, 7),
        op(EQUAL, 0, 3, u32::from(HOP_LIMIT)),
        op(LOAD_BYTE, 0, 0, HEADER as u32),
        op(EQUAL, 0, 1, u32::from(ADVERTISEMENT)),
        op(RETURN, 0, 0, 0xffff),
        op(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn packet(flags: u8, options: &[u8]) -> Vec<u8> {
        let mut message = vec![
            ADVERTISEMENT,
            0,
            0,
            0,
            64,
            flags,
            7,
            8,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
            0,
        ];
        message.extend(options);
        let mut packet = vec![0x60, 0, 0, 0, 0, message.len() as u8, ICMPV6, HOP_LIMIT];
        packet.extend("fe80::1".parse::<Ipv6Addr>().unwrap().octets());
        packet.extend("ff02::1".parse::<Ipv6Addr>().unwrap().octets());
        let sum = checksum(&packet[8..40], &message);
        message[2..4].copy_from_slice(&sum.to_be_bytes());
        packet.extend(message);
        packet
    }

    #[test]
    fn name_servers_and_domains_are_read() {
        let mut options = vec![25, 3, 0, 0, 0, 0, 2, 88];
        options.extend("2001:db8::53".parse::<Ipv6Addr>().unwrap().octets());
        options.extend(b"\x1f\x03\0\0\xff\xff\xff\xff\x03sea\x07example\0\0\0\0");
        let found = Advertisement::parse(&packet(0x40, &options)).unwrap();
        assert!(!found.managed && found.other);
        assert_eq!(found.name_servers, [("2001:db8::53".parse().unwrap(), 600)]);
        assert_eq!(found.search, [("sea.example".to_owned(), u32::MAX)]);
        let mut broken = packet(0, &[]);
        broken[50] ^= 1;
        assert_eq!(Advertisement::parse(&broken), None);
        assert_eq!(Advertisement::parse(&packet(0, &[25, 0])), None);
    }

    #[test]
    fn a_solicitation_has_a_right_checksum() {
        let packet = solicitation();
        assert_eq!(checksum(&packet[8..40], &packet[40..]), 0);
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(options in prop::collection::vec(any::<u8>(), 0..100), raw in prop::collection::vec(any::<u8>(), 0..100)) {
            let _ = Advertisement::parse(&packet(0, &options));
            let _ = Advertisement::parse(&raw);
        }
    }
}
