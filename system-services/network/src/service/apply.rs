//! Makes the machine what the leases say: kernel state, files, host name.

use std::path::Path;

use keelson_config::network::Rule;
use keelson_sys::notify::notify;

use super::Service;
use crate::config::DhcpSettings;
use crate::declared;
use crate::dhcp4::lease::Lease;
use crate::dhcp4::timer;
use crate::ipv4::{self, Wanted};
use crate::kernel::KernelError;
use crate::link_local::LinkLocal;
use crate::resolver::Findings;

/// What the name of an interface that stepped aside begins with; its index follows.
pub(super) const DISPLACED: &str = "aside";
/// The main routing table.
pub(super) const MAIN_TABLE: u32 = 254;

/// Names that a machine has before anybody named it.
const UNNAMED: [&str; 4] = ["", "(none)", "localhost", "keelson"];

impl Service {
    /// Makes the kernel's state of a link what it should be. What fails is tried again later.
    pub(super) async fn reconcile(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get(&index) else {
            return;
        };
        let dhcp = interface.settings.dhcp4.clone().unwrap_or_default();
        let mut settings = interface.settings.clone();
        if let Some(address) = interface.link_local.as_ref().and_then(LinkLocal::address) {
            settings.addresses.push(address);
        }
        let wanted = interface
            .held
            .as_ref()
            .filter(|held| !held.has_expired(timer::now()))
            .map(|held| Wanted::from_lease(held, dhcp.metric_for(index), timer::now()))
            .map(|mut wanted| {
                if !dhcp.use_routes {
                    wanted.routes.retain(|route| route.gateway.is_none());
                }
                wanted
            });
        let name = interface.link.name.clone();
        let mut failures = Vec::new();
        self.reconcile_mtu(index).await;
        let table = settings.table.unwrap_or(MAIN_TABLE);
        match self.kernel.ipv4(index, table).await {
            Err(error) => failures.push(error),
            Ok(present) => {
                for change in ipv4::plan(&present, wanted.as_ref()) {
                    log!(Debug, "{name}: {change:?}");
                    failures.extend(self.kernel.apply(index, table, &change).await.err());
                }
            }
        }
        failures.extend(self.reconcile_ipv6(index).await);
        match self.kernel.declared(index).await {
            Err(error) => failures.push(error),
            Ok(mut present) => {
                let all = self.interfaces.values();
                let all = all.map(|interface| &interface.settings);
                declared::leave_others(&mut present, &settings, all);
                for change in declared::plan(&present, &settings) {
                    log!(Debug, "{name}: {change:?}");
                    failures.extend(self.kernel.declare(index, &change).await.err());
                }
            }
        }
        if failures.is_empty() {
            self.unfinished.remove(&index);
        } else if self.unfinished.insert(index) {
            failures
                .iter()
                .for_each(|error| log!(Error, "{name}: {error}; will try again"));
        }
    }

    /// Sets the MTU that the lease says, or takes back what an earlier lease said. Otherwise it is the administrator's.
    async fn reconcile_mtu(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get_mut(&index) else {
            return;
        };
        // What the configuration says counts.
        if interface.settings.mtu.is_some() {
            interface.former_mtu = None;
            return;
        }
        let dhcp = interface.settings.dhcp4.as_ref();
        let uses_mtu = dhcp.is_some_and(|settings| settings.use_mtu);
        let lease = interface
            .held
            .as_ref()
            .map(|held| &held.lease)
            .filter(|_| uses_mtu);
        let present = interface.link.mtu;
        let mtu = match lease.and_then(|lease| lease.mtu) {
            Some(mtu) if u32::from(mtu) != present => {
                interface.former_mtu.get_or_insert(present);
                u32::from(mtu)
            }
            Some(_) => return,
            None => match interface.former_mtu.take() {
                Some(former) => former,
                None => return,
            },
        };
        // A device that cannot do it goes on without: not a reason to try again and again.
        match self.kernel.set_mtu(index, mtu).await {
            Ok(()) => log!(Info, "{}: MTU {mtu}", interface.link.name),
            Err(error) => log!(Warning, "{}: {error}", interface.link.name),
        }
    }

    /// Puts the packet filter in force that is asked for, when it is not yet.
    pub(super) async fn apply_firewall(&mut self) {
        if !self.firewall_due {
            return;
        }
        let (image, run) = (&self.directories.iptables, &self.directories.run);
        match self.firewall.apply(image, run).await {
            Ok(()) => {
                self.firewall_due = false;
                let message = match self.firewall.hold_back() {
                    true => "lets in what the configuration says, and no more",
                    false => return,
                };
                if self.said.insert(message.to_owned()) {
                    log!(Info, "the packet filter {message}");
                }
            }
            Err(error) => {
                let message = format!("{error:#}; will try again");
                self.say_once("the packet filter is not what it should be", &message);
            }
        }
    }

    pub(super) async fn finish(&mut self) {
        self.apply_firewall().await;
        for index in std::mem::take(&mut self.unset) {
            self.set_up(index).await;
            self.bring_up(index).await;
        }
        for index in self.unfinished.clone() {
            self.reconcile(index).await;
        }
    }

    /// Interfaces with a lease, the preferred one first.
    pub(super) fn leases(&self) -> Vec<(&DhcpSettings, &Lease)> {
        let mut leases: Vec<_> = self
            .interfaces
            .iter()
            .filter_map(|(index, interface)| {
                Some((
                    index,
                    interface.settings.dhcp4.as_ref()?,
                    interface.held.as_ref()?,
                ))
            })
            .collect();
        leases.sort_by_key(|(index, settings, _)| settings.metric_for(**index));
        leases
            .into_iter()
            .map(|(_, settings, held)| (settings, &held.lease))
            .collect()
    }

    pub(super) fn write_files(&self) {
        let mut findings = Findings::default();
        findings.add_dns(&self.config.global_dns());
        for interface in self.interfaces.values() {
            findings.add_dns(&interface.settings.dns);
            let chosen = interface.link_local.as_ref().and_then(LinkLocal::address);
            for cidr in interface.settings.addresses.iter().chain(&chosen) {
                if !cidr.address.is_loopback() {
                    findings.add_address(cidr.address);
                }
            }
        }
        for (settings, lease) in self.leases() {
            findings.add_lease(settings, lease);
        }
        for interface in self.interfaces.values() {
            let settings = interface.settings.dhcp6.clone().unwrap_or_default();
            findings.add_told(&settings, &interface.told);
        }
        match findings.write(&self.directories.run) {
            Ok(()) => self.names.look_again(),
            Err(error) => log!(Error, "{error}"),
        }
    }

    /// Sets what is set of the interface itself: name, hardware address, MTU, what it makes of router advertisements.
    pub(super) async fn set_up(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get(&index) else {
            return;
        };
        let (link, settings) = (interface.link.clone(), interface.settings.clone());
        let mut name = link.name.clone();
        if let Some(wanted) = settings.set_name.as_ref().filter(|wanted| **wanted != name) {
            match self.rename(index, wanted).await {
                Ok(()) => name.clone_from(wanted),
                Err(error) => log!(Error, "{name}: {error}"),
            }
        }
        if let Some(mac) = settings.mac.filter(|mac| *mac != link.hardware_address)
            && let Err(error) = self.kernel.set_mac(index, mac).await
        {
            log!(Error, "{name}: {error}");
        }
        if let Some(mtu) = settings.mtu.filter(|mtu| *mtu != link.mtu)
            && let Err(error) = self.kernel.set_mtu(index, mtu).await
        {
            log!(Error, "{name}: {error}");
        }
        if let Some(wakes) = settings.wake_on_lan
            && let Err(error) = self.kernel.set_wake_on_lan(index, wakes)
        {
            self.say_once(&name, &error.to_string());
        }
        self.set_port(index).await;
        self.set_wireguard(index);
        let generated = settings
            .link_local_ipv6
            .map(|has_one| if has_one { "0" } else { "1" });
        let accept = settings
            .accept_ra
            .map(|accept| if accept { "2" } else { "0" });
        let privacy = settings
            .ipv6_privacy
            .map(|privacy| if privacy { "2" } else { "0" });
        let parameters = [
            ("addr_gen_mode", generated),
            ("accept_ra", accept),
            ("use_tempaddr", privacy),
        ];
        for (parameter, value) in parameters {
            let Some(value) = value else { continue };
            let path = self
                .directories
                .proc_sys_net
                .join("ipv6/conf")
                .join(&name)
                .join(parameter);
            if let Err(error) = std::fs::write(&path, value) {
                log!(Error, "{name}: {}: {error}", path.display());
            }
        }
    }

    /// Brings a link up, if it is not; what fails is tried again.
    pub(super) async fn bring_up(&mut self, index: u32) {
        let Some(name) = self.links.get(&index).map(|link| link.name.clone()) else {
            return;
        };
        if let Err(error) = self.kernel.bring_up(index).await {
            self.unset.insert(index);
            self.say_once(&name, &format!("{error}; will try again"));
        }
    }

    /// Gives a link a name. One that has it and shall have another steps aside, and gets its own when the kernel announces that.
    async fn rename(&mut self, index: u32, wanted: &str) -> Result<(), KernelError> {
        let first = self.kernel.rename(index, wanted).await;
        if first.is_ok() {
            return first;
        }
        let mut others = self.interfaces.values();
        let in_the_way = others.find(|other| {
            let moves = other.settings.set_name.as_deref();
            other.link.name == wanted && moves.is_some_and(|name| name != wanted)
        });
        let Some(other) = in_the_way.map(|other| other.link.index) else {
            return first;
        };
        let aside = format!("{DISPLACED}{other}");
        self.kernel.rename(other, &aside).await?;
        self.kernel.rename(index, wanted).await
    }

    /// Sets the policy rules of all interfaces, unless they are those that were set.
    pub(super) async fn apply_rules(&mut self) {
        if self.rules != self.wanted_rules() {
            self.set_rules().await;
        }
    }

    /// Sets the policy rules of all interfaces.
    pub(super) async fn set_rules(&mut self) {
        self.rules = self.wanted_rules();
        if let Err(error) = self.kernel.set_rules(&self.rules).await {
            log!(Error, "{error}");
        }
    }

    fn wanted_rules(&self) -> Vec<Rule> {
        let interfaces = self.interfaces.values();
        interfaces
            .flat_map(|interface| interface.settings.rules.clone())
            .collect()
    }

    /// Offers a server's name to a machine that nobody else named.
    pub(super) fn offer_name(&mut self) {
        let wanted = self
            .leases()
            .into_iter()
            .filter(|(settings, _)| settings.use_hostname);
        let Some(name) = wanted
            .filter_map(|(_, lease)| lease.host_name.clone())
            .next()
        else {
            return;
        };
        let present = kernel_name();
        if self.offered_name.as_ref() == Some(&name) || present == name {
            return;
        }
        if !UNNAMED.contains(&present.as_str()) && self.offered_name.as_ref() != Some(&present) {
            return log!(
                Debug,
                "the machine is called {present} already; the name {name} is not used"
            );
        }
        match notify(&format!("X_KEELSON_HOSTNAME={name}")) {
            Ok(_) => self.offered_name = Some(name),
            Err(error) => log!(Warning, "could not ask for the host name {name}: {error}"),
        }
    }
}

fn kernel_name() -> String {
    let read = |path: &Path| std::fs::read_to_string(path).map(|name| name.trim().to_owned());
    read(Path::new("/proc/sys/kernel/hostname")).unwrap_or_default()
}

/// The machine's name, if somebody gave it one.
pub(super) fn given_name() -> Option<String> {
    Some(kernel_name()).filter(|name| !UNNAMED.contains(&name.as_str()))
}
