//! Makes the machine what the leases say: kernel state, files, host name.

use std::path::Path;

use keelson_sys::notify::notify;

use super::Service;
use crate::config::DhcpSettings;
use crate::declared;
use crate::dhcp4::lease::Lease;
use crate::dhcp4::timer;
use crate::ipv4::{self, Wanted};
use crate::resolver::Findings;

/// Names that a machine has before anybody named it.
const UNNAMED: [&str; 4] = ["", "(none)", "localhost", "keelson"];

impl Service {
    /// Makes the kernel's state of a link what it should be. What fails is tried again later.
    pub(super) async fn reconcile(&mut self, index: u32) {
        let Some(interface) = self.interfaces.get(&index) else {
            return;
        };
        let dhcp = interface.settings.dhcp4.clone().unwrap_or_default();
        let settings = interface.settings.clone();
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
        match self.kernel.ipv4(index).await {
            Err(error) => failures.push(error),
            Ok(present) => {
                for change in ipv4::plan(&present, wanted.as_ref()) {
                    log!(Debug, "{name}: {change:?}");
                    failures.extend(self.kernel.apply(index, &change).await.err());
                }
            }
        }
        match self.kernel.declared(index).await {
            Err(error) => failures.push(error),
            Ok(present) => {
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
        let uses_mtu = interface.settings.mtu.is_none()
            && interface
                .settings
                .dhcp4
                .as_ref()
                .is_some_and(|settings| settings.use_mtu);
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

    pub(super) async fn finish(&mut self) {
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
            for cidr in &interface.settings.addresses {
                if !cidr.address.is_loopback() {
                    findings.add_address(cidr.address);
                }
            }
        }
        for (settings, lease) in self.leases() {
            findings.add_lease(settings, lease);
        }
        if let Err(error) = findings.write(&self.directories.run) {
            log!(Error, "{error}");
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
            match self.kernel.rename(index, wanted).await {
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
        let accept = settings
            .accept_ra
            .map(|accept| if accept { "2" } else { "0" });
        let privacy = settings
            .ipv6_privacy
            .map(|privacy| if privacy { "2" } else { "0" });
        for (parameter, value) in [("accept_ra", accept), ("use_tempaddr", privacy)] {
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

    /// Sets the policy rules of all interfaces.
    pub(super) async fn apply_rules(&mut self) {
        let interfaces = self.interfaces.values();
        let rules: Vec<_> = interfaces
            .flat_map(|interface| interface.settings.rules.clone())
            .collect();
        if let Err(error) = self.kernel.set_rules(&rules).await {
            log!(Error, "{error}");
        }
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
