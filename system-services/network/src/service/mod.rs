//! The event loop: kernel events and DHCP outcomes go in, kernel state and files come out.
//!
//! - `apply`: makes the machine what configuration and leases say: kernel state, files, host name
//! - `topology`: interfaces that are made, and who is a part of what

mod apply;
mod topology;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, bail};
use futures_util::stream::StreamExt;
use keelson_config::network::Rule;
use keelson_sys::notify::notify;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::unbounded_channel;
use tokio::time::MissedTickBehavior;

use crate::config::{Config, DhcpSettings, Settings};
use crate::dhcp4::client::{Client, Outcome, Outcomes, Setup};
use crate::dhcp4::lease::{Held, Lease};
use crate::dhcp4::machine::Start;
use crate::dhcp4::store::Store;
use crate::dhcp4::timer;
use crate::kernel::{Kernel, KernelEvent};
use crate::links::Link;
use crate::watched::Watched;

/// The configuration, among the leases.
const CONFIGURATION: &str = "config.json";
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
}

struct Interface {
    link: Link,
    settings: Settings,
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
    let boot_id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .context("reading the boot's id")?;
    let boot_id = boot_id.trim().to_owned();
    let (interfaces, unfinished) = (BTreeMap::new(), BTreeSet::new());
    let changes = watch(&directories.state);
    let mut service = Service {
        config: read_config(&directories.state),
        links: BTreeMap::new(),
        said: BTreeSet::new(),
        rules: Vec::new(),
        refused: BTreeSet::new(),
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
            Some(()) = changed(changes.as_ref()) => service.configure().await?,
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

/// Reads what is declared. A file that cannot be read is as none: every wired interface asks DHCP.
fn read_config(state: &Path) -> Config {
    let path = state.join(CONFIGURATION);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Config::default(),
        Err(error) => {
            log!(Error, "{}: {error}; asking DHCP", path.display());
            return Config::default();
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(network) => Config::new(Some(network)),
        Err(error) => {
            log!(Error, "{}: {error}; asking DHCP", path.display());
            Config::default()
        }
    }
}

/// Hears of changes of the configuration; `None`, and a word about it, when that is not possible.
fn watch(state: &Path) -> Option<Watched<Inotify>> {
    let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
    let begun = Inotify::init(flags).and_then(|inotify| {
        let events =
            AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_CLOSE_WRITE;
        inotify.add_watch(state, events)?;
        Ok(inotify)
    });
    let begun = begun.map_err(std::io::Error::from).and_then(Watched::new);
    begun
        .map_err(|error| {
            log!(
                Warning,
                "{}: {error}; changes of the configuration are not heard of",
                state.display()
            )
        })
        .ok()
}

/// Waits until the configuration is another one; for ever when that is not heard of.
async fn changed(changes: Option<&Watched<Inotify>>) -> Option<()> {
    let Some(changes) = changes else {
        return std::future::pending().await;
    };
    loop {
        let events = changes
            .read(|inotify| inotify.read_events().map_err(Into::into))
            .await;
        let mut events = events.ok()?.into_iter();
        if events.any(|event| event.name.is_some_and(|name| name == CONFIGURATION)) {
            return Some(());
        }
    }
}

impl Service {
    /// Takes up another configuration.
    async fn configure(&mut self) -> Result<()> {
        let config = read_config(&self.directories.state);
        if config == self.config {
            return Ok(());
        }
        log!(Info, "the configuration is another one");
        let old = std::mem::replace(&mut self.config, config);
        self.said.clear();
        self.remove_changed(&old).await;
        self.look_at_all_links().await?;
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
            self.link_gone(index);
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
                self.link(link).await;
                self.build().await;
                self.apply_rules().await;
            }
            KernelEvent::LinkGone(index) => {
                self.link_gone(index);
                self.build().await;
                self.apply_rules().await;
            }
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
                (interface.client, interface.held) = (None, None);
                interface.settings = Settings::default();
                self.reconcile(index).await;
                self.interfaces.remove(&index);
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
            interface.settings = settings;
            interface.link = link.clone();
            if keeps_dhcp {
                self.set_up(index).await;
                self.reconcile(index).await;
                return self.write_files();
            }
            (interface.client, interface.held) = (None, None);
            let settings = interface.settings.clone();
            self.reconcile(index).await;
            self.interfaces.remove(&index);
            self.new_link(link, settings).await;
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
        let dhcp = settings.dhcp4.clone();
        let mut interface = Interface {
            former_mtu: None,
            client: None,
            held: None,
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
        self.set_up(index).await;
        if !link.up
            && let Err(error) = self.kernel.bring_up(index).await
        {
            log!(Error, "{name}: {error}");
        }
        self.reconcile(index).await;
        if knows_something {
            self.write_files();
        }
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

    fn link_gone(&mut self, index: u32) {
        self.links.remove(&index);
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
