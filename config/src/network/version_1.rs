//! cloud-init's network-config version 1.

use super::cidr::Cidr;
use super::model::{Bond, Bridge, Dns, Interface, Kind, Match, Network, Route, Vlan};
use super::{keys_1, parameters, values};
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node};

/// Reads `config`. Entries that are wrong cost themselves; `None` when it is no list.
pub(super) fn parse(
    root: &Node,
    top: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Network> {
    let Some(config) = top.get("config") else {
        diagnostics.error(
            root.position,
            "network-config: `config` is missing; nothing of it is applied",
        );
        return None;
    };
    top.check(" of network-config", &keys_1::TOP, diagnostics);
    let items = yaml::list("config", config, diagnostics)?;
    let mut network = Network::default();
    let mut servers: Vec<(String, Dns, &Node)> = Vec::new();
    for item in items {
        let Some(fields) = yaml::mapping("config", item, diagnostics) else {
            continue;
        };
        let Some(kind) = fields.get("type").filter(|kind| !kind.is_null()) else {
            diagnostics.error(
                item.position,
                "config: an entry needs a `type`; it is left out",
            );
            continue;
        };
        let Some(kind_name) = yaml::string("type", kind, diagnostics) else {
            continue;
        };
        let Some(table) = keys_1::entry(&kind_name) else {
            let types = keys_1::ENTRIES
                .iter()
                .flat_map(|(types, _)| types.iter().copied());
            let hint = crate::diagnostic::nearest(&kind_name, types)
                .map(|near| format!("; did you mean `{near}`?"))
                .unwrap_or_default();
            diagnostics.error(
                kind.position,
                format!("config: the type `{kind_name}` is unknown; the entry is left out{hint}"),
            );
            continue;
        };
        fields.check(&format!(" of a {kind_name}"), table, diagnostics);
        match kind_name.as_str() {
            "nameserver" => {
                let mut dns = Dns::default();
                let (address, search) = (fields.get("address"), fields.get("search"));
                values::dns(&mut dns, address, search, diagnostics);
                let interface = fields
                    .get("interface")
                    .and_then(|node| yaml::string("interface", node, diagnostics));
                match interface {
                    Some(name) => servers.push((name, dns, item)),
                    None => {
                        network.global_dns.servers.extend(dns.servers);
                        network.global_dns.search.extend(dns.search);
                    }
                }
            }
            "route" => network
                .global_routes
                .extend(route(&fields, item, diagnostics)),
            _ => {
                let interface = interface(&kind_name, &fields, item, diagnostics);
                network.interfaces.extend(interface);
            }
        }
    }
    for (name, dns, item) in servers {
        match network.interfaces.iter_mut().find(|interface| interface.name == name) {
            Some(interface) => {
                interface.dns.servers.extend(dns.servers);
                interface.dns.search.extend(dns.search);
            }
            None => diagnostics.error(
                item.position,
                format!("config: there is no interface `{name}` for these name servers; they are left out"),
            ),
        }
    }
    // An interface with an address and no name servers of its own has those of all.
    for interface in &mut network.interfaces {
        if !interface.addresses.is_empty() && interface.dns.is_empty() {
            interface.dns.clone_from(&network.global_dns);
        }
    }
    Some(network)
}

fn interface(
    kind: &str,
    fields: &Fields<'_>,
    item: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<Interface> {
    let Some(name_node) = fields.get("name") else {
        diagnostics.error(
            item.position,
            format!("config: a {kind} needs a `name`; it is left out"),
        );
        return None;
    };
    let name = values::interface_name("name", name_node, diagnostics)?;
    let mac = fields
        .get("mac_address")
        .and_then(|node| values::mac("mac_address", node, diagnostics));
    let mut interface = Interface {
        kind: Kind::Physical,
        name: name.clone(),
        ..Interface::default()
    };
    match kind {
        "bond" => {
            let members = strings(fields, "bond_interfaces", diagnostics);
            let params = fields.get("params");
            let params = params.map(|node| parameters::bond(node, diagnostics));
            interface.kind = Kind::Bond(Bond {
                members,
                params: params.unwrap_or_default(),
            });
            interface.mac = mac;
        }
        "bridge" => {
            let members = strings(fields, "bridge_interfaces", diagnostics);
            let params = fields.get("params");
            let params = params.map(|node| parameters::bridge(node, diagnostics));
            interface.kind = Kind::Bridge(Bridge {
                members,
                params: params.unwrap_or_default(),
            });
            interface.mac = mac;
        }
        "vlan" => {
            let link = fields
                .get("vlan_link")
                .and_then(|node| values::interface_name("vlan_link", node, diagnostics));
            let id = values::number::<u16>("vlan", fields, "vlan_id", diagnostics);
            let (Some(link), Some(id)) = (link, id.filter(|id| *id <= 4094)) else {
                let message = format!(
                    "config: the vlan `{name}` needs a `vlan_link` and a `vlan_id` (0 to 4094); it is left out"
                );
                diagnostics.error(item.position, message);
                return None;
            };
            interface.kind = Kind::Vlan(Vlan { id, link });
            interface.mac = mac;
        }
        "loopback" => interface.kind = Kind::Loopback,
        "dummy" => interface.kind = Kind::Dummy,
        _ => match mac {
            Some(mac) => {
                interface.matches.mac = Some(mac);
                interface.set_name = Some(name);
            }
            None => {
                interface.matches = Match {
                    name: Some(name),
                    ..Match::default()
                }
            }
        },
    }
    interface.mtu = values::number("config", fields, "mtu", diagnostics);
    let mut truth = |key: &str| {
        let node = fields.get(key)?;
        yaml::boolean(key, node, diagnostics)
    };
    interface.accept_ra = truth("accept-ra");
    interface.wakeonlan = truth("wakeonlan");
    if let Some(node) = fields.get("subnets") {
        for item in yaml::list("subnets", node, diagnostics)? {
            subnet(&mut interface, item, diagnostics);
        }
    }
    Some(interface)
}

fn strings(fields: &Fields<'_>, key: &str, diagnostics: &mut Diagnostics) -> Vec<String> {
    let node = fields.get(key);
    node.map(|node| values::words(key, node, diagnostics))
        .unwrap_or_default()
}

/// What a subnet adds to its interface.
fn subnet(interface: &mut Interface, item: &Node, diagnostics: &mut Diagnostics) {
    let Some(fields) = yaml::mapping("subnets", item, diagnostics) else {
        return;
    };
    fields.check(" of a subnet", &keys_1::SUBNET, diagnostics);
    let mut text = |key: &str| {
        let node = fields.get(key)?;
        yaml::string(key, node, diagnostics)
    };
    let (kind, address, mask) = (text("type"), text("address"), text("netmask"));
    let mask = mask.filter(|mask| !mask.is_empty());
    let kind = kind.unwrap_or_else(|| "manual".to_owned());
    match kind.as_str() {
        "dhcp" | "dhcp4" => interface.dhcp4 = true,
        "dhcp6" | "ipv6_dhcpv6-stateful" | "ipv6_dhcpv6-stateless" | "ipv6_slaac" => {
            interface.dhcp6 = true
        }
        "static" | "static6" | "manual" => {}
        other => {
            let message = format!("subnets: the type `{other}` is unknown; it is left out");
            diagnostics.error(item.position, message);
            return;
        }
    }
    let default = |version_6| if version_6 { 64 } else { 24 };
    let mut own: Option<Cidr> = None;
    match address {
        Some(text) => match values::cidr(&text, mask.as_deref(), default) {
            Ok(cidr) => {
                own = Some(cidr);
                if !interface.addresses.contains(&cidr) {
                    interface.addresses.push(cidr);
                }
            }
            Err(error) => {
                let message = format!("subnets: {error}; the address is left out");
                diagnostics.error(item.position, message);
            }
        },
        None if kind.starts_with("static") => diagnostics.error(
            item.position,
            format!("subnets: the type `{kind}` needs an `address`"),
        ),
        None => {}
    }
    if let Some(node) = fields.get("gateway")
        && let Some(via) = values::address("gateway", node, diagnostics)
    {
        interface.routes.push(Route {
            to: Cidr::everything(via.is_ipv6()),
            via: Some(via),
            metric: values::number("subnets", &fields, "metric", diagnostics),
            on_link: own
                .is_some_and(|own| own.address.is_ipv4() == via.is_ipv4() && !own.contains(via)),
            ..Route::default()
        });
    }
    let (servers, search) = (fields.get("dns_nameservers"), fields.get("dns_search"));
    values::dns(&mut interface.dns, servers, search, diagnostics);
    if interface.mtu.is_none() {
        interface.mtu = values::number("subnets", &fields, "mtu", diagnostics);
    }
    if let Some(node) = fields.get("routes") {
        for item in yaml::list("routes", node, diagnostics).unwrap_or_default() {
            if let Some(fields) = yaml::mapping("routes", item, diagnostics) {
                fields.check(" of a route", &keys_1::ROUTE, diagnostics);
                interface.routes.extend(route(&fields, item, diagnostics));
            }
        }
    }
}

/// A route: `destination` or `network`, `netmask`, `gateway`, `metric`.
fn route(fields: &Fields<'_>, item: &Node, diagnostics: &mut Diagnostics) -> Option<Route> {
    let mut text = |keys: &[&str]| {
        let node = keys.iter().find_map(|key| fields.get(key))?;
        yaml::string(keys.first().copied().unwrap_or_default(), node, diagnostics)
    };
    let to = text(&["destination", "network"]);
    let mask = text(&["netmask", "prefix"]);
    let via = fields
        .get("gateway")
        .and_then(|node| values::address("gateway", node, diagnostics));
    let to = match to.as_deref() {
        None | Some("default") => Cidr::everything(via.is_some_and(|via| via.is_ipv6())),
        Some(text) => {
            // A network that ends in zeros has no length of its own; a host is meant otherwise.
            let whole = |version_6| if version_6 { 64 } else { 24 };
            match values::cidr(text, mask.as_deref(), whole) {
                Ok(cidr) => cidr,
                Err(error) => {
                    diagnostics.error(item.position, format!("routes: {error}; it is left out"));
                    return None;
                }
            }
        }
    };
    Some(Route {
        to: to.network(),
        via,
        metric: values::number("routes", fields, "metric", diagnostics),
        mtu: values::number("routes", fields, "mtu", diagnostics),
        table: values::number("routes", fields, "table", diagnostics),
        ..Route::default()
    })
}
