//! Prefixes that a server delegates, and the networks of links that they are divided into. Pure.

use std::fmt;
use std::net::Ipv6Addr;

use keelson_config::network::{Cidr, PrefixPart};
use serde::{Deserialize, Serialize};

/// Length of the prefix that one link has (RFC 4291 2.5.1).
pub const LINK_PREFIX: u8 = 64;

/// A delegated prefix: of 1 to 64 bits, and zeros behind them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Prefix {
    /// Its first address.
    pub address: Ipv6Addr,
    /// How many bits count.
    pub length: u8,
}

impl Prefix {
    /// A prefix of these bits; `None` for what no router can give to its links: one longer than a link's, or one that is not of
    /// unicast addresses which are routed.
    pub fn new(address: Ipv6Addr, length: u8) -> Option<Self> {
        let address = Ipv6Addr::from_bits(first_bits(address.to_bits(), length));
        let is_routed = super::is_host(address) && !address.is_unicast_link_local();
        let fits = (1..=LINK_PREFIX).contains(&length) && is_routed;
        fits.then_some(Self { address, length })
    }

    /// What is hoped for: a prefix of this length, whichever it is (RFC 8415 18.2.1).
    pub fn hint(length: u8) -> Self {
        Self {
            address: Ipv6Addr::UNSPECIFIED,
            length,
        }
    }

    /// The address on the network with the number `id`; `None` when the prefix has not as many networks.
    pub fn address_of(self, id: u64, token: Ipv6Addr) -> Option<Ipv6Addr> {
        let free_bits = u32::from(LINK_PREFIX.checked_sub(self.length)?);
        if id.checked_shr(free_bits).unwrap_or(0) != 0 {
            return None;
        }
        let host = token.to_bits() & u128::from(u64::MAX);
        let network = u128::from(id) << LINK_PREFIX;
        Some(Ipv6Addr::from_bits(self.address.to_bits() | network | host))
    }

    /// The same as the configuration writes it.
    pub fn cidr(self) -> Cidr {
        Cidr {
            address: self.address.into(),
            prefix: self.length,
        }
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

fn first_bits(bits: u128, length: u8) -> u128 {
    let mask = u128::MAX.checked_shl(128_u32.saturating_sub(length.into()));
    bits & mask.unwrap_or(0)
}

/// The number of the network that each of these parts has, of one prefix: the one that is asked for, or the first that nobody
/// asks for.
pub fn network_numbers(parts: &[&PrefixPart]) -> Vec<u64> {
    let mut taken: Vec<u64> = parts.iter().filter_map(|part| part.subnet_id).collect();
    let mut next = || {
        let free = (0..=u64::MAX).find(|id| !taken.contains(id)).unwrap_or(0);
        taken.push(free);
        free
    };
    parts
        .iter()
        .map(|part| part.subnet_id.unwrap_or_else(&mut next))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn part(subnet_id: Option<u64>) -> PrefixPart {
        PrefixPart {
            from: "wan".into(),
            subnet_id,
            token: PrefixPart::TOKEN,
        }
    }

    #[test]
    fn networks_are_those_asked_for_and_the_first_free_ones() {
        let parts = [None, Some(0), None, Some(7), Some(2)].map(part);
        let parts: Vec<&PrefixPart> = parts.iter().collect();
        assert_eq!(network_numbers(&parts), [1, 0, 3, 7, 2]);
    }

    #[test]
    fn an_address_stands_in_its_network_and_none_beyond_the_prefix() {
        let prefix = Prefix::new("2001:db8:1:ff12::".parse().unwrap(), 56).unwrap();
        assert_eq!(prefix.to_string(), "2001:db8:1:ff00::/56");
        let address = prefix.address_of(0xab, "::5".parse().unwrap());
        assert_eq!(address, "2001:db8:1:ffab::5".parse().ok());
        assert_eq!(prefix.address_of(256, PrefixPart::TOKEN), None);
        let one = Prefix::new("2001:db8::".parse().unwrap(), 64).unwrap();
        assert_eq!(
            one.address_of(0, PrefixPart::TOKEN),
            "2001:db8::1".parse().ok()
        );
        assert_eq!(one.address_of(1, PrefixPart::TOKEN), None);
    }

    #[test]
    fn what_no_link_can_use_is_no_prefix() {
        for (address, length) in [
            ("2001:db8::", 65),
            ("2001:db8::", 0),
            ("fe80::", 56),
            ("ff02::", 56),
            ("::", 56),
            ("::1", 64),
            ("2001:db8::", 255),
        ] {
            assert_eq!(
                Prefix::new(address.parse().unwrap(), length),
                None,
                "{address}/{length}"
            );
        }
    }

    proptest! {
        #[test]
        fn addresses_of_all_networks_are_in_the_prefix_and_different(bits in any::<u128>(), length in 3u8..=64, ids in any::<[u64; 2]>()) {
            let address = Ipv6Addr::from_bits(bits >> 4 | 2 << 124);
            let prefix = Prefix::new(address, length).unwrap();
            let [a, b] = ids.map(|id| prefix.address_of(id, PrefixPart::TOKEN));
            for found in [a, b].into_iter().flatten() {
                prop_assert!(prefix.cidr().contains(found.into()));
            }
            prop_assert!(a.is_none() || a != b || ids[0] == ids[1]);
        }
    }
}
