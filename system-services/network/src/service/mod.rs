//! The event loop: kernel events and DHCP outcomes go in, kernel state and files come out.
//!
//! - `apply`: makes the machine what configuration and leases say: kernel state, files, host name
//! - `configuration`: its file, and how a change of it is heard of
//! - `ipv6`: addresses and prefixes by DHCPv6
//! - `links`: those that come, change and go
//! - `status`: what the network is, for those who ask
//! - `topology`: interfaces that are made, and who is a part of what
//! - `tunnels`: keys and peers of WireGuard's tunnels

mod apply;
mod configuration;
mod ipv6;
mod links;
mod status;
mod topology;
mod tunnels;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::stream::StreamExt;
use keelson_config::network::Rule;
use keelson_sys::notify::notify;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::MissedTickBehavior;

use crate::config::{Config, Settings};
use crate::dhcp4::client::{Client, Outcome, Outcomes};
use crate::dhcp4::lease::{Held, Lease};
use crate::dhcp4::timer::Timer;
use crate::firewall::Rules;
use crate::ipv6::{Told, client as ipv6_client};
use crate::kernel::{Kernel, KernelEvent};
use crate::link_local::{self, LinkLocal};
use crate::links::Link;
use configuration::{changed, read_config, read_trial, watch};
use tunnels::Names;

/// Wait before a change that the kernel refused is tried again.
const RETRY: Duration = Duration::from_secs(2);

/// Where things are.
#[derive(Debug, Clone)]
pub struct Directories {
    /// For resolv.conf and the like: /run/keelson/network.
    pub run: PathBuf,
    /// For leases: /state/config/network.
    pub state: PathBuf,
    /// The kernel's list of interfaces: /sys/class/net.
    pub sys_class_net: PathBuf,
    /// The kernel's settings of the network: /proc/sys/net.
    pub proc_sys_net: PathBuf,
    /// The root of the image that has iptables.
    pub iptables: PathBuf,
}

struct Interface {
    link: Link,
    settings: Settings,
    client: Option<Client>,
    held: Option<Held>,
    /// Listens to routers and DHCPv6 servers.
    ipv6: Option<ipv6_client::Client>,
    /// Which of its clients that is.
    generation: u64,
    /// What they say.
    told: Told,
    /// Its client has a lease from an earlier run, and says so in a moment.
    has_lease: bool,
    /// Chooses an address by itself.
    link_local: Option<LinkLocal>,
    /// Its MTU before a lease changed it.
    former_mtu: Option<u32>,
}

struct Service {
    config: Config,
    /// Goes off when what is tried out ends.
    trial_ends: Timer,
    directories: Directories,
    kernel: Kernel,
    boot_id: String,
    outcomes: Outcomes,
    told: ipv6_client::Outcomes,
    chosen: link_local::Outcomes,
    names: Names,
    /// Clients of IPv6 that were started.
    generation: u64,
    /// All links that there are.
    links: BTreeMap<u32, Link>,
    /// Those that are ours to configure.
    interfaces: BTreeMap<u32, Interface>,
    /// Links whose kernel state is not what it should be yet.
    unfinished: BTreeSet<u32>,
    /// The name that we last offered to the machine.
    offered_name: Option<String>,
    /// Policy rules that were set.
    rules: Vec<Rule>,
    /// Links that the kernel did not make a part of another one, and that one.
    refused: BTreeSet<(u32, u32)>,
    /// What the packet filter should be.
    firewall: Rules,
    /// It is not that yet.
    firewall_due: bool,
    /// Links whose own settings could not be set, and are tried again.
    unset: BTreeSet<u32>,
    /// Complaints that need not be said again.
    said: BTreeSet<String>,
}

/// Runs until SIGTERM or SIGINT. Addresses stay as they are then: the machine goes on without us, and a service that is
/// started again takes them up.
///
/// # Errors
/// What the service cannot do without: the connection to the kernel, the list of links, signals.
pub async fn run(directories: Directories) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let (kernel, mut events, connection) =
        Kernel::connect().context("connecting to the kernel's rtnetlink")?;
    let mut connection = tokio::spawn(connection);
    let (outcomes, mut outcome_events) = unbounded_channel();
    let (told, mut told_events) = unbounded_channel();
    let (chosen, mut chosen_events) = unbounded_channel();
    let (found, mut found_events) = unbounded_channel();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("reading the boot's id")?;
    let boot_id = boot_id.trim().to_owned();
    let (interfaces, unfinished) = (BTreeMap::new(), BTreeSet::new());
    let changes = watch(&directories.state);
    let mut service = Service {
        config: Config::default(),
        trial_ends: Timer::new().context("making a timer")?,
        links: BTreeMap::new(),
        said: BTreeSet::new(),
        rules: Vec::new(),
        refused: BTreeSet::new(),
        firewall: Rules::default(),
        firewall_due: true,
        unset: BTreeSet::new(),
        directories,
        kernel,
        boot_id,
        outcomes,
        told,
        chosen,
        names: Names::new(found),
        generation: 0,
        interfaces,
        unfinished,
        offered_name: None,
    };
    service.config = service.wanted_config();
    service.write_files(); // others mount and link to them: they exist from the start
    service.firewall = Rules::of(&service.config);
    service.apply_firewall().await; // before anything can come in
    service.look_at_all_links().await?;
    notify("READY=1").context("telling the supervisor that we are ready")?;
    let mut retry = tokio::time::interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        service.write_status();
        tokio::select! {
            event = events.next() => match event {
                Some(event) => service.kernel_event(event).await?,
                None => bail!("the kernel's announcements ended"),
            },
            Some(()) = changed(changes.as_ref()) => service.configure().await?,
            Some((index, outcome)) = outcome_events.recv() => service.outcome(index, outcome).await,
            Some((index, generation, told)) = told_events.recv() => service.told(index, generation, told).await,
            Some((index, generation, address)) = chosen_events.recv() => service.chosen(index, generation, address).await,
            Some(found) = found_events.recv() => service.found_peer(found),
            _ = service.trial_ends.expired() => service.configure().await?,
            _ = retry.tick(), if service.is_unfinished() => service.finish().await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = &mut connection => bail!("the connection to the kernel's rtnetlink broke"),
        }
    }
    log!(Info, "ends; addresses stay");
    Ok(())
}

impl Service {
    /// What is tried out, as long as it holds; else what is declared.
    fn wanted_config(&self) -> Config {
        let trial = read_trial(&self.directories.state, &self.boot_id);
        if let Err(error) = self.trial_ends.set(trial.as_ref().map(|(_, end)| *end)) {
            log!(Error, "set a timer: {error}");
        }
        let declared = read_config(&self.directories.state);
        match trial {
            Some((config, _)) => config.with_firewall_of(&declared),
            None => declared,
        }
    }

    /// Takes up another configuration.
    async fn configure(&mut self) -> Result<()> {
        let config = self.wanted_config();
        // Others may have taken it away.
        self.firewall = Rules::of(&config);
        self.firewall_due = true;
        if config == self.config {
            self.apply_firewall().await;
            return Ok(());
        }
        log!(Info, "the configuration is another one");
        self.config = config;
        self.said.clear();
        self.apply_firewall().await;
        self.look_at_all_links().await?;
        self.want_names();
        self.write_files();
        Ok(())
    }

    async fn look_at_all_links(&mut self) -> Result<()> {
        let links = self.kernel.links().await?;
        let gone: Vec<u32> = self
            .links
            .keys()
            .copied()
            .filter(|index| links.iter().all(|link| link.index != *index))
            .collect();
        for index in gone {
            self.link_gone(index).await;
        }
        for link in links {
            self.link(link).await;
        }
        self.refused.clear();
        self.build().await;
        self.set_rules().await;
        Ok(())
    }

    async fn kernel_event(&mut self, event: KernelEvent) -> Result<()> {
        match event {
            KernelEvent::Link(link) => {
                // What was announced before all links were looked at may tell of one that is gone since.
                if !self.links.contains_key(&link.index) && !self.kernel.has(link.index).await {
                    return Ok(());
                }
                self.link(link).await;
                self.build().await;
                self.apply_rules().await;
            }
            KernelEvent::LinkGone(index) => {
                self.link_gone(index).await;
                self.build().await;
                self.apply_rules().await;
            }
            KernelEvent::AddressGone(index) => self.reconcile(index).await,
            KernelEvent::AddressRefused(index, address) => self.address_refused(index, address),
            KernelEvent::Lost => {
                log!(
                    Debug,
                    "announcements of the kernel were lost; looking at all links again"
                );
                self.look_at_all_links().await?;
            }
        }
        Ok(())
    }

    fn is_unfinished(&self) -> bool {
        !self.unfinished.is_empty() || !self.unset.is_empty() || self.firewall_due
    }

    /// An interface has an address that it chose itself, or none any more.
    async fn chosen(&mut self, index: u32, generation: u64, address: Option<Ipv4Addr>) {
        let Some(interface) = self.interfaces.get_mut(&index) else {
            return;
        };
        let chooser = interface.link_local.as_mut();
        let Some(chooser) = chooser.filter(|it| it.generation() == generation) else {
            return;
        };
        let name = &interface.link.name;
        match (chooser.set_address(address), address) {
            (old, Some(address)) if old != Some(address) => {
                log!(Info, "{name}: has chosen {address}")
            }
            (Some(old), None) => log!(Info, "{name}: {old} is another's; it chooses again"),
            _ => {}
        }
        self.reconcile(index).await;
        self.write_files();
    }

    async fn outcome(&mut self, index: u32, outcome: Outcome) {
        let Some(interface) = self.interfaces.get_mut(&index) else {
            return;
        };
        let name = &interface.link.name;
        match outcome {
            Outcome::Bound(held) => {
                if interface
                    .held
                    .as_ref()
                    .is_some_and(|old| old.lease == held.lease)
                {
                    log!(Debug, "{name}: has {} for longer", held.lease.address);
                } else {
                    log!(Info, "{name}: {}", described(&held.lease));
                }
                interface.held = Some(held);
            }
            Outcome::Lost => {
                log!(Info, "{name}: has no address any more");
                interface.held = None;
            }
        }
        self.reconcile(index).await;
        self.write_files();
        self.offer_name();
    }
}

fn described(lease: &Lease) -> String {
    let mut text = format!(
        "has {}/{} from {}",
        lease.address, lease.prefix_len, lease.server
    );
    match lease.lifetime() {
        Some(lifetime) => text += &format!(" for {} s", lifetime.as_secs()),
        None => text += " for good",
    }
    for route in lease.routes.iter().filter(|route| route.prefix_len == 0) {
        text += &route
            .gateway
            .map(|gateway| format!(", router {gateway}"))
            .unwrap_or_default();
    }
    for server in &lease.name_servers {
        text += &format!(", name server {server}");
    }
    text
}
