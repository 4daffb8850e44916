//! A container that a client made is connected to a further network, or disconnected from one: for now and for its
//! next starts.

use super::Engine;
use super::containers::Answer;
use crate::compose::NetworkMode;
use crate::containers::Stored;
use crate::network::{Attachment, Endpoint, request};
use crate::server::Refusal;
use bollard_stubs::models::EndpointSettings;
use std::rc::Rc;
use std::sync::Arc;

impl Engine {
    /// Connects a container to a network; answers when it is, for good.
    pub(super) fn join_network(
        &mut self,
        key: &str,
        network: &str,
        settings: EndpointSettings,
        answer: Answer,
    ) {
        let joined = self.join(key, network, settings);
        let (attachment, pid) = match joined {
            Err(refusal) => return drop(answer.send(Err(refusal))),
            Ok(joined) => joined,
        };
        let Some(pid) = pid else {
            return self.store_and_answer(key, answer);
        };
        let mut networks = self.shared.switchboard.networks.borrow_mut();
        networks.settle(&super::networks::routes());
        let placed = networks.join(key, &attachment);
        let wire = placed.as_ref().ok().and_then(|endpoint| {
            let connection = networks.connection(key)?;
            let mut wires = networks.wires(connection);
            wires.retain(|wire| wire.is_of(endpoint));
            wires.pop()
        });
        drop(networks);
        let endpoint = match placed {
            Ok(endpoint) => endpoint,
            Err(error) => {
                self.forget_network(key, network);
                return drop(answer.send(Err(Refusal::Conflict(format!("{error:#}")))));
            }
        };
        self.endpoints_changed(key, "connect", &endpoint);
        let (shared, name) = (self.shared.clone(), key.to_owned());
        tokio::task::spawn_local(async move {
            let connected = shared
                .switchboard
                .connect(pid, wire.into_iter().collect())
                .await;
            if let Err(error) = &connected {
                let why = format!("container {name}: {error:#}");
                shared.console.error(&why);
            }
            let result = connected.map_err(|error| Refusal::Failed(format!("{error:#}")));
            let _ = shared.inputs.send(super::Input::Connected {
                service: name,
                network: endpoint.network,
                result,
                answer,
            });
        });
    }

    /// The interface is there, or could not be made.
    pub(super) fn joined_network(
        &mut self,
        key: &str,
        network: &str,
        result: Result<(), Refusal>,
        answer: Answer,
    ) {
        match result {
            Ok(()) => self.store_and_answer(key, answer),
            Err(refusal) => {
                self.take_out(key, network);
                let _ = answer.send(Err(refusal));
            }
        }
    }

    /// Writes down that a container is in a network. What it asks of it, and its first process while it runs.
    fn join(
        &mut self,
        key: &str,
        network: &str,
        settings: EndpointSettings,
    ) -> Result<(Attachment, Option<i32>), Refusal> {
        let entry = self.connectable(key)?;
        let in_it = entry.definition.service.networks.iter();
        if in_it
            .clone()
            .any(|other| self.is_network(&other.network, network))
        {
            let title = entry.title();
            return Err(Refusal::Forbidden(format!(
                "endpoint with name {title} already exists in network {network}"
            )));
        }
        let has_aliases = settings.aliases.as_ref().is_some_and(|all| !all.is_empty());
        if has_aliases && self.is_network(network, request::DEFAULT) {
            return Err(Refusal::Invalid(
                "invalid endpoint settings:\nnetwork-scoped alias is supported only for containers in user defined networks".to_owned(),
            ));
        }
        let was_alone = in_it.count() == 0;
        let pid = entry.state().process().map(|process| process.pid);
        self.redefine_networks(key, |stored| {
            let host = stored.body.host_config.get_or_insert_default();
            if was_alone {
                host.network_mode = Some(network.to_owned());
            }
            let config = stored.body.networking_config.get_or_insert_default();
            let endpoints = config.endpoints_config.get_or_insert_default();
            endpoints.insert(network.to_owned(), settings);
        })?;
        let entry = self.services.get(key);
        let attachment = entry.and_then(|entry| {
            let mut all = entry.definition.service.networks.iter();
            all.find(|other| other.network == network).cloned()
        });
        Ok((attachment.unwrap_or_default(), pid))
    }

    /// Disconnects a container from a network; answers when it is, for good.
    pub(super) fn leave_network(&mut self, key: &str, network: &str, answer: Answer) {
        let known = self.connectable(key).and_then(|entry| {
            let mut all = entry.definition.service.networks.iter();
            match all.any(|other| self.is_network(&other.network, network)) {
                true => Ok(entry.state().process().map(|process| process.pid)),
                false => Err(Refusal::Failed(format!(
                    "container {} is not connected to network {network}",
                    entry.record.id
                ))),
            }
        });
        let pid = match known {
            Err(refusal) => return drop(answer.send(Err(refusal))),
            Ok(pid) => pid,
        };
        if let (Some(endpoint), Some(pid)) = (self.take_out(key, network), pid) {
            let gateway = self.shared.switchboard.networks.borrow().gateway(key);
            let shared = self.shared.clone();
            tokio::task::spawn_local(async move {
                let board = &shared.switchboard;
                if let Err(error) = board.disconnect(pid, &endpoint, gateway).await {
                    shared.console.error(&format!("{error:#}"));
                }
            });
        }
        self.store_and_answer(key, answer);
    }

    /// Whether what a client calls a network is that of this name.
    fn is_network(&self, called: &str, name: &str) -> bool {
        self.shared.switchboard.networks.borrow().is(called, name)
    }

    /// A container whose networks may change.
    fn connectable(&self, key: &str) -> Result<&super::Entry, Refusal> {
        let entry = self
            .services
            .get(key)
            .ok_or_else(|| Refusal::NoSuchService(key.to_owned()))?;
        match entry.definition.service.network_mode {
            _ if entry.stored.is_none() => Err(Refusal::Conflict(format!(
                "{key} is a service of the system: its definition says what it is"
            ))),
            Some(NetworkMode::Host | NetworkMode::Container(_)) => Err(Refusal::Forbidden(
                "container sharing network namespace with another container or host cannot be connected to any other network".to_owned(),
            )),
            _ => Ok(entry),
        }
    }

    /// Takes a container out of a network, for now and for its next starts. The place that it had there.
    fn take_out(&mut self, key: &str, network: &str) -> Option<Endpoint> {
        self.forget_network(key, network);
        let networks = &self.shared.switchboard.networks;
        let endpoint = networks.borrow_mut().leave(key, network)?;
        self.endpoints_changed(key, "disconnect", &endpoint);
        Some(endpoint)
    }

    /// Takes a network out of what is written of a container.
    fn forget_network(&mut self, key: &str, network: &str) {
        let shared = self.shared.clone();
        let is_it = move |called: &str| shared.switchboard.networks.borrow().is(called, network);
        let forgotten = self.redefine_networks(key, |stored| {
            let config = stored.body.networking_config.get_or_insert_default();
            let endpoints = config.endpoints_config.get_or_insert_default();
            endpoints.retain(|called, _| !is_it(called));
            let mut left: Vec<&String> = endpoints.keys().collect();
            left.sort();
            let mode = left
                .first()
                .map_or("none".to_owned(), |name| (*name).clone());
            let host = stored.body.host_config.get_or_insert_default();
            let named = host.network_mode.as_deref().unwrap_or_default();
            let named = if named.is_empty() {
                request::DEFAULT
            } else {
                named
            };
            if is_it(named) {
                host.network_mode = Some(mode);
            }
        });
        debug_assert!(forgotten.is_ok(), "taking something out cannot be wrong");
    }

    fn redefine_networks(
        &mut self,
        key: &str,
        change: impl FnOnce(&mut Stored),
    ) -> Result<(), Refusal> {
        let volumes = self.shared.options.volumes();
        let Some(entry) = self.services.get_mut(key) else {
            return Ok(());
        };
        let Some(stored) = &entry.stored else {
            return Ok(());
        };
        let mut changed = Stored::clone(stored);
        change(&mut changed);
        let definition = changed.definition(volumes.directory());
        entry.definition = Rc::new(definition.map_err(Refusal::Invalid)?);
        entry.stored = Some(Arc::new(changed));
        Ok(())
    }

    fn endpoints_changed(&mut self, key: &str, action: &str, endpoint: &Endpoint) {
        let connection = self
            .shared
            .switchboard
            .networks
            .borrow()
            .connection(key)
            .cloned();
        if let Some(entry) = self.services.get_mut(key) {
            entry.record.connection = connection.unwrap_or_default();
        }
        self.save(key);
        let endpoints = std::slice::from_ref(endpoint);
        self.tell_members(key, action, endpoints);
        self.rename_hosts(key, endpoints);
        self.rewrite_hosts(key);
    }
}
