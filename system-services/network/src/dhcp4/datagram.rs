//! IPv4 and UDP headers around a message, for when there is no address yet (RFC 791, RFC 768).

use std::net::Ipv4Addr;

use keelson_sys::packet::Instruction;

/// The port that DHCP servers listen on.
pub const SERVER_PORT: u16 = 67;
/// The port that DHCP clients listen on.
pub const CLIENT_PORT: u16 = 68;

const IPV4_HEADER: usize = 20;
const UDP_HEADER: usize = 8;
const PROTOCOL_UDP: u8 = 17;
/// "More fragments" and the fragment's offset.
const FRAGMENT_BITS: u16 = 0x3fff;

/// An IPv4 packet from our DHCP port to a server's.
pub fn build(source: Ipv4Addr, destination: Ipv4Addr, payload: &[u8]) -> Vec<u8> {
    let udp_length = (UDP_HEADER + payload.len()) as u16;
    let mut packet = Vec::with_capacity(IPV4_HEADER + usize::from(udp_length));
    packet.extend_from_slice(&[0x45, 0]);
    packet.extend_from_slice(&(IPV4_HEADER as u16 + udp_length).to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 0, 64, PROTOCOL_UDP, 0, 0]);
    packet.extend_from_slice(&source.octets());
    packet.extend_from_slice(&destination.octets());
    let header_sum = fold(sum(0, &packet));
    packet[10..12].copy_from_slice(&header_sum.to_be_bytes());
    packet.extend_from_slice(&CLIENT_PORT.to_be_bytes());
    packet.extend_from_slice(&SERVER_PORT.to_be_bytes());
    packet.extend_from_slice(&udp_length.to_be_bytes());
    packet.extend_from_slice(&[0, 0]);
    packet.extend_from_slice(payload);
    let udp_sum = match udp_checksum(&packet[12..20], &packet[IPV4_HEADER..]) {
        0 => 0xffff, // on the wire zero means "no checksum"
        checksum => checksum,
    };
    packet[IPV4_HEADER + 6..IPV4_HEADER + 8].copy_from_slice(&udp_sum.to_be_bytes());
    packet
}

/// The payload of a UDP packet to our DHCP port, or `None` for anything else, broken packets among it.
/// `checksum_pending`: the sender is on this machine and left the UDP checksum to hardware that was never passed.
pub fn parse(packet: &[u8], checksum_pending: bool) -> Option<&[u8]> {
    let first = *packet.first()?;
    let header_length = usize::from(first & 0x0f) * 4;
    let total_length = usize::from(word(packet, 2)?);
    if first >> 4 != 4 || header_length < IPV4_HEADER || total_length < header_length + UDP_HEADER {
        return None;
    }
    let packet = packet.get(..total_length)?; // what follows is padding of short Ethernet frames
    let (header, udp) = packet.split_at_checked(header_length)?;
    if fold(sum(0, header)) != 0
        || header[9] != PROTOCOL_UDP
        || word(header, 6)? & FRAGMENT_BITS != 0
    {
        return None;
    }
    let udp = udp.get(..usize::from(word(udp, 4)?))?;
    if udp.len() < UDP_HEADER || word(udp, 2)? != CLIENT_PORT {
        return None;
    }
    if word(udp, 6)? != 0 && !checksum_pending && udp_checksum(&header[12..20], udp) != 0 {
        return None;
    }
    Some(&udp[UDP_HEADER..])
}

/// Lets through what may be an answer to us: whole UDP packets to our port that carry a BOOTREPLY. It spares us from
/// being woken by everything else on the network; [`parse`] checks again, and more.
pub fn filter() -> [Instruction; 11] {
    const LOAD_BYTE: u16 = 0x30; // BPF_LD | BPF_B | BPF_ABS
    const LOAD_HALF: u16 = 0x28; // BPF_LD | BPF_H | BPF_ABS
    const LOAD_HEADER_LENGTH: u16 = 0xb1; // BPF_LDX | BPF_B | BPF_MSH
    const LOAD_HALF_INDEXED: u16 = 0x48; // BPF_LD | BPF_H | BPF_IND
    const LOAD_BYTE_INDEXED: u16 = 0x50; // BPF_LD | BPF_B | BPF_IND
    const EQUAL: u16 = 0x15; // BPF_JMP | BPF_JEQ | BPF_K
    const ANY_BIT: u16 = 0x45; // BPF_JMP | BPF_JSET | BPF_K
    const RETURN: u16 = 0x06; // BPF_RET | BPF_K
    let op = |code, jt, jf, k| Instruction { code, jt, jf, k };
    [
        op(LOAD_BYTE, 0, 0, 9),
        op(EQUAL, 0, 8, u32::from(PROTOCOL_UDP)),
        op(LOAD_HALF, 0, 0, 6),
        op(ANY_BIT, 6, 0, u32::from(FRAGMENT_BITS)),
        op(LOAD_HEADER_LENGTH, 0, 0, 0),
        op(LOAD_HALF_INDEXED, 0, 0, 2),
        op(EQUAL, 0, 3, u32::from(CLIENT_PORT)),
        op(LOAD_BYTE_INDEXED, 0, 0, 8),
        op(EQUAL, 0, 1, 2),
        op(RETURN, 0, 0, 0xffff),
        op(RETURN, 0, 0, 0),
    ]
}

fn word(bytes: &[u8], offset: usize) -> Option<u16> {
    Some(u16::from_be_bytes(
        bytes.get(offset..offset + 2)?.try_into().ok()?,
    ))
}

/// Over the pseudo header (addresses, protocol, length) and the UDP packet; zero over one with a right checksum.
fn udp_checksum(addresses: &[u8], udp: &[u8]) -> u16 {
    let pseudo = sum(u32::from(PROTOCOL_UDP) + udp.len() as u32, addresses);
    fold(sum(pseudo, udp))
}

fn sum(start: u32, bytes: &[u8]) -> u32 {
    bytes.chunks(2).fold(start, |sum, pair| {
        let value = u16::from_be_bytes([pair[0], pair.get(1).copied().unwrap_or(0)]);
        sum.wrapping_add(u32::from(value)) // at most 32768 words of 16 bits: never wraps
    })
}

fn fold(mut sum: u32) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !(sum as u16)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SERVER: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

    /// As `build`, in the other direction.
    fn reply(payload: &[u8]) -> Vec<u8> {
        let mut packet = build(SERVER, Ipv4Addr::BROADCAST, payload);
        packet[20..22].copy_from_slice(&SERVER_PORT.to_be_bytes());
        packet[22..24].copy_from_slice(&CLIENT_PORT.to_be_bytes()); // the sum of both ports stays the same
        packet
    }

    proptest! {
        #[test]
        fn what_is_built_is_parsed_again(payload in prop::collection::vec(any::<u8>(), 0..600), padding in 0..20_usize) {
            let mut packet = reply(&payload);
            packet.extend(std::iter::repeat_n(0xa5, padding));
            prop_assert_eq!(parse(&packet, false), Some(payload.as_slice()));
        }

        #[test]
        fn a_flipped_bit_is_noticed(payload in prop::collection::vec(any::<u8>(), 1..300), at in any::<prop::sample::Index>(), bit in 0..8_u8) {
            let mut packet = reply(&payload);
            let at = at.index(packet.len());
            packet[at] ^= 1 << bit;
            // The one flip that nobody can notice would clear the checksum itself.
            prop_assume!(packet[26..28] != [0, 0]);
            prop_assert_eq!(parse(&packet, false), None);
        }

        #[test]
        fn no_bytes_make_it_panic(mut packet in prop::collection::vec(any::<u8>(), 0..200), pending in any::<bool>(), plausible in any::<bool>()) {
            if plausible && packet.len() > 10 {
                packet[0] = 0x45;
                packet[9] = PROTOCOL_UDP;
            }
            let _ = parse(&packet, pending);
        }
    }

    #[test]
    fn a_checksum_left_to_the_hardware_is_not_held_against_a_local_sender() {
        let mut packet = reply(b"offer");
        packet[26..28].copy_from_slice(&[0x12, 0x34]);
        assert_eq!(parse(&packet, false), None);
        assert_eq!(parse(&packet, true), Some(b"offer".as_slice()));
    }

    #[test]
    fn fragments_and_other_ports_are_not_ours() {
        assert_eq!(
            parse(&build(SERVER, SERVER, b"request"), false),
            None,
            "to the server's port"
        );
        let mut fragment = reply(b"offer");
        fragment[6] = 0x20;
        fragment[10..12].copy_from_slice(&[0, 0]);
        let checksum = fold(sum(0, &fragment[..20]));
        fragment[10..12].copy_from_slice(&checksum.to_be_bytes());
        assert_eq!(parse(&fragment, false), None);
    }
}
