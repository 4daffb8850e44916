//! Values of DHCP options, read with suspicion: whoever is on the same wire can send them, and some end up in files.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use dhcproto::v4::borrowed::DhcpOption;
use dhcproto::v4::{DecodeResult, Decoder, OptionCode};
use hickory_proto::rr::Name;
use hickory_proto::serialize::binary::{BinDecodable, BinDecoder};

use super::lease::LeaseRoute;

/// More routes than this from one server are a mistake or an attack.
const MOST_ROUTES: usize = 64;

/// The options of one message, parts of long ones put together wherever they stand (RFC 3396 7).
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Options(BTreeMap<OptionCode, Vec<u8>>);

impl<'a> FromIterator<DhcpOption<'a>> for Options {
    fn from_iter<T: IntoIterator<Item = DhcpOption<'a>>>(parts: T) -> Self {
        let mut options = Self::default();
        for part in parts {
            let whole = options.0.entry(part.code()).or_default();
            whole.extend_from_slice(part.data());
        }
        options
    }
}

impl Options {
    /// The bytes of an option, none when it is not there.
    fn get(&self, code: OptionCode) -> &[u8] {
        self.0.get(&code).map(Vec::as_slice).unwrap_or_default()
    }

    /// What `read` finds at the beginning of an option, a number for one. `None` when the option is too short or not there.
    pub fn decode<'a, T>(
        &'a self,
        code: OptionCode,
        read: impl FnOnce(&mut Decoder<'a>) -> DecodeResult<T>,
    ) -> Option<T> {
        read(&mut Decoder::new(self.get(code))).ok()
    }

    /// An option that is a list of hosts' addresses; what cannot be a host is left out.
    pub fn hosts(&self, code: OptionCode) -> Vec<Ipv4Addr> {
        let whole = self.get(code).len() / 4 * 4;
        let list = self.decode(code, |decoder| decoder.read_ipv4s(whole));
        let mut hosts = list.unwrap_or_default();
        hosts.retain(|host| is_host(*host));
        hosts
    }

    /// The prefix length that the subnet mask stands for.
    pub fn prefix_len(&self) -> Option<u8> {
        let mask = self.decode(OptionCode::SubnetMask, Decoder::read_u32)?;
        let ones = mask.leading_ones();
        (ones > 0 && mask.count_ones() == ones).then_some(ones as u8)
    }

    /// The host name, when it is one.
    pub fn host_name(&self) -> Option<String> {
        let name = domain_name(self.get(OptionCode::Hostname))?;
        // The kernel takes 64 bytes; of a longer name the machine's own part may do.
        let name = if name.len() <= 64 {
            name
        } else {
            name.split('.').next()?.to_owned()
        };
        (name != "localhost" && name.parse::<Ipv4Addr>().is_err()).then_some(name)
    }

    /// Domains to search: the search list, or else the client's own domain. When one is broken none is trusted.
    pub fn search(&self) -> Vec<String> {
        let domains = self.get(OptionCode::DomainName).split(|byte| *byte == b' ');
        search_list(self.get(OptionCode::DomainSearch))
            .filter(|list| !list.is_empty())
            .or_else(|| domains.map(domain_name).collect())
            .unwrap_or_default()
    }

    /// Routes: classless ones, or else a default route over the first router (RFC 3442: never both).
    pub fn routes(&self) -> Vec<LeaseRoute> {
        let default = |gateway: Ipv4Addr| LeaseRoute {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix_len: 0,
            gateway: Some(gateway),
        };
        let routers = self.hosts(OptionCode::Router).into_iter().take(1);
        classless_routes(self.get(OptionCode::ClasslessStaticRoute))
            .filter(|routes| !routes.is_empty())
            .unwrap_or_else(|| routers.map(default).collect())
    }

    /// Text meant for people, safe to print; `None` when nothing is left of it.
    pub fn text(&self, code: OptionCode) -> Option<String> {
        let text: String = String::from_utf8_lossy(self.get(code))
            .chars()
            .filter(|c| !c.is_control())
            .take(200)
            .collect();
        (!text.is_empty()).then_some(text)
    }
}

/// Whether a host can have this address (RFC 1122 3.2.1.3).
pub fn is_host(address: Ipv4Addr) -> bool {
    let first = address.octets()[0];
    first != 0 && first != 127 && first < 224
}

/// A domain name or host name, lower case, without a dot at the end.
pub(crate) fn domain_name(bytes: &[u8]) -> Option<String> {
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

/// Names as DNS writes them, compressed (RFC 3397 2, RFC 1035 4.1.4). `None` when any of them is broken.
fn search_list(bytes: &[u8]) -> Option<Vec<String>> {
    let (mut decoder, mut names) = (BinDecoder::new(bytes), Vec::new());
    while !decoder.is_empty() {
        let name = Name::read(&mut decoder).ok()?.to_ascii();
        let name = domain_name(name.as_bytes())?;
        if !names.contains(&name) {
            names.push(name);
        }
    }
    Some(names)
}

/// Routes (RFC 3442). `None` when any of them is broken.
fn classless_routes(bytes: &[u8]) -> Option<Vec<LeaseRoute>> {
    let (mut decoder, mut routes) = (Decoder::new(bytes), Vec::new());
    while let Ok(prefix_len) = decoder.read_u8() {
        let mut destination = [0; 4];
        let significant = destination.get_mut(..usize::from(prefix_len).div_ceil(8))?;
        significant.copy_from_slice(decoder.read_slice(significant.len()).ok()?);
        let gateway = decoder.read_ipv4(4).ok()?;
        if routes.len() == MOST_ROUTES || !(gateway.is_unspecified() || is_host(gateway)) {
            return None;
        }
        let mask = u32::MAX
            .checked_shl(32 - u32::from(prefix_len))
            .unwrap_or(0);
        routes.push(LeaseRoute {
            destination: Ipv4Addr::from_bits(u32::from_be_bytes(destination) & mask),
            prefix_len,
            gateway: (!gateway.is_unspecified()).then_some(gateway),
        });
    }
    Some(routes)
}

#[cfg(test)]
#[path = "options_tests.rs"]
mod tests;
