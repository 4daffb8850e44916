//! Tunnels, as the kernel makes them (ip-link(8) has the kinds and what is said of each).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use keelson_config::network::Tunnel;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::link::{
    GreIOFlags, InfoData, InfoIpTunnel, InfoKind, InfoVti, LinkMessage,
};
use rtnetlink::{LinkGre, LinkGre6, LinkMessageBuilder, LinkUnspec, LinkVxlan};

/// Flag of a sit tunnel that is ISATAP's (`SIT_ISATAP` of linux/if_tunnel.h): in the machine's order of bytes, whatever the
/// attribute's type says.
const SIT_ISATAP: u16 = 1;
/// How often a packet may be packed once more on its way (RFC 2473 5.1), as ip-tunnel(8) has it.
const ENCAPSULATION_LIMIT: u8 = 4;
/// Hops of packets over version 6, where nothing is said.
const HOPS: u8 = 64;

/// What has the kernel make the tunnel; `None` for a mode that there is not. `below` is the interface that it goes over.
pub(super) fn message(name: &str, tunnel: &Tunnel, below: Option<u32>) -> Option<LinkMessage> {
    let message = match tunnel.mode.as_str() {
        "gre" => gre(LinkMessageBuilder::<LinkGre>::new_gre(name), tunnel, below),
        "gretap" => gre(
            LinkMessageBuilder::<LinkGre>::new_gretap(name),
            tunnel,
            below,
        ),
        "ip6gre" => gre6(
            LinkMessageBuilder::<LinkGre6>::new_gre6(name),
            tunnel,
            below,
        ),
        "ip6gretap" => gre6(
            LinkMessageBuilder::<LinkGre6>::new_gretap6(name),
            tunnel,
            below,
        ),
        "ipip" => ip(name, InfoKind::IpIp, tunnel, below, IpProtocol::Ipip),
        "ipip6" => ip(name, InfoKind::Ip6Tnl, tunnel, below, IpProtocol::Ipip),
        "ip6ip6" => ip(name, InfoKind::Ip6Tnl, tunnel, below, IpProtocol::Ipv6),
        "sit" | "isatap" => ip(name, InfoKind::SitTun, tunnel, below, IpProtocol::Ipv6),
        "vti" => vti(name, InfoKind::Vti, tunnel, below),
        "vti6" => vti(name, InfoKind::Vti6, tunnel, below),
        "vxlan" => vxlan(name, tunnel, below),
        _ => return None,
    };
    Some(message)
}

fn version_4(address: Option<IpAddr>) -> Option<Ipv4Addr> {
    match address? {
        IpAddr::V4(address) => Some(address),
        IpAddr::V6(_) => None,
    }
}

fn version_6(address: Option<IpAddr>) -> Option<Ipv6Addr> {
    match address? {
        IpAddr::V4(_) => None,
        IpAddr::V6(address) => Some(address),
    }
}

fn gre(
    mut builder: LinkMessageBuilder<LinkGre>,
    tunnel: &Tunnel,
    below: Option<u32>,
) -> LinkMessage {
    if let Some(address) = version_4(tunnel.local) {
        builder = builder.local(address);
    }
    if let Some(address) = version_4(tunnel.remote) {
        builder = builder.remote(address);
    }
    if let Some(key) = tunnel.input_key {
        builder = builder.iflags(GreIOFlags::Key).ikey(key);
    }
    if let Some(key) = tunnel.output_key {
        builder = builder.oflags(GreIOFlags::Key).okey(key);
    }
    if let Some(ttl) = tunnel.ttl {
        builder = builder.ttl(ttl);
    }
    if let Some(tos) = tunnel.tos {
        builder = builder.tos(tos);
    }
    if let Some(below) = below {
        builder = builder.dev(below);
    }
    builder.pmtudisc(true).build()
}

fn gre6(
    mut builder: LinkMessageBuilder<LinkGre6>,
    tunnel: &Tunnel,
    below: Option<u32>,
) -> LinkMessage {
    if let Some(address) = version_6(tunnel.local) {
        builder = builder.local(address);
    }
    if let Some(address) = version_6(tunnel.remote) {
        builder = builder.remote(address);
    }
    if let Some(key) = tunnel.input_key {
        builder = builder.iflags(GreIOFlags::Key).ikey(key);
    }
    if let Some(key) = tunnel.output_key {
        builder = builder.oflags(GreIOFlags::Key).okey(key);
    }
    if let Some(below) = below {
        builder = builder.dev(below);
    }
    builder
        .ttl(tunnel.ttl.unwrap_or(HOPS))
        .encap_limit(ENCAPSULATION_LIMIT)
        .build()
}

fn ip(
    name: &str,
    kind: InfoKind,
    tunnel: &Tunnel,
    below: Option<u32>,
    inside: IpProtocol,
) -> LinkMessage {
    let over_version_6 = matches!(kind, InfoKind::Ip6Tnl);
    let mut infos = vec![InfoIpTunnel::Protocol(inside)];
    infos.extend(tunnel.local.map(InfoIpTunnel::Local));
    infos.extend(tunnel.remote.map(InfoIpTunnel::Remote));
    infos.extend(below.map(InfoIpTunnel::Link));
    if over_version_6 {
        infos.push(InfoIpTunnel::Ttl(tunnel.ttl.unwrap_or(HOPS)));
        infos.push(InfoIpTunnel::EncapLimit(ENCAPSULATION_LIMIT));
    } else {
        infos.extend(tunnel.ttl.map(InfoIpTunnel::Ttl));
        infos.extend(tunnel.tos.map(InfoIpTunnel::Tos));
        infos.push(InfoIpTunnel::PMtuDisc(true));
    }
    if tunnel.mode == "isatap" {
        infos.push(InfoIpTunnel::Ipv6SitFlags(SIT_ISATAP.to_be()));
    }
    made(name, kind, InfoData::IpTunnel(infos))
}

fn vti(name: &str, kind: InfoKind, tunnel: &Tunnel, below: Option<u32>) -> LinkMessage {
    let mut infos = Vec::new();
    infos.extend(tunnel.local.map(InfoVti::Local));
    infos.extend(tunnel.remote.map(InfoVti::Remote));
    infos.extend(tunnel.input_key.map(InfoVti::IKey));
    infos.extend(tunnel.output_key.map(InfoVti::OKey));
    infos.extend(below.map(InfoVti::Link));
    made(name, kind, InfoData::Vti(infos))
}

fn vxlan(name: &str, tunnel: &Tunnel, below: Option<u32>) -> LinkMessage {
    let mut builder = LinkVxlan::new(name, tunnel.id.unwrap_or(0));
    match tunnel.local {
        Some(IpAddr::V4(address)) => builder = builder.local(address),
        Some(IpAddr::V6(address)) => builder = builder.local6(address),
        None => {}
    }
    match tunnel.remote {
        Some(IpAddr::V4(address)) => builder = builder.remote(address),
        Some(IpAddr::V6(address)) => builder = builder.remote6(address),
        None => {}
    }
    if let Some(port) = tunnel.port {
        builder = builder.port(port);
    }
    if let Some(ttl) = tunnel.ttl {
        builder = builder.ttl(ttl);
    }
    if let Some(tos) = tunnel.tos {
        builder = builder.tos(tos);
    }
    if let Some(below) = below {
        builder = builder.dev(below);
    }
    builder.learning(tunnel.learning.unwrap_or(true)).build()
}

fn made(name: &str, kind: InfoKind, data: InfoData) -> LinkMessage {
    LinkMessageBuilder::<LinkUnspec>::new_with_info_kind(kind)
        .name(name)
        .set_info_data(data)
        .build()
}
