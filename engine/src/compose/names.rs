//! `extra_hosts`, `dns`, `dns_search` and `dns_opt`: what a container knows of names beside what the host and its networks say.

use super::lists::OneOrMany;
use super::values::Text;
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use std::fmt;
use std::net::IpAddr;

/// What is said of names: empty lists leave a part as the host has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Lines that are added to hosts(5): name and address.
    pub hosts: Vec<(String, String)>,
    /// Name servers, instead of the host's.
    pub servers: Vec<String>,
    /// Domains that are searched, instead of the host's.
    pub search: Vec<String>,
    /// Options of resolv.conf(5), instead of the host's.
    pub options: Vec<String>,
}

/// The same, as files of services have it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExtraHosts(pub Vec<(String, String)>);

impl ExtraHosts {
    /// From `HOST=ADDRESS` or, as Docker has it, `HOST:ADDRESS`; an address of version 6 may stand in brackets.
    fn parse(line: &str) -> Result<(String, String), String> {
        let parts = line.split_once('=').or_else(|| line.split_once(':'));
        let (name, address) = parts.ok_or_else(|| format!("`{line}` is not HOST=ADDRESS"))?;
        checked(name, address)
    }
}

fn checked(name: &str, address: &str) -> Result<(String, String), String> {
    let (name, address) = (name.trim(), address.trim());
    let bare = address
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(address);
    let parsed: IpAddr = bare
        .parse()
        .map_err(|_| format!("`{address}` is not an address, as 192.0.2.1 or 2001:db8::1"))?;
    if name.is_empty()
        || name
            .chars()
            .any(|letter| letter.is_whitespace() || letter.is_control())
    {
        return Err(format!("`{name}` is not a name of a host"));
    }
    Ok((name.to_owned(), parsed.to_string()))
}

impl<'de> Deserialize<'de> for ExtraHosts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListOrMap;
        impl<'de> Visitor<'de> for ListOrMap {
            type Value = ExtraHosts;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a list of HOST=ADDRESS, or a map of hosts and addresses")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<ExtraHosts, A::Error> {
                let mut hosts = Vec::new();
                while let Some(Text(line)) = seq.next_element()? {
                    hosts.push(ExtraHosts::parse(&line).map_err(de::Error::custom)?);
                }
                Ok(ExtraHosts(hosts))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<ExtraHosts, A::Error> {
                let mut hosts = Vec::new();
                while let Some(Text(name)) = map.next_key()? {
                    let OneOrMany(addresses) = map.next_value::<OneOrMany<Text>>()?;
                    for Text(address) in addresses {
                        hosts.push(checked(&name, &address).map_err(de::Error::custom)?);
                    }
                }
                Ok(ExtraHosts(hosts))
            }
        }
        deserializer.deserialize_any(ListOrMap)
    }
}

/// An address of a name server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NameServer(pub IpAddr);

impl std::str::FromStr for NameServer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |_| format!("`{text}` is not the address of a name server, as 192.0.2.53");
        text.parse().map(Self).map_err(wrong)
    }
}

super::values::scalars!(NameServer);
