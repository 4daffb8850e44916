//! Addresses and routes of the configuration, over rtnetlink.

use std::net::IpAddr;

use futures_util::stream::{StreamExt, TryStreamExt};
use keelson_config::network::Cidr;
use netlink_packet_route::address::{
    AddressAttribute, AddressMessage, AddressProtocol, AddressScope,
};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteFlags, RouteMessage, RouteMetric, RouteNextHop,
    RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::{
    NLM_F_ACK, NLM_F_APPEND, NLM_F_CREATE, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};
use std::net::{Ipv4Addr, Ipv6Addr};

use super::{Kernel, KernelError, failed, unless_gone};
use crate::declared::{Change, Present, Route};

/// Marks what is declared (`IFA_PROTO`, `rtm_protocol`): a number that nobody else has (the kernel's lists end below it).
pub(super) const DECLARED: u8 = 75;

impl Kernel {
    /// What a link has of ours.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn declared(&self, index: u32) -> Result<Present, KernelError> {
        let addresses: Vec<AddressMessage> = self
            .handle
            .address()
            .get()
            .set_link_index_filter(index)
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing the link's addresses"))?;
        let mut routes: Vec<RouteMessage> = Vec::new();
        for message in [
            RouteMessageBuilder::<Ipv4Addr>::new().build(),
            RouteMessageBuilder::<Ipv6Addr>::new().build(),
        ] {
            let some: Vec<RouteMessage> = self
                .handle
                .route()
                .get(message)
                .execute()
                .try_collect()
                .await
                .map_err(failed("listing the routes"))?;
            routes.extend(some);
        }
        Ok(Present {
            addresses: addresses.iter().filter_map(our_address).collect(),
            routes: routes
                .iter()
                .flat_map(|message| our_routes(message, index))
                .collect(),
        })
    }

    /// Carries one change out.
    ///
    /// # Errors
    /// What the kernel answers; that something to be removed is gone already is none.
    pub async fn declare(&self, index: u32, change: &Change) -> Result<(), KernelError> {
        match change {
            Change::AddAddress(cidr) => {
                let mut request = self
                    .handle
                    .address()
                    .add(index, cidr.address, cidr.prefix)
                    .replace();
                if matches!(cidr.address, IpAddr::V4(address) if address.is_link_local()) {
                    request.message_mut().header.scope = AddressScope::Link;
                }
                request
                    .message_mut()
                    .attributes
                    .push(AddressAttribute::Protocol(AddressProtocol::Other(DECLARED)));
                let added = request.execute().await;
                added.map_err(failed(format!("setting the address {cidr}")))
            }
            Change::RemoveAddress(cidr) => {
                let message = match cidr.address {
                    IpAddr::V4(address) => AddressMessageBuilder::<Ipv4Addr>::new()
                        .index(index)
                        .address(address, cidr.prefix)
                        .build(),
                    IpAddr::V6(address) => AddressMessageBuilder::<Ipv6Addr>::new()
                        .index(index)
                        .address(address, cidr.prefix)
                        .build(),
                };
                let removed = self.handle.address().del(message).execute().await;
                unless_gone(removed).map_err(failed(format!("removing the address {cidr}")))
            }
            Change::AddRoute(route) => {
                let added = self.add_route(message(route, index)).await;
                added.map_err(failed(format!("adding the route {}", shown(route))))
            }
            Change::RemoveRoute(route) => {
                let removed = self
                    .handle
                    .route()
                    .del(message(route, index))
                    .execute()
                    .await;
                unless_gone(removed).map_err(failed(format!("removing the route {}", shown(route))))
            }
        }
    }
}

impl Kernel {
    /// Adds a route beside those that lead to the same network. Replacing would take another's: the kernel looks at the network
    /// and the metric alone.
    async fn add_route(&self, message: RouteMessage) -> Result<(), rtnetlink::Error> {
        let mut request = NetlinkMessage::from(RouteNetlinkMessage::NewRoute(message));
        request.header.flags = NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_APPEND;
        let mut answers = self.handle.clone().request(request)?;
        while let Some(answer) = answers.next().await {
            match answer.payload {
                NetlinkPayload::Error(error) if error.raw_code() == -libc::EEXIST => {}
                NetlinkPayload::Error(error) => return Err(rtnetlink::Error::NetlinkError(error)),
                _ => {}
            }
        }
        Ok(())
    }
}

fn our_address(message: &AddressMessage) -> Option<Cidr> {
    let ours = AddressAttribute::Protocol(AddressProtocol::Other(DECLARED));
    if !message.attributes.contains(&ours) {
        return None;
    }
    let mut local = None;
    let mut address = None;
    for attribute in &message.attributes {
        match attribute {
            AddressAttribute::Local(own) => local = Some(*own),
            AddressAttribute::Address(other) => address = Some(*other),
            _ => {}
        }
    }
    Some(Cidr {
        address: local.or(address)?,
        prefix: message.header.prefix_len,
    })
}

/// What a route of ours is over the link; several when the kernel has put those to one network together.
fn our_routes(message: &RouteMessage, index: u32) -> Vec<Route> {
    if message.header.protocol != RouteProtocol::Other(DECLARED) {
        return Vec::new();
    }
    let onlink = |flags: u32| flags & RouteFlags::Onlink.bits() != 0;
    let version_6 = message.header.address_family == AddressFamily::Inet6;
    let kind = match message.header.kind {
        RouteType::BlackHole => Some("blackhole"),
        RouteType::Unreachable => Some("unreachable"),
        RouteType::Prohibit => Some("prohibit"),
        RouteType::Throw => Some("throw"),
        _ => None,
    };
    // These are over the loopback, or over nothing.
    let mut over_link = kind.is_some();
    let mut hops: &[RouteNextHop] = &[];
    let mut route = Route {
        to: Cidr {
            prefix: message.header.destination_prefix_length,
            ..Cidr::everything(version_6)
        },
        via: None,
        metric: 0,
        table: message.header.table.into(),
        from: None,
        on_link: onlink(message.header.flags.bits()),
        mtu: None,
        kind: kind.map(str::to_owned),
    };
    let plain = |address: &RouteAddress| match address {
        RouteAddress::Inet(address) => Some(IpAddr::V4(*address)),
        RouteAddress::Inet6(address) => Some(IpAddr::V6(*address)),
        _ => None,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(other) if kind.is_none() => over_link = *other == index,
            RouteAttribute::MultiPath(several) => hops = several,
            RouteAttribute::Metrics(metrics) => {
                route.mtu = metrics.iter().find_map(|metric| match metric {
                    RouteMetric::Mtu(mtu) => Some(*mtu),
                    _ => None,
                });
            }
            RouteAttribute::Destination(address) => {
                route.to.address = plain(address).unwrap_or(route.to.address);
            }
            RouteAttribute::Gateway(address) => route.via = plain(address),
            RouteAttribute::PrefSource(address) => route.from = plain(address),
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(table) => route.table = *table,
            _ => {}
        }
    }
    let mut routes: Vec<Route> = over_link.then(|| route.clone()).into_iter().collect();
    for hop in hops.iter().filter(|hop| hop.interface_index == index) {
        let gateway = hop.attributes.iter().find_map(|attribute| match attribute {
            RouteAttribute::Gateway(address) => plain(address),
            _ => None,
        });
        routes.push(Route {
            via: gateway,
            on_link: onlink(hop.flags.bits().into()),
            ..route.clone()
        });
    }
    routes
}

fn message(route: &Route, index: u32) -> RouteMessage {
    let mut message = match route.to.address {
        IpAddr::V4(address) => {
            let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
                .output_interface(index)
                .protocol(RouteProtocol::Other(DECLARED))
                .priority(route.metric)
                .table_id(route.table)
                .destination_prefix(address, route.to.prefix);
            if let Some(IpAddr::V4(via)) = route.via {
                builder = builder.gateway(via);
            } else if route.kind.is_none() {
                builder = builder.scope(RouteScope::Link);
            }
            if let Some(IpAddr::V4(from)) = route.from {
                builder = builder.pref_source(from);
            }
            if route.on_link {
                builder = builder.onlink();
            }
            builder.build()
        }
        IpAddr::V6(address) => {
            let mut builder = RouteMessageBuilder::<Ipv6Addr>::new()
                .output_interface(index)
                .protocol(RouteProtocol::Other(DECLARED))
                .priority(route.metric)
                .table_id(route.table)
                .destination_prefix(address, route.to.prefix);
            if let Some(IpAddr::V6(via)) = route.via {
                builder = builder.gateway(via);
            }
            if let Some(IpAddr::V6(from)) = route.from {
                builder = builder.pref_source(from);
            }
            if route.on_link {
                builder = builder.onlink();
            }
            builder.build()
        }
    };
    if let Some(mtu) = route.mtu {
        message
            .attributes
            .push(RouteAttribute::Metrics(vec![RouteMetric::Mtu(mtu)]));
    }
    message.header.kind = match route.kind.as_deref() {
        Some("blackhole") => RouteType::BlackHole,
        Some("unreachable") => RouteType::Unreachable,
        Some("prohibit") => RouteType::Prohibit,
        Some("throw") => RouteType::Throw,
        _ => return message,
    };
    // These lead nowhere, over no interface.
    message
        .attributes
        .retain(|attribute| !matches!(attribute, RouteAttribute::Oif(_)));
    message
}

fn shown(route: &Route) -> String {
    let via = route
        .via
        .map(|via| format!(" via {via}"))
        .unwrap_or_default();
    format!("{}{via}", route.to)
}
