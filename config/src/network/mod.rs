//! What a user asks of the network: cloud-init's network-config (version 1, and version 2 as netplan has it) and RancherOS'
//! `rancher.network`, as one model.
//!
//! Where cloud-init's renderers differ, netplan's reading counts.
//!
//! - [`model`]: interfaces, addresses, routes
//! - [`cidr`]: addresses with the length of their network's prefix
//! - [`version_1`], [`version_2`] (its [`made`] interfaces), [`rancher`]: the three ways to write them
//! - [`delegated`]: prefixes of version 6 that are asked for and divided
//! - [`keys_1`], [`keys_2`]: the keys of the first two
//! - [`firewall`]: what may come in
//! - [`status`]: what the network is; [`trial`]: one that is tried out
//! - [`values`]: addresses, masks, lists of them
//! - [`parameters`]: names of settings of bonds and bridges

mod cidr;
mod delegated;
pub(crate) mod firewall;
mod keys_1;
mod keys_2;
mod made;
mod model;
mod parameters;
mod rancher;
pub mod status;
pub mod trial;
pub(crate) mod values;
mod version_1;
mod version_2;

pub use cidr::Cidr;
pub use firewall::{Allow, Firewall, Ports, Protocol};
pub use model::{
    Bond, Bridge, Dns, Interface, Kind, Match, Network, Overrides, Peer, PrefixPart, Route, Rule,
    Tunnel, Vlan, Vrf, WireGuard,
};
pub use parameters::BOND_MODES;
pub(crate) use rancher::RANCHER;
pub use rancher::parse as parse_rancher;
pub(crate) use values::cidr as address_with_mask;

use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Node, Scalar, Shape, Table, Value};

/// What [`parse`] takes.
pub(crate) const NETWORK: Shape = Shape::Has("network", &Shape::Table(&OUTER), &INNER);
static OUTER: Table = Table::new("network-config", &[("network", INNER, "A network-config")]);
const INNER: Shape = Shape::Has(
    "config",
    &Shape::Table(&keys_1::TOP),
    &Shape::Table(&keys_2::TOP),
);

/// Reads a network-config of either version, with or without an outer `network`. `None` when nothing of it can be used: an
/// error says why, and the machine asks DHCP on every wired interface.
pub fn parse(root: &Node, diagnostics: &mut Diagnostics) -> Option<Network> {
    let top = yaml::mapping("network-config", root, diagnostics)?;
    let (root, top) = match top.get("network") {
        Some(inner) => {
            top.check(" beside `network`", &OUTER, diagnostics);
            (inner, yaml::mapping("network", inner, diagnostics)?)
        }
        None => (root, top),
    };
    top.iter().next()?;
    if let Some(node) = top.get("config")
        && matches!(&node.value, Value::Scalar(Scalar { text, .. }) if text == "disabled")
    {
        return Some(Network {
            disabled: true,
            ..Network::default()
        });
    }
    let Some(version) = top.get("version") else {
        // What cloud-init's own sources leave out is told by the keys.
        if top.get("config").is_some() {
            return version_1::parse(root, &top, diagnostics);
        }
        diagnostics.error(
            root.position,
            "network-config: `version: 1` or `version: 2` is missing; nothing of it is applied",
        );
        return None;
    };
    match yaml::integer("version", version, diagnostics)? {
        1 => version_1::parse(root, &top, diagnostics),
        2 => version_2::parse(&top, diagnostics),
        other => {
            diagnostics.error(
                version.position,
                format!(
                    "network-config: version {other} is unknown (1 or 2); nothing of it is applied"
                ),
            );
            None
        }
    }
}

#[cfg(test)]
mod tests;
