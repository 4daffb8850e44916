//! Asking whether somebody has an address already (RFC 826, RFC 5227).

use std::net::Ipv4Addr;

use keelson_sys::packet::Instruction;

const ETHERNET: u16 = 1;
const IPV4: u16 = 0x0800;
const REQUEST: u16 = 1;
const LENGTH: usize = 28;

/// "Who has `address`?" from somebody who has none: it changes nobody's ARP cache.
pub fn probe(hardware_address: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    build(hardware_address, Ipv4Addr::UNSPECIFIED, address)
}

/// "`address` is here": those who knew another hardware address for it learn the new one.
pub fn announcement(hardware_address: [u8; 6], address: Ipv4Addr) -> Vec<u8> {
    build(hardware_address, address, address)
}

fn build(hardware_address: [u8; 6], sender: Ipv4Addr, target: Ipv4Addr) -> Vec<u8> {
    let mut packet = Vec::with_capacity(LENGTH);
    packet.extend_from_slice(&ETHERNET.to_be_bytes());
    packet.extend_from_slice(&IPV4.to_be_bytes());
    packet.extend_from_slice(&[6, 4]);
    packet.extend_from_slice(&REQUEST.to_be_bytes());
    packet.extend_from_slice(&hardware_address);
    packet.extend_from_slice(&sender.octets());
    packet.extend_from_slice(&[0; 6]);
    packet.extend_from_slice(&target.octets());
    packet
}

/// The hardware address of somebody else who uses `address`, or is about to, as `packet` tells (RFC 5227 2.1.1).
pub fn conflict(
    packet: &[u8],
    address: Ipv4Addr,
    our_hardware_address: [u8; 6],
) -> Option<[u8; 6]> {
    let other = Other::read(packet, our_hardware_address)?;
    let probes = other.is_request && other.sender.is_unspecified() && other.target == address;
    (other.sender == address || probes).then_some(other.hardware)
}

/// The hardware address of somebody else who uses `address`, which we have, as `packet` tells (RFC 5227 2.4).
pub fn user(packet: &[u8], address: Ipv4Addr, our_hardware_address: [u8; 6]) -> Option<[u8; 6]> {
    let other = Other::read(packet, our_hardware_address)?;
    (other.sender == address).then_some(other.hardware)
}

/// What somebody else says.
struct Other {
    hardware: [u8; 6],
    sender: Ipv4Addr,
    target: Ipv4Addr,
    is_request: bool,
}

impl Other {
    /// `None` for what is no ARP of Ethernet and IPv4, and what we said ourselves.
    fn read(packet: &[u8], our_hardware_address: [u8; 6]) -> Option<Self> {
        let packet: &[u8; LENGTH] = packet.first_chunk()?;
        let hardware: [u8; 6] = packet[8..14].try_into().ok()?;
        if packet[..6] != [0, 1, 8, 0, 6, 4] || hardware == our_hardware_address {
            return None;
        }
        Some(Self {
            hardware,
            sender: Ipv4Addr::new(packet[14], packet[15], packet[16], packet[17]),
            target: Ipv4Addr::new(packet[24], packet[25], packet[26], packet[27]),
            is_request: packet[6..8] == REQUEST.to_be_bytes(),
        })
    }
}

/// Lets through ARP packets that name `address`.
pub fn filter(address: Ipv4Addr) -> [Instruction; 6] {
    const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let op = |code, jt, jf, k| Instruction { code, jt, jf, k };
    let address = u32::from(address);
    [
        op(LOAD, 0, 0, 14),
        op(EQUAL, 2, 0, address),
        op(LOAD, 0, 0, 24),
        op(EQUAL, 0, 1, address),
        op(RETURN, 0, 0, 0xffff),
        op(RETURN, 0, 0, 0),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OURS: [u8; 6] = [2, 0, 0, 0, 0, 1];
    const THEIRS: [u8; 6] = [2, 0, 0, 0, 0, 2];
    const ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);

    #[test]
    fn others_who_use_or_probe_the_address_are_conflicts() {
        assert_eq!(
            conflict(&announcement(THEIRS, ADDRESS), ADDRESS, OURS),
            Some(THEIRS)
        );
        assert_eq!(
            conflict(&probe(THEIRS, ADDRESS), ADDRESS, OURS),
            Some(THEIRS)
        );
        assert_eq!(
            conflict(
                &build(THEIRS, ADDRESS, Ipv4Addr::new(10, 0, 0, 9)),
                ADDRESS,
                OURS
            ),
            Some(THEIRS)
        );
    }

    #[test]
    fn our_own_packets_and_questions_about_the_address_are_none() {
        assert_eq!(conflict(&probe(OURS, ADDRESS), ADDRESS, OURS), None);
        assert_eq!(conflict(&announcement(OURS, ADDRESS), ADDRESS, OURS), None);
        assert_eq!(
            conflict(
                &build(THEIRS, Ipv4Addr::new(10, 0, 0, 9), ADDRESS),
                ADDRESS,
                OURS
            ),
            None
        );
        assert_eq!(
            conflict(&probe(THEIRS, Ipv4Addr::new(10, 0, 0, 6)), ADDRESS, OURS),
            None
        );
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(packet in prop::collection::vec(any::<u8>(), 0..60)) {
            let _ = conflict(&packet, ADDRESS, OURS);
        }
    }
}
