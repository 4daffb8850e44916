//! cloud-init's network-config version 2: netplan's format, all of it that Linux does without another program.

use super::cidr::Cidr;
use super::delegated;
use super::keys_2;
use super::made::{members, parameters, tunnel, vlan};
use super::model::{Bond, Bridge, Interface, Kind, Match, Network, Overrides, Route, Rule, Vrf};
use super::values::{self, cidrs};
use crate::diagnostic::Diagnostics;
use crate::names;
use crate::yaml::{self, Fields, Node, Shape, Table};

/// Reads the mapping below `network`.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Network> {
    top.check(" of network-config", &keys_2::TOP, diagnostics);
    let mut network = Network::default();
    for (section, shape, _) in keys_2::TOP.settings {
        let (Shape::Map(Shape::Table(table)), Some(node)) = (shape, top.get(section)) else {
            continue;
        };
        let Some(all) = yaml::mapping(section, node, diagnostics) else {
            continue;
        };
        for (key, node) in all.iter() {
            let what = format!("{section}.{}", key.text);
            let Some(fields) = yaml::mapping(&what, node, diagnostics) else {
                continue;
            };
            fields.check(&format!(" of {what}"), table, diagnostics);
            let interface = interface(section, &key.text, &what, &fields, node, diagnostics);
            network.interfaces.extend(interface);
        }
    }
    delegated::check(&network, top, diagnostics);
    Some(network)
}

fn interface(
    section: &str,
    name: &str,
    what: &str,
    fields: &Fields<'_>,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<Interface> {
    let mut interface = Interface {
        name: name.to_owned(),
        ..Interface::default()
    };
    match section {
        "ethernets" => matches(&mut interface, what, fields, diagnostics),
        "bonds" => {
            interface.kind = Kind::Bond(Bond {
                members: members(what, fields, diagnostics),
                params: parameters(what, fields, diagnostics),
            });
        }
        "bridges" => {
            interface.kind = Kind::Bridge(Bridge {
                members: members(what, fields, diagnostics),
                params: parameters(what, fields, diagnostics),
            });
        }
        "vlans" => interface.kind = vlan(what, fields, node, diagnostics)?,
        "vrfs" => {
            let Some(table) = values::number(what, fields, "table", diagnostics) else {
                diagnostics.error(
                    node.position,
                    format!("{what}: `table` is missing; it is left out"),
                );
                return None;
            };
            interface.kind = Kind::Vrf(Vrf {
                table,
                members: members(what, fields, diagnostics),
            });
        }
        "tunnels" => interface.kind = tunnel(what, fields, node, diagnostics)?,
        _ => interface.kind = Kind::Dummy,
    }
    if !matches!(interface.kind, Kind::Physical) && !names::is_interface(&interface.name) {
        let message = format!(
            "{what}: no name of an interface (at most 15 letters, no space, no slash): it cannot be made"
        );
        diagnostics.error(node.position, message);
    }
    settings(&mut interface, what, fields, diagnostics);
    Some(interface)
}

/// Which interface it is: the one of that name, unless `match` says otherwise.
fn matches(
    interface: &mut Interface,
    what: &str,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) {
    let found = fields
        .get("match")
        .and_then(|node| yaml::mapping("match", node, diagnostics));
    match found {
        Some(found) => {
            found.check(&format!(" of {what}.match"), &keys_2::MATCH, diagnostics);
            let name = found.get("name");
            let name = name.and_then(|node| yaml::string("match.name", node, diagnostics));
            let mac = found.get("macaddress");
            let mac = mac.and_then(|node| values::mac("match.macaddress", node, diagnostics));
            let driver = found.get("driver");
            let driver = driver.map(|node| yaml::strings("match.driver", node, diagnostics));
            interface.matches = Match {
                name,
                mac,
                driver: driver.unwrap_or_default(),
            };
        }
        None => interface.matches.name = Some(interface.name.clone()),
    }
    interface.set_name = fields
        .get("set-name")
        .and_then(|node| values::interface_name("set-name", node, diagnostics));
}

/// What any interface may have.
fn settings(
    interface: &mut Interface,
    what: &str,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) {
    let truth = |key: &str, diagnostics: &mut Diagnostics| {
        let node = fields.get(key)?;
        yaml::boolean(&format!("{what}.{key}"), node, diagnostics)
    };
    interface.dhcp4 = truth("dhcp4", diagnostics).unwrap_or(false);
    interface.dhcp6 = truth("dhcp6", diagnostics).unwrap_or(false);
    interface.accept_ra = truth("accept-ra", diagnostics);
    interface.ipv6_privacy = truth("ipv6-privacy", diagnostics);
    interface.optional = truth("optional", diagnostics);
    interface.wakeonlan = truth("wakeonlan", diagnostics);
    interface.dhcp4_overrides =
        overrides("dhcp4-overrides", &keys_2::OVERRIDES, fields, diagnostics);
    interface.dhcp6_overrides =
        overrides("dhcp6-overrides", &keys_2::OVERRIDES_6, fields, diagnostics);
    delegated::check_request(interface, what, fields, diagnostics);
    interface.dhcp6_prefix = fields
        .get("dhcp6-prefix")
        .and_then(|node| delegated::part(what, node, diagnostics));
    interface.mtu = values::number(what, fields, "mtu", diagnostics);
    interface.mac = fields
        .get("macaddress")
        .and_then(|node| values::mac("macaddress", node, diagnostics));
    if let Some(node) = fields.get("link-local") {
        let kinds = yaml::strings("link-local", node, diagnostics);
        interface.link_local_ipv4 = kinds.iter().any(|kind| kind == "ipv4");
        interface.link_local_ipv6 = Some(kinds.iter().any(|kind| kind == "ipv6"));
    }
    if let Some(node) = fields.get("addresses") {
        interface.addresses = cidrs(&format!("{what}.addresses"), node, diagnostics);
    }
    if let Some(node) = fields.get("routes") {
        for item in yaml::list("routes", node, diagnostics).unwrap_or_default() {
            interface.routes.extend(route(what, item, diagnostics));
        }
    }
    for key in ["gateway4", "gateway6"] {
        let Some(node) = fields.get(key) else {
            continue;
        };
        if let Some(via) = values::address(&format!("{what}.{key}"), node, diagnostics) {
            let to = Cidr::everything(via.is_ipv6());
            let mut routes = interface.routes.iter();
            if !routes.any(|route| route.to == to && route.via == Some(via)) {
                interface.routes.push(Route {
                    to,
                    via: Some(via),
                    ..Route::default()
                });
            }
        }
    }
    if let Some(node) = fields.get("nameservers")
        && let Some(fields) = yaml::mapping("nameservers", node, diagnostics)
    {
        let within = format!(" of {what}.nameservers");
        fields.check(&within, &keys_2::NAMESERVERS, diagnostics);
        let (servers, search) = (fields.get("addresses"), fields.get("search"));
        values::dns(&mut interface.dns, servers, search, diagnostics);
    }
    if let Some(node) = fields.get("routing-policy") {
        for item in yaml::list("routing-policy", node, diagnostics).unwrap_or_default() {
            interface.rules.extend(rule(what, item, diagnostics));
        }
    }
}

fn overrides(
    key: &str,
    table: &'static Table,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) -> Overrides {
    let all = fields
        .get(key)
        .and_then(|node| yaml::mapping(key, node, diagnostics));
    let Some(all) = all else {
        return Overrides::new();
    };
    all.check(&format!(" of {key}"), table, diagnostics);
    let entries = all.iter();
    entries
        .map(|(key, node)| (key.text.clone(), yaml::to_json(node)))
        .collect()
}

fn route(what: &str, item: &Node, diagnostics: &mut Diagnostics) -> Option<Route> {
    let fields = yaml::mapping("routes", item, diagnostics)?;
    fields.check(&format!(" of {what}.routes"), &keys_2::ROUTE, diagnostics);
    let address = |key: &str, diagnostics: &mut Diagnostics| {
        let node = fields.get(key)?;
        values::address(&format!("{what}.routes.{key}"), node, diagnostics)
    };
    let (via, from) = (address("via", diagnostics), address("from", diagnostics));
    let to = fields
        .get("to")
        .and_then(|node| yaml::string("to", node, diagnostics));
    let to = match to.as_deref() {
        None | Some("default") => Cidr::everything(via.is_some_and(|via| via.is_ipv6())),
        Some(text) => {
            match values::cidr(text, None, |version_6| if version_6 { 128 } else { 32 }) {
                Ok(cidr) => cidr,
                Err(error) => {
                    let message = format!("{what}.routes: {error}; it is left out");
                    diagnostics.error(item.position, message);
                    return None;
                }
            }
        }
    };
    let on_link = fields
        .get("on-link")
        .and_then(|node| yaml::boolean("on-link", node, diagnostics));
    let mut text = |key: &str| {
        let node = fields.get(key)?;
        yaml::string(key, node, diagnostics)
    };
    let (kind, scope) = (text("type"), text("scope"));
    Some(Route {
        to: to.network(),
        via,
        from,
        on_link: on_link.unwrap_or(false),
        kind,
        scope,
        metric: values::number(what, &fields, "metric", diagnostics),
        table: values::number(what, &fields, "table", diagnostics),
        mtu: values::number(what, &fields, "mtu", diagnostics),
    })
}

fn rule(what: &str, item: &Node, diagnostics: &mut Diagnostics) -> Option<Rule> {
    let fields = yaml::mapping("routing-policy", item, diagnostics)?;
    let within = format!(" of {what}.routing-policy");
    fields.check(&within, &keys_2::RULE, diagnostics);
    let network = |key: &str, diagnostics: &mut Diagnostics| {
        let node = fields.get(key)?;
        let text = yaml::string(key, node, diagnostics)?;
        match text.parse() {
            Ok(cidr) => Some(cidr),
            Err(error) => {
                let message = format!("{what}.routing-policy.{key}: {error}");
                diagnostics.error(node.position, message);
                None
            }
        }
    };
    Some(Rule {
        from: network("from", diagnostics),
        to: network("to", diagnostics),
        table: values::number(what, &fields, "table", diagnostics),
        priority: values::number(what, &fields, "priority", diagnostics),
        mark: values::number(what, &fields, "mark", diagnostics),
        tos: values::number(what, &fields, "type-of-service", diagnostics),
    })
}
