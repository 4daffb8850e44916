//! Addresses, routes and rules that the configuration declares, of both versions of IP: what an interface should have, and what
//! to change to get there. Pure.

use std::collections::BTreeSet;
use std::net::IpAddr;

use keelson_config::network::{Cidr, Route as Wish};

use crate::config::Settings;

/// Metric of routes of version 6 that says nothing: the kernel's own.
const DEFAULT_METRIC_6: u32 = 1024;
/// The main routing table.
const MAIN: u32 = 254;

/// A route that is ours to add and to remove.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Route {
    /// The network.
    pub to: Cidr,
    /// Whom to send to; without one the network is on the wire.
    pub via: Option<IpAddr>,
    /// Lower ones are preferred.
    pub metric: u32,
    /// Number of the table.
    pub table: u32,
    /// Address of ours on packets that take it.
    pub from: Option<IpAddr>,
    /// The next hop is on the link whatever the addresses say.
    pub on_link: bool,
    /// Largest packet.
    pub mtu: Option<u32>,
    /// `blackhole` and the like; `None` leads somewhere.
    pub kind: Option<String>,
}

impl Route {
    fn from_wish(wish: &Wish, table: Option<u32>) -> Self {
        let default = if wish.to.address.is_ipv6() {
            DEFAULT_METRIC_6
        } else {
            0
        };
        let kind = wish.kind.clone().filter(|kind| kind != "unicast");
        let via = wish
            .via
            .filter(|via| !via.is_unspecified() && kind.is_none());
        Self {
            to: wish.to.network(),
            via,
            metric: wish.metric.filter(|metric| *metric != 0).unwrap_or(default),
            table: wish.table.or(table).unwrap_or(MAIN),
            from: wish.from.filter(|_| kind.is_none()),
            on_link: wish.on_link && via.is_some(),
            mtu: wish.mtu.filter(|_| kind.is_none()),
            kind,
        }
    }
}

/// The routes that are declared over an interface.
fn routes_of(settings: &Settings) -> impl Iterator<Item = Route> {
    let routes = settings.routes.iter();
    routes.map(|wish| Route::from_wish(wish, settings.table))
}

/// Routes that lead nowhere are over no interface: those in `present` that another interface declares are not this one's.
pub fn leave_others<'s>(
    present: &mut Present,
    own: &Settings,
    all: impl Iterator<Item = &'s Settings>,
) {
    let own: Vec<Route> = routes_of(own).collect();
    let all: Vec<Route> = all
        .flat_map(routes_of)
        .filter(|route| route.kind.is_some())
        .collect();
    let routes = &mut present.routes;
    routes.retain(|route| route.kind.is_none() || own.contains(route) || !all.contains(route));
}

/// What an interface has of ours.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// Addresses.
    pub addresses: BTreeSet<Cidr>,
    /// Routes.
    pub routes: Vec<Route>,
}

/// One step from what is to what should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Take a route away.
    RemoveRoute(Route),
    /// Take an address away.
    RemoveAddress(Cidr),
    /// Give an address.
    AddAddress(Cidr),
    /// Add a route.
    AddRoute(Route),
}

/// The steps from `present` to what `settings` declare.
pub fn plan(present: &Present, settings: &Settings) -> Vec<Change> {
    let mut wanted: Vec<Route> = routes_of(settings).collect();
    // A next hop may only be reachable by one of the others.
    wanted.sort_by_key(|route| (route.via.is_some(), std::cmp::Reverse(route.to.prefix)));
    let is_there = |route: &Route| present.routes.contains(route);
    let old = present.routes.iter();
    let old = old.filter(|route| !wanted.contains(route));
    let mut changes: Vec<Change> = old.cloned().map(Change::RemoveRoute).collect();
    let gone = present
        .addresses
        .iter()
        .filter(|address| !settings.addresses.contains(address));
    let some_go = gone.clone().next().is_some();
    changes.extend(gone.copied().map(Change::RemoveAddress));
    let new = settings
        .addresses
        .iter()
        .filter(|address| !present.addresses.contains(address));
    let some_come = new.clone().next().is_some();
    changes.extend(new.copied().map(Change::AddAddress));
    // Routes go with the addresses and the link that they need.
    let missing = wanted
        .iter()
        .filter(|route| some_go || some_come || !is_there(route));
    changes.extend(missing.cloned().map(Change::AddRoute));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(addresses: &[&str], routes: &[(&str, Option<&str>)]) -> Settings {
        Settings {
            addresses: addresses.iter().map(|text| text.parse().unwrap()).collect(),
            routes: routes
                .iter()
                .map(|(to, via)| Wish {
                    to: to.parse().unwrap(),
                    via: via.map(|via| via.parse().unwrap()),
                    ..Wish::default()
                })
                .collect(),
            ..Settings::default()
        }
    }

    #[test]
    fn what_is_declared_is_added_and_what_is_no_longer_goes() {
        let first = settings(
            &["192.0.2.5/24", "2001:db8::5/64"],
            &[("0.0.0.0/0", Some("192.0.2.1"))],
        );
        let changes = plan(&Present::default(), &first);
        assert_eq!(changes.len(), 3);
        let present = Present {
            addresses: first.addresses.iter().copied().collect(),
            routes: vec![Route::from_wish(&first.routes[0], None)],
        };
        assert_eq!(plan(&present, &first), []);
        let second = settings(&["192.0.2.6/24"], &[]);
        let changes = plan(&present, &second);
        assert!(matches!(changes[0], Change::RemoveRoute(_)));
        assert_eq!(
            changes
                .iter()
                .filter(|change| matches!(change, Change::RemoveAddress(_)))
                .count(),
            2
        );
        assert!(matches!(changes[3], Change::AddAddress(_)));
    }

    #[test]
    fn a_way_to_the_next_hop_comes_first() {
        let wanted = settings(
            &["192.0.2.5/32"],
            &[("0.0.0.0/0", Some("192.0.2.1")), ("192.0.2.1/32", None)],
        );
        let routes: Vec<_> = plan(&Present::default(), &wanted)
            .into_iter()
            .filter_map(|change| match change {
                Change::AddRoute(route) => Some(route.via.is_some()),
                _ => None,
            })
            .collect();
        assert_eq!(routes, [false, true]);
    }

    #[test]
    fn members_of_a_vrf_have_their_routes_in_its_table() {
        let settings = Settings {
            table: Some(7),
            ..settings(
                &[],
                &[
                    ("0.0.0.0/0", Some("192.0.2.1")),
                    ("::/0", Some("2001:db8::1")),
                ],
            )
        };
        let routes: Vec<_> = plan(&Present::default(), &settings)
            .into_iter()
            .map(|change| match change {
                Change::AddRoute(route) => (route.table, route.metric),
                other => panic!("{other:?}"),
            })
            .collect();
        assert_eq!(routes, [(7, 0), (7, 1024)]);
    }
}
