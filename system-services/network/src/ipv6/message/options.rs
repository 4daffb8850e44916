//! The options of a message, one by one: one that is broken costs itself, not those behind it.

use std::net::Ipv6Addr;

use dhcproto::v6::{DhcpOption, NtpSuboption};
use dhcproto::{Decodable, Decoder};

/// One option: its number and what it says.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawOption<'a> {
    pub(super) code: u16,
    pub(super) value: &'a [u8],
    /// Both and the length, as dhcproto reads them.
    whole: &'a [u8],
}

/// Cuts options apart (RFC 8415 21.1); ends with the bytes, or with one that claims more of them than there are.
#[derive(Debug, Clone)]
pub(super) struct Options<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Options<'a> {
    type Item = RawOption<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let (code, rest) = self.0.split_first_chunk::<2>()?;
        let (length, rest) = rest.split_first_chunk::<2>()?;
        let length = usize::from(u16::from_be_bytes(*length));
        let (value, others) = rest.split_at_checked(length)?;
        let whole = self.0.get(..4 + length)?;
        self.0 = others;
        Some(RawOption {
            code: u16::from_be_bytes(*code),
            value,
            whole,
        })
    }
}

impl<'a> RawOption<'a> {
    /// A number of one byte.
    pub(super) fn byte(self) -> Option<u8> {
        let [byte] = *self.value else { return None };
        Some(byte)
    }

    /// A number of four bytes.
    pub(super) fn number(self) -> Option<u32> {
        self.value.try_into().ok().map(u32::from_be_bytes)
    }

    /// The number of a status; the words behind it are for people (RFC 8415 21.13).
    pub(super) fn status(self) -> Option<u16> {
        let (code, _) = self.value.split_first_chunk::<2>()?;
        Some(u16::from_be_bytes(*code))
    }

    /// A list of addresses.
    pub(super) fn addresses(self) -> impl Iterator<Item = Ipv6Addr> + 'a {
        let (chunks, _) = self.value.as_chunks::<16>();
        chunks.iter().map(|bytes| Ipv6Addr::from(*bytes))
    }

    /// Time servers by address (RFC 5908).
    pub(super) fn time_servers(self) -> Vec<Ipv6Addr> {
        let Ok(DhcpOption::NtpServer(servers)) = DhcpOption::decode(&mut Decoder::new(self.whole))
        else {
            return Vec::new();
        };
        let servers = servers.into_iter().filter_map(|server| match server {
            NtpSuboption::ServerAddress(address) => Some(address),
            _ => None,
        });
        servers.collect()
    }

    /// Domains, as DNS writes them.
    pub(super) fn domains(self) -> Vec<String> {
        match DhcpOption::decode(&mut Decoder::new(self.whole)) {
            Ok(DhcpOption::DomainSearchList(names)) => {
                names.iter().map(|name| name.to_ascii()).collect()
            }
            _ => Vec::new(),
        }
    }

    /// The number of an association, T1 and T2, and its options (RFC 8415 21.4, 21.21).
    pub(super) fn association(self) -> Option<(u32, u32, u32, Options<'a>)> {
        let (id, rest) = self.value.split_first_chunk::<4>()?;
        let (t1, rest) = rest.split_first_chunk::<4>()?;
        let (t2, rest) = rest.split_first_chunk::<4>()?;
        let [id, t1, t2] = [id, t1, t2].map(|bytes| u32::from_be_bytes(*bytes));
        Some((id, t1, t2, Options(rest)))
    }

    /// An address, its preferred and its valid lifetime in seconds (RFC 8415 21.6).
    pub(super) fn leased_address(self) -> Option<(Ipv6Addr, u32, u32)> {
        let (address, rest) = self.value.split_first_chunk::<16>()?;
        let (preferred, valid) = lifetimes(rest)?;
        Some((Ipv6Addr::from(*address), preferred, valid))
    }

    /// A prefix, its length, its preferred and its valid lifetime in seconds (RFC 8415 21.22).
    pub(super) fn leased_prefix(self) -> Option<(Ipv6Addr, u8, u32, u32)> {
        let (preferred, valid) = lifetimes(self.value)?;
        let (length, rest) = self.value.get(8..)?.split_first()?;
        let (address, _) = rest.split_first_chunk::<16>()?;
        Some((Ipv6Addr::from(*address), *length, preferred, valid))
    }
}

fn lifetimes(bytes: &[u8]) -> Option<(u32, u32)> {
    let (preferred, rest) = bytes.split_first_chunk::<4>()?;
    let (valid, _) = rest.split_first_chunk::<4>()?;
    let [preferred, valid] = [preferred, valid].map(|bytes| u32::from_be_bytes(*bytes));
    Some((preferred, valid))
}
