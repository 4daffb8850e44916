//! Addresses by DHCPv6 and of delegated prefixes, and the end of the way for what of these is nowhere, over rtnetlink. Routes to
//! the networks of the former are the routers' to tell (RFC 5942).

use std::net::{IpAddr, Ipv6Addr};

use futures_util::stream::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};
use netlink_packet_route::route::{
    RouteAddress, RouteAttribute, RouteMessage, RouteProtocol, RouteType,
};
use rtnetlink::{AddressMessageBuilder, RouteMessageBuilder};

use super::{Kernel, KernelError, OURS, failed, unless_gone};
use crate::ipv6::prefix::Prefix;

/// Behind whatever others set for the same network.
const UNREACHABLE_METRIC: u32 = 2048;

impl Kernel {
    /// A link's addresses by DHCPv6, with the lengths of their prefixes: 128 for those that it was granted, 64 for those of
    /// delegated prefixes.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn leased_ipv6(&self, index: u32) -> Result<Vec<(Ipv6Addr, u8)>, KernelError> {
        let mut request = self.handle.address().get().set_link_index_filter(index);
        request.message_mut().header.family = AddressFamily::Inet6;
        let addresses: Vec<AddressMessage> = request
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing the link's addresses"))?;
        let ours = |message: &&AddressMessage| {
            let attributes = &message.attributes;
            attributes.contains(&AddressAttribute::Protocol(OURS))
        };
        let ours = addresses.iter().filter(ours);
        Ok(ours
            .filter_map(|message| Some((address(message)?, message.header.prefix_len)))
            .collect())
    }

    /// Gives a link an address, or one that it has other lifetimes (preferred, valid; in seconds).
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn set_ipv6(
        &self,
        index: u32,
        (address, length): (Ipv6Addr, u8),
        lifetimes: (u32, u32),
    ) -> Result<(), KernelError> {
        let mut request = self
            .handle
            .address()
            .add(index, IpAddr::V6(address), length)
            .replace();
        let mut lifetime = CacheInfo::default();
        // 0 is refused.
        (lifetime.ifa_preferred, lifetime.ifa_valid) = (lifetimes.0, lifetimes.1.max(1));
        request.message_mut().attributes.extend([
            AddressAttribute::CacheInfo(lifetime),
            AddressAttribute::Protocol(OURS),
        ]);
        let set = request.execute().await;
        set.map_err(failed(format!("setting the address {address}")))
    }

    /// Takes an address from a link.
    ///
    /// # Errors
    /// What the kernel answers; that it is gone already is none.
    pub async fn remove_ipv6(
        &self,
        index: u32,
        (address, length): (Ipv6Addr, u8),
    ) -> Result<(), KernelError> {
        let message = AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(address, length)
            .build();
        let removed = self.handle.address().del(message).execute().await;
        unless_gone(removed).map_err(failed(format!("removing the address {address}")))
    }

    /// Delegated prefixes that lead nowhere but where a link has a part of them, and the tables that say so.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn unreachable(&self) -> Result<Vec<(Prefix, u32)>, KernelError> {
        let all = RouteMessageBuilder::<Ipv6Addr>::new().build();
        let routes: Vec<RouteMessage> = self
            .handle
            .route()
            .get(all)
            .execute()
            .try_collect()
            .await
            .map_err(failed("listing the routes"))?;
        Ok(routes.iter().filter_map(unreachable).collect())
    }

    /// Has packets to a delegated prefix that are for no link dropped (RFC 7084 4.2, WPD-5). The kernel ends no such route by
    /// itself, whatever lifetime it is given.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn set_unreachable(&self, prefix: Prefix, table: u32) -> Result<(), KernelError> {
        let message = unreachable_message(prefix, table);
        let set = self.handle.route().add(message).replace().execute().await;
        set.map_err(failed(format!("making {prefix} unreachable")))
    }

    /// Takes that back.
    ///
    /// # Errors
    /// What the kernel answers; that it is gone already is none.
    pub async fn remove_unreachable(&self, prefix: Prefix, table: u32) -> Result<(), KernelError> {
        let message = unreachable_message(prefix, table);
        let removed = self.handle.route().del(message).execute().await;
        unless_gone(removed).map_err(failed(format!("removing the route to {prefix}")))
    }
}

fn unreachable_message(prefix: Prefix, table: u32) -> RouteMessage {
    let mut message = RouteMessageBuilder::<Ipv6Addr>::new()
        .protocol(RouteProtocol::Dhcp)
        .priority(UNREACHABLE_METRIC)
        .table_id(table)
        .destination_prefix(prefix.address, prefix.length)
        .build();
    message.header.kind = RouteType::Unreachable;
    message
}

/// The prefix and the table of a route of ours.
fn unreachable(message: &RouteMessage) -> Option<(Prefix, u32)> {
    let header = &message.header;
    if (header.kind, header.protocol) != (RouteType::Unreachable, RouteProtocol::Dhcp) {
        return None;
    }
    let mut table = u32::from(header.table);
    let mut network = None;
    for attribute in &message.attributes {
        match attribute {
            RouteAttribute::Destination(RouteAddress::Inet6(address)) => network = Some(*address),
            RouteAttribute::Table(number) => table = *number,
            _ => {}
        }
    }
    let prefix = Prefix::new(network?, header.destination_prefix_length)?;
    Some((prefix, table))
}

fn address(message: &AddressMessage) -> Option<Ipv6Addr> {
    let mut attributes = message.attributes.iter();
    attributes.find_map(|attribute| match attribute {
        AddressAttribute::Address(IpAddr::V6(address)) => Some(*address),
        _ => None,
    })
}

/// The address that was taken away, when it was because somebody else has it.
pub(super) fn refused(message: &AddressMessage) -> Option<Ipv6Addr> {
    let mut attributes = message.attributes.iter();
    let is_refused = attributes.any(|attribute| {
        matches!(attribute, AddressAttribute::Flags(flags) if flags.contains(AddressFlags::Dadfailed))
    });
    address(message).filter(|_| is_refused)
}
