//! The kernel's side, over rtnetlink: links and what happens to them, addresses, routes.
//!
//! - `declared`: addresses and routes of the configuration
//! - `ipv6`: addresses and prefixes by DHCPv6
//! - `devices`: interfaces that are made, and what is set of any
//! - `tunnels`: those that are tunnels; `wireguard`: their keys and peers
//! - `ports`: what is set of parts of bridges and bonds
//! - `rules`: policy rules
//! - `generic`: generic netlink, for what rtnetlink does not have; `wake`: packets that wake the machine

mod declared;
mod devices;
mod generic;
mod ipv6;
mod ports;
mod rules;
mod tunnels;
mod wake;
mod wireguard;

use std::future::Future;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use futures_util::stream::{Stream, StreamExt, TryStreamExt};
use netlink_packet_route::address::{AddressAttribute, AddressMessage, AddressProtocol, CacheInfo};
use netlink_packet_route::link::LinkMessage;
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteScope,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use rtnetlink::packet_core::NetlinkPayload;
use rtnetlink::{AddressMessageBuilder, Handle, LinkUnspec, MulticastGroup, RouteMessageBuilder};
use thiserror::Error;

use crate::ipv4::{Change, Present, PresentAddress, Route};
use crate::links::Link;

/// Marks our addresses (`IFA_PROTO`), so that a restarted service knows them: the number that DHCP has for routes.
const OURS: AddressProtocol = AddressProtocol::Other(16);
/// A lifetime without end, to the kernel.
const FOREVER: u32 = u32::MAX;

/// What could not be done, and why.
#[derive(Debug, Error)]
#[error("{doing}: {source}")]
pub struct KernelError {
    doing: String,
    source: io::Error,
}

impl KernelError {
    fn unsupported(doing: String) -> Self {
        KernelError {
            doing,
            source: io::ErrorKind::Unsupported.into(),
        }
    }
}

/// What the kernel announces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KernelEvent {
    /// A link is new or changed.
    Link(Link),
    /// The link with this index is gone.
    LinkGone(u32),
    /// A link's address was removed, by us or by others.
    AddressGone(u32),
    /// An address is of no use because somebody else has it (RFC 4862 5.4).
    AddressRefused(u32, Ipv6Addr),
    /// Announcements were lost.
    Lost,
}

/// A connection to the kernel.
#[derive(Debug, Clone)]
pub struct Kernel {
    handle: Handle,
}

impl Kernel {
    /// Connects. The second value is everything that is announced from now on; the third must be run for anything to
    /// happen, and ends only when the connection breaks.
    ///
    /// # Errors
    /// What making the netlink socket reports.
    pub fn connect() -> io::Result<(
        Self,
        impl Stream<Item = KernelEvent> + Unpin,
        impl Future<Output = ()> + Send + 'static,
    )> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
        ];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
        let events = messages.filter_map(|(message, _)| std::future::ready(event(message.payload)));
        Ok((Self { handle }, events, connection))
    }

    /// All links.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn links(&self) -> Result<Vec<Link>, KernelError> {
        let links = self.handle.link().get().execute();
        let links = links
            .map_ok(|message| Link::from_message(&message))
            .try_collect();
        links
            .await
            .map_err(failed("listing the network interfaces"))
    }

    /// Whether there is a link with this index. When the kernel does not say, there may be.
    pub async fn has(&self, index: u32) -> bool {
        let mut found = self.handle.link().get().match_index(index).execute();
        !matches!(found.try_next().await, Err(rtnetlink::Error::NetlinkError(error))
            if error.raw_code() == -libc::ENODEV)
    }

    /// Brings a link up.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn bring_up(&self, index: u32) -> Result<(), KernelError> {
        let message = LinkUnspec::new_with_index(index).up().build();
        self.handle
            .link()
            .change(message)
            .execute()
            .await
            .map_err(failed("bringing the link up"))
    }

    /// Sets a link's MTU.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn set_mtu(&self, index: u32, mtu: u32) -> Result<(), KernelError> {
        let message = LinkUnspec::new_with_index(index).mtu(mtu).build();
        self.handle
            .link()
            .change(message)
            .execute()
            .await
            .map_err(failed(format!("setting the MTU to {mtu}")))
    }

    /// How a link's IPv4 side looks, with its routes in `table`.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn ipv4(&self, index: u32, table: u32) -> Result<Present, KernelError> {
        let mut request = self.handle.address().get().set_link_index_filter(index);
        request.message_mut().header.family = AddressFamily::Inet;
        let addresses: Vec<AddressMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing the link's addresses"))?;
        let request = self
            .handle
            .route()
            .get(RouteMessageBuilder::<Ipv4Addr>::new().build());
        let routes: Vec<RouteMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing the routes"))?;
        Ok(Present {
            addresses: addresses.iter().filter_map(present_address).collect(),
            routes: routes
                .iter()
                .filter_map(|message| our_route(message, index, table))
                .collect(),
        })
    }

    /// Carries one change out, of a route in `table`.
    ///
    /// # Errors
    /// What the kernel answers; that something to be removed is gone already is none.
    pub async fn apply(&self, index: u32, table: u32, change: &Change) -> Result<(), KernelError> {
        match change {
            Change::SetAddress {
                address,
                prefix_len,
                valid_s,
                metric,
            } => {
                let mut request = self
                    .handle
                    .address()
                    .add(index, IpAddr::V4(*address), *prefix_len)
                    .replace();
                let mut lifetime = CacheInfo::default();
                lifetime.ifa_valid = valid_s.unwrap_or(FOREVER);
                lifetime.ifa_preferred = lifetime.ifa_valid;
                request.message_mut().attributes.extend([
                    AddressAttribute::CacheInfo(lifetime),
                    AddressAttribute::RoutePriority(*metric),
                    AddressAttribute::Protocol(OURS),
                ]);
                request.execute().await.map_err(failed(format!(
                    "setting the address {address}/{prefix_len}"
                )))
            }
            Change::RemoveAddress(address, prefix_len) => {
                let message = AddressMessageBuilder::<Ipv4Addr>::new()
                    .index(index)
                    .address(*address, *prefix_len)
                    .build();
                let removed = self.handle.address().del(message).execute().await;
                unless_gone(removed).map_err(failed(format!(
                    "removing the address {address}/{prefix_len}"
                )))
            }
            Change::AddRoute(route) => {
                let added = self
                    .handle
                    .route()
                    .add(route_message(route, index, table))
                    .replace()
                    .execute()
                    .await;
                added.map_err(failed(format!("adding the route {}", shown(route))))
            }
            Change::RemoveRoute(route) => {
                let removed = self
                    .handle
                    .route()
                    .del(route_message(route, index, table))
                    .execute()
                    .await;
                unless_gone(removed).map_err(failed(format!("removing the route {}", shown(route))))
            }
        }
    }
}

fn event(payload: NetlinkPayload<RouteNetlinkMessage>) -> Option<KernelEvent> {
    // A port that leaves a bridge is announced as a removed link of the bridge family.
    let whole = |message: &LinkMessage| message.header.interface_family == AddressFamily::Unspec;
    match payload {
        NetlinkPayload::Overrun(_) => Some(KernelEvent::Lost),
        NetlinkPayload::InnerMessage(message) => match message {
            RouteNetlinkMessage::NewLink(link) if whole(&link) => {
                Some(KernelEvent::Link(Link::from_message(&link)))
            }
            RouteNetlinkMessage::DelLink(link) if whole(&link) => {
                Some(KernelEvent::LinkGone(link.header.index))
            }
            // One that is for good stays where it is.
            RouteNetlinkMessage::NewAddress(address) => {
                let index = address.header.index;
                ipv6::refused(&address).map(|address| KernelEvent::AddressRefused(index, address))
            }
            RouteNetlinkMessage::DelAddress(address) => {
                let index = address.header.index;
                Some(match ipv6::refused(&address) {
                    Some(address) => KernelEvent::AddressRefused(index, address),
                    None => KernelEvent::AddressGone(index),
                })
            }
            _ => None,
        },
        _ => None,
    }
}

fn present_address(message: &AddressMessage) -> Option<PresentAddress> {
    let local = message
        .attributes
        .iter()
        .find_map(|attribute| match attribute {
            AddressAttribute::Local(IpAddr::V4(address)) => Some(*address),
            _ => None,
        });
    let ours = message
        .attributes
        .contains(&AddressAttribute::Protocol(OURS));
    Some(PresentAddress {
        address: local?,
        prefix_len: message.header.prefix_len,
        ours,
    })
}

/// The route, if it is one of ours: over this link, in that table, marked as from DHCP.
fn our_route(message: &RouteMessage, index: u32, table: u32) -> Option<Route> {
    if message.header.protocol != RouteProtocol::Dhcp {
        return None;
    }
    let mut over_link = false;
    let mut in_table = u32::from(message.header.table) == table;
    let mut route = Route {
        destination: Ipv4Addr::UNSPECIFIED,
        prefix_len: message.header.destination_prefix_length,
        gateway: None,
        source: None,
        metric: 0,
    };
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Oif(other) => over_link = *other == index,
            RouteAttribute::Destination(RouteAddress::Inet(address)) => {
                route.destination = *address
            }
            RouteAttribute::Gateway(RouteAddress::Inet(address)) => route.gateway = Some(*address),
            RouteAttribute::PrefSource(RouteAddress::Inet(address)) => {
                route.source = Some(*address)
            }
            RouteAttribute::Priority(metric) => route.metric = *metric,
            RouteAttribute::Table(number) => in_table = *number == table,
            _ => {}
        }
    }
    (over_link && in_table).then_some(route)
}

fn route_message(route: &Route, index: u32, table: u32) -> RouteMessage {
    let mut builder = RouteMessageBuilder::<Ipv4Addr>::new()
        .output_interface(index)
        .protocol(RouteProtocol::Dhcp)
        .table_id(table)
        .priority(route.metric);
    if route.prefix_len > 0 {
        builder = builder.destination_prefix(route.destination, route.prefix_len);
    }
    if let Some(source) = route.source {
        builder = builder.pref_source(source);
    }
    match route.gateway {
        // On the link whatever its network's prefix says: clouds hand out /32 with a gateway beyond it.
        Some(gateway) => builder.gateway(gateway).onlink().build(),
        None => builder.scope(RouteScope::Link).build(),
    }
}

fn shown(route: &Route) -> String {
    let via = route
        .gateway
        .map(|gateway| format!(" via {gateway}"))
        .unwrap_or_default();
    format!("{}/{}{via}", route.destination, route.prefix_len)
}

fn failed(doing: impl Into<String>) -> impl FnOnce(rtnetlink::Error) -> KernelError {
    move |error| KernelError {
        doing: doing.into(),
        source: match error {
            rtnetlink::Error::NetlinkError(message) => message.to_io(),
            other => io::Error::other(other.to_string()),
        },
    }
}

/// Turns "there is no such thing" after a removal into success.
fn unless_gone(result: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match result {
        Err(rtnetlink::Error::NetlinkError(message))
            if [
                libc::ENODEV,
                libc::ESRCH,
                libc::ENOENT,
                libc::EADDRNOTAVAIL,
                libc::ENETDOWN,
            ]
            .contains(&message.raw_code().abs()) =>
        {
            Ok(())
        }
        other => other,
    }
}
