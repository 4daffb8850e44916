//! Declared state: which interfaces are ours and what each shall be.
//!
//! Without a configuration every wired interface asks DHCP. With one, an interface that nothing in it fits is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv6Addr, SocketAddr};

use keelson_config::network::{
    Cidr, Dns, Firewall, Interface, Kind, Network, Overrides, Route, Rule, WireGuard,
};
use serde_json::Value as Json;

use crate::ipv6::prefix::network_numbers;
use crate::links::Link;
use crate::matching::fit;

/// The whole declared state.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Config {
    network: Option<Network>,
}

/// What an interface shall be.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Settings {
    /// Its name in the configuration.
    pub id: String,
    /// The name that it gets.
    pub set_name: Option<String>,
    /// How it asks DHCP; `None` does not.
    pub dhcp4: Option<DhcpSettings>,
    /// How it asks DHCPv6, where routers say that there is a server; `None` does not.
    pub dhcp6: Option<DhcpSettings>,
    /// The length of the prefix that it asks DHCPv6 for, 0 for any; `None` asks for none.
    pub prefix_wish: Option<u8>,
    /// What it has of a prefix of another interface.
    pub prefix_part: Option<PrefixPart>,
    /// Addresses of its own.
    pub addresses: Vec<Cidr>,
    /// Routes over it.
    pub routes: Vec<Route>,
    /// Policy rules.
    pub rules: Vec<Rule>,
    /// Name servers that are reached over it.
    pub dns: Dns,
    /// Largest packet; the card's own or DHCP's otherwise.
    pub mtu: Option<u32>,
    /// Hardware address that it gets.
    pub mac: Option<[u8; 6]>,
    /// The bond, bridge or VRF that it is a part of.
    pub controller: Option<String>,
    /// The routing table of that VRF.
    pub table: Option<u32>,
    /// Whether router advertisements are heeded.
    pub accept_ra: Option<bool>,
    /// Whether it has a link-local address of version 6.
    pub link_local_ipv6: Option<bool>,
    /// Whether addresses change for privacy.
    pub ipv6_privacy: Option<bool>,
    /// It chooses an address of its own (RFC 3927).
    pub link_local: bool,
    /// Whether a packet wakes the machine.
    pub wake_on_lan: Option<bool>,
    /// What is set of it as a part of another one.
    pub port: Port,
    /// Keys and peers of a tunnel.
    pub wireguard: Option<WireGuard>,
}

/// What an interface has of the prefixes that DHCPv6 delegates to another one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrefixPart {
    /// The other interface, by its name in the configuration or its own.
    pub from: String,
    /// The number of the network.
    pub network: u64,
    /// The last 64 bits of the address.
    pub token: Ipv6Addr,
}

/// What is set of a part of a bridge or a bond.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Port {
    /// What the way over it costs (STP).
    pub cost: Option<u32>,
    /// Of two the lower one counts (STP).
    pub priority: Option<u16>,
    /// The bond uses it as long as it can.
    pub primary: bool,
}

/// What of a DHCP server's answer is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpSettings {
    /// Metric of the routes; without it the interface's index decides, so that earlier interfaces are preferred.
    pub metric: Option<u32>,
    /// Set the interface's MTU as the server says.
    pub use_mtu: bool,
    /// Offer the server's host name to the machine.
    pub use_hostname: bool,
    /// Tell the server the machine's name.
    pub send_hostname: bool,
    /// Ask its name servers.
    pub use_dns: bool,
    /// Search its domains.
    pub use_domains: bool,
    /// Ask its time servers.
    pub use_ntp: bool,
    /// Take its routes.
    pub use_routes: bool,
}

impl Default for DhcpSettings {
    fn default() -> Self {
        Self {
            metric: None,
            use_mtu: true,
            use_hostname: true,
            send_hostname: true,
            use_dns: true,
            use_domains: true,
            use_ntp: true,
            use_routes: true,
        }
    }
}

impl DhcpSettings {
    /// The metric of routes over the interface with that index.
    pub fn metric_for(&self, index: u32) -> u32 {
        // Above what administrators give by hand, below what the kernel gives IPv6 routes.
        self.metric
            .unwrap_or_else(|| 1000_u32.saturating_add(index))
    }

    fn from_overrides(overrides: &Overrides) -> Self {
        let truth = |name: &str| overrides.get(name).and_then(serde_json::Value::as_bool);
        let metric = overrides
            .get("route-metric")
            .and_then(serde_json::Value::as_u64);
        Self {
            metric: metric.and_then(|metric| u32::try_from(metric).ok()),
            use_mtu: truth("use-mtu").unwrap_or(true),
            use_hostname: truth("use-hostname").unwrap_or(true),
            send_hostname: truth("send-hostname").unwrap_or(true),
            use_dns: truth("use-dns").unwrap_or(true),
            use_domains: truth("use-domains").unwrap_or(true),
            use_ntp: truth("use-ntp").unwrap_or(true),
            use_routes: truth("use-routes").unwrap_or(true),
        }
    }
}

impl Settings {
    /// Whether routers are listened to.
    pub fn hears_routers(&self, link: &Link) -> bool {
        link.ethernet && !link.enslaved && self.accept_ra != Some(false)
    }
}

impl Config {
    /// What is declared; `None` when nothing is.
    pub fn new(network: Option<Network>) -> Self {
        Self { network }
    }

    /// Nothing is said but what may come in.
    pub fn of_firewall(firewall: Option<Firewall>) -> Self {
        let network = firewall.map(|firewall| Network {
            untold: true,
            firewall: Some(firewall),
            ..Network::default()
        });
        Self { network }
    }

    fn interfaces(&self) -> impl Iterator<Item = &Interface> {
        let network = self.network.iter().filter(|network| !network.disabled);
        network.flat_map(|network| &network.interfaces)
    }

    /// Interfaces that are made rather than found.
    pub fn virtuals(&self) -> impl Iterator<Item = &Interface> {
        self.interfaces()
            .filter(|interface| !matches!(interface.kind, Kind::Physical | Kind::Loopback))
    }

    /// Ends of WireGuard's tunnels that are reached by a name rather than an address.
    pub fn names_of_peers(&self) -> BTreeSet<String> {
        let tunnels = self.interfaces().filter_map(|one| match &one.kind {
            Kind::WireGuard(wireguard) => Some(wireguard),
            _ => None,
        });
        let ends = tunnels.flat_map(|tunnel| &tunnel.peers);
        let ends = ends.filter_map(|peer| peer.endpoint.clone());
        ends.filter(|end| end.parse::<SocketAddr>().is_err())
            .collect()
    }

    /// The packet filter that is asked for.
    pub fn firewall(&self) -> Option<&Firewall> {
        self.network.as_ref()?.firewall.as_ref()
    }

    /// This configuration, with the packet filter of another one.
    #[must_use]
    pub fn with_firewall_of(mut self, other: &Config) -> Self {
        match &mut self.network {
            Some(network) => network.firewall = other.firewall().cloned(),
            None => self = Self::of_firewall(other.firewall().cloned()),
        }
        self
    }

    /// Name servers that no interface has of its own.
    pub fn global_dns(&self) -> Dns {
        let network = self.network.as_ref();
        network
            .map(|network| network.global_dns.clone())
            .unwrap_or_default()
    }

    /// What holds for a link; `wired` says whether it is a wired interface of the machine itself. `None` leaves it alone. The
    /// second value names another part of the configuration that fits as well, when none fits better.
    pub fn settings_for(&self, link: &Link, wired: bool) -> (Option<Settings>, Option<&str>) {
        let said = self.network.as_ref().filter(|network| !network.untold);
        let Some(network) = said else {
            let settings = Settings {
                dhcp4: Some(DhcpSettings::default()),
                dhcp6: Some(DhcpSettings::default()),
                ..Settings::default()
            };
            return (wired.then_some(settings), None);
        };
        let mut fitting: Vec<(u32, &Interface)> = self
            .interfaces()
            .filter_map(|interface| Some((fit(interface, link)?, interface)))
            .collect();
        // Of two that fit alike the earlier one counts.
        fitting.sort_by_key(|(score, _)| std::cmp::Reverse(*score));
        let Some((score, interface)) = fitting.first() else {
            return (None, None);
        };
        let other = fitting.get(1).filter(|(other, _)| other == score);
        let settings = self.settings_of(interface, link, network);
        // A part of what somebody else made: that has the addresses.
        if link.enslaved && settings.controller.is_none() {
            return (None, None);
        }
        (Some(settings), other.map(|(_, other)| other.name.as_str()))
    }

    fn settings_of(&self, interface: &Interface, link: &Link, network: &Network) -> Settings {
        let part = self.part(interface, link);
        let (controller, table) = (part.controller, part.table);
        let mut routes = interface.routes.clone();
        // A route of nobody's own is over the interface in whose network its next hop is.
        routes.extend(network.global_routes.iter().filter_map(|route| {
            let via = route.via?;
            let mut networks = interface.addresses.iter();
            networks
                .any(|cidr| cidr.contains(via))
                .then(|| route.clone())
        }));
        // A part of a VRF has addresses of its own, and its routes are in the VRF's table; so are the VRF's.
        let wants_dhcp = interface.dhcp4 && part.stands_alone;
        let wants_dhcp6 = interface.dhcp6 && part.stands_alone;
        let table = match &interface.kind {
            Kind::Vrf(vrf) => Some(vrf.table),
            _ => table,
        };
        let rules = interface.rules.iter().cloned();
        let rules = rules.map(|rule| Rule {
            table: rule.table.or(table),
            ..rule
        });
        Settings {
            id: interface.name.clone(),
            set_name: interface.set_name.clone(),
            dhcp4: wants_dhcp.then(|| DhcpSettings::from_overrides(&interface.dhcp4_overrides)),
            dhcp6: wants_dhcp6.then(|| DhcpSettings::from_overrides(&interface.dhcp6_overrides)),
            prefix_wish: (wants_dhcp6 && interface.requests_prefix())
                .then(|| interface.prefix_hint()),
            prefix_part: self.prefix_part(interface),
            addresses: interface.addresses.clone(),
            routes,
            rules: rules.collect(),
            dns: interface.dns.clone(),
            mtu: interface.mtu,
            mac: interface.mac.as_deref().and_then(parse_mac),
            controller,
            table,
            accept_ra: interface.accept_ra.or(interface.dhcp6.then_some(true)),
            link_local_ipv6: interface.link_local_ipv6,
            ipv6_privacy: interface.ipv6_privacy,
            link_local: interface.link_local_ipv4 && part.stands_alone,
            wake_on_lan: interface.wakeonlan,
            port: part.port,
            wireguard: match &interface.kind {
                Kind::WireGuard(wireguard) => Some(wireguard.clone()),
                _ => None,
            },
        }
    }

    /// What an interface has of a prefix: parts of one prefix are numbered in the order of the configuration.
    fn prefix_part(&self, interface: &Interface) -> Option<PrefixPart> {
        let uplink = |from: &str| {
            let found = self.interfaces().find(|other| other.is_called(from));
            found.map_or_else(|| from.to_owned(), |other| other.name.clone())
        };
        let part = interface.dhcp6_prefix.as_ref()?;
        let from = uplink(&part.from);
        let parts = self.interfaces();
        let parts = parts.filter_map(|other| Some((&other.name, other.dhcp6_prefix.as_ref()?)));
        let (names, parts): (Vec<_>, Vec<_>) = parts
            .filter(|(_, other)| uplink(&other.from) == from)
            .unzip();
        let place = names.iter().position(|name| **name == interface.name)?;
        let network = *network_numbers(&parts).get(place)?;
        (from != interface.name).then_some(PrefixPart {
            from,
            network,
            token: part.token,
        })
    }

    /// What the interface is a part of, by the interface's name in the configuration or its own.
    fn part(&self, interface: &Interface, link: &Link) -> Part {
        let is_it = |name: &str| name == interface.name || name == link.name;
        let of = |params: &BTreeMap<String, Json>, key: &str| {
            let values = params.get(key)?.as_object()?;
            let found = values.iter().find(|(name, _)| is_it(name));
            found.and_then(|(_, value)| value.as_u64())
        };
        for other in self.interfaces() {
            let (members, table, port) = match &other.kind {
                Kind::Bond(bond) => {
                    let primary = bond.params.get("primary").and_then(Json::as_str);
                    let port = Port {
                        primary: primary.is_some_and(is_it),
                        ..Port::default()
                    };
                    (&bond.members, None, port)
                }
                Kind::Bridge(bridge) => {
                    let cost = of(&bridge.params, "path-cost");
                    let priority = of(&bridge.params, "port-priority");
                    let port = Port {
                        cost: cost.and_then(|cost| cost.try_into().ok()),
                        priority: priority.and_then(|priority| priority.try_into().ok()),
                        primary: false,
                    };
                    (&bridge.members, None, port)
                }
                Kind::Vrf(vrf) => (&vrf.members, Some(vrf.table), Port::default()),
                _ => continue,
            };
            if members.iter().any(|name| is_it(name)) {
                return Part {
                    controller: Some(other.name.clone()),
                    stands_alone: table.is_some(),
                    table,
                    port,
                };
            }
        }
        Part {
            stands_alone: true,
            ..Part::default()
        }
    }
}

/// What an interface is a part of.
#[derive(Default)]
struct Part {
    controller: Option<String>,
    /// The routing table of a VRF.
    table: Option<u32>,
    port: Port,
    /// It has addresses of its own.
    stands_alone: bool,
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let bytes: Option<Vec<u8>> = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok())
        .collect();
    bytes?.try_into().ok()
}

#[cfg(test)]
mod tests;
