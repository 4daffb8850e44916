//! Networks of containers that clients made: bridges of the host, and what leads into them.
//!
//! - [`Networks`]: which there are, and which addresses and ports containers have; decided in one place, by the engine
//! - [`address`]: which addresses are free
//! - [`request`]: what clients ask for
//! - `wire`: interfaces, by the network service's program; `firewall`: what may pass, by iptables
//! - `ports`: ports of the host; [`store`]: networks on the disk
//!
//! A bridge is made when the first container needs it. What is in force is only ever a consequence of what is
//! written down: an engine that was killed is followed by one that comes to the same rules.

pub mod address;
mod firewall;
mod ports;
mod registry;
pub mod request;
pub mod store;
mod wire;

pub use address::Subnet;
pub use registry::Networks;
pub use request::{Attachment, DEFAULT, New, Protocol, Publish};
pub(crate) use wire::Wire;
use wire::Wirer;

use anyhow::Context;
use bollard_stubs::models::EventMessageTypeEnum;
use firewall::Firewall;
use keelson_image::Digest;
use serde::{Deserialize, Serialize};
use std::cell::RefCell;
use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

/// What events are told of.
pub const EVENTS: EventMessageTypeEnum = EventMessageTypeEnum::NETWORK;

/// The network of those who say nothing.
const DEFAULT_SUBNET: Subnet = Subnet {
    address: Ipv4Addr::new(10, 213, 0, 0),
    prefix_len: 24,
};

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// 64 hexadecimal digits.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// When it was made, in microseconds of Unix time.
    pub created_us: u64,
    /// Its addresses.
    pub subnet: Subnet,
    /// The host's address in it.
    pub gateway: Ipv4Addr,
    /// Nothing leads out of it.
    pub internal: bool,
    /// As they were given.
    pub labels: HashMap<String, String>,
    /// As they were given; none has a meaning here.
    pub options: HashMap<String, String>,
}

impl Network {
    /// The one that is always there.
    pub fn default_bridge() -> Self {
        Self {
            id: predefined(request::DEFAULT),
            name: request::DEFAULT.to_owned(),
            created_us: 0,
            subnet: DEFAULT_SUBNET,
            gateway: Ipv4Addr::new(10, 213, 0, 1),
            internal: false,
            labels: HashMap::new(),
            options: HashMap::new(),
        }
    }

    /// Whether it is the one that is always there. Its containers do not know each other by name, as in Docker.
    pub fn is_default(&self) -> bool {
        self.name == request::DEFAULT
    }

    /// The name of its bridge, an interface of the host.
    pub fn bridge(&self) -> String {
        match self.is_default() {
            true => "keelson0".to_owned(),
            false => format!("kb-{}", crate::containers::key(&self.id)),
        }
    }
}

/// The number of a network that nobody made: the same on each machine.
pub fn predefined(name: &str) -> String {
    Digest::of(name.as_bytes()).hex().to_owned()
}

/// A container's place in a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoint {
    /// 64 hexadecimal digits.
    pub id: String,
    /// The network's name.
    pub network: String,
    /// The network's number.
    pub network_id: String,
    /// The container's interface.
    pub interface: String,
    /// Its other end, at the host's bridge.
    pub host_interface: String,
    /// The container's address.
    pub address: Ipv4Addr,
    /// Bits of the network's part of it.
    pub prefix_len: u8,
    /// Where the rest of the world is.
    pub gateway: Ipv4Addr,
    /// Further names of the container in this network.
    pub aliases: Vec<String>,
}

impl Endpoint {
    /// The interface's hardware address, made from its address as Docker does it.
    pub fn mac(&self) -> [u8; 6] {
        let [a, b, c, d] = self.address.octets();
        [0x02, 0x42, a, b, c, d]
    }

    /// The hardware address as text.
    pub fn mac_text(&self) -> String {
        self.mac().map(|byte| format!("{byte:02x}")).join(":")
    }
}

/// A port of the host that leads to a container.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    /// Of both ports.
    pub protocol: Protocol,
    /// The host's address; unspecified is every one.
    pub address: Ipv4Addr,
    /// The host's port.
    pub port: u16,
    /// The container's port.
    pub target: u16,
}

/// What a container has of networks while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Connection {
    /// Its places, the one with the default route first.
    pub endpoints: Vec<Endpoint>,
    /// Ports of the host that lead to it.
    pub published: Vec<Published>,
}

/// Networks as they are decided and as they are in force.
#[derive(Debug)]
pub(crate) struct Switchboard {
    /// What is decided.
    pub(crate) networks: RefCell<Networks>,
    /// Networks on the disk.
    pub(crate) store: store::Store,
    wirer: Wirer,
    firewall: Firewall,
}

impl Switchboard {
    /// The networks of `store`; interfaces are made by the program of the network service, whose image is at
    /// `network`, the packet filter is set by the iptables of the image at `docker`. What could not be read comes
    /// second.
    pub(crate) fn new(store: store::Store, network: &Path, docker: PathBuf) -> (Self, Vec<String>) {
        let (networks, complaints) = store.load();
        let board = Self {
            networks: RefCell::new(Networks::new(networks)),
            store,
            wirer: Wirer::new(network),
            firewall: Firewall::new(docker),
        };
        (board, complaints)
    }

    /// Connects a container that has been made and whose program does not run yet.
    ///
    /// # Errors
    /// What the kernel or iptables refused.
    pub(crate) async fn connect(&self, pid: i32, wires: Vec<Wire>) -> anyhow::Result<()> {
        if wires.is_empty() {
            return Ok(());
        }
        for wire in &wires {
            let connected = self.wirer.connect(pid, wire).await;
            connected
                .with_context(|| format!("cannot connect it to network {}", wire.network.name))?;
        }
        self.filter().await
    }

    /// Disconnects a container that runs from one of its networks; `gateway` is where its packets go from now on.
    ///
    /// # Errors
    /// What the kernel or iptables refused.
    pub(crate) async fn disconnect(
        &self,
        pid: i32,
        endpoint: &Endpoint,
        gateway: Option<Ipv4Addr>,
    ) -> anyhow::Result<()> {
        let removed = self.wirer.remove(&endpoint.host_interface).await;
        removed.with_context(|| {
            format!(
                "cannot disconnect a container from network {}",
                endpoint.network
            )
        })?;
        if let Some(gateway) = gateway {
            self.wirer.route(pid, gateway).await?;
        }
        self.filter().await
    }

    /// Brings the packet filter to what is decided.
    ///
    /// # Errors
    /// With what iptables said.
    pub(crate) async fn filter(&self) -> anyhow::Result<()> {
        self.firewall.apply(|| self.networks.borrow().rules()).await
    }

    /// Removes what is left of a network that has been taken out.
    ///
    /// # Errors
    /// What the kernel or iptables refused.
    pub(crate) async fn clear_away(&self, network: &Network) -> anyhow::Result<()> {
        self.wirer.remove(&network.bridge()).await?;
        self.filter().await
    }
}
