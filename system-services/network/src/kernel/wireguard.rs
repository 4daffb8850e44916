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
    /// other's addresses and session keys is kept. `endpoints` has the addresses of those that are reached by name.
    ///
    /// # Errors
    /// What the kernel answers.
    pub fn set_wireguard(
        &self,
        index: u32,
        wanted: &WireGuard,
        endpoints: &BTreeMap<String, SocketAddr>,
    ) -> Result<(), KernelError> {
        let set = || {
            let family = Family::find("wireguard")?;
            for attributes in messages(index, wanted, endpoints, &peers(&family, index)?)? {
                let message = WireguardMessage {
                    cmd: WireguardCmd::SetDevice,
                    attributes,
                };
                family.ask(message, NLM_F_ACK)?;
            }
            Ok(())
        };
        set().map_err(|source| KernelError {
            doing: "setting keys and peers".to_owned(),
            source,
        })
    }
}

/// Public keys of the peers that there are.
fn peers(family: &Family, index: u32) -> io::Result<Vec<Key>> {
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
    let keys = peers.filter_map(|peer| {
        peer.0.into_iter().find_map(|attribute| match attribute {
            WireguardPeerAttribute::PublicKey(key) => Some(key),
            _ => None,
        })
    });
    Ok(keys.collect())
}

/// Peers in one message: one has to fit in a packet of netlink's.
const PEERS_AT_ONCE: usize = 16;

/// What the kernel is told, message by message.
fn messages(
    index: u32,
    wanted: &WireGuard,
    endpoints: &BTreeMap<String, SocketAddr>,
    present: &[Key],
) -> io::Result<Vec<Vec<WireguardAttribute>>> {
    let device = WireguardAttribute::IfIndex(index);
    let mut first = vec![
        device.clone(),
        WireguardAttribute::PrivateKey(key(&wanted.key)?),
        WireguardAttribute::Fwmark(wanted.mark.unwrap_or(0)),
    ];
    // Without one the kernel has chosen one, and keeps it.
    first.extend(wanted.port.map(WireguardAttribute::ListenPort));
    let mut all = Vec::new();
    let mut wanted_keys = Vec::new();
    for peer in &wanted.peers {
        wanted_keys.push(key(&peer.public)?);
        all.push(told(peer, endpoints)?);
    }
    let gone = present.iter().filter(|key| !wanted_keys.contains(key));
    let removed = gone.map(|key| {
        WireguardPeer(vec![
            WireguardPeerAttribute::PublicKey(*key),
            WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe),
        ])
    });
    // Addresses of a peer that goes may be another one's now.
    let all: Vec<WireguardPeer> = removed.chain(all).collect();
    let rest = all.chunks(PEERS_AT_ONCE).map(|peers| {
        let peers = WireguardAttribute::Peers(peers.to_vec());
        vec![device.clone(), peers]
    });
    Ok(std::iter::once(first).chain(rest).collect())
}

fn told(peer: &Peer, endpoints: &BTreeMap<String, SocketAddr>) -> io::Result<WireguardPeer> {
    let shared = peer.shared.as_deref().map(key).transpose()?;
    let mut attributes = vec![
        WireguardPeerAttribute::PublicKey(key(&peer.public)?),
        WireguardPeerAttribute::Flags(WireguardPeerFlags::ReplaceAllowedIps),
        WireguardPeerAttribute::PresharedKey(shared.unwrap_or_default()),
        WireguardPeerAttribute::PersistentKeepalive(peer.keepalive.unwrap_or(0)),
    ];
    let endpoint = peer.endpoint.as_deref();
    let address =
        endpoint.and_then(|text| text.parse().ok().or_else(|| endpoints.get(text).copied()));
    attributes.extend(address.map(WireguardPeerAttribute::Endpoint));
    let allowed = peer.allowed.iter().map(allowed).collect();
    attributes.push(WireguardPeerAttribute::AllowedIps(allowed));
    Ok(WireguardPeer(attributes))
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
        let sent = messages(7, &wanted, &named, &[[2; 32], [9; 32]]).unwrap();
        assert_eq!(sent.len(), 2);
        assert!(sent[0].contains(&WireguardAttribute::ListenPort(51820)));
        let WireguardAttribute::Peers(peers) = &sent[1][1] else {
            panic!("{sent:?}");
        };
        let flags = WireguardPeerAttribute::Flags(WireguardPeerFlags::RemoveMe);
        assert!(
            peers[0].0.contains(&flags)
                && peers[0]
                    .0
                    .contains(&WireguardPeerAttribute::PublicKey([9; 32]))
        );
        let at = |index: usize, address: &str| {
            let endpoint = WireguardPeerAttribute::Endpoint(address.parse().unwrap());
            peers[index].0.contains(&endpoint)
        };
        assert!(at(1, "192.0.2.1:51820") && at(2, "[2001:db8::1]:51820"));
        assert_eq!(peers.len(), 3);
    }

    #[test]
    fn a_key_that_is_none_is_an_error() {
        assert!(key("short").is_err() && key(&encoded(0)).is_ok());
    }
}
