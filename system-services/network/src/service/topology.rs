//! Interfaces that are made, names, and who is a part of what.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};

use keelson_config::network::{Interface, Kind};

use serde_json::Value as Json;

use super::Service;
use crate::links::Link;

/// What an interface is made as: whatever cannot be changed later, in a few letters. Parts may come and go, and what is set of them
/// may change, but not go: the kernel keeps what it was told.
fn made_as(kind: &Kind) -> String {
    let mut kind = kind.clone();
    let there = |params: &mut BTreeMap<String, Json>, key: &str| {
        if let Some(value) = params.get_mut(key) {
            *value = Json::Null;
        }
    };
    match &mut kind {
        Kind::Bond(bond) => {
            bond.members.clear();
            there(&mut bond.params, "primary");
        }
        Kind::Bridge(bridge) => {
            bridge.members.clear();
            there(&mut bridge.params, "path-cost");
            there(&mut bridge.params, "port-priority");
        }
        Kind::Vrf(vrf) => vrf.members.clear(),
        // Keys and peers can be set at any time.
        Kind::WireGuard(wireguard) => {
            wireguard.port = wireguard.port.map(|_| 0);
            wireguard.mark = None;
            wireguard.key.clear();
            wireguard.peers.clear();
        }
        _ => {}
    }
    let mut hasher = DefaultHasher::new();
    serde_json::to_string(&kind)
        .unwrap_or_default()
        .hash(&mut hasher);
    format!("{:016x}", hasher.finish())
}

/// The name of the interface that one is on.
fn below(interface: &Interface) -> Option<&String> {
    match &interface.kind {
        Kind::Vlan(vlan) => Some(&vlan.link),
        Kind::Tunnel(tunnel) => tunnel.link.as_ref(),
        _ => None,
    }
}

impl Service {
    /// Makes what the configuration has and the kernel lacks, removes what was made for an earlier one, and puts members where
    /// they belong. What cannot be done yet is done when the links that it needs are there.
    pub(super) async fn build(&mut self) {
        let virtuals: Vec<_> = self.config.virtuals().cloned().collect();
        let mut old: Vec<(u32, String, &str)> = Vec::new();
        for link in self.links.values().filter(|link| link.ours) {
            let wanted = virtuals.iter().find(|one| one.name == link.name);
            let why = match wanted {
                None => Some("is no longer wanted"),
                Some(wanted) if self.is_another(wanted, link) => {
                    Some("is made again, as the configuration says now")
                }
                Some(_) => None,
            };
            old.extend(why.map(|why| (link.index, link.name.clone(), why)));
        }
        for (index, name, why) in old {
            log!(Info, "{name}: {why}");
            self.delete(index, &name).await;
            // Until the kernel announces it.
            self.link_gone(index).await;
        }
        let is_missing = |one: &&Interface| self.links.values().all(|it| it.name != one.name);
        let mut missing: Vec<&Interface> = virtuals.iter().filter(is_missing).collect();
        if !missing.is_empty()
            && let Ok(now) = self.kernel.links().await
        {
            // What was made a moment ago is not announced yet.
            missing.retain(|one| now.iter().all(|it| it.name != one.name));
        }
        for interface in missing {
            let name = &interface.name;
            let below = below(interface);
            let below = match below.map(|name| self.index_of(name)) {
                // It is made when that is there.
                Some(None) => continue,
                Some(index) => index,
                None => None,
            };
            match self
                .kernel
                .create(interface, below, &made_as(&interface.kind))
                .await
            {
                Ok(()) => log!(Info, "{name}: made"),
                Err(error) => self.say_once(name, &error.to_string()),
            }
        }
        self.release_parts().await;
        self.join_parts().await;
    }

    /// Removes an interface that was made; what was a part of it goes on by itself.
    async fn delete(&mut self, index: u32, name: &str) {
        let parts = self.links.values();
        let parts: Vec<u32> = parts
            .filter(|link| link.controller == Some(index))
            .map(|link| link.index)
            .collect();
        if let Err(error) = self.kernel.delete(index).await {
            log!(Error, "{name}: {error}");
        }
        // A bond takes its ports down when it goes.
        for part in parts {
            if let Err(error) = self.kernel.bring_up(part).await {
                log!(Warning, "{name}: {error}");
            }
        }
    }

    /// Whether a link was made as something else than `wanted`, or on another link than the one that it should be on.
    fn is_another(&self, wanted: &Interface, link: &Link) -> bool {
        let below = below(wanted).and_then(|name| self.index_of(name));
        let is_moved = below.is_some() && link.below.is_some() && below != link.below;
        let now = made_as(&wanted.kind);
        is_moved || link.made_as.as_ref().is_some_and(|then| *then != now)
    }

    /// Takes links out of interfaces of ours that they are no part of any more.
    async fn release_parts(&mut self) {
        let links = self.links.values();
        let parts: Vec<(u32, String)> = links
            .filter(|link| {
                let controller = link.controller.and_then(|index| self.links.get(&index));
                let (settings, _) = self.config.settings_for(link, false);
                controller.is_some_and(|controller| controller.ours)
                    && settings.is_none_or(|settings| settings.controller.is_none())
            })
            .map(|link| (link.index, link.name.clone()))
            .collect();
        for (index, name) in parts {
            match self.kernel.release(index).await {
                Ok(()) => log!(Info, "{name}: is no part of another interface any more"),
                Err(error) => self.say_once(&name, &error.to_string()),
            }
            // Until the kernel announces it.
            if let Some(link) = self.links.get_mut(&index) {
                link.controller = None;
            }
        }
    }

    /// Makes links parts of the interfaces that they belong to.
    async fn join_parts(&mut self) {
        let mut members: Vec<(u32, u32, String)> = self
            .interfaces
            .values()
            .filter_map(|interface| {
                let name = interface.settings.controller.as_ref()?;
                let controller = self.index_of(name)?;
                let link = &interface.link;
                let is_due = link.controller != Some(controller)
                    && !self.refused.contains(&(link.index, controller));
                is_due.then(|| (link.index, controller, link.name.clone()))
            })
            .collect();
        if members.is_empty() {
            return;
        }
        // What was announced may be older than what was done since: a port that is taken down again loses packets.
        let Ok(now) = self.kernel.links().await else {
            return;
        };
        members.retain(|(index, controller, _)| {
            let mut now = now.iter();
            now.any(|link| link.index == *index && link.controller != Some(*controller))
        });
        for (index, controller, name) in members {
            let is_bond = self
                .links
                .get(&controller)
                .is_some_and(|link| link.kind == "bond");
            match self.kernel.set_controller(index, controller, is_bond).await {
                Ok(()) => {
                    // So that it is not done again before the kernel announces it.
                    if let Some(interface) = self.interfaces.get_mut(&index) {
                        interface.link.controller = Some(controller);
                    }
                    log!(Debug, "{name}: is a part of another interface now");
                    self.set_port(index).await;
                }
                Err(error) => {
                    self.refused.insert((index, controller));
                    self.say_once(&name, &error.to_string());
                }
            }
        }
    }

    /// Sets what is set of a link as a part of another one.
    pub(super) async fn set_port(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get(&index) else {
            return;
        };
        let (name, port) = (interface.link.name.clone(), interface.settings.port.clone());
        let controller = interface.settings.controller.clone();
        let controller = controller.and_then(|name| self.index_of(&name));
        // Before it is a part, there is nothing to set.
        let Some(controller) = controller.filter(|index| interface.link.controller == Some(*index))
        else {
            return;
        };
        if let Err(error) = self.kernel.set_port(index, controller, &port).await {
            self.say_once(&name, &error.to_string());
        }
    }

    /// The link of an interface by its name in the configuration, or its own.
    pub(super) fn index_of(&self, name: &str) -> Option<u32> {
        let mut interfaces = self.interfaces.iter();
        let by_id = interfaces.find(|(_, interface)| interface.settings.id == name);
        let by_name = || self.links.values().find(|link| link.name == name);
        by_id
            .map(|(index, _)| *index)
            .or_else(|| by_name().map(|link| link.index))
    }

    pub(super) fn say_once(&mut self, name: &str, message: &str) {
        if self.said.insert(format!("{name}: {message}")) {
            log!(Error, "{name}: {message}");
        }
    }
}
