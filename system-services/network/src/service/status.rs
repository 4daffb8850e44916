//! What the network is, for those who ask.

use std::collections::BTreeMap;

use keelson_config::network::Cidr;
use keelson_config::network::status::{LeaseStatus, LinkStatus, PrefixStatus, STATUS_FILE, Status};

use super::{Interface, Service};
use crate::dhcp4::lease::Held;
use crate::files::{self, Durability};
use crate::ipv6::lease::Delegated;
use crate::link_local::LinkLocal;
use crate::links::Link;

impl Service {
    /// Writes what the network is, when it is something else.
    pub(super) fn write_status(&self) {
        let mut status = status(&self.links, &self.interfaces);
        for (index, link) in self.links.keys().zip(&mut status.links) {
            link.delegated = self.delegated_status(*index);
        }
        let path = self.directories.run.join(STATUS_FILE);
        let written = serde_json::to_vec(&status)
            .map_err(std::io::Error::other)
            .and_then(|json| files::replace(&path, &json, Durability::Memory));
        if let Err(error) = written {
            log!(Error, "{}: {error}", path.display());
        }
    }
}

fn status(links: &BTreeMap<u32, Link>, interfaces: &BTreeMap<u32, Interface>) -> Status {
    let of_link = |(index, link): (&u32, &Link)| {
        let interface = interfaces.get(index);
        let settings = interface.map(|interface| &interface.settings);
        let controller = link.controller.and_then(|index| links.get(&index));
        LinkStatus {
            name: link.name.clone(),
            kind: link.kind.clone(),
            mac: link.mac(),
            mtu: link.mtu,
            up: link.up,
            carrier: link.carrier,
            part_of: controller.map(|controller| controller.name.clone()),
            managed: interface.is_some(),
            addresses: interface.map(addresses).unwrap_or_default(),
            dhcp4: settings.is_some_and(|settings| settings.dhcp4.is_some()),
            dhcp6: interface
                .and_then(|interface| interface.told.addresses.as_ref())
                .map(|addresses| addresses.iter().map(|it| it.what).collect())
                .unwrap_or_default(),
            prefixes: interface
                .and_then(|interface| interface.told.prefixes.as_ref())
                .map(|prefixes| prefixes.iter().map(prefix).collect())
                .unwrap_or_default(),
            delegated: Vec::new(),
            lease: interface
                .and_then(|interface| interface.held.as_ref())
                .map(lease),
        }
    };
    Status {
        links: links.iter().map(of_link).collect(),
    }
}

/// Addresses that the configuration gives, and the one that is chosen.
fn addresses(interface: &Interface) -> Vec<Cidr> {
    let mut all = interface.settings.addresses.clone();
    all.extend(interface.link_local.as_ref().and_then(LinkLocal::address));
    all
}

fn prefix(delegated: &Delegated) -> PrefixStatus {
    PrefixStatus {
        prefix: delegated.what.cidr(),
        ends_at_s: delegated.valid_until.map(|end| end.as_secs()),
    }
}

fn lease(held: &Held) -> LeaseStatus {
    let lease = &held.lease;
    let routes = lease.routes.iter().filter(|route| route.prefix_len == 0);
    LeaseStatus {
        address: Cidr {
            address: lease.address.into(),
            prefix: lease.prefix_len,
        },
        server: lease.server,
        routers: routes.filter_map(|route| route.gateway).collect(),
        ends_at_s: held.expires_at().map(|end| end.as_secs()),
    }
}
