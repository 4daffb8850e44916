//! Which networks there are, and which addresses and ports of the host containers have.

use super::address::{free_subnet, own_of, routed};
use super::firewall::{self, Forward};
use super::ports::{reserve, reserve_one};
use super::request::{DEFAULT, plain};
use super::{Attachment, Connection, Endpoint, Network, New, Publish, Subnet, Wire};
use crate::containers::{is_name, key, unix_us};
use crate::record::new_id;
use anyhow::{Context, bail};
use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::SystemTime;

/// The host's interface of a container has its number and one more digit in its name.
const NETWORKS_MAX: usize = 10;

/// What one container has, and the sockets that keep its ports of the host from others.
#[derive(Debug)]
struct Held {
    connection: Connection,
    _ports: Vec<OwnedFd>,
}

/// All networks, and who is in them.
#[derive(Debug)]
pub struct Networks {
    networks: BTreeMap<String, Network>,
    /// Networks that have or had containers since the engine began.
    used: BTreeSet<String>,
    /// By the container's key.
    held: BTreeMap<String, Held>,
}

impl Networks {
    /// These, and the default one.
    pub fn new(networks: Vec<Network>) -> Self {
        let all = networks.into_iter().chain([Network::default_bridge()]);
        Self {
            networks: all.map(|network| (network.name.clone(), network)).collect(),
            used: BTreeSet::new(),
            held: BTreeMap::new(),
        }
    }

    /// All, in order of name.
    pub fn all(&self) -> impl Iterator<Item = &Network> {
        self.networks.values()
    }

    /// The one with that name, number, or beginning of a number that no other has.
    pub fn find(&self, name: &str) -> Option<&Network> {
        let exact = self.networks.get(name);
        exact.or_else(|| {
            let mut alike = self.all().filter(|network| network.id.starts_with(name));
            alike
                .next()
                .filter(|_| !name.is_empty() && alike.next().is_none())
        })
    }

    /// Whether what a client calls a network is that of this name. It may be there no more.
    pub fn is(&self, called: &str, name: &str) -> bool {
        let called = plain(called);
        called == name || self.find(called).is_some_and(|found| found.name == name)
    }

    /// Decides on a new network. `routes` is the host's routing table, as `/proc/net/route` has it.
    ///
    /// # Errors
    /// For a person: why there cannot be such a network.
    pub fn add(&mut self, new: New, routes: &str) -> Result<Network, String> {
        if !is_name(&new.name) || ["default", "host", "none"].contains(&new.name.as_str()) {
            return Err(format!(
                "invalid network name: {}: only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed, and not the names of what is always there",
                new.name
            ));
        }
        if self.networks.contains_key(&new.name) {
            return Err(format!("network with name {} already exists", new.name));
        }
        let mut taken: Vec<Subnet> = self.all().map(|network| network.subnet).collect();
        let subnet = match new.subnet {
            Some(subnet) if taken.iter().any(|other| other.overlaps(subnet)) => {
                return Err("Pool overlaps with other one on this address space".to_owned());
            }
            Some(subnet) => subnet,
            None => {
                taken.extend(routed(routes, ""));
                free_subnet(&taken)
                    .ok_or("could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network")?
            }
        };
        let first = subnet.first_free(&BTreeSet::new());
        let gateway = new.gateway.or(first).unwrap_or(subnet.address);
        if !subnet.is_host(gateway) {
            return Err(format!(
                "invalid gateway {gateway}: it is no address of {subnet}"
            ));
        }
        let network = Network {
            id: new_id(),
            name: new.name,
            created_us: unix_us(SystemTime::now()),
            subnet,
            gateway,
            internal: new.internal,
            labels: new.labels,
            options: new.options,
        };
        self.networks.insert(network.name.clone(), network.clone());
        Ok(network)
    }

    /// Takes a network out.
    pub fn remove(&mut self, name: &str) {
        self.networks.remove(name);
        self.used.remove(name);
    }

    /// Puts a network back that could not be taken out of the disk.
    pub fn restore(&mut self, network: Network) {
        self.networks.insert(network.name.clone(), network);
    }

    /// The containers that are in a network, by key.
    pub fn members(&self, network: &str) -> impl Iterator<Item = (&str, &Endpoint)> {
        self.held.iter().flat_map(move |(key, held)| {
            let all = held.connection.endpoints.iter();
            all.filter(move |endpoint| endpoint.network == network)
                .map(move |endpoint| (key.as_str(), endpoint))
        })
    }

    /// Gives the network of those who say nothing another place, when the host's networks have come to have its own: as long as
    /// nobody is in it. `routes` is the host's routing table.
    pub fn settle(&mut self, routes: &str) {
        let is_empty = self.members(DEFAULT).next().is_none() && !self.used.contains(DEFAULT);
        let Some(network) = self.networks.get(DEFAULT).filter(|_| is_empty) else {
            return;
        };
        // A bridge that an earlier engine left is where it is.
        if let Some(subnet) = own_of(routes, &network.bridge()) {
            return self.place_default(subnet);
        }
        let mut taken = routed(routes, "");
        if !taken.iter().any(|other| other.overlaps(network.subnet)) {
            return;
        }
        let others = self.all().filter(|network| !network.is_default());
        taken.extend(others.map(|network| network.subnet));
        // Where nothing is free, it stays where people know it.
        if let Some(subnet) = free_subnet(&taken) {
            self.place_default(subnet);
        }
    }

    fn place_default(&mut self, subnet: Subnet) {
        if let Some(gateway) = subnet.first_free(&BTreeSet::new())
            && let Some(network) = self.networks.get_mut(DEFAULT)
        {
            (network.subnet, network.gateway) = (subnet, gateway);
        }
    }

    /// Gives a container addresses and ports.
    ///
    /// # Errors
    /// What is not free, or not there.
    pub fn connect(
        &mut self,
        container: &str,
        attachments: &[Attachment],
        ports: &[Publish],
    ) -> anyhow::Result<Connection> {
        self.release(container);
        if attachments.len() > NETWORKS_MAX {
            bail!("a container can be in {NETWORKS_MAX} networks");
        }
        let mut connection = Connection::default();
        for (number, attachment) in attachments.iter().enumerate() {
            let endpoint = self.place(container, number, attachment)?;
            connection.endpoints.push(endpoint);
        }
        let mut sockets = Vec::new();
        for publish in ports.iter().filter(|_| !attachments.is_empty()) {
            let (published, socket) = reserve(publish)?;
            connection.published.push(published);
            sockets.push(socket);
        }
        self.hold(container, connection.clone(), sockets);
        Ok(connection)
    }

    /// Gives a container that runs an address in a further network.
    ///
    /// # Errors
    /// What is not free, or not there.
    pub fn join(&mut self, container: &str, attachment: &Attachment) -> anyhow::Result<Endpoint> {
        let interfaces = self.connection(container).map(|connection| {
            let all = connection.endpoints.iter();
            all.map(|endpoint| endpoint.interface.clone())
                .collect::<Vec<_>>()
        });
        let interfaces = interfaces.unwrap_or_default();
        let number = (0..NETWORKS_MAX)
            .find(|number| !interfaces.contains(&interface(*number)))
            .with_context(|| format!("a container can be in {NETWORKS_MAX} networks"))?;
        let endpoint = self.place(container, number, attachment)?;
        let held = self
            .held
            .entry(container.to_owned())
            .or_insert_with(|| Held {
                connection: Connection::default(),
                _ports: Vec::new(),
            });
        held.connection.endpoints.push(endpoint.clone());
        self.used.insert(endpoint.network.clone());
        Ok(endpoint)
    }

    /// Takes a container out of a network; its place there.
    pub fn leave(&mut self, container: &str, network: &str) -> Option<Endpoint> {
        let endpoints = &mut self.held.get_mut(container)?.connection.endpoints;
        let at = endpoints
            .iter()
            .position(|endpoint| endpoint.network == network)?;
        Some(endpoints.remove(at))
    }

    /// What a container has.
    pub fn connection(&self, container: &str) -> Option<&Connection> {
        self.held.get(container).map(|held| &held.connection)
    }

    /// Where a container's packets to the rest of the world go.
    pub fn gateway(&self, container: &str) -> Option<Ipv4Addr> {
        let wires = self.wires(self.connection(container)?);
        let wire = wires.into_iter().find(|wire| wire.is_default)?;
        Some(wire.endpoint.gateway)
    }

    /// Takes over what a container was given by an earlier engine. Ports that cannot be kept from others are told.
    pub fn adopt(&mut self, container: &str, connection: Connection) -> Vec<String> {
        // Where an earlier engine settled the network of those who say nothing.
        let mut endpoints = connection.endpoints.iter();
        if let Some(endpoint) = endpoints.find(|endpoint| endpoint.network == DEFAULT)
            && let Some(network) = self.networks.get_mut(DEFAULT)
        {
            network.subnet = Subnet::of(endpoint.address, endpoint.prefix_len);
            network.gateway = endpoint.gateway;
        }
        let (mut sockets, mut complaints) = (Vec::new(), Vec::new());
        for port in &connection.published {
            match reserve_one(port.protocol, port.address, port.port) {
                Ok((_, socket)) => sockets.push(socket),
                Err(error) => complaints.push(format!("port {}: {error:#}", port.port)),
            }
        }
        self.hold(container, connection, sockets);
        complaints
    }

    fn hold(&mut self, container: &str, connection: Connection, ports: Vec<OwnedFd>) {
        let networks = connection.endpoints.iter();
        self.used
            .extend(networks.map(|endpoint| endpoint.network.clone()));
        let held = Held {
            connection,
            _ports: ports,
        };
        self.held.insert(container.to_owned(), held);
    }

    /// Takes back what a container has. Whether it had ports.
    pub fn release(&mut self, container: &str) -> bool {
        let held = self.held.remove(container);
        held.is_some_and(|held| !held.connection.published.is_empty())
    }

    fn place(
        &self,
        container: &str,
        number: usize,
        asked: &Attachment,
    ) -> anyhow::Result<Endpoint> {
        let network = self
            .find(&asked.network)
            .with_context(|| format!("network {} not found", asked.network))?;
        let members = self.members(&network.name);
        let mut taken: BTreeSet<Ipv4Addr> = members.map(|(_, endpoint)| endpoint.address).collect();
        taken.insert(network.gateway);
        let address = match asked.address {
            Some(address) if !network.subnet.is_host(address) => bail!(
                "no configured subnet contains IP address {address}: network {} has {}",
                network.name,
                network.subnet
            ),
            Some(address) if taken.contains(&address) => bail!("Address already in use"),
            Some(address) => address,
            None => network.subnet.first_free(&taken).with_context(|| {
                format!(
                    "no available IPv4 addresses on the network {}: {}",
                    network.name, network.subnet
                )
            })?,
        };
        Ok(Endpoint {
            id: new_id(),
            network: network.name.clone(),
            network_id: network.id.clone(),
            interface: interface(number),
            host_interface: format!("ke{}{number}", key(container)),
            address,
            prefix_len: network.subnet.prefix_len,
            gateway: network.gateway,
            aliases: asked.aliases.clone(),
        })
    }

    /// What is to be connected for a container.
    pub(crate) fn wires(&self, connection: &Connection) -> Vec<Wire> {
        let mut wires: Vec<Wire> = Vec::new();
        for endpoint in &connection.endpoints {
            if let Some(network) = self.networks.get(&endpoint.network) {
                let is_default = !wires.iter().any(|wire| wire.is_default) && !network.internal;
                wires.push(Wire {
                    network: network.clone(),
                    endpoint: endpoint.clone(),
                    is_default,
                });
            }
        }
        wires
    }

    /// The packet filter's rules.
    pub(super) fn rules(&self) -> String {
        let used = self.used.iter();
        let networks: Vec<&Network> = used.filter_map(|name| self.networks.get(name)).collect();
        let mut forwards = Vec::new();
        for held in self.held.values() {
            // Ports lead to the network that leads out.
            let endpoint = held.connection.endpoints.iter().find(|endpoint| {
                let network = self.networks.get(&endpoint.network);
                network.is_some_and(|network| !network.internal)
            });
            let Some(address) = endpoint.map(|endpoint| endpoint.address) else {
                continue;
            };
            let ports = held.connection.published.iter();
            forwards.extend(ports.map(|port| Forward { address, port }));
        }
        firewall::rules(&networks, &forwards)
    }
}

/// A container's interface by its number.
fn interface(number: usize) -> String {
    format!("eth{number}")
}

#[cfg(test)]
mod tests;
