//! WireGuard's interfaces: keys and peers, over its generic netlink family (linux/wireguard.h).

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_config::network::{Cidr, Peer, WireGuard};
use netlink_packet_core::{NLM_F_ACK, NLM_F_DUMP};
use netlink_packet_wireguard::{
    WireguardAddressFamily, WireguardAllowedIp, WireguardAllowedIpAttr, WireguardAttribute,
    WireguardCmd, WireguardMessage, WireguardPeer, WireguardPeerAttribute, WireguardPeerFlags,
};

use super::generic::Family;
use super::{Kernel, KernelError};

type Key = [u8; 32];

impl Kernel {
    /// Makes a WireGuard interface what the configuration says. Peers that stay go on as they are: what they learnt of each
    /// other's addresses and session keys is kept. `endpoints` has the addresses of those that are reached by name; `told` is what
    /// the kernel was told of peers' addresses, by public key: one that is told again would take the place of what was learnt.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set_wireguard(
        &self,
        index: u32,
        wanted: &WireGuard,
        endpoints: &BTreeMap<String, SocketAddr>,
        told: &mut BTreeMap<String, SocketAddr>,
    ) -> Result<(), KernelError> {
        let mut set = || {
            let family = Family::find("wireguard")?;
            let present = peers(&family, index)?;
            let mut now = told.clone();
            for attributes in messages(index, wanted, endpoints, &present, &mut now)? {
                let message = WireguardMessage {
                    cmd: WireguardCmd::SetDevice,
                    attributes,
                };
                family.ask(message, NLM_F_ACK)?;
            }
            *told = now;
            Ok(())
        };
        set().map_err(|source| KernelError {
            doing: "setting keys and peers".to_owned(),
            source,
        })
    }
}

/// Public keys of the peers that there are, and whether each has an address.
fn peers(family: &Family, index: u32) -> io::Result<BTreeMap<Key, bool>> {
    let question = WireguardMessage {
        cmd: WireguardCmd::GetDevice,
        attributes: vec![WireguardAttribute::IfIndex(index)],
    };
    let answers = family.ask(question, NLM_F_DUMP)?;
    let attributes = answers.into_iter().flat_map(|answer| answer.attributes);
    let peers = attributes.flat_map(|attribute| match attribute {
        WireguardAttribute::Peers(peers) => peers,
        _ => Vec::new(),
    });
    let mut found = BTreeMap::new();
    for peer in peers {
        let (mut key, mut has_address) = (None, false);
        for attribute in peer.0 {
            match attribute {
                WireguardPeerAttribute::PublicKey(own) => key = Some(own),
                WireguardPeerAttribute::Endpoint(_) => has_address = true,
                _ => {}
            }
        }
        // One with many networks comes in several pieces.
        if let Some(key) = key {
            *found.entry(key).or_insert(false) |= has_address;
        }
    }
    Ok(found)
}

/// Networks of peers, and peers, in one message: an attribute has less than 64 KiB, and a network takes 40 bytes at most.
const NETWORKS_AT_ONCE: usize = 256;
const PEERS_AT_ONCE: usize = 16;

/// What the kernel is told, message by message.
fn messages(
    index: u32,
    wanted: &WireGuard,
    endpoints: &BTreeMap<String, SocketAddr>,
    present: &BTreeMap<Key, bool>,
    told: &mut BTreeMap<String, SocketAddr>,
) -> io::Result<Vec<Vec<WireguardAttribute>>> {
    let device = WireguardAttribute::IfIndex(index);
    let mut first = vec![
        device.clone(),
        WireguardAttribute::PrivateKey(key(&wanted.key)?),
        WireguardAttribute::Fwmark(wanted.mark.unwrap_or(0)),
    ];
    // Without one the kernel has chosen one, and keeps it.
    first.extend(wanted.port.map(WireguardAttribute::ListenPort));
    let mut keys = Vec::new();
    for peer in &wanted.peers {
        keys.push(key(&peer.public)?);
    }
    told.retain(|public, _| wanted.peers.iter().any(|peer| peer.public == *public));
    // Addresses of a peer that goes may be another one's now.
    let gone = present.keys().filter(|key| !keys.contains(key));
    let mut pieces: Vec<(WireguardPeer, usize)> = gone
        .map(|key| {
            let removed = WireguardPeer(vec![
                WireguardPeerAttribute::PublicKey(*key),
                WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
            ]);
            (removed, 0)
        })
        .collect();
    for (peer, key) in wanted.peers.iter().zip(keys) {
        let endpoint = peer.endpoint.as_deref();
        let address =
            endpoint.and_then(|text| text.parse().ok().or_else(|| endpoints.get(text).copied()));
        let is_known = match told.get(&peer.public) {
            Some(told) => Some(*told) == address,
            // An earlier run of this service told it.
            None => present.get(&key) == Some(&true),
        };
        if let Some(address) = address {
            told.insert(peer.public.clone(), address);
        }
        let address = address.filter(|_| !is_known || !present.contains_key(&key));
        pieces.extend(pieces_of(peer, key, address)?);
    }
    let mut messages = vec![first];
    let mut rest = pieces.as_slice();
    while !rest.is_empty() {
        let mut networks = 0;
        let fits = rest.iter().take(PEERS_AT_ONCE).take_while(|(_, more)| {
            networks += more;
            networks <= NETWORKS_AT_ONCE
        });
        let (now, later) = rest.split_at(fits.count().max(1));
        let peers = now.iter().map(|(peer, _)| peer.clone()).collect();
        messages.push(vec![device.clone(), WireguardAttribute::Peers(peers)]);
        rest = later;
    }
    Ok(messages)
}

/// What is told of one peer, and of how many networks: the first piece replaces those that it had, others add to them.
fn pieces_of(
    peer: &Peer,
    key: Key,
    address: Option<SocketAddr>,
) -> io::Result<Vec<(WireguardPeer, usize)>> {
    let shared = peer.shared.as_deref().map(self::key).transpose()?;
    let mut all = Vec::new();
    let mut networks = peer.allowed.chunks(NETWORKS_AT_ONCE);
    let mut attributes = vec![
        WireguardPeerAttribute::PublicKey(key),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
        WireguardPeerAttribute::PresharedKey(shared.unwrap_or_default()),
        WireguardPeerAttribute::PersistentKeepalive(peer.keepalive.unwrap_or(0)),
    ];
    attributes.extend(address.map(WireguardPeerAttribute::Endpoint));
    let first = networks.next().unwrap_or_default();
    attributes.push(WireguardPeerAttribute::AllowedIps(
        first.iter().map(allowed).collect(),
    ));
    all.push((WireguardPeer(attributes), first.len()));
    for more in networks {
        let piece = WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(key),
            WireguardPeerAttribute::AllowedIps(more.iter().map(allowed).collect()),
        ]);
        all.push((piece, more.len()));
    }
    Ok(all)
}

fn allowed(cidr: &Cidr) -> WireguardAllowedIp {
    let family = match cidr.address.is_ipv6() {
        true => WireguardAddressFamily::Ipv6,
        false => WireguardAddressFamily::Ipv4,
    };
    WireguardAllowedIp(vec![
        WireguardAllowedIpAttr::Family(family),
        WireguardAllowedIpAttr::IpAddr(cidr.address),
        WireguardAllowedIpAttr::Cidr(cidr.prefix),
    ])
}

fn key(text: &str) -> io::Result<Key> {
    let bytes = STANDARD.decode(text).ok();
    let bytes = bytes.and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a key is 32 bytes in base64"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(byte: u8) -> String {
        STANDARD.encode([byte; 32])
    }

    #[test]
    fn peers_that_are_gone_are_removed_and_others_kept() {
        let peer = |byte: u8, endpoint: &str| Peer {
            public: encoded(byte),
            shared: None,
            endpoint: Some(endpoint.to_owned()),
            keepalive: Some(25),
            allowed: vec!["10.9.0.0/16".parse().unwrap(), "fd00::/8".parse().unwrap()],
        };
        let wanted = WireGuard {
            key: encoded(1),
            port: Some(51820),
            mark: None,
            peers: vec![peer(2, "192.0.2.1:51820"), peer(3, "gate.example:51820")],
        };
        let named = BTreeMap::from([(
            "gate.example:51820".to_owned(),
            "[2001:db8::1]:51820".parse().unwrap(),
        )]);
        let present = BTreeMap::from([([2; 32], true), ([9; 32], true)]);
        let mut told = BTreeMap::new();
        let sent = messages(7, &wanted, &named, &present, &mut told).unwrap();
        assert_eq!(sent.len(), 2);
        assert!(sent[0].contains(&WireguardAttribute::ListenPort(51820)));
        let WireguardAttribute::Peers(peers) = &sent[1][1] else {
            panic!("{sent:?}");
        };
        let flags = WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe);
        let ninth = WireguardPeerAttribute::PublicKey([9; 32]);
        assert!(peers[0].0.contains(&flags) && peers[0].0.contains(&ninth));
        let endpoint = |peers: &[WireguardPeer], index: usize| {
            let mut all = peers[index].0.iter();
            all.find_map(|attribute| match attribute {
                WireguardPeerAttribute::Endpoint(address) => Some(address.to_string()),
                _ => None,
            })
        };
        // One that is there already may have learnt another address.
        assert_eq!(endpoint(peers, 1), None);
        assert_eq!(endpoint(peers, 2).as_deref(), Some("[2001:db8::1]:51820"));
        let moved = BTreeMap::from([(
            "gate.example:51820".to_owned(),
            "[2001:db8::2]:51820".parse().unwrap(),
        )]);
        let present = BTreeMap::from([([2; 32], true), ([3; 32], true)]);
        let sent = messages(7, &wanted, &moved, &present, &mut told).unwrap();
        let WireguardAttribute::Peers(peers) = &sent[1][1] else {
            panic!("{sent:?}");
        };
        assert_eq!(endpoint(peers, 0), None);
        assert_eq!(endpoint(peers, 1).as_deref(), Some("[2001:db8::2]:51820"));
    }

    #[test]
    fn thousands_of_networks_go_in_several_messages() {
        let network = |number: usize| {
            let [.., third, fourth] = number.to_be_bytes();
            format!("10.{third}.{fourth}.0/24").parse().unwrap()
        };
        let wanted = WireGuard {
            key: encoded(1),
            port: None,
            mark: None,
            peers: vec![Peer {
                public: encoded(2),
                shared: None,
                endpoint: None,
                keepalive: None,
                allowed: (0..5000).map(network).collect(),
            }],
        };
        let sent = messages(
            7,
            &wanted,
            &BTreeMap::new(),
            &BTreeMap::new(),
            &mut BTreeMap::new(),
        );
        let sent = sent.unwrap();
        let mut networks = 0;
        for attribute in sent.iter().flatten() {
            if let WireguardAttribute::Peers(peers) = attribute {
                for attribute in peers.iter().flat_map(|peer| &peer.0) {
                    if let WireguardPeerAttribute::AllowedIps(all) = attribute {
                        networks += all.len();
                        assert!(all.len() <= NETWORKS_AT_ONCE);
                    }
                }
            }
        }
        assert_eq!(networks, 5000);
    }

    #[test]
    fn a_key_that_is_none_is_an_error() {
        assert!(key("short").is_err() && key(&encoded(0)).is_ok());
    }
}
