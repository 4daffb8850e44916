//! `ports`: ports of a service that are reached at the host's.

use super::values::Text;
use super::volume::short_or_long;
use crate::network::{Protocol, Publish};
use serde::de::{Deserialize, Deserializer};
use std::net::Ipv4Addr;
use std::str::FromStr;

/// One entry, which may be of several ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Port(Vec<Publish>);

/// The whole list.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize)]
pub struct Ports(Vec<Port>);

impl Ports {
    /// Every port that is published.
    pub fn publish(&self) -> Vec<Publish> {
        self.0.iter().flat_map(|port| port.0.clone()).collect()
    }
}

/// `8080` or `8080-8090`.
fn range(text: &str) -> Result<(u16, u16), String> {
    let number = |text: &str| match text.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(format!("`{text}` is not a port: 1 to 65535")),
    };
    let (first, last) = match text.split_once('-') {
        None => (number(text)?, number(text)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    match first <= last {
        true => Ok((first, last)),
        false => Err(format!(
            "`{text}` is not a range of ports: it ends before it begins"
        )),
    }
}

/// Ports of the container at ports of the host: as many of them one by one, or any of many for a single one.
fn pairs(
    host: Option<(u16, u16)>,
    target: (u16, u16),
    address: Ipv4Addr,
    protocol: Protocol,
) -> Result<Port, String> {
    let count = target.1 - target.0;
    let one = |offset: u16| {
        let ports = match host {
            None => (0, 0),
            Some(all) if count == 0 => all,
            Some((first, _)) => (first + offset, first + offset),
        };
        Publish {
            protocol,
            target: target.0 + offset,
            address,
            ports,
        }
    };
    if let Some((first, last)) = host
        && count > 0
        && last - first != count
    {
        return Err(format!(
            "{first}-{last} and {}-{} are not as many ports",
            target.0, target.1
        ));
    }
    Ok(Port((0..=count).map(one).collect()))
}

fn address(text: &str) -> Result<Ipv4Addr, String> {
    text.parse()
        .map_err(|_| format!("`{text}` is not an IPv4 address: ports are published at those only"))
}

impl FromStr for Port {
    type Err = String;

    /// The short syntax: `[[ADDRESS:]HOST:]CONTAINER[/PROTOCOL]`.
    fn from_str(text: &str) -> Result<Self, String> {
        let (ports, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
        let protocol = protocol.parse()?;
        let parts: Vec<&str> = ports.rsplitn(3, ':').collect();
        let host = |text: &str| match text {
            "" => Ok(None),
            text => range(text).map(Some),
        };
        match parts[..] {
            [target] => pairs(None, range(target)?, Ipv4Addr::UNSPECIFIED, protocol),
            [target, ports] => pairs(
                host(ports)?,
                range(target)?,
                Ipv4Addr::UNSPECIFIED,
                protocol,
            ),
            [target, ports, at] => pairs(host(ports)?, range(target)?, address(at)?, protocol),
            _ => Err(format!("`{text}` is not a port")),
        }
    }
}

/// The long syntax.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Long {
    target: Text,
    published: Option<Text>,
    host_ip: Option<String>,
    protocol: Option<String>,
    /// Accepted, and without effect: there is one machine.
    #[serde(rename = "mode")]
    _mode: Option<String>,
    #[serde(rename = "name")]
    _name: Option<String>,
    #[serde(rename = "app_protocol")]
    _app_protocol: Option<String>,
}

impl TryFrom<Long> for Port {
    type Error = String;

    fn try_from(long: Long) -> Result<Self, String> {
        let host = long.published.map(|text| range(&text.0)).transpose()?;
        let at = long
            .host_ip
            .map_or(Ok(Ipv4Addr::UNSPECIFIED), |text| address(&text))?;
        let protocol = long.protocol.as_deref().unwrap_or("tcp").parse()?;
        pairs(host, range(&long.target.0)?, at, protocol)
    }
}

impl<'de> Deserialize<'de> for Port {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        short_or_long::<D, Self, Long>(deserializer, "HOST:CONTAINER, or a map with target")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Row = (Ipv4Addr, (u16, u16), u16, Protocol);

    fn read(text: &str) -> Result<Vec<Row>, String> {
        let port: Port = serde_yaml::from_str(text).map_err(|error| error.to_string())?;
        let all = port.0.iter();
        Ok(all
            .map(|one| (one.address, one.ports, one.target, one.protocol))
            .collect())
    }

    #[test]
    fn every_form_of_the_specification_is_understood() {
        let any = Ipv4Addr::UNSPECIFIED;
        let local = Ipv4Addr::LOCALHOST;
        for (text, expected) in [
            ("3000", vec![(any, (0, 0), 3000, Protocol::Tcp)]),
            ("\"8080:80\"", vec![(any, (8080, 8080), 80, Protocol::Tcp)]),
            ("53:53/udp", vec![(any, (53, 53), 53, Protocol::Udp)]),
            ("127.0.0.1::80", vec![(local, (0, 0), 80, Protocol::Tcp)]),
            (
                "127.0.0.1:1-2:8-9",
                vec![
                    (local, (1, 1), 8, Protocol::Tcp),
                    (local, (2, 2), 9, Protocol::Tcp),
                ],
            ),
            ("8000-8010:80", vec![(any, (8000, 8010), 80, Protocol::Tcp)]),
            (
                "{target: 80, published: \"8080\", host_ip: 127.0.0.1, protocol: udp, mode: host}",
                vec![(local, (8080, 8080), 80, Protocol::Udp)],
            ),
            ("{target: 80}", vec![(any, (0, 0), 80, Protocol::Tcp)]),
        ] {
            assert_eq!(read(text).as_ref(), Ok(&expected), "{text}");
        }
        for (text, part) in [
            ("0", "is not a port"),
            ("80:x", "`x` is not a port"),
            ("9-8", "ends before"),
            ("1-3:8-9", "as many"),
            ("80/sctp", "sctp"),
            ("\"::1:80:80\"", "IPv4"),
            ("{published: 80}", "target"),
        ] {
            let error = read(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }
}
