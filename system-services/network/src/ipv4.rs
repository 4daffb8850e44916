//! What an interface's IPv4 side should look like, and what to change to get there. Pure.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::dhcp4::lease::{Held, LeaseRoute};

/// How it should look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix.
    pub prefix_len: u8,
    /// Seconds after which the kernel takes the address away by itself; `None` is never.
    pub valid_s: Option<u32>,
    /// Metric of the routes and of the network on the wire.
    pub metric: u32,
    /// Routes, those on the wire itself first.
    pub routes: Vec<Route>,
}

/// A route over the interface that is ours to add and to remove.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    /// The network.
    pub destination: Ipv4Addr,
    /// The length of its prefix.
    pub prefix_len: u8,
    /// Whom to send to; without one the network is on the wire.
    pub gateway: Option<Ipv4Addr>,
    /// Our address on packets that take this route.
    pub source: Option<Ipv4Addr>,
    /// Lower ones are preferred.
    pub metric: u32,
}

/// An address that the interface has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PresentAddress {
    /// The address.
    pub address: Ipv4Addr,
    /// The length of its network's prefix.
    pub prefix_len: u8,
    /// It was given by this service, not by an administrator.
    pub ours: bool,
}

/// How it looks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Present {
    /// All IPv4 addresses.
    pub addresses: Vec<PresentAddress>,
    /// The routes that are ours.
    pub routes: Vec<Route>,
}

/// One step from here to there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Take a route away.
    RemoveRoute(Route),
    /// Take an address away.
    RemoveAddress(Ipv4Addr, u8),
    /// Give the interface an address, or give one that it has a new lifetime.
    SetAddress {
        /// The address.
        address: Ipv4Addr,
        /// The length of its network's prefix.
        prefix_len: u8,
        /// Seconds until the kernel takes it away; `None` is never.
        valid_s: Option<u32>,
        /// Metric of the network on the wire.
        metric: u32,
    },
    /// Add a route.
    AddRoute(Route),
}

impl Wanted {
    /// What a lease asks for.
    pub fn from_lease(held: &Held, metric: u32, now: Duration) -> Self {
        let lease = &held.lease;
        let valid = held
            .expires_at()
            .map(|end| end.saturating_sub(now).as_secs());
        let mut routes: Vec<Route> = lease
            .routes
            .iter()
            .map(|route| from_lease(route, lease.address, metric))
            .collect();
        routes.sort_by_key(|route| route.gateway.is_some()); // a gateway may only be reachable by one of the others
        Self {
            address: lease.address,
            prefix_len: lease.prefix_len,
            // The kernel takes u32::MAX for forever and refuses 0.
            valid_s: valid.map(|seconds| seconds.clamp(1, u64::from(u32::MAX - 1)) as u32),
            metric,
            routes,
        }
    }
}

fn from_lease(route: &LeaseRoute, source: Ipv4Addr, metric: u32) -> Route {
    let LeaseRoute {
        destination,
        prefix_len,
        gateway,
    } = *route;
    Route {
        destination,
        prefix_len,
        gateway,
        source: Some(source),
        metric,
    }
}

/// The steps from `present` to `wanted`; `None` wants nothing of ours left.
pub fn plan(present: &Present, wanted: Option<&Wanted>) -> Vec<Change> {
    let mut changes = Vec::new();
    let is_wanted = |address: &PresentAddress| {
        wanted.is_some_and(|wanted| {
            (wanted.address, wanted.prefix_len) == (address.address, address.prefix_len)
        })
    };
    let wanted_routes = wanted.map_or(&[][..], |wanted| &wanted.routes);
    let old_routes: Vec<&Route> = present
        .routes
        .iter()
        .filter(|route| !wanted_routes.contains(route))
        .collect();
    changes.extend(old_routes.iter().map(|route| Change::RemoveRoute(**route)));
    // Before the new one is there: a second address of the same network goes when the first one goes.
    let old = present
        .addresses
        .iter()
        .filter(|address| address.ours && !is_wanted(address));
    let had_old = old.clone().next().is_some();
    changes.extend(old.map(|address| Change::RemoveAddress(address.address, address.prefix_len)));
    let Some(wanted) = wanted else { return changes };
    let Wanted {
        address,
        prefix_len,
        valid_s,
        metric,
        ..
    } = *wanted;
    changes.push(Change::SetAddress {
        address,
        prefix_len,
        valid_s,
        metric,
    });
    // An address that goes takes routes with it.
    let missing = wanted
        .routes
        .iter()
        .filter(|route| had_old || !present.routes.contains(route));
    changes.extend(missing.map(|route| Change::AddRoute(*route)));
    changes
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const A: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 5);
    const B: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 6);

    fn route(prefix_len: u8, gateway: Option<Ipv4Addr>, source: Ipv4Addr) -> Route {
        Route {
            destination: Ipv4Addr::UNSPECIFIED,
            prefix_len,
            gateway,
            source: Some(source),
            metric: 1002,
        }
    }

    fn wanted(address: Ipv4Addr, routes: Vec<Route>) -> Wanted {
        Wanted {
            address,
            prefix_len: 24,
            valid_s: Some(60),
            metric: 1002,
            routes,
        }
    }

    fn present(address: Ipv4Addr, ours: bool, routes: Vec<Route>) -> Present {
        Present {
            addresses: vec![PresentAddress {
                address,
                prefix_len: 24,
                ours,
            }],
            routes,
        }
    }

    /// What a kernel would look like afterwards.
    fn after(mut present: Present, changes: &[Change]) -> Present {
        for change in changes {
            match change {
                Change::RemoveRoute(route) => present.routes.retain(|other| other != route),
                Change::RemoveAddress(address, prefix_len) => {
                    present.addresses.retain(|other| {
                        (other.address, other.prefix_len) != (*address, *prefix_len)
                    });
                    present
                        .routes
                        .retain(|other| other.source != Some(*address));
                }
                Change::SetAddress {
                    address,
                    prefix_len,
                    ..
                } => {
                    present.addresses.retain(|other| {
                        (other.address, other.prefix_len) != (*address, *prefix_len)
                    });
                    let (address, prefix_len) = (*address, *prefix_len);
                    present.addresses.push(PresentAddress {
                        address,
                        prefix_len,
                        ours: true,
                    });
                }
                Change::AddRoute(route) if present.routes.contains(route) => {}
                Change::AddRoute(route) => present.routes.push(*route),
            }
        }
        present
    }

    fn any_present() -> impl Strategy<Value = Present> {
        let address = prop::sample::select(vec![A, B]);
        let addresses = prop::collection::vec(
            (
                address.clone(),
                prop::sample::select(vec![24, 32]),
                any::<bool>(),
            ),
            0..3,
        );
        let routes = prop::collection::vec(
            (prop::sample::select(vec![0, 8]), any::<bool>(), address),
            0..4,
        );
        (addresses, routes).prop_map(|(addresses, routes)| Present {
            addresses: addresses
                .into_iter()
                .map(|(address, prefix_len, ours)| PresentAddress {
                    address,
                    prefix_len,
                    ours,
                })
                .collect(),
            routes: routes
                .into_iter()
                .map(|(prefix_len, gateway, source)| {
                    route(prefix_len, gateway.then_some(A), source)
                })
                .fold(Vec::new(), |mut routes, route| {
                    if !routes.contains(&route) {
                        routes.push(route); // a kernel has no route twice
                    }
                    routes
                }),
        })
    }

    proptest! {
        #[test]
        fn the_plan_leads_where_it_should(present in any_present(), want in any::<bool>(), gateway in any::<bool>()) {
            let want = want.then(|| wanted(A, vec![route(8, None, A), route(0, gateway.then_some(B), A)]));
            let result = after(present.clone(), &plan(&present, want.as_ref()));
            let ours: Vec<_> = result.addresses.iter().filter(|address| address.ours).collect();
            match &want {
                None => prop_assert!(ours.is_empty() && result.routes.is_empty()),
                Some(want) => {
                    prop_assert_eq!(ours.len(), 1);
                    prop_assert_eq!(ours[0].address, A);
                    prop_assert_eq!(&result.routes.len(), &want.routes.len());
                    prop_assert!(want.routes.iter().all(|route| result.routes.contains(route)));
                }
            }
            for foreign in present.addresses.iter().filter(|address| !address.ours) {
                let still = result.addresses.iter().any(|address| address.address == foreign.address);
                let was_replaced = present.addresses.iter().any(|other| other.ours && other.address == foreign.address);
                prop_assert!(still || was_replaced, "an administrator's address was removed");
            }
        }
    }

    #[test]
    fn a_renewal_touches_nothing_but_the_lifetime() {
        let routes = vec![route(0, Some(B), A)];
        let changes = plan(&present(A, true, routes.clone()), Some(&wanted(A, routes)));
        assert_eq!(
            changes,
            [Change::SetAddress {
                address: A,
                prefix_len: 24,
                valid_s: Some(60),
                metric: 1002
            }]
        );
    }

    #[test]
    fn a_new_address_replaces_the_old_one_and_its_routes() {
        let changes = plan(
            &present(A, true, vec![route(0, Some(B), A)]),
            Some(&wanted(B, vec![route(0, Some(A), B)])),
        );
        assert_eq!(changes[0], Change::RemoveRoute(route(0, Some(B), A)));
        assert_eq!(changes[1], Change::RemoveAddress(A, 24));
        assert!(matches!(changes[2], Change::SetAddress { address: B, .. }));
        assert_eq!(changes[3..], [Change::AddRoute(route(0, Some(A), B))]);
    }
}
