//! Addresses, masks, and lists of them.

use std::net::IpAddr;

use super::cidr::Cidr;
use super::model::Dns;
use crate::diagnostic::Diagnostics;
use crate::names;
use crate::yaml::{self, Fields, Node, Value};

/// Longest name of an interface (`IFNAMSIZ` less its end).
const LONGEST_NAME: usize = 15;

/// A name that an interface may have.
pub(super) fn interface_name(
    what: &str,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<String> {
    let name = yaml::string(what, node, diagnostics)?;
    let fits = names::is_interface(&name);
    if !fits {
        diagnostics.error(
            node.position,
            format!("{what}: `{name}` is no name of an interface (at most {LONGEST_NAME} letters, no space, no slash)"),
        );
    }
    fits.then_some(name)
}

/// The length of a prefix that a mask stands for: `255.255.255.0`, `ffff:ffff::`, or a number.
pub(super) fn prefix_of_mask(text: &str, version_6: bool) -> Option<u8> {
    if let Ok(number) = text.parse::<u8>() {
        return (number <= if version_6 { 128 } else { 32 }).then_some(number);
    }
    let (bits, length) = match text.parse::<IpAddr>().ok()? {
        IpAddr::V4(mask) => (u128::from(u32::from(mask)) << 96, 32),
        IpAddr::V6(mask) => (u128::from(mask), 128),
    };
    let ones = bits.leading_ones();
    let is_mask = bits.checked_shl(ones).unwrap_or(0) == 0;
    (is_mask && ones <= length).then(|| u8::try_from(ones).ok())?
}

/// An address with its prefix: `ADDRESS/LENGTH`, `ADDRESS/MASK`, or an address and a mask beside it. `default` gives the
/// length of a prefix that nothing says.
pub(crate) fn cidr(
    text: &str,
    mask: Option<&str>,
    default: fn(bool) -> u8,
) -> Result<Cidr, String> {
    let (address, own) = match text.split_once('/') {
        Some((address, own)) => (address, Some(own)),
        None => (text, None),
    };
    let address: IpAddr = address
        .trim()
        .parse()
        .map_err(|_| format!("`{address}` is no IP address"))?;
    let prefix = match own.or(mask) {
        None => default(address.is_ipv6()),
        Some(mask) => prefix_of_mask(mask.trim(), address.is_ipv6())
            .ok_or_else(|| format!("`{mask}` is no network mask"))?,
    };
    let longest = if address.is_ipv6() { 128 } else { 32 };
    if prefix > longest {
        return Err(format!("`{text}`: a prefix has at most {longest} bits"));
    }
    Ok(Cidr { address, prefix })
}

/// An address without a prefix.
pub(super) fn address(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<IpAddr> {
    let text = yaml::string(what, node, diagnostics)?;
    let parsed = text.trim().parse().ok();
    if parsed.is_none() {
        diagnostics.error(
            node.position,
            format!("{what}: `{text}` is no IP address; it is not applied"),
        );
    }
    parsed
}

/// A list of words: a list, or text with spaces or commas between them.
pub(super) fn words(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Vec<String> {
    let texts = yaml::strings(what, node, diagnostics);
    let words = texts
        .iter()
        .flat_map(|text| text.split([' ', ',', '\t', '\n']));
    words
        .filter(|word| !word.is_empty())
        .map(str::to_owned)
        .collect()
}

/// Adds name servers and domains.
pub(crate) fn dns(
    dns: &mut Dns,
    servers: Option<&Node>,
    search: Option<&Node>,
    diagnostics: &mut Diagnostics,
) {
    if let Some(node) = servers {
        for word in words("name servers", node, diagnostics) {
            let plain = word
                .split_once('/')
                .map_or(word.as_str(), |(address, _)| address);
            match plain.parse() {
                Ok(address) => dns.servers.push(address),
                Err(_) => diagnostics.error(
                    node.position,
                    format!("name servers: `{word}` is no IP address; it is left out"),
                ),
            }
        }
    }
    if let Some(node) = search {
        for word in words("search", node, diagnostics) {
            if names::is_host(word.trim_end_matches('.')) || word == "." {
                dns.search.push(word);
            } else {
                diagnostics.error(
                    node.position,
                    format!("search: `{word}` is no domain; it is left out"),
                );
            }
        }
    }
}

/// A number that fits.
pub(super) fn number<T: TryFrom<i64>>(
    what: &str,
    fields: &Fields<'_>,
    key: &str,
    diagnostics: &mut Diagnostics,
) -> Option<T> {
    let node = fields.get(key)?;
    let number = yaml::integer(&format!("{what}.{key}"), node, diagnostics)?;
    let fits = T::try_from(number).ok();
    if fits.is_none() {
        diagnostics.error(
            node.position,
            format!("{what}.{key}: {number} is out of range; it is not applied"),
        );
    }
    fits
}

/// A hardware address, in small letters.
pub(super) fn mac(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = yaml::string(what, node, diagnostics)?;
    Some(text.trim().to_ascii_lowercase().replace('-', ":"))
}

/// A list of addresses: text, or a mapping from an address to what is said of it.
pub(super) fn cidrs(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Vec<Cidr> {
    let Some(items) = yaml::list(what, node, diagnostics) else {
        return Vec::new();
    };
    let mut addresses = Vec::new();
    for item in items {
        let text = match &item.value {
            Value::Mapping(entries) => entries.first().map(|(key, _)| key.text.clone()),
            _ => yaml::string(what, item, diagnostics),
        };
        let Some(text) = text else { continue };
        match cidr(&text, None, |version_6| if version_6 { 128 } else { 32 }) {
            Ok(cidr) if !addresses.contains(&cidr) => {
                if !text.contains('/') {
                    let message =
                        format!("{what}: `{text}` has no length of a prefix (`{cidr}` is taken)");
                    diagnostics.warning(item.position, message);
                }
                addresses.push(cidr);
            }
            Ok(_) => {}
            Err(error) => {
                diagnostics.error(item.position, format!("{what}: {error}; it is left out"))
            }
        }
    }
    addresses
}
