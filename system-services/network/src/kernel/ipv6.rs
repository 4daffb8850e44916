//! Addresses by DHCPv6, over rtnetlink. Routes to their networks are the routers' to tell (RFC 5942).

use std::net::{IpAddr, Ipv6Addr};

use futures_util::stream::TryStreamExt;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::address::{AddressAttribute, AddressFlags, AddressMessage, CacheInfo};
use rtnetlink::AddressMessageBuilder;

use super::{Kernel, KernelError, OURS, failed, unless_gone};

/// An address alone, without its network.
const PREFIX: u8 = 128;

impl Kernel {
    /// A link's addresses by DHCPv6.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn leased_ipv6(&self, index: u32) -> Result<Vec<Ipv6Addr>, KernelError> {
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
        Ok(addresses.iter().filter(ours).filter_map(address).collect())
    }

    /// Gives a link an address, or one that it has other lifetimes (preferred, valid; in seconds).
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn set_ipv6(
        &self,
        index: u32,
        address: Ipv6Addr,
        lifetimes: (u32, u32),
    ) -> Result<(), KernelError> {
        let mut request = self
            .handle
            .address()
            .add(index, IpAddr::V6(address), PREFIX)
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
    pub async fn remove_ipv6(&self, index: u32, address: Ipv6Addr) -> Result<(), KernelError> {
        let message = AddressMessageBuilder::<Ipv6Addr>::new()
            .index(index)
            .address(address, PREFIX)
            .build();
        let removed = self.handle.address().del(message).execute().await;
        unless_gone(removed).map_err(failed(format!("removing the address {address}")))
    }
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
