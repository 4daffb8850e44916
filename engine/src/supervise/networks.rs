//! Networks of containers: who is given what, and when it is taken back.

use super::Engine;
use super::files;
use crate::compose::NetworkMode;
use crate::docker::networks::{Member, View};
use crate::events::Attributes;
use crate::lifecycle::State;
use crate::network::{self, Endpoint, Network, New, Wire};
use crate::server::Refusal;
use std::fmt::Write;
use std::fs;
use tokio::sync::oneshot;

/// The host's routing table.
pub(super) fn routes() -> String {
    fs::read_to_string("/proc/net/route").unwrap_or_default()
}

impl Engine {
    /// Gives a container that is about to be made its addresses and ports.
    pub(super) fn give_network(&mut self, name: &str) -> anyhow::Result<Vec<Wire>> {
        let Some(entry) = self.services.get_mut(name) else {
            return Ok(Vec::new());
        };
        let service = &entry.definition.service;
        if !matches!(service.network_mode, Some(NetworkMode::Network(_))) {
            return Ok(Vec::new());
        }
        let mut networks = self.shared.switchboard.networks.borrow_mut();
        networks.settle(&routes());
        let connection = networks.connect(name, &service.networks, &service.ports)?;
        let wires = networks.wires(&connection);
        drop(networks);
        let endpoints = connection.endpoints.clone();
        entry.record.connection = connection;
        self.save(name);
        self.tell_members(name, "connect", &endpoints);
        self.rename_hosts(name, &endpoints);
        Ok(wires)
    }

    /// Takes back what a container that does not run any more was given.
    pub(super) fn take_network(&mut self, name: &str) {
        let Some(entry) = self.services.get_mut(name) else {
            return;
        };
        let holds = matches!(
            entry.state(),
            State::Creating | State::Starting { .. } | State::Ready { .. } | State::Stopping { .. }
        );
        if holds || entry.record.connection == network::Connection::default() {
            return;
        }
        let connection = std::mem::take(&mut entry.record.connection);
        let had_ports = self.shared.switchboard.networks.borrow_mut().release(name);
        self.save(name);
        self.tell_members(name, "disconnect", &connection.endpoints);
        self.rename_hosts(name, &connection.endpoints);
        if had_ports {
            self.filter_packets();
        }
    }

    /// Takes over what an earlier engine gave.
    pub(super) fn adopt_networks(&self) {
        let mut any = false;
        for (name, entry) in &self.services {
            let connection = entry.record.connection.clone();
            if connection.endpoints.is_empty() {
                continue;
            }
            any = true;
            let mut networks = self.shared.switchboard.networks.borrow_mut();
            for complaint in networks.adopt(name, connection) {
                self.shared
                    .console
                    .error(&format!("container {}: {complaint}", entry.title()));
            }
        }
        if any {
            self.filter_packets();
        }
    }

    /// Brings the packet filter to what is decided.
    fn filter_packets(&self) {
        let shared = self.shared.clone();
        tokio::task::spawn_local(async move {
            if let Err(error) = shared.switchboard.filter().await {
                shared.console.error(&format!("{error:#}"));
            }
        });
    }

    pub(super) fn tell_members(&self, name: &str, action: &str, endpoints: &[Endpoint]) {
        let Some(entry) = self.services.get(name) else {
            return;
        };
        for endpoint in endpoints {
            let attributes = Attributes::from([
                ("container".to_owned(), entry.record.id.clone()),
                ("name".to_owned(), endpoint.network.clone()),
                ("type".to_owned(), "bridge".to_owned()),
            ]);
            let id = &endpoint.network_id;
            self.shared
                .events
                .tell(network::EVENTS, action, id, attributes);
        }
    }

    /// What a container calls itself and the others in its networks, in the form of hosts(5).
    pub(super) fn known_hosts(&self, name: &str) -> String {
        let mut text = String::new();
        let Some(entry) = self.services.get(name) else {
            return text;
        };
        let networks = self.shared.switchboard.networks.borrow();
        for endpoint in &entry.record.connection.endpoints {
            let _ = writeln!(
                text,
                "{}\t{}",
                endpoint.address,
                self.host_names(name, endpoint)
            );
        }
        for own in &entry.record.connection.endpoints {
            if own.network == network::request::DEFAULT {
                continue;
            }
            for (other, endpoint) in networks.members(&own.network) {
                if other != name {
                    let names = self.host_names(other, endpoint);
                    let _ = writeln!(text, "{}\t{names}", endpoint.address);
                }
            }
        }
        text
    }

    /// All names of a container in a network: its host name comes first.
    fn host_names(&self, name: &str, endpoint: &Endpoint) -> String {
        let mut names = Vec::new();
        if let Some(entry) = self.services.get(name) {
            names.extend(entry.definition.service.hostname.as_deref());
            names.push(entry.title());
        }
        names.push(name);
        names.extend(endpoint.aliases.iter().map(String::as_str));
        let mut known = std::collections::BTreeSet::new();
        names.retain(|name| known.insert(*name));
        names.join(" ")
    }

    /// Tells the others in a container's networks that it is called otherwise now.
    pub(super) fn tell_new_name(&self, name: &str) {
        if let Some(entry) = self.services.get(name) {
            self.rename_hosts(name, &entry.record.connection.endpoints);
        }
    }

    /// Tells the others in these networks what has changed.
    pub(super) fn rename_hosts(&self, changed: &str, endpoints: &[Endpoint]) {
        let mut others = std::collections::BTreeSet::new();
        {
            let networks = self.shared.switchboard.networks.borrow();
            for endpoint in endpoints {
                if endpoint.network != network::request::DEFAULT {
                    let members = networks.members(&endpoint.network);
                    others.extend(members.map(|(name, _)| name.to_owned()));
                }
            }
        }
        for other in others.iter().filter(|other| *other != changed) {
            self.rewrite_hosts(other);
        }
    }

    /// Tells a container that runs who is in its networks.
    pub(super) fn rewrite_hosts(&self, name: &str) {
        let entry = self.services.get(name);
        let Some(entry) = entry else {
            return;
        };
        let container = self.shared.options.container(name);
        let hosts = self.known_hosts(name);
        if let Err(error) = files::rewrite_hosts(&entry.definition, &container, &hosts) {
            self.shared.console.error(&format!(
                "container {}: cannot tell it who is in its network: {error:#}",
                entry.title()
            ));
        }
    }

    /// All networks with the containers in them.
    pub(super) fn networks(&self) -> Vec<View> {
        let networks = self.shared.switchboard.networks.borrow();
        let member = |(name, endpoint): (&str, &Endpoint)| {
            let entry = self.services.get(name)?;
            Some(Member {
                id: entry.record.id.clone(),
                name: entry.title().to_owned(),
                endpoint: endpoint.clone(),
            })
        };
        let view = |network: &Network| View {
            network: network.clone(),
            members: networks.members(&network.name).filter_map(member).collect(),
        };
        networks.all().map(view).collect()
    }

    /// Makes a network; answers when it is on the disk.
    pub(super) fn add_network(&self, new: New, answer: oneshot::Sender<Result<Network, Refusal>>) {
        let board = &self.shared.switchboard;
        let added = board.networks.borrow_mut().add(new, &routes());
        let network = match added {
            Ok(network) => network,
            Err(why) if why.ends_with("already exists") => {
                return drop(answer.send(Err(Refusal::Conflict(why))));
            }
            Err(why) if why.starts_with("Pool overlaps") => {
                return drop(answer.send(Err(Refusal::Forbidden(why))));
            }
            Err(why) => return drop(answer.send(Err(Refusal::Invalid(why)))),
        };
        let (shared, store, written) = (self.shared.clone(), board.store.clone(), network.clone());
        tokio::task::spawn_local(async move {
            let result = super::worker::blocking(move || Ok(store.write(&written)?)).await;
            let result = match result {
                Ok(()) => {
                    shared.events.tell(
                        network::EVENTS,
                        "create",
                        &network.id,
                        attributes(&network),
                    );
                    Ok(network)
                }
                Err(error) => {
                    shared
                        .switchboard
                        .networks
                        .borrow_mut()
                        .remove(&network.name);
                    Err(Refusal::Failed(format!(
                        "cannot store the network: {error:#}"
                    )))
                }
            };
            let _ = answer.send(result);
        });
    }

    /// Removes a network that nobody is in; answers when it is gone for good.
    pub(super) fn remove_network(&self, name: &str, answer: oneshot::Sender<Result<(), Refusal>>) {
        let mut networks = self.shared.switchboard.networks.borrow_mut();
        let found = networks.find(name).cloned();
        let Some(network) = found else {
            return drop(answer.send(Err(Refusal::NoSuchService(name.to_owned()))));
        };
        let refusal = if network.is_default() {
            Some(format!(
                "{name} is a pre-defined network and cannot be removed"
            ))
        } else if networks.members(&network.name).next().is_some() {
            Some(format!(
                "error while removing network: network {name} id {} has active endpoints",
                network.id
            ))
        } else {
            None
        };
        if let Some(why) = refusal {
            return drop(answer.send(Err(Refusal::Conflict(why))));
        }
        networks.remove(&network.name);
        drop(networks);
        let shared = self.shared.clone();
        tokio::task::spawn_local(async move {
            let (store, gone) = (shared.switchboard.store.clone(), network.clone());
            let result = super::worker::blocking(move || Ok(store.remove(&gone)?)).await;
            if let Err(error) = result {
                shared.switchboard.networks.borrow_mut().restore(network);
                let why = format!("cannot remove the network: {error:#}");
                return drop(answer.send(Err(Refusal::Failed(why))));
            }
            if let Err(error) = shared.switchboard.clear_away(&network).await {
                let name = &network.name;
                shared.console.error(&format!(
                    "network {name}: what is left of it stays: {error:#}"
                ));
            }
            shared.events.tell(
                network::EVENTS,
                "destroy",
                &network.id,
                attributes(&network),
            );
            let _ = answer.send(Ok(()));
        });
    }
}

fn attributes(network: &Network) -> Attributes {
    Attributes::from([
        ("name".to_owned(), network.name.clone()),
        ("type".to_owned(), "bridge".to_owned()),
    ])
}
