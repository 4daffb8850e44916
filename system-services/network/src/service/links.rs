//! Links that come, change and go.

use std::net::IpAddr;
use std::time::SystemTime;

use anyhow::Result;

use super::{Interface, Service, apply};
use crate::config::{DhcpSettings, Settings};
use crate::dhcp4::client::{Client, Setup};
use crate::dhcp4::lease::{Held, Lease};
use crate::dhcp4::machine::Start;
use crate::dhcp4::store::Store;
use crate::dhcp4::timer;
use crate::ipv6::Told;
use crate::link_local::{self, LinkLocal};
use crate::links::Link;

impl Interface {
    /// DHCP is asked no more: what it gave is given back.
    fn end_dhcp(&mut self) {
        let held = self
            .held
            .take()
            .filter(|held| !held.has_expired(timer::now()));
        if let (Some(client), Some(held)) = (self.client.take(), held) {
            client.release(&held);
        }
    }
}

impl Service {
    pub(super) async fn link(&mut self, link: Link) {
        let index = link.index;
        let wired = link.is_wired(&self.directories.sys_class_net);
        let link = link.with_device(&self.directories.sys_class_net);
        self.links.insert(index, link.clone());
        let (settings, other) = self.config.settings_for(&link, wired);
        if let Some(other) = other
            && self.said.insert(format!("{} {other}", link.name))
        {
            log!(
                Warning,
                "{}: `{other}` in the configuration fits as well; the first one counts",
                link.name
            );
        }
        let Some(settings) = settings else {
            if let Some(interface) = self.interfaces.get_mut(&index) {
                log!(
                    Info,
                    "{}: is no longer ours to configure",
                    interface.link.name
                );
                interface.end_dhcp();
                interface.link_local = None;
                interface.forget_ipv6();
                let id = std::mem::take(&mut interface.settings).id;
                // By which those that have parts of its prefixes know it.
                interface.settings.id.clone_from(&id);
                self.reconcile(index).await;
                self.reconcile_parts(index).await;
                self.interfaces.remove(&index);
                self.reconcile_sharers(&id, index).await;
                self.write_files();
            }
            return;
        };
        let Some(interface) = self.interfaces.get_mut(&index) else {
            return self.new_link(link, settings).await;
        };
        if interface.settings != settings {
            // Its lease, if it has one, is on disk: it is taken up again where DHCP is still asked.
            let keeps_dhcp = match (&interface.settings.dhcp4, &settings.dhcp4) {
                (Some(old), Some(new)) => old.send_hostname == new.send_hostname,
                (old, new) => old == new,
            };
            // Routes of the lease are where they were.
            let keeps_dhcp = keeps_dhcp && interface.settings.table == settings.table;
            let keeps_ipv6 = interface.settings.hears_routers(&link)
                == settings.hears_routers(&link)
                && interface.settings.dhcp6.is_some() == settings.dhcp6.is_some();
            if keeps_ipv6
                && interface.settings.prefix_wish != settings.prefix_wish
                && let Some(client) = &interface.ipv6
            {
                client.want_prefix(settings.prefix_wish);
            }
            let id = settings.id.clone();
            let old = std::mem::replace(&mut interface.settings, settings);
            interface.link = link.clone();
            if keeps_dhcp {
                if !keeps_ipv6 {
                    interface.forget_ipv6();
                    self.start_ipv6(index).await;
                }
                self.start_link_local(index).await;
                self.set_up(index).await;
                self.reconcile(index).await;
                if !keeps_ipv6 {
                    self.reconcile_parts(index).await;
                }
                for id in [&old.id, &id] {
                    self.reconcile_sharers(id, index).await;
                }
                return self.write_files();
            }
            if interface.settings.dhcp4.is_none() {
                interface.end_dhcp();
            }
            (interface.client, interface.held) = (None, None);
            if !keeps_ipv6 {
                interface.forget_ipv6();
            }
            let settings = interface.settings.clone();
            self.reconcile(index).await;
            if !keeps_ipv6 {
                self.reconcile_parts(index).await;
            }
            self.interfaces.remove(&index);
            self.new_link(link, settings).await;
            self.reconcile_sharers(&old.id, index).await;
            return self.write_files();
        }
        let old = std::mem::replace(&mut interface.link, link.clone());
        if old.name != link.name {
            log!(Info, "{}: is now called {}", old.name, link.name);
            // Another one has its name now: it gets its own.
            if link.name.starts_with(apply::DISPLACED) {
                self.set_up(index).await;
            }
            let Some(interface) = self.interfaces.get_mut(&index) else {
                return;
            };
            interface.link.name.clone_from(&link.name);
        }
        let Some(interface) = self.interfaces.get_mut(&index) else {
            return;
        };
        if old.hardware_address != link.hardware_address {
            log!(
                Info,
                "{}: has a new hardware address; its DHCP client starts anew",
                link.name
            );
            self.interfaces.remove(&index);
            return Box::pin(self.link(link)).await;
        }
        if old.carrier != link.carrier {
            log!(
                Info,
                "{}: {}",
                link.name,
                if link.carrier {
                    "has a carrier"
                } else {
                    "lost its carrier"
                }
            );
            if let Some(client) = &interface.client {
                client.set_carrier(link.carrier);
            }
            if let Some(client) = &interface.ipv6 {
                client.set_carrier(link.carrier);
            }
            if let Some(chooser) = &interface.link_local {
                chooser.set_carrier(link.carrier);
            }
        }
        if !old.up && link.up {
            self.reconcile(index).await; // its routes went when it was taken down
        }
    }

    async fn new_link(&mut self, link: Link, settings: Settings) {
        let Link {
            index, ref name, ..
        } = link;
        log!(
            Info,
            "{name}: found, {}",
            if settings.dhcp4.is_some() {
                "asks for an address by DHCP"
            } else {
                "does not ask DHCP"
            }
        );
        let (id, dhcp) = (settings.id.clone(), settings.dhcp4.clone());
        let mut interface = Interface {
            former_mtu: None,
            client: None,
            held: None,
            ipv6: None,
            generation: 0,
            told: Told::default(),
            has_lease: false,
            link_local: None,
            settings,
            link: link.clone(),
        };
        if let Some(settings) = dhcp {
            match self.start_client(&link, &settings).await {
                Ok((client, held)) => {
                    client.set_carrier(link.carrier);
                    (interface.client, interface.held) = (Some(client), held);
                }
                Err(error) => log!(Error, "{name}: could not start its DHCP client: {error:#}"),
            }
        }
        let knows_something = interface.held.is_some()
            || !interface.settings.addresses.is_empty()
            || !interface.settings.dns.is_empty();
        self.interfaces.insert(index, interface);
        self.start_ipv6(index).await;
        self.start_link_local(index).await;
        self.set_up(index).await;
        if !link.up {
            self.bring_up(index).await;
        }
        self.reconcile(index).await;
        self.reconcile_sharers(&id, index).await;
        if knows_something {
            self.write_files();
        }
    }

    /// Chooses an address, where the interface's settings say so.
    async fn start_link_local(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get_mut(&index) else {
            return;
        };
        let wanted = interface.settings.link_local && interface.link.ethernet;
        if !wanted || interface.link_local.is_some() {
            interface.link_local = interface.link_local.take().filter(|_| wanted);
            return;
        }
        // An earlier run of this service may have chosen one.
        let there = self.kernel.declared(index).await.unwrap_or_default();
        let declared = &interface.settings.addresses;
        let others = there
            .addresses
            .iter()
            .filter(|cidr| !declared.contains(cidr));
        let mut chosen = others.filter_map(|cidr| match cidr.address {
            IpAddr::V4(address) if address.is_link_local() => Some(address),
            _ => None,
        });
        self.generation += 1;
        let link = &interface.link;
        let setup = link_local::Setup {
            index,
            generation: self.generation,
            name: link.name.clone(),
            hardware_address: link.hardware_address,
            present: chosen.next(),
        };
        let chooser = LinkLocal::start(setup, self.chosen.clone());
        chooser.set_carrier(link.carrier);
        interface.link_local = Some(chooser);
    }

    /// A client, and the lease that the interface has already when an earlier run of this service left it one.
    async fn start_client(
        &self,
        link: &Link,
        settings: &DhcpSettings,
    ) -> Result<(Client, Option<Held>)> {
        let store = Store::new(
            &self.directories.state,
            link.hardware_address,
            &self.boot_id,
        );
        let present = self.kernel.ipv4(link.index, apply::MAIN_TABLE).await?;
        let is_configured = |lease: &Lease| {
            present
                .addresses
                .iter()
                .any(|address| address.ours && address.address == lease.address)
        };
        let start = store
            .load(timer::now(), SystemTime::now(), is_configured)
            .unwrap_or_else(|error| {
                log!(
                    Warning,
                    "{}: ignored the lease in {}: {error}",
                    link.name,
                    store.path().display()
                );
                Start::Fresh
            });
        let held = match &start {
            Start::Adopted(held) => Some(held.clone()),
            _ => None,
        };
        log!(Debug, "{}: starts from {start:?}", link.name);
        let setup = Setup {
            index: link.index,
            name: link.name.clone(),
            hardware_address: link.hardware_address,
            host_name: match settings.send_hostname {
                true => apply::given_name,
                false => || None,
            },
            start,
            store,
        };
        Ok((Client::start(setup, self.outcomes.clone())?, held))
    }

    pub(super) async fn link_gone(&mut self, index: u32) {
        if let Some(interface) = self.interfaces.get_mut(&index) {
            log!(Info, "{}: is gone", interface.link.name);
            let id = interface.settings.id.clone();
            // What it was delegated leads nowhere; its addresses went with it.
            interface.lose_ipv6();
            self.reconcile_parts(index).await;
            for error in self.reconcile_unreachable().await {
                log!(Error, "{error}");
            }
            self.interfaces.remove(&index);
            self.unfinished.remove(&index);
            self.reconcile_sharers(&id, index).await;
            self.write_files();
        }
        self.links.remove(&index);
    }
}
