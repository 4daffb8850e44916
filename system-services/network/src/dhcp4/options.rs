//! Values of DHCP options, read with suspicion: whoever is on the same wire can send them, and some end up in files.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use super::lease::LeaseRoute;

const PAD: u8 = 0;
const END: u8 = 255;
/// Subnet mask (RFC 2132 3.3).
pub const SUBNET_MASK: u8 = 1;
/// Routers (RFC 2132 3.5).
pub const ROUTER: u8 = 3;
/// Name servers (RFC 2132 3.8).
pub const NAME_SERVER: u8 = 6;
/// The client's host name (RFC 2132 3.14).
pub const HOST_NAME: u8 = 12;
/// The client's domain (RFC 2132 3.17).
pub const DOMAIN_NAME: u8 = 15;
/// The interface's MTU (RFC 2132 5.1).
pub const INTERFACE_MTU: u8 = 26;
/// Time servers (RFC 2132 8.3).
pub const NTP_SERVER: u8 = 42;
/// The address that the client wants (RFC 2132 9.1).
pub const REQUESTED_ADDRESS: u8 = 50;
/// Seconds that a lease lasts (RFC 2132 9.2).
pub const LEASE_TIME: u8 = 51;
/// Options continue in the header's fields `file` and `sname` (RFC 2132 9.3).
pub const OVERLOAD: u8 = 52;
/// Which message it is (RFC 2132 9.6).
pub const MESSAGE_TYPE: u8 = 53;
/// The server's name for itself (RFC 2132 9.7).
pub const SERVER_IDENTIFIER: u8 = 54;
/// What the client wants to know (RFC 2132 9.8).
pub const PARAMETER_LIST: u8 = 55;
/// Why a server said no (RFC 2132 9.9).
pub const MESSAGE: u8 = 56;
/// The longest message that the client takes (RFC 2132 9.10).
pub const LARGEST_MESSAGE: u8 = 57;
/// Seconds until the client renews its lease (RFC 2132 9.11).
pub const RENEWAL_TIME: u8 = 58;
/// Seconds until the client asks any server (RFC 2132 9.12).
pub const REBINDING_TIME: u8 = 59;
/// The client's name for itself (RFC 2132 9.14).
pub const CLIENT_IDENTIFIER: u8 = 61;
/// Domains to search (RFC 3397).
pub const DOMAIN_SEARCH: u8 = 119;
/// Routes (RFC 3442).
pub const CLASSLESS_ROUTES: u8 = 121;

/// More routes than this from one server are a mistake or an attack.
const MOST_ROUTES: usize = 64;

/// The options of one message, parts of long ones put together (RFC 3396).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<u8, Vec<u8>>);

impl Options {
    /// Reads options up to the end marker or to the first that is cut off, and adds them to those read before.
    pub fn read(&mut self, mut bytes: &[u8]) {
        loop {
            bytes = match bytes {
                [PAD, rest @ ..] => rest,
                [END, ..] => return,
                [code, length, rest @ ..] => {
                    let Some((data, rest)) = rest.split_at_checked(usize::from(*length)) else {
                        return;
                    };
                    self.0.entry(*code).or_default().extend_from_slice(data);
                    rest
                }
                _ => return,
            };
        }
    }

    /// Adds an option of at most 255 bytes; one of that code that is there is replaced.
    pub fn set(&mut self, code: u8, data: &[u8]) {
        self.0.insert(
            code,
            data.iter().copied().take(usize::from(u8::MAX)).collect(),
        );
    }

    /// Appends the options and the end marker to a message.
    pub fn write(&self, bytes: &mut Vec<u8>) {
        for (code, data) in &self.0 {
            for part in data.chunks(usize::from(u8::MAX)) {
                bytes.extend_from_slice(&[*code, part.len() as u8]);
                bytes.extend_from_slice(part);
            }
        }
        bytes.push(END);
    }

    /// The bytes of an option.
    pub fn get(&self, code: u8) -> Option<&[u8]> {
        self.0.get(&code).map(Vec::as_slice)
    }

    /// An option of one byte.
    pub fn byte(&self, code: u8) -> Option<u8> {
        self.get(code)?.first().copied()
    }

    /// An option of two bytes.
    pub fn half(&self, code: u8) -> Option<u16> {
        self.get(code)?
            .first_chunk()
            .copied()
            .map(u16::from_be_bytes)
    }

    /// An option of four bytes.
    pub fn word(&self, code: u8) -> Option<u32> {
        self.get(code)?
            .first_chunk()
            .copied()
            .map(u32::from_be_bytes)
    }

    /// An option that is an address.
    pub fn address(&self, code: u8) -> Option<Ipv4Addr> {
        self.word(code).map(Ipv4Addr::from)
    }

    /// An option that is a list of hosts' addresses; what cannot be a host is left out.
    pub fn hosts(&self, code: u8) -> Vec<Ipv4Addr> {
        let words = self.get(code).unwrap_or_default().chunks_exact(4);
        words
            .map(|word| Ipv4Addr::new(word[0], word[1], word[2], word[3]))
            .filter(|host| is_host(*host))
            .collect()
    }

    /// The prefix length that the subnet mask stands for.
    pub fn prefix_len(&self) -> Option<u8> {
        let mask = self.word(SUBNET_MASK)?;
        let ones = mask.leading_ones();
        (ones > 0 && mask.count_ones() == ones).then_some(ones as u8)
    }

    /// The host name, when it is one.
    pub fn host_name(&self) -> Option<String> {
        let name = domain_name(self.get(HOST_NAME)?)?;
        // The kernel takes 64 bytes; of a longer name the machine's own part may do.
        let name = if name.len() <= 64 {
            name
        } else {
            name.split('.').next()?.to_owned()
        };
        (name != "localhost" && name.parse::<Ipv4Addr>().is_err()).then_some(name)
    }

    /// Domains to search: the search list, or else the client's own domain.
    pub fn search(&self) -> Vec<String> {
        if let Some(list) = self
            .get(DOMAIN_SEARCH)
            .and_then(search_list)
            .filter(|list| !list.is_empty())
        {
            return list;
        }
        let domains = self.get(DOMAIN_NAME).unwrap_or_default();
        let domains: Option<Vec<String>> = domains
            .split(|byte| *byte == b' ')
            .map(domain_name)
            .collect();
        domains.unwrap_or_default() // when one is broken none is trusted
    }

    /// Routes: classless ones, or else a default route over the first router (RFC 3442: never both).
    pub fn routes(&self) -> Vec<LeaseRoute> {
        if let Some(routes) = self
            .get(CLASSLESS_ROUTES)
            .and_then(classless_routes)
            .filter(|routes| !routes.is_empty())
        {
            return routes;
        }
        let default = |gateway: &Ipv4Addr| LeaseRoute {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            gateway: Some(*gateway),
        };
        self.hosts(ROUTER)
            .first()
            .map(default)
            .into_iter()
            .collect()
    }

    /// Text meant for people, safe to print.
    pub fn text(&self, code: u8) -> Option<String> {
        let bytes = self.get(code)?;
        Some(
            String::from_utf8_lossy(bytes)
                .chars()
                .filter(|c| !c.is_control())
                .take(200)
                .collect(),
        )
    }
}

/// Whether a host can have this address (RFC 1122 3.2.1.3).
pub fn is_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// A domain name or host name, lower case, without a dot at the end.
fn domain_name(bytes: &[u8]) -> Option<String> {
    let end = bytes
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(bytes.len()); // some servers send C strings
    let text = std::str::from_utf8(&bytes[..end]).ok()?;
    let text = text.strip_suffix('.').unwrap_or(text);
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
    };
    (text.len() <= 253 && text.split('.').all(label)).then(|| text.to_ascii_lowercase())
}

/// Names as DNS writes them, compressed (RFC 1035 4.1.4). `None` when any of them is broken.
fn search_list(bytes: &[u8]) -> Option<Vec<String>> {
    let mut names = Vec::new();
    let mut next = 0;
    while next < bytes.len() {
        let (name, end) = dns_name(bytes, next)?;
        next = end;
        let name = domain_name(&name)?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// One name and where it ends. Pointers may only point backwards, so that there are no circles.
fn dns_name(bytes: &[u8], start: usize) -> Option<(Vec<u8>, usize)> {
    let (mut name, mut at, mut part_start, mut end) = (Vec::new(), start, start, None);
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length >> 6 {
            0 if length == 0 => return Some((name, end.unwrap_or(at + 1))),
            0 => {
                if !name.is_empty() {
                    name.push(b'.');
                }
                name.extend_from_slice(bytes.get(at + 1..at + 1 + length)?);
                at += 1 + length;
            }
            3 => {
                let target = ((length & 0x3f) << 8) | usize::from(*bytes.get(at + 1)?);
                if target >= part_start {
                    return None;
                }
                end = end.or(Some(at + 2));
                (at, part_start) = (target, target);
            }
            _ => return None,
        }
        if name.len() > 253 {
            return None;
        }
    }
}

/// Routes of RFC 3442. `None` when any of them is broken.
fn classless_routes(mut bytes: &[u8]) -> Option<Vec<LeaseRoute>> {
    let mut routes = Vec::new();
    while let [prefix_len, rest @ ..] = bytes {
        if *prefix_len > 32 || routes.len() == MOST_ROUTES {
            return None;
        }
        let (significant, rest) = rest.split_at_checked(usize::from(*prefix_len).div_ceil(8))?;
        let (gateway, rest) = rest.split_first_chunk::<4>()?;
        let mut destination = [0; 4];
        destination[..significant.len()].copy_from_slice(significant);
        let mask = u32::MAX
            .checked_shl(32 - u32::from(*prefix_len))
            .unwrap_or(0);
        let gateway = Ipv4Addr::from(*gateway);
        if !gateway.is_unspecified() && !is_host(gateway) {
            return None;
        }
        routes.push(LeaseRoute {
            destination: Ipv4Addr::from(u32::from_be_bytes(destination) & mask),
            prefix_len: *prefix_len,
            gateway: (!gateway.is_unspecified()).then_some(gateway),
        });
        bytes = rest;
    }
    Some(routes)
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
