//! The event loop: kernel events and DHCP outcomes go in, kernel state and files come out.
//!
//! - `apply`: makes the machine what the leases say: kernel state, files, host name

mod apply;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use futures_util::stream::StreamExt;
use keelson_sys::notify::notify;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::MissedTickBehavior;

use crate::config::{Config, DhcpSettings, Ipv4Method};
use crate::dhcp4::client::{Client, Outcome, Outcomes, Setup};
use crate::dhcp4::lease::{Held, Lease};
use crate::dhcp4::machine::Start;
use crate::dhcp4::store::Store;
use crate::dhcp4::timer;
use crate::kernel::{Kernel, KernelEvent};
use crate::links::Link;

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
}

struct Interface {
    link: Link,
    /// How it gets its address; `None` leaves it without.
    settings: Option<DhcpSettings>,
    client: Option<Client>,
    held: Option<Held>,
    /// Its MTU before a lease changed it.
    former_mtu: Option<u32>,
}

struct Service {
    config: Config,
    directories: Directories,
    kernel: Kernel,
    boot_id: String,
    outcomes: Outcomes,
    interfaces: BTreeMap<u32, Interface>,
    /// Links whose kernel state is not what it should be yet.
    unfinished: BTreeSet<u32>,
    /// The name that we last offered to the machine.
    offered_name: Option<String>,
}

/// Runs until SIGTERM or SIGINT. Addresses stay as they are then: the machine goes on without us, and a service that is
/// started again takes them up.
///
/// # Errors
/// What the service cannot do without: the connection to the kernel, the list of links, signals.
pub async fn run(config: Config, directories: Directories) -> Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("waiting for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("waiting for SIGINT")?;
    let (kernel, mut events, connection) =
        Kernel::connect().context("connecting to the kernel's rtnetlink")?;
    let mut connection = tokio::spawn(connection);
    let (outcomes, mut outcome_events) = unbounded_channel();
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("reading the boot's id")?;
    let boot_id = boot_id.trim().to_owned();
    let (interfaces, unfinished) = (BTreeMap::new(), BTreeSet::new());
    let mut service = Service {
        config,
        directories,
        kernel,
        boot_id,
        outcomes,
        interfaces,
        unfinished,
        offered_name: None,
    };
    service.write_files(); // others mount and link to them: they exist from the start
    service.look_at_all_links().await?;
    notify("READY=1").context("telling the supervisor that we are ready")?;
    let mut retry = tokio::time::interval(RETRY);
    retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            event = events.next() => match event {
                Some(event) => service.kernel_event(event).await?,
                None => bail!("the kernel's announcements ended"),
            },
            Some((index, outcome)) = outcome_events.recv() => service.outcome(index, outcome).await,
            _ = retry.tick(), if !service.unfinished.is_empty() => service.finish().await,
            _ = terminate.recv() => break,
            _ = interrupt.recv() => break,
            _ = &mut connection => bail!("the connection to the kernel's rtnetlink broke"),
        }
    }
    log!(Info, "ends; addresses stay");
    Ok(())
}

impl Service {
    async fn look_at_all_links(&mut self) -> Result<()> {
        let links = self.kernel.links().await?;
        let gone: Vec<u32> = self
            .interfaces
            .keys()
            .copied()
            .filter(|index| links.iter().all(|link| link.index != *index))
            .collect();
        for index in gone {
            self.link_gone(index);
        }
        for link in links {
            self.link(link).await;
        }
        Ok(())
    }

    async fn kernel_event(&mut self, event: KernelEvent) -> Result<()> {
        match event {
            KernelEvent::Link(link) => self.link(link).await,
            KernelEvent::LinkGone(index) => self.link_gone(index),
            KernelEvent::AddressGone(index) => self.reconcile(index).await,
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

    async fn link(&mut self, link: Link) {
        let index = link.index;
        let wired = link.is_wired(&self.directories.sys_class_net);
        let Some(rule) = self.config.rule_for(&link, wired) else {
            if let Some(interface) = self.interfaces.get_mut(&index) {
                log!(
                    Info,
                    "{}: is no longer ours to configure",
                    interface.link.name
                );
                (interface.client, interface.held) = (None, None);
                self.reconcile(index).await;
                self.interfaces.remove(&index);
                self.write_files();
            }
            return;
        };
        let Some(interface) = self.interfaces.get_mut(&index) else {
            let settings = match &rule.ipv4 {
                Ipv4Method::Dhcp(settings) => Some(settings.clone()),
                Ipv4Method::None => None,
            };
            return self.new_link(link, settings).await;
        };
        let old = std::mem::replace(&mut interface.link, link.clone());
        if old.name != link.name {
            log!(Info, "{}: is now called {}", old.name, link.name);
        }
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
        }
        if !old.up && link.up {
            self.reconcile(index).await; // its routes went when it was taken down
        }
    }

    async fn new_link(&mut self, link: Link, settings: Option<DhcpSettings>) {
        let Link {
            index, ref name, ..
        } = link;
        log!(
            Info,
            "{name}: found, {}",
            if settings.is_some() {
                "asks for an address by DHCP"
            } else {
                "without IPv4"
            }
        );
        let mut interface = Interface {
            former_mtu: None,
            client: None,
            held: None,
            settings,
            link: link.clone(),
        };
        if interface.settings.is_some() {
            match self.start_client(&link).await {
                Ok((client, held)) => {
                    client.set_carrier(link.carrier);
                    (interface.client, interface.held) = (Some(client), held);
                }
                Err(error) => log!(Error, "{name}: could not start its DHCP client: {error:#}"),
            }
        }
        let adopted = interface.held.is_some();
        self.interfaces.insert(index, interface);
        if !link.up
            && let Err(error) = self.kernel.bring_up(index).await
        {
            log!(Error, "{name}: {error}");
        }
        self.reconcile(index).await;
        if adopted {
            self.write_files();
        }
    }

    /// A client, and the lease that the interface has already when an earlier run of this service left it one.
    async fn start_client(&self, link: &Link) -> Result<(Client, Option<Held>)> {
        let store = Store::new(
            &self.directories.state,
            link.hardware_address,
            &self.boot_id,
        );
        let present = self.kernel.ipv4(link.index).await?;
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
            host_name: apply::given_name,
            start,
            store,
        };
        Ok((Client::start(setup, self.outcomes.clone())?, held))
    }

    fn link_gone(&mut self, index: u32) {
        if let Some(interface) = self.interfaces.remove(&index) {
            log!(Info, "{}: is gone", interface.link.name);
            self.unfinished.remove(&index);
            self.write_files();
        }
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
