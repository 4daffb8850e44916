//! What is done with the bytes of each fuzz target, and bytes to begin from. Fuzzers (`fuzz_targets/`) and a plain test
//! (`tests/parsers.rs`) share it.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use keelson_network::dhcp4::message::{
    Identity as Identity4, Reply as Reply4, Request as Request4, RequestKind,
};
use keelson_network::dhcp4::random::Random;
use keelson_network::dhcp4::{arp, datagram, lease::Lease as Lease4};
use keelson_network::ipv6::lease::Lease;
use keelson_network::ipv6::machine::{Event, Machine, Mode, Start};
use keelson_network::ipv6::message::{Identity, Kind, Reply, Request, Subject};
use keelson_network::ipv6::prefix::Prefix;
use keelson_network::ipv6::router::{self, Advertisement};

const HARDWARE: [u8; 6] = [2, 0, 0x5e, 0x10, 0, 1];
const OURS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
/// Bytes of IPv6's header.
const HEADER_6: usize = 40;

/// A target: its name, what it does, what it begins from.
pub(crate) type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// All of them.
pub(crate) const TARGETS: [Target; 4] = [
    ("arp", arp_packet, arp_seeds),
    ("dhcp4", dhcp4, dhcp4_seeds),
    ("dhcp6", dhcp6, dhcp6_seeds),
    ("router", router_packet, router_seeds),
];

/// ARP packets, while an address is probed and when it is ours.
pub(crate) fn arp_packet(bytes: &[u8]) {
    let _ = arp::conflict(bytes, OURS, HARDWARE);
    let _ = arp::user(bytes, OURS, HARDWARE);
}

fn arp_seeds() -> Vec<Vec<u8>> {
    vec![
        arp::probe([2; 6], OURS),
        arp::announcement([2; 6], OURS),
        arp::announcement(HARDWARE, OURS),
    ]
}

/// DHCPv4: bytes as a message, and as a packet around one.
pub(crate) fn dhcp4(bytes: &[u8]) {
    for checksum_pending in [true, false] {
        if let Some(message) = datagram::parse(bytes, checksum_pending) {
            let _ = Reply4::decode(message);
        }
    }
    let Some(reply) = Reply4::decode(bytes) else {
        return;
    };
    if let Ok(lease) = Lease4::from_reply(&reply, Some(OURS)) {
        let json = serde_json::to_vec(&lease).expect("a lease is JSON");
        assert_eq!(serde_json::from_slice::<Lease4>(&json).ok(), Some(lease));
    }
}

fn dhcp4_seeds() -> Vec<Vec<u8>> {
    let request = Request4 {
        kind: RequestKind::Discover,
        xid: 7,
        elapsed_s: 1,
        client: None,
        requested: Some(OURS),
        server: None,
    };
    let identity = Identity4 {
        hardware_address: HARDWARE,
        host_name: Some("node".to_owned()),
    };
    let mut question = request.encode(&identity).expect("a question is bytes");
    let mut answer = vec![0; 240];
    answer[..3].copy_from_slice(&[2, 1, 6]);
    answer[16..20].copy_from_slice(&OURS.octets());
    answer[236..].copy_from_slice(&[99, 130, 83, 99]);
    answer.extend([53, 1, 5, 54, 4, 10, 0, 0, 1, 1, 4, 255, 255, 0, 0]);
    answer.extend([51, 4, 0, 0, 14, 16, 58, 4, 0, 0, 0, 60, 59, 4, 0, 0, 0, 120]);
    answer.extend([
        3, 4, 10, 0, 0, 1, 6, 4, 10, 0, 0, 2, 42, 4, 10, 0, 0, 4, 26, 2, 5, 120,
    ]);
    answer.extend([121, 8, 24, 192, 0, 2, 10, 0, 0, 1, 52, 1, 3]);
    answer.extend(b"\x0c\x04node\x0f\x07example\x77\x0b\x04labs\x04test\0\xff");
    let packet = datagram::build(Ipv4Addr::new(10, 0, 0, 1), OURS, &answer);
    question[0] = 2;
    vec![question, answer, packet]
}

/// DHCPv6: an answer, as the client takes it in each state that waits for one.
pub(crate) fn dhcp6(bytes: &[u8]) {
    let identity = Identity::of(HARDWARE, "e0");
    let Some(reply) = Reply::decode(bytes, &identity) else {
        return;
    };
    let now = Duration::from_secs(100);
    if let Some(lease) = Lease::from_reply(&reply, now) {
        assert!(
            !lease.is_empty() && lease.renew_at <= lease.rebind_at || lease.rebind_at.is_none()
        );
        let json = serde_json::to_vec(&lease).expect("a lease is JSON");
        assert_eq!(serde_json::from_slice::<Lease>(&json).ok(), Some(lease));
    }
    let mut machine = Machine::new(Random::from_seed(1), Start::Fresh, Some(56));
    machine.step(Event::CarrierUp, now);
    machine.step(Event::Wanted(Mode::Lease), now);
    for _ in 0..8 {
        let Some(due) = machine.deadline() else { break };
        let sent = machine.step(Event::Timer, due);
        let asked = sent.into_iter().find_map(|action| match action {
            keelson_network::ipv6::machine::Action::Send(request) => Some(request),
            _ => None,
        });
        let Some(asked) = asked else { continue };
        let mut answer = reply.clone();
        answer.xid = asked.xid;
        machine.step(Event::Reply(answer), due);
        let ends = machine.lease().and_then(Lease::next_end);
        assert!(ends.is_none_or(|end| end > due), "a lease that is over");
    }
}

fn dhcp6_seeds() -> Vec<Vec<u8>> {
    let identity = Identity::of(HARDWARE, "e0");
    let prefix = Prefix::new(Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0), 56);
    let request = Request {
        kind: Kind::Request,
        xid: [1, 2, 3],
        elapsed: Duration::ZERO,
        server: Some(vec![0, 3, 0, 1, 2, 0, 0, 0, 0, 9]),
        subject: Subject {
            addresses: Some(vec![Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 5)]),
            prefixes: prefix.map(|prefix| vec![prefix]),
        },
    };
    let question = request.encode(&identity).expect("a question is bytes");
    // What is asked for is granted: the same options with lifetimes, and others behind them.
    let mut granted = question.clone();
    for at in 0..granted.len().saturating_sub(8) {
        let is_address = granted[at..].starts_with(&[0, 5, 0, 24]);
        let is_prefix = granted[at..].starts_with(&[0, 26, 0, 25]);
        let from = match (is_address, is_prefix) {
            (true, _) => at + 20,
            (_, true) => at + 4,
            _ => continue,
        };
        granted[from..from + 8].copy_from_slice(&[0, 0, 2, 88, 0, 0, 4, 176]);
    }
    granted.extend([0, 13, 0, 4, 0, 0, b'o', b'k', 0, 7, 0, 1, 255, 0, 14, 0, 0]);
    granted.extend([0, 82, 0, 4, 0, 0, 0, 60, 0, 32, 0, 4, 0, 0, 2, 88]);
    let server = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53).octets();
    granted.extend([0, 23, 0, 16]);
    granted.extend(server);
    granted.extend([0, 56, 0, 20, 0, 1, 0, 16]);
    granted.extend(server);
    granted.extend(b"\0\x18\0\x0d\x03sea\x07example\0");
    let mut refused = question.clone();
    refused.extend([0, 13, 0, 2, 0, 3]);
    let answers = [granted, refused].into_iter().flat_map(|answer| {
        [2, 7].map(|kind| {
            let mut answer = answer.clone();
            answer[0] = kind;
            answer
        })
    });
    answers.collect()
}

/// Router advertisements: the checksum is mended, so that what is behind it is reached.
pub(crate) fn router_packet(bytes: &[u8]) {
    let _ = Advertisement::parse(bytes);
    let mut packet = bytes.to_vec();
    let Some((header, message)) = packet.split_at_mut_checked(HEADER_6) else {
        return;
    };
    if message.len() < 4 {
        return;
    }
    let length = u16::try_from(message.len()).unwrap_or(u16::MAX);
    header[4..6].copy_from_slice(&length.to_be_bytes());
    message[2..4].fill(0);
    let sum = checksum(&header[8..], message);
    message[2..4].copy_from_slice(&sum.to_be_bytes());
    let _ = Advertisement::parse(&packet);
}

/// RFC 8200 8.1.
fn checksum(addresses: &[u8], message: &[u8]) -> u16 {
    let words = addresses.chunks(2).chain(message.chunks(2));
    let word = |pair: &[u8]| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0));
    let mut sum: u64 = words.map(word).sum::<u64>() + message.len() as u64 + 58;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

fn router_seeds() -> Vec<Vec<u8>> {
    let mut packet = vec![0x60, 0, 0, 0, 0, 0, 58, 255];
    packet.extend(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 1).octets());
    packet.extend(Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).octets());
    packet.extend([134, 0, 0, 0, 64, 0xc0, 7, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
    packet.extend([25, 3, 0, 0, 0, 0, 2, 88]);
    packet.extend(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x53).octets());
    packet.extend(b"\x1f\x03\0\0\xff\xff\xff\xff\x03sea\x07example\0\0\0\0");
    vec![packet, router::solicitation()]
}
