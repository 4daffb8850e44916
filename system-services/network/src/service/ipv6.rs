//! Addresses and prefixes by DHCPv6: those of a link, parts of prefixes that another link is delegated, and the way to what of a
//! prefix is nowhere.

use std::net::Ipv6Addr;
use std::time::{Duration, SystemTime};

use keelson_config::network::Cidr;
use keelson_config::network::status::DelegatedStatus;

use super::apply::MAIN_TABLE;
use super::{Interface, Service};
use crate::dhcp4::timer;
use crate::ipv6::Told;
use crate::ipv6::client::{Client, Setup, seconds_left, valid};
use crate::ipv6::lease::{Address, Delegated, Lease, Leased};
use crate::ipv6::machine::Start;
use crate::ipv6::prefix::LINK_PREFIX;
use crate::ipv6::store::Store;
use crate::kernel::KernelError;

/// An address alone, without its network.
const ALONE: u8 = 128;

impl Interface {
    /// Nobody is listened to any more, what was granted is given back, and what was said goes.
    pub(super) fn forget_ipv6(&mut self) {
        if let Some(client) = self.ipv6.take() {
            client.release();
        }
        self.lose_ipv6();
    }

    /// The same when nobody can be told: the link is gone.
    pub(super) fn lose_ipv6(&mut self) {
        self.ipv6 = None;
        // What it says until it ends does not count.
        self.generation = 0;
        self.told = Told {
            addresses: Some(Vec::new()),
            prefixes: Some(Vec::new()),
            ..Told::default()
        };
    }
}

impl Service {
    /// Listens to routers and asks DHCPv6, where the interface's settings say so.
    pub(super) async fn start_ipv6(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get(&index) else {
            return;
        };
        if !interface.settings.hears_routers(&interface.link) {
            return;
        }
        let name = interface.settings.set_name.as_ref();
        let lasting_name = name.unwrap_or(&interface.link.name).clone();
        let store = Store::new(
            &self.directories.state,
            interface.link.hardware_address,
            &lasting_name,
            &self.boot_id,
        );
        let asks = interface.settings.dhcp6.is_some();
        let start = match asks {
            true => self.kept_lease(interface, &store).await,
            false => Start::Fresh,
        };
        let Some(interface) = self.interfaces.get_mut(&index) else {
            return;
        };
        self.generation += 1;
        interface.generation = self.generation;
        interface.has_lease = matches!(start, Start::Adopted(_));
        let link = &interface.link;
        let setup = Setup {
            index,
            generation: self.generation,
            name: link.name.clone(),
            lasting_name,
            hardware_address: link.hardware_address,
            dhcp: asks,
            prefix: interface.settings.prefix_wish,
            start,
            store,
        };
        match Client::start(setup, self.told.clone()) {
            Ok(client) => {
                client.set_carrier(link.carrier);
                interface.ipv6 = Some(client);
            }
            Err(error) => {
                let name = &link.name;
                log!(Error, "{name}: could not start its IPv6 client: {error:#}");
            }
        }
    }

    /// The lease that an interface starts from.
    async fn kept_lease(&self, interface: &Interface, store: &Store) -> Start {
        let link = &interface.link;
        let table = interface.settings.table.unwrap_or(MAIN_TABLE);
        let addresses = self.kernel.leased_ipv6(link.index).await;
        let routes = self.kernel.unreachable().await;
        for error in [addresses.as_ref().err(), routes.as_ref().err()]
            .into_iter()
            .flatten()
        {
            log!(Error, "{}: {error}; servers are asked first", link.name);
        }
        let (addresses, routes) = (addresses.unwrap_or_default(), routes.unwrap_or_default());
        // A route to a prefix does not tell whose it is: it counts where there is nothing else.
        let is_configured = |lease: &Lease| match lease.addresses.is_empty() {
            false => {
                let mut own = lease.addresses.iter();
                own.any(|it| addresses.contains(&(it.what, ALONE)))
            }
            true => {
                let mut own = lease.prefixes.iter();
                own.any(|it| routes.contains(&(it.what, table)))
            }
        };
        match store.load(timer::now(), SystemTime::now(), is_configured) {
            Ok(Start::Fresh) => Start::Fresh,
            Ok(start) => {
                log!(Debug, "{}: starts with DHCPv6 from {start:?}", link.name);
                start
            }
            Err(error) => {
                let (name, path) = (&link.name, store.path().display());
                log!(Warning, "{name}: ignored the lease in {path}: {error}");
                Start::Fresh
            }
        }
    }

    /// Routers or a DHCPv6 server said something by a link.
    pub(super) async fn told(&mut self, index: u32, generation: u64, told: Told) {
        let interface = self.interfaces.get_mut(&index);
        let Some(interface) = interface.filter(|it| it.generation == generation) else {
            return;
        };
        let name = &interface.link.name;
        let old = std::mem::replace(&mut interface.told, told);
        for address in new(&old.addresses, &interface.told.addresses) {
            log!(Info, "{name}: has {address} by DHCPv6");
        }
        for prefix in new(&old.prefixes, &interface.told.prefixes) {
            log!(Info, "{name}: is delegated {prefix}");
        }
        for prefix in new(&interface.told.prefixes, &old.prefixes) {
            log!(Info, "{name}: is not delegated {prefix} any more");
        }
        for server in interface
            .told
            .name_servers
            .iter()
            .filter(|it| !old.name_servers.contains(it))
        {
            log!(Info, "{name}: name server {server}");
        }
        let other_prefixes = old.prefixes != interface.told.prefixes;
        if other_prefixes || old.addresses != interface.told.addresses {
            self.reconcile(index).await;
        }
        if other_prefixes {
            self.reconcile_parts(index).await;
        }
        self.write_files();
    }

    /// Somebody else has an address that a link was given.
    pub(super) fn address_refused(&mut self, index: u32, address: Ipv6Addr) {
        let parts = self.parts_of(index).unwrap_or_default();
        if let Some(link) = self.links.get(&index)
            && parts.iter().any(|it| it.what == address)
        {
            let name = link.name.clone();
            let message =
                format!("somebody else uses {address} already, its part of a delegated prefix");
            self.say_once(&name, &message);
        }
        let Some(interface) = self.interfaces.get_mut(&index) else {
            return;
        };
        // It is not given again before the client has heard of it.
        if let Some(addresses) = &mut interface.told.addresses {
            addresses.retain(|it| it.what != address);
        }
        if let Some(client) = &interface.ipv6 {
            client.refuse(address);
        }
    }

    /// Brings what other links have of this link's prefixes up to date.
    pub(super) async fn reconcile_parts(&mut self, uplink: u32) {
        let parts: Vec<u32> = self
            .interfaces
            .iter()
            .filter(|(_, interface)| {
                let part = interface.settings.prefix_part.as_ref();
                part.is_some_and(|part| self.index_of(&part.from) == Some(uplink))
            })
            .map(|(index, _)| *index)
            .collect();
        for index in parts {
            self.reconcile(index).await;
        }
    }

    /// Brings up to date what the others have of a prefix that the same part of the configuration fits: it may be their turn.
    pub(super) async fn reconcile_sharers(&mut self, id: &str, but: u32) {
        let interfaces = self.interfaces.iter();
        let sharers: Vec<u32> = interfaces
            .filter(|(index, it)| **index != but && it.settings.id == id)
            .filter(|(_, it)| it.settings.prefix_part.is_some())
            .map(|(index, _)| *index)
            .collect();
        for index in sharers {
            self.reconcile(index).await;
        }
    }

    /// The first of the links that the same part of the configuration fits, when that is another one: one network is one
    /// link's.
    fn has_part_instead(&self, index: u32) -> Option<&Interface> {
        let id = &self.interfaces.get(&index)?.settings.id;
        let mut interfaces = self.interfaces.iter();
        let first = interfaces.find(|(_, it)| it.settings.id == *id);
        first
            .filter(|(first, _)| **first != index)
            .map(|(_, it)| it)
    }

    /// What a link has of another one's prefixes; `None` as long as that has not heard of any server: what an earlier run of this
    /// service gave stays.
    fn parts_of(&self, index: u32) -> Option<Vec<Address>> {
        let interface = self.interfaces.get(&index)?;
        let Some(part) = &interface.settings.prefix_part else {
            return Some(Vec::new());
        };
        if self.has_part_instead(index).is_some() {
            return Some(Vec::new());
        }
        let uplink = self.interfaces.get(&self.index_of(&part.from)?)?;
        let prefixes = valid(uplink.told.prefixes.as_ref()?, timer::now());
        let address = |prefix: &Delegated| {
            Some(Leased {
                what: prefix.what.address_of(part.network, part.token)?,
                preferred_until: prefix.preferred_until,
                valid_until: prefix.valid_until,
            })
        };
        Some(prefixes.iter().filter_map(address).collect())
    }

    /// The same for people.
    pub(super) fn delegated_status(&self, index: u32) -> Vec<DelegatedStatus> {
        let interface = self.interfaces.get(&index);
        let part = interface.and_then(|it| it.settings.prefix_part.as_ref());
        let uplink = part.and_then(|part| self.links.get(&self.index_of(&part.from)?));
        let (Some(uplink), Some(parts)) = (uplink, self.parts_of(index)) else {
            return Vec::new();
        };
        let status = |part: &Address| DelegatedStatus {
            address: Cidr {
                address: part.what.into(),
                prefix: LINK_PREFIX,
            },
            from: uplink.name.clone(),
        };
        parts.iter().map(status).collect()
    }

    /// Gives and takes addresses by DHCPv6, and routes to prefixes. As long as no server was heard, what an earlier run gave stays.
    pub(super) async fn reconcile_ipv6(&mut self, index: u32) -> Vec<KernelError> {
        let Some(interface) = self.interfaces.get(&index) else {
            return Vec::new();
        };
        let own = interface.told.addresses.as_ref();
        let own = own.map(|addresses| valid(addresses, timer::now()));
        let knows_prefixes = interface.told.prefixes.is_some();
        let parts = self.parts_of(index);
        self.complain_of_parts(index);
        let mut failures = Vec::new();
        for (wanted, length) in [(own, ALONE), (parts, LINK_PREFIX)] {
            if let Some(wanted) = wanted {
                failures.extend(self.set_addresses(index, &wanted, length).await);
            }
        }
        if knows_prefixes {
            failures.extend(self.reconcile_unreachable().await);
        }
        failures
    }

    /// A prefix may have too few networks, and a network too many links.
    fn complain_of_parts(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get(&index) else {
            return;
        };
        let Some(part) = interface.settings.prefix_part.clone() else {
            return;
        };
        let name = interface.link.name.clone();
        if let Some(first) = self.has_part_instead(index) {
            let (first, id) = (&first.link.name, &interface.settings.id);
            let message = format!(
                "`{id}` in the configuration fits {first} as well, which has the network of a prefix: no address comes of it"
            );
            return self.say_once(&name, &message);
        }
        let uplink = self.index_of(&part.from);
        let uplink = uplink.and_then(|index| self.interfaces.get(&index));
        let prefixes = uplink.and_then(|uplink| uplink.told.prefixes.as_ref());
        let too_small: Vec<_> = prefixes
            .into_iter()
            .flatten()
            .filter(|prefix| prefix.what.address_of(part.network, part.token).is_none())
            .map(|prefix| prefix.what)
            .collect();
        for prefix in too_small {
            let network = part.network;
            let message = format!("{prefix} has no network {network}: no address comes of it");
            self.say_once(&name, &message);
        }
    }

    /// Makes a link's addresses of one kind what they should be.
    async fn set_addresses(&self, index: u32, wanted: &[Address], length: u8) -> Vec<KernelError> {
        let mut failures = Vec::new();
        match self.kernel.leased_ipv6(index).await {
            Err(error) => failures.push(error),
            Ok(present) => {
                let is_old = |(address, prefix): &(Ipv6Addr, u8)| {
                    *prefix == length && wanted.iter().all(|it| it.what != *address)
                };
                for address in present.into_iter().filter(is_old) {
                    failures.extend(self.kernel.remove_ipv6(index, address).await.err());
                }
            }
        }
        for address in wanted {
            let set = self
                .kernel
                .set_ipv6(index, (address.what, length), lifetimes(address));
            failures.extend(set.await.err());
        }
        failures
    }

    /// Makes delegated prefixes unreachable, but for their parts, and others not any more.
    pub(super) async fn reconcile_unreachable(&self) -> Vec<KernelError> {
        let mut wanted = Vec::new();
        let mut all_known = true;
        for interface in self.interfaces.values() {
            let table = interface.settings.table.unwrap_or(MAIN_TABLE);
            let prefixes = interface.told.prefixes.as_ref();
            // One that never heard of a server has no route from before.
            all_known &= prefixes.is_some() || !interface.has_lease;
            let prefixes = prefixes.map(Vec::as_slice).unwrap_or_default();
            let prefixes = valid(prefixes, timer::now()).into_iter();
            wanted.extend(prefixes.map(|prefix| (prefix.what, table)));
        }
        let present = match self.kernel.unreachable().await {
            Err(error) => return vec![error],
            Ok(present) => present,
        };
        let mut failures = Vec::new();
        let old = present.iter().filter(|route| !wanted.contains(route));
        for (prefix, table) in old.filter(|_| all_known) {
            let removed = self.kernel.remove_unreachable(*prefix, *table).await;
            failures.extend(removed.err());
        }
        for (prefix, table) in wanted.iter().filter(|route| !present.contains(route)) {
            let set = self.kernel.set_unreachable(*prefix, *table).await;
            failures.extend(set.err());
        }
        failures
    }
}

/// Preferred and valid, in seconds.
fn lifetimes<T>(leased: &Leased<T>) -> (u32, u32) {
    let now = timer::now();
    let left = |until: Option<Duration>| seconds_left(until, now);
    (left(leased.preferred_until), left(leased.valid_until))
}

/// What is there now and was not before.
fn new<'a, T: Copy + PartialEq>(
    before: &'a Option<Vec<Leased<T>>>,
    now: &'a Option<Vec<Leased<T>>>,
) -> impl Iterator<Item = T> + 'a {
    let was_there = move |it: &&Leased<T>| {
        let mut before = before.iter().flatten();
        before.any(|other| other.what == it.what)
    };
    let now = now.iter().flatten();
    now.filter(move |it| !was_there(it)).map(|it| it.what)
}
