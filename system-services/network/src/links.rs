//! Network interfaces as the kernel describes them, and which of them are the machine's wired ones.

use std::path::Path;

use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkInfo, LinkLayerType, LinkMessage};

/// Marks interfaces that this service made (`IFLA_IFALIAS`).
pub const OURS: &str = "keelson-network";

/// One network interface.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Link {
    /// The kernel's number for it; stays when the name changes.
    pub index: u32,
    /// Its present name.
    pub name: String,
    /// Its Ethernet address, zeros when it has none.
    pub hardware_address: [u8; 6],
    /// The one that its card was made with, where the kernel tells.
    pub permanent_address: Option<[u8; 6]>,
    /// Bytes of payload in one frame.
    pub mtu: u32,
    /// It is of the Ethernet kind (`ARPHRD_ETHER`).
    pub ethernet: bool,
    /// It was brought up.
    pub up: bool,
    /// There is somebody at the other end of the cable.
    pub carrier: bool,
    /// It is part of a bridge or a bond, which has the addresses in its stead.
    pub enslaved: bool,
    /// The index of what it is a part of.
    pub controller: Option<u32>,
    /// It was made by this service.
    pub ours: bool,
    /// What it was made as, where this service made it.
    pub made_as: Option<String>,
    /// The index of the one that it is on.
    pub below: Option<u32>,
    /// What the kernel calls its kind (`bond`, `vlan`); empty for a card.
    pub kind: String,
    /// A card, or a hypervisor's device, is behind it.
    pub has_device: bool,
    /// It has no cable.
    pub wireless: bool,
    /// The kernel's driver for that.
    pub driver: String,
}

impl Link {
    /// Reads what the kernel says in `RTM_NEWLINK` and `RTM_DELLINK`.
    pub fn from_message(message: &LinkMessage) -> Self {
        let flags = message.header.flags;
        let mut link = Self {
            index: message.header.index,
            ethernet: message.header.link_layer_type == LinkLayerType::Ether,
            up: flags.contains(LinkFlags::Up),
            carrier: flags.contains(LinkFlags::Up | LinkFlags::LowerUp),
            ..Self::default()
        };
        for attribute in &message.attributes {
            match attribute {
                LinkAttribute::IfName(name) => link.name.clone_from(name),
                LinkAttribute::Mtu(mtu) => link.mtu = *mtu,
                LinkAttribute::Controller(index) => {
                    link.enslaved = *index != 0;
                    link.controller = Some(*index).filter(|index| *index != 0);
                }
                LinkAttribute::IfAlias(alias) => {
                    let rest = alias.strip_prefix(OURS);
                    link.ours = rest.is_some();
                    link.made_as = rest
                        .map(|rest| rest.trim().to_owned())
                        .filter(|text| !text.is_empty());
                }
                LinkAttribute::Link(index) => link.below = Some(*index).filter(|index| *index != 0),
                LinkAttribute::LinkInfo(infos) => {
                    for info in infos {
                        if let LinkInfo::Kind(kind) = info {
                            link.kind = kind.to_string();
                        }
                    }
                }
                LinkAttribute::PermAddress(bytes) => {
                    link.permanent_address = bytes.as_slice().try_into().ok();
                }
                LinkAttribute::Address(bytes) => {
                    link.hardware_address = bytes.as_slice().try_into().unwrap_or_default();
                }
                _ => {}
            }
        }
        link
    }

    /// Adds what only sysfs tells. `sys_class_net` is /sys/class/net.
    #[must_use]
    pub fn with_device(mut self, sys_class_net: &Path) -> Self {
        let directory = sys_class_net.join(&self.name);
        self.wireless = is_wireless(&directory);
        let device = directory.join("device");
        self.has_device = device.exists();
        let driver = std::fs::read_link(device.join("driver")).ok();
        let driver = driver.as_deref().and_then(Path::file_name);
        self.driver = driver
            .map(|name| name.to_string_lossy().into_owned())
            .unwrap_or_default();
        self
    }

    /// Its hardware address as people write it: the card's own, whatever it was given since.
    pub fn mac(&self) -> String {
        shown(self.permanent_address.unwrap_or(self.hardware_address))
    }

    /// Whether this is a wired interface of the machine itself: Ethernet, with hardware (or a hypervisor's device)
    /// behind it, and not part of a bridge or bond. Containers' veth pairs, bridges and tunnels are not.
    /// `sys_class_net` is /sys/class/net.
    pub fn is_wired(&self, sys_class_net: &Path) -> bool {
        let directory = sys_class_net.join(&self.name);
        self.ethernet
            && !self.enslaved
            && self.hardware_address != [0; 6]
            && directory.join("device").exists()
            && !is_wireless(&directory)
    }
}

/// Whether the interface with this directory below /sys/class/net has no cable.
fn is_wireless(directory: &Path) -> bool {
    directory.join("wireless").exists() || directory.join("phy80211").exists()
}

fn shown(address: [u8; 6]) -> String {
    address.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_ethernet_with_a_device_behind_it_is_wired() {
        let sys = tempfile::tempdir().unwrap();
        for path in [
            "eth0/device",
            "wlan0/device",
            "wlan0/phy80211",
            "docker0",
            "port0/device",
        ] {
            fs::create_dir_all(sys.path().join(path)).unwrap();
        }
        let link = |name: &str| Link {
            name: name.into(),
            ethernet: true,
            hardware_address: [2, 0, 0, 0, 0, 1],
            ..Link::default()
        };
        assert!(link("eth0").is_wired(sys.path()));
        assert!(
            !Link {
                ethernet: false,
                ..link("eth0")
            }
            .is_wired(sys.path())
        );
        assert!(
            !Link {
                enslaved: true,
                ..link("port0")
            }
            .is_wired(sys.path())
        );
        for name in ["wlan0", "docker0", "veth12", "lo"] {
            assert!(!link(name).is_wired(sys.path()), "{name}");
        }
    }

    #[test]
    fn a_link_has_carrier_only_when_it_is_up() {
        let mut message = LinkMessage::default();
        message.header.flags = LinkFlags::LowerUp;
        assert!(!Link::from_message(&message).carrier);
        message.header.flags = LinkFlags::LowerUp | LinkFlags::Up;
        assert!(Link::from_message(&message).carrier);
        message.attributes = vec![
            LinkAttribute::Address(vec![1; 20]),
            LinkAttribute::Controller(4),
        ];
        let link = Link::from_message(&message);
        assert!(link.enslaved);
        assert_eq!(
            link.hardware_address, [0; 6],
            "an address that is not Ethernet's is none"
        );
    }
}
