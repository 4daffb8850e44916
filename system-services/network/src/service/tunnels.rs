//! WireGuard's tunnels: what is set of them, and peers that are reached by a name.
//!
//! A name is looked up as long as nobody answers: with each change of the name servers, and else after waits that grow to a
//! minute. From then on WireGuard itself follows the peer.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

use super::Service;

const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);

/// A name with its port, and the address that it has.
pub(super) type Found = (String, SocketAddr);

/// Names of peers, and their addresses.
pub(super) struct Names {
    lookups: BTreeMap<String, JoinHandle<()>>,
    found: BTreeMap<String, SocketAddr>,
    /// What the kernel was told of peers' addresses, by tunnel and public key.
    told: BTreeMap<u32, BTreeMap<String, SocketAddr>>,
    /// There are other name servers.
    changed: Arc<Notify>,
    outcomes: UnboundedSender<Found>,
}

impl Names {
    pub(super) fn new(outcomes: UnboundedSender<Found>) -> Self {
        Self {
            lookups: BTreeMap::new(),
            found: BTreeMap::new(),
            told: BTreeMap::new(),
            changed: Arc::default(),
            outcomes,
        }
    }

    /// Tries again what nobody answered.
    pub(super) fn look_again(&self) {
        self.changed.notify_waiters();
    }

    /// Looks these names up, and no others.
    fn want(&mut self, wanted: &BTreeSet<String>) {
        self.found.retain(|name, _| wanted.contains(name));
        self.lookups.retain(|name, lookup| {
            let stays = wanted.contains(name);
            if !stays {
                lookup.abort();
            }
            stays
        });
        for name in wanted {
            if !self.lookups.contains_key(name) {
                let lookup = look_up(name.clone(), self.changed.clone(), self.outcomes.clone());
                self.lookups.insert(name.clone(), tokio::spawn(lookup));
            }
        }
    }
}

async fn look_up(name: String, changed: Arc<Notify>, outcomes: UnboundedSender<Found>) {
    let mut wait = FIRST_WAIT;
    loop {
        // Before the question: name servers may come while it is asked.
        let other_servers = changed.notified();
        let answer = tokio::net::lookup_host(&name).await;
        let first = answer.map(|mut addresses| addresses.next());
        match first {
            Ok(Some(address)) => {
                let _ = outcomes.send((name, address)); // the service is ending
                return;
            }
            Ok(None) => {}
            Err(error) if wait == FIRST_WAIT => log!(Warning, "{name}: {error}; will ask again"),
            Err(_) => {}
        }
        tokio::select! {
            () = tokio::time::sleep(wait) => wait = (wait * 2).min(LONGEST_WAIT),
            () = other_servers => wait = wait.min(FIRST_WAIT * 2),
        }
    }
}

impl Service {
    /// Sets keys and peers of a tunnel, if the link is one.
    pub(super) fn set_wireguard(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get(&index) else {
            return;
        };
        let Some(wireguard) = &interface.settings.wireguard else {
            return;
        };
        let name = interface.link.name.clone();
        let told = self.names.told.entry(index).or_default();
        let set = self
            .kernel
            .set_wireguard(index, wireguard, &self.names.found, told);
        if let Err(error) = set {
            self.unset.insert(index);
            self.say_once(&name, &format!("{error}; will try again"));
        }
        self.want_names();
    }

    /// Looks up what the configuration's peers are called.
    pub(super) fn want_names(&mut self) {
        self.names.want(&self.config.names_of_peers());
        let links = &self.links;
        self.names.told.retain(|index, _| links.contains_key(index));
    }

    /// A peer's name has this address.
    pub(super) fn found_peer(&mut self, (name, address): Found) {
        log!(Info, "{name}: is {address}");
        let tunnels: Vec<u32> = self
            .interfaces
            .iter()
            .filter(|(_, interface)| {
                let wireguard = interface.settings.wireguard.iter();
                let mut peers = wireguard.flat_map(|wireguard| &wireguard.peers);
                peers.any(|peer| peer.endpoint.as_ref() == Some(&name))
            })
            .map(|(index, _)| *index)
            .collect();
        self.names.found.insert(name, address);
        for index in tunnels {
            self.set_wireguard(index);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::mpsc::unbounded_channel;

    #[tokio::test]
    async fn a_name_is_looked_up_once_and_forgotten_when_nobody_wants_it() {
        let (outcomes, mut found) = unbounded_channel();
        let mut names = Names::new(outcomes);
        let wanted = BTreeSet::from(["localhost:51820".to_owned()]);
        names.want(&wanted);
        let (name, address) = found.recv().await.unwrap();
        assert_eq!((name.as_str(), address.port()), ("localhost:51820", 51820));
        assert!(address.ip().is_loopback());
        names.found.insert(name, address);
        names.want(&wanted);
        assert_eq!((names.lookups.len(), names.found.len()), (1, 1));
        names.want(&BTreeSet::new());
        assert!(names.lookups.is_empty() && names.found.is_empty());
    }
}
