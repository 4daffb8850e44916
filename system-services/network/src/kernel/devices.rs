//! Interfaces that are made: bonds, bridges, VLANs, dummies, VRFs, tunnels; and what is set of any interface.

use keelson_config::network::{BOND_MODES, Bond, Bridge, Interface, Kind};
use netlink_packet_route::link::{BondMode, BridgeStpState, InfoBond, LinkAttribute, LinkMessage};
use rtnetlink::{
    LinkBond, LinkBridge, LinkDummy, LinkMessageBuilder, LinkUnspec, LinkVlan, LinkVrf,
    LinkWireguard,
};
use serde_json::Value as Json;

use super::{Kernel, KernelError, failed, tunnels, unless_gone};
use crate::links::OURS;

impl Kernel {
    /// Makes an interface. `below` is the index of the one that a VLAN is on, or a tunnel goes over; `made_as` is written down with
    /// it, for a later run of this service.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn create(
        &self,
        interface: &Interface,
        below: Option<u32>,
        made_as: &str,
    ) -> Result<(), KernelError> {
        let name = &interface.name;
        let message = match &interface.kind {
            Kind::Dummy => LinkDummy::new(name).build(),
            Kind::Vrf(vrf) => LinkVrf::new(name, vrf.table).build(),
            Kind::Vlan(vlan) => LinkVlan::new(name, below.unwrap_or(0), vlan.id).build(),
            Kind::Bond(bond) => bond_message(name, bond),
            Kind::Bridge(bridge) => bridge_message(name, bridge),
            Kind::WireGuard(_) => LinkWireguard::new(name).build(),
            Kind::Tunnel(tunnel) => tunnels::message(name, tunnel, below).ok_or_else(|| {
                KernelError::unsupported(format!("making {name}, of the mode {}", tunnel.mode))
            })?,
            Kind::Physical | Kind::Loopback => {
                return Err(KernelError::unsupported(format!("making {name}")));
            }
        };
        let made = self.handle.link().add(message).execute().await;
        made.map_err(failed(format!("making {name}")))?;
        // The kernel takes no alias when it makes one.
        let alias = LinkAttribute::IfAlias(format!("{OURS} {made_as}"));
        let marked = LinkUnspec::new_with_name(name).append_extra_attribute(alias);
        self.change(marked.build(), &format!("marking {name} as ours"))
            .await
    }

    /// Takes a link out of the one that it is a part of.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn release(&self, index: u32) -> Result<(), KernelError> {
        let message = LinkUnspec::new_with_index(index).nocontroller().build();
        self.change(message, "taking it out of another interface")
            .await?;
        self.bring_up(index).await
    }

    /// Removes an interface.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn delete(&self, index: u32) -> Result<(), KernelError> {
        let deleted = self.handle.link().del(index).execute().await;
        unless_gone(deleted).map_err(failed("removing the interface"))
    }

    /// Gives a link another name; it is taken down for that when the kernel asks for it.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn rename(&self, index: u32, name: &str) -> Result<(), KernelError> {
        let named = || LinkUnspec::new_with_index(index).name(name);
        let doing = || format!("calling it {name}");
        let first = self.change(named().build(), &doing()).await;
        if first.is_ok() {
            return first;
        }
        self.change(named().down().build(), &doing()).await?;
        self.bring_up(index).await
    }

    /// Sets a link's hardware address.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn set_mac(&self, index: u32, mac: [u8; 6]) -> Result<(), KernelError> {
        let message = LinkUnspec::new_with_index(index).address(mac.to_vec());
        self.change(message.build(), "setting the hardware address")
            .await
    }

    /// Makes a link a part of another one, taking it down for that where it has to be.
    ///
    /// # Errors
    /// What the kernel answers.
    pub async fn set_controller(
        &self,
        index: u32,
        controller: u32,
        is_bond: bool,
    ) -> Result<(), KernelError> {
        if is_bond {
            let down = LinkUnspec::new_with_index(index).down().build();
            self.change(down, "taking it down").await?;
        }
        let message = LinkUnspec::new_with_index(index).controller(controller);
        let made = self
            .change(message.build(), "making it a part of another interface")
            .await;
        // Up again whatever came of it.
        let up = self.bring_up(index).await;
        made.and(up)
    }

    pub(super) async fn change(
        &self,
        message: LinkMessage,
        doing: &str,
    ) -> Result<(), KernelError> {
        let changed = self.handle.link().change(message).execute().await;
        changed.map_err(failed(doing))
    }
}

fn number(value: &Json) -> Option<u32> {
    let number = value
        .as_u64()
        .or_else(|| value.as_str()?.trim().parse().ok());
    number.and_then(|number| u32::try_from(number).ok())
}

/// The place of a word in a list of the kernel's numbers, or a number.
fn word(value: &Json, words: &[&str]) -> Option<u8> {
    match value.as_str() {
        Some(text) => {
            let place = words.iter().position(|word| *word == text);
            place
                .and_then(|place| u8::try_from(place).ok())
                .or_else(|| text.parse().ok())
        }
        None => value.as_u64().and_then(|number| u8::try_from(number).ok()),
    }
}

/// A bond with its settings (the kernel's documentation, networking/bonding).
fn bond_message(name: &str, bond: &Bond) -> LinkMessage {
    const HASHES: [&str; 6] = [
        "layer2",
        "layer3+4",
        "layer2+3",
        "encap2+3",
        "encap3+4",
        "vlan+srcmac",
    ];
    const VALIDATE: [&str; 7] = [
        "none",
        "active",
        "backup",
        "all",
        "filter",
        "filter_active",
        "filter_backup",
    ];
    let mut builder: LinkMessageBuilder<LinkBond> = LinkBond::new(name);
    // The mode first: others are refused in modes that have no use for them.
    if let Some(mode) = bond
        .params
        .get("mode")
        .and_then(|mode| word(mode, &BOND_MODES))
    {
        builder = builder.mode(BondMode::from(mode));
    }
    for (key, value) in &bond.params {
        let info = match key.as_str() {
            "mii-monitor-interval" => number(value).map(InfoBond::MiiMon),
            "up-delay" => number(value).map(InfoBond::UpDelay),
            "down-delay" => number(value).map(InfoBond::DownDelay),
            "min-links" => number(value).map(InfoBond::MinLinks),
            "learn-packet-interval" => number(value).map(InfoBond::LpInterval),
            "packets-per-slave" => number(value).map(InfoBond::PacketsPerPort),
            "resend-igmp" => number(value).map(InfoBond::ResendIgmp),
            "arp-interval" => number(value).map(InfoBond::ArpInterval),
            "gratuitous-arp" => number(value)
                .and_then(|number| u8::try_from(number).ok())
                .map(InfoBond::NumPeerNotif),
            "lacp-rate" => {
                word(value, &["slow", "fast"]).map(|rate| InfoBond::AdLacpRate(rate.into()))
            }
            "ad-select" => word(value, &["stable", "bandwidth", "count"])
                .map(|select| InfoBond::AdSelect(select.into())),
            "transmit-hash-policy" => {
                word(value, &HASHES).map(|policy| InfoBond::XmitHashPolicy(policy.into()))
            }
            "fail-over-mac-policy" => word(value, &["none", "active", "follow"])
                .map(|policy| InfoBond::FailOverMac(policy.into())),
            "primary-reselect-policy" => word(value, &["always", "better", "failure"])
                .map(|policy| InfoBond::PrimaryReselect(policy.into())),
            "arp-validate" => word(value, &VALIDATE)
                .map(|validate| InfoBond::ArpValidate(u32::from(validate).into())),
            "arp-all-targets" => word(value, &["any", "all"])
                .map(|targets| InfoBond::ArpAllTargets(u32::from(targets).into())),
            "arp-ip-target" | "arp-ip-targets" => {
                let list = value
                    .as_array()
                    .cloned()
                    .unwrap_or_else(|| vec![value.clone()]);
                let texts = list.iter().filter_map(Json::as_str);
                let targets = texts.flat_map(|text| text.split(','));
                let targets: Vec<_> = targets
                    .filter_map(|text| text.trim().parse().ok())
                    .collect();
                (!targets.is_empty()).then_some(InfoBond::ArpIpTarget(targets))
            }
            _ => None,
        };
        if let Some(info) = info {
            builder = builder.append_info_data(info);
        }
    }
    builder.build()
}

/// A bridge with its settings: times in seconds, which the kernel counts in hundredths.
fn bridge_message(name: &str, bridge: &Bridge) -> LinkMessage {
    let mut builder: LinkMessageBuilder<LinkBridge> = LinkBridge::new(name);
    let seconds = |value: &Json| number(value).map(|seconds| seconds.saturating_mul(100));
    for (key, value) in &bridge.params {
        builder = match (key.as_str(), seconds(value), value.as_bool()) {
            ("ageing-time", Some(time), _) => builder.ageing_time(time),
            ("forward-delay", Some(time), _) => builder.forward_delay(time),
            ("hello-time", Some(time), _) => builder.hello_time(time),
            ("max-age", Some(time), _) => builder.max_age(time),
            ("priority", _, _) => match number(value).and_then(|number| u16::try_from(number).ok())
            {
                Some(priority) => builder.priority(priority),
                None => builder,
            },
            ("stp", _, Some(on)) => builder.stp_state(match on {
                true => BridgeStpState::KernelStp,
                false => BridgeStpState::Disabled,
            }),
            _ => builder,
        };
    }
    builder.build()
}
