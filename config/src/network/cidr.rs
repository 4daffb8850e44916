//! Addresses with the length of their network's prefix.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An address and the length of its network's prefix (RFC 4632, RFC 4291 section 2.3).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct Cidr {
    /// The address.
    pub address: IpAddr,
    /// Length of the prefix, in bits.
    pub prefix: u8,
}

impl Cidr {
    /// Everything, in one version of IP.
    pub fn everything(version_6: bool) -> Self {
        let address = match version_6 {
            true => IpAddr::V6(Ipv6Addr::UNSPECIFIED),
            false => IpAddr::V4(Ipv4Addr::UNSPECIFIED),
        };
        Cidr { address, prefix: 0 }
    }

    /// One address alone.
    pub fn host(address: IpAddr) -> Self {
        Cidr {
            address,
            prefix: longest(address),
        }
    }

    /// Its network: the bits behind the prefix are zero.
    #[must_use]
    pub fn network(self) -> Self {
        let cut = |bits: u128, length: u32| {
            let drop = length - u32::from(self.prefix);
            bits.checked_shr(drop)
                .and_then(|bits| bits.checked_shl(drop))
                .unwrap_or(0)
        };
        let address = match self.address {
            IpAddr::V4(address) => {
                let bits = cut(u32::from(address).into(), 32);
                IpAddr::V4(Ipv4Addr::from(u32::try_from(bits).unwrap_or(0)))
            }
            IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from(cut(address.into(), 128))),
        };
        Cidr { address, ..self }
    }

    /// Whether `address` is in its network.
    pub fn contains(self, address: IpAddr) -> bool {
        let other = Cidr { address, ..self };
        self.address.is_ipv4() == address.is_ipv4() && self.network() == other.network()
    }
}

fn longest(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

impl Default for Cidr {
    fn default() -> Self {
        Cidr::everything(false)
    }
}

impl fmt::Display for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.prefix)
    }
}

impl fmt::Debug for Cidr {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, formatter)
    }
}

impl From<Cidr> for String {
    fn from(cidr: Cidr) -> Self {
        cidr.to_string()
    }
}

impl TryFrom<String> for Cidr {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl FromStr for Cidr {
    type Err = String;

    /// From `ADDRESS/LENGTH`, or an address alone.
    fn from_str(text: &str) -> Result<Self, String> {
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address
            .parse()
            .map_err(|_| format!("`{address}` is not an address"))?;
        let longest = longest(address);
        let prefix = match prefix {
            None => longest,
            Some(text) => text
                .parse()
                .ok()
                .filter(|prefix| *prefix <= longest)
                .ok_or_else(|| format!("`{text}` is not a length of a prefix (0 to {longest})"))?,
        };
        Ok(Cidr { address, prefix })
    }
}
