//! What a client of Docker's API says of a container's networks and ports.

use super::Subnet;
use crate::compose::NetworkMode;
use bollard_stubs::models::{ContainerCreateBody, EndpointSettings, PortBinding};
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// The name of the network that containers are in which say nothing.
pub const DEFAULT: &str = "bridge";

/// What a client says of a new network.
#[derive(Clone, Debug, Default)]
pub struct New {
    /// Its name.
    pub name: String,
    /// Its addresses; the first free ones unless told.
    pub subnet: Option<Subnet>,
    /// The host's address; the first one unless told.
    pub gateway: Option<Ipv4Addr>,
    /// Nothing leads out of it.
    pub internal: bool,
    /// Kept as they are.
    pub labels: HashMap<String, String>,
    /// Kept as they are.
    pub options: HashMap<String, String>,
}

/// A network that a container wants to be in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attachment {
    /// Its name or number.
    pub network: String,
    /// Further names of the container there.
    pub aliases: Vec<String>,
    /// The address that it is to have.
    pub address: Option<Ipv4Addr>,
}

/// A transport protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// RFC 9293.
    Tcp,
    /// RFC 768.
    Udp,
}

impl fmt::Display for Protocol {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        })
    }
}

impl FromStr for Protocol {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "tcp" => Ok(Self::Tcp),
            "udp" => Ok(Self::Udp),
            _ => Err(format!(
                "the system engine does not do this: ports of protocol {text}"
            )),
        }
    }
}

/// A port of a container that is to be reached at the host's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publish {
    /// Of both ports.
    pub protocol: Protocol,
    /// The container's port.
    pub target: u16,
    /// The host's address; unspecified is every one.
    pub address: Ipv4Addr,
    /// The host's port: the first free one of these. 0 is any.
    pub ports: (u16, u16),
}

/// The mode, and the networks, the one that has the default route first.
///
/// # Errors
/// For a person: what cannot be done.
pub(crate) fn networks(
    body: &ContainerCreateBody,
) -> Result<(NetworkMode, Vec<Attachment>), String> {
    let host = body.host_config.as_ref();
    let asked = host.and_then(|host| host.network_mode.as_deref());
    let name = match asked {
        None | Some("" | "default") => DEFAULT,
        Some(mode) => match NetworkMode::from_str(mode) {
            Ok(mode) => return Ok((mode, Vec::new())),
            Err(_) => mode,
        },
    };
    let configured = body
        .networking_config
        .as_ref()
        .and_then(|config| config.endpoints_config.as_ref());
    let mut named: Vec<(&str, Option<&EndpointSettings>)> = configured
        .into_iter()
        .flatten()
        .map(|(name, settings)| (plain(name), Some(settings)))
        .collect();
    named.sort_by_key(|(other, _)| (*other != name, *other));
    if named.first().is_none_or(|(first, _)| *first != name) {
        named.insert(0, (name, None));
    }
    let mut all = Vec::new();
    for (name, settings) in named {
        all.push(attachment(name, settings)?);
    }
    Ok((NetworkMode::Network(name.to_owned()), all))
}

/// Clients call the default network by either name.
pub(crate) fn plain(name: &str) -> &str {
    match name {
        "default" => DEFAULT,
        name => name,
    }
}

fn attachment(network: &str, settings: Option<&EndpointSettings>) -> Result<Attachment, String> {
    let aliases = settings.and_then(|settings| settings.aliases.clone());
    let config = settings.and_then(|settings| settings.ipam_config.as_ref());
    let filled = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
    if config.is_some_and(|config| filled(&config.ipv6_address).is_some()) {
        return Err("the system engine does not do this: IPv6 addresses of networks".to_owned());
    }
    let address = config.and_then(|config| filled(&config.ipv4_address));
    let address = address.map(|text| {
        text.parse()
            .map_err(|_| format!("invalid IPv4 address: {text}"))
    });
    Ok(Attachment {
        network: network.to_owned(),
        aliases: aliases.unwrap_or_default(),
        address: address.transpose()?,
    })
}

/// Ports that are published, in order.
///
/// # Errors
/// For a person: the first one that makes no sense.
pub(crate) fn ports(body: &ContainerCreateBody) -> Result<Vec<Publish>, String> {
    let Some(host) = &body.host_config else {
        return Ok(Vec::new());
    };
    let mut all = Vec::new();
    for (port, bindings) in host.port_bindings.iter().flatten() {
        let (target, protocol) = target(port)?;
        for binding in bindings.iter().flatten() {
            all.push(publish(target, protocol, binding)?);
        }
    }
    if host.publish_all_ports == Some(true) {
        for port in body.exposed_ports.iter().flatten() {
            let (target, protocol) = target(port)?;
            let known = |other: &Publish| other.target == target && other.protocol == protocol;
            if !all.iter().any(known) {
                all.push(publish(target, protocol, &PortBinding::default())?);
            }
        }
    }
    all.sort_by_key(|publish| (publish.target, publish.protocol, publish.ports));
    Ok(all)
}

/// `80`, `80/tcp`.
fn target(text: &str) -> Result<(u16, Protocol), String> {
    let (port, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    match port.parse() {
        Ok(port) if port > 0 => Ok((port, protocol.parse()?)),
        _ => Err(format!("invalid port specification: \"{text}\"")),
    }
}

fn publish(target: u16, protocol: Protocol, binding: &PortBinding) -> Result<Publish, String> {
    let address = match binding.host_ip.as_deref().unwrap_or_default() {
        "" => Ipv4Addr::UNSPECIFIED,
        text => text.parse().map_err(|_| {
            format!("the system engine does not do this: ports published at {text}, which is no IPv4 address")
        })?,
    };
    let text = binding.host_port.as_deref().unwrap_or_default();
    let wrong = || format!("invalid port specification: \"{text}\"");
    let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
    let ports = match text.split_once('-') {
        None if text.is_empty() => (0, 0),
        None => (number(text)?, number(text)?),
        Some((first, last)) => (number(first)?, number(last)?),
    };
    if ports.0 > ports.1 {
        return Err(wrong());
    }
    Ok(Publish {
        protocol,
        target,
        address,
        ports,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn body(value: Value) -> ContainerCreateBody {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_network_of_the_mode_comes_first_and_the_default_one_has_two_names() {
        let names = |value: Value| {
            let (_, all) = networks(&body(value)).unwrap();
            let names = all.into_iter().map(|one| one.network);
            names.collect::<Vec<_>>()
        };
        assert_eq!(names(json!({})), ["bridge"]);
        assert_eq!(
            names(
                json!({ "HostConfig": {"NetworkMode": "default"}, "NetworkingConfig": {"EndpointsConfig": {"default": {}}} })
            ),
            ["bridge"]
        );
        assert_eq!(
            names(
                json!({ "HostConfig": {"NetworkMode": "b"}, "NetworkingConfig": {"EndpointsConfig": {"a": {}, "b": {}, "c": {}}} })
            ),
            ["b", "a", "c"]
        );
        for alone in ["none", "host", "container:x"] {
            assert!(names(json!({ "HostConfig": {"NetworkMode": alone} })).is_empty());
        }
    }

    #[test]
    fn ports_are_read_as_docker_writes_them() {
        let read = |value: Value| {
            ports(&body(
                json!({ "ExposedPorts": {"53/udp": {}, "80/tcp": {}}, "HostConfig": value }),
            ))
        };
        let all = read(json!({ "PortBindings": {"80/tcp": [{"HostIp": "127.0.0.1", "HostPort": "8080-8090"}]}, "PublishAllPorts": true })).unwrap();
        assert_eq!(
            all[0],
            Publish {
                protocol: Protocol::Udp,
                target: 53,
                address: Ipv4Addr::UNSPECIFIED,
                ports: (0, 0)
            }
        );
        assert_eq!(
            all[1],
            Publish {
                protocol: Protocol::Tcp,
                target: 80,
                address: Ipv4Addr::LOCALHOST,
                ports: (8080, 8090)
            }
        );
        assert_eq!(all.len(), 2);
        for wrong in [
            json!({"80/sctp": [{}]}),
            json!({"0": [{}]}),
            json!({"80": [{"HostPort": "9-8"}]}),
            json!({"80": [{"HostPort": "x"}]}),
            json!({"80": [{"HostIp": "::1"}]}),
        ] {
            assert!(
                read(json!({ "PortBindings": wrong.clone() })).is_err(),
                "{wrong}"
            );
        }
    }
}
