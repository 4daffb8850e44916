//! IPv4 networks, and what is free in them.

use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Networks without a wish get the first free /24 of these. The host's own networks may have any of them.
const POOLS: [Subnet; 3] = [
    Subnet {
        address: Ipv4Addr::new(10, 213, 0, 0),
        prefix_len: 16,
    },
    Subnet {
        address: Ipv4Addr::new(172, 30, 0, 0),
        prefix_len: 16,
    },
    Subnet {
        address: Ipv4Addr::new(192, 168, 208, 0),
        prefix_len: 20,
    },
];
const SHARE_PREFIX_LEN: u8 = 24;

/// A network in CIDR notation (RFC 4632).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// The network's address: no bit of a host is set.
    pub address: Ipv4Addr,
    /// Bits of the network, 0 to 32.
    pub prefix_len: u8,
}

impl Subnet {
    /// The network that an address with a prefix of so many bits belongs to.
    pub fn of(address: Ipv4Addr, prefix_len: u8) -> Self {
        let mask = mask(prefix_len);
        Self {
            address: Ipv4Addr::from_bits(address.to_bits() & mask),
            prefix_len,
        }
    }

    /// Whether the address is one of its.
    pub fn contains(self, address: Ipv4Addr) -> bool {
        Self::of(address, self.prefix_len) == self
    }

    /// Whether they have an address in common.
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }

    fn last(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(self.address.to_bits() | !mask(self.prefix_len))
    }

    /// Whether a machine may have the address: not the network's own, nor that of broadcasts.
    pub fn is_host(self, address: Ipv4Addr) -> bool {
        self.contains(address) && address != self.address && address != self.last()
    }

    /// The first address that a machine may have and that is not taken.
    pub fn first_free(self, taken: &BTreeSet<Ipv4Addr>) -> Option<Ipv4Addr> {
        let (first, last) = (self.address.to_bits(), self.last().to_bits());
        (first.saturating_add(1)..last)
            .map(Ipv4Addr::from_bits)
            .find(|address| !taken.contains(address))
    }
}

fn mask(prefix_len: u8) -> u32 {
    u32::MAX
        .checked_shl(32 - u32::from(prefix_len.min(32)))
        .unwrap_or(0)
}

impl fmt::Display for Subnet {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix_len)
    }
}

impl FromStr for Subnet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("invalid subnet {text}: invalid CIDR block notation");
        let (address, prefix_len) = text.split_once('/').ok_or_else(wrong)?;
        let address: Ipv4Addr = address.parse().map_err(|_| wrong())?;
        let prefix_len: u8 = prefix_len.parse().map_err(|_| wrong())?;
        if prefix_len > 32 {
            return Err(wrong());
        }
        if !(8..=29).contains(&prefix_len) {
            return Err(format!(
                "invalid subnet {text}: its prefix has to be between 8 and 29"
            ));
        }
        let subnet = Self::of(address, prefix_len);
        match subnet.address == address {
            true => Ok(subnet),
            false => Err(format!("invalid subnet {text}: it should be {subnet}")),
        }
    }
}

/// The first network that nobody uses.
pub(super) fn free_subnet(used: &[Subnet]) -> Option<Subnet> {
    let step = 1 << (32 - SHARE_PREFIX_LEN);
    let shares = POOLS
        .iter()
        .flat_map(|pool| (pool.address.to_bits()..=pool.last().to_bits()).step_by(step));
    let mut shares =
        shares.map(|address| Subnet::of(Ipv4Addr::from_bits(address), SHARE_PREFIX_LEN));
    shares.find(|subnet| !used.iter().any(|used| used.overlaps(*subnet)))
}

/// The network of an interface, by such a routing table as [`routed`] has.
pub(super) fn own_of(table: &str, interface: &str) -> Option<Subnet> {
    let mut own = String::from("\n");
    let lines = table.lines().skip(1);
    for line in lines.filter(|line| line.split_ascii_whitespace().next() == Some(interface)) {
        own.push_str(line);
        own.push('\n');
    }
    routed(&own, "").into_iter().next()
}

/// The networks of a routing table in the form of `/proc/net/route`: addresses and masks are hexadecimal, in the
/// processor's order. Default routes are none, and those over the interface `but` are left out.
pub(super) fn routed(table: &str, but: &str) -> Vec<Subnet> {
    let word = |text: &str| {
        let bits = u32::from_str_radix(text, 16).ok()?;
        Some(Ipv4Addr::from(bits.to_ne_bytes()))
    };
    let route = |line: &str| {
        let fields: Vec<&str> = line.split_ascii_whitespace().collect();
        if fields.first() == Some(&but) {
            return None;
        }
        let (address, mask) = (word(fields.get(1)?)?, word(fields.get(7)?)?);
        let prefix_len = u8::try_from(mask.to_bits().leading_ones()).ok()?;
        (prefix_len > 0).then(|| Subnet::of(address, prefix_len))
    };
    table.lines().skip(1).filter_map(route).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        text.parse().unwrap()
    }

    #[test]
    fn a_subnet_is_what_its_prefix_says() {
        assert!(
            "10.1.2.3/24"
                .parse::<Subnet>()
                .unwrap_err()
                .contains("10.1.2.0/24")
        );
        for wrong in ["10.1.2.0", "10.1.2.0/30", "10.0.0.0/4", "fd00::/64", "x/24"] {
            assert!(wrong.parse::<Subnet>().is_err(), "{wrong}");
        }
        let net = subnet("192.168.4.0/22");
        assert!(net.contains([192, 168, 7, 255].into()) && !net.contains([192, 168, 8, 0].into()));
        assert!(!net.is_host([192, 168, 7, 255].into()) && net.is_host([192, 168, 4, 255].into()));
        assert!(net.overlaps(subnet("192.168.0.0/16")) && !net.overlaps(subnet("10.0.0.0/8")));
    }

    #[test]
    fn the_first_free_address_is_taken_until_none_is_left() {
        let (net, mut taken) = (subnet("10.9.0.0/29"), BTreeSet::new());
        while let Some(address) = net.first_free(&taken) {
            taken.insert(address);
        }
        assert_eq!(taken.len(), 6);
    }

    #[test]
    fn a_free_network_is_none_that_is_routed() {
        let table = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                     eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                     eth0\t0000D50A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
        let used = routed(table, "");
        assert_eq!(used, [Subnet::of([10, 213, 0, 0].into(), 16)]);
        assert_eq!(routed(table, "eth0"), []);
        assert_eq!(free_subnet(&used), Some(subnet("172.30.0.0/24")));
        let all = [subnet("10.0.0.0/8"), subnet("172.16.0.0/12")];
        assert_eq!(free_subnet(&all), Some(subnet("192.168.208.0/24")));
        let some = [subnet("10.213.0.0/23"), subnet("10.213.3.0/29")];
        assert_eq!(free_subnet(&some), Some(subnet("10.213.2.0/24")));
    }
}
