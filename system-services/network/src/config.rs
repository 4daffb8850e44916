//! Declared state: which interfaces are ours and how each gets its addresses.
//!
//! Rules are tried in order and the first that selects an interface decides; an interface that no rule selects is left
//! alone. What declares it besides the default (the network section of a cloud-config) only has to make this type.

use crate::links::Link;

/// The whole declared state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// Tried in order.
    pub rules: Vec<Rule>,
}

/// What holds for the interfaces that it selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which interfaces.
    pub select: Select,
    /// How they get their IPv4 address.
    pub ipv4: Ipv4Method,
}

/// Selects interfaces.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Select {
    /// Every wired interface of the machine itself.
    Wired,
    /// The one with this name.
    Name(String),
    /// The one with this hardware address.
    HardwareAddress([u8; 6]),
}

/// How an interface gets its IPv4 address.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ipv4Method {
    /// From a DHCP server.
    Dhcp(DhcpSettings),
    /// Not at all; the link is brought up all the same.
    None,
}

/// What of a DHCP server's answer is used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DhcpSettings {
    /// Metric of the routes; without it the interface's index decides, so that earlier interfaces are preferred.
    pub metric: Option<u32>,
    /// Set the interface's MTU as the server says.
    pub use_mtu: bool,
    /// Offer the server's host name to the machine.
    pub use_hostname: bool,
}

impl Default for DhcpSettings {
    fn default() -> Self {
        Self {
            metric: None,
            use_mtu: true,
            use_hostname: true,
        }
    }
}

impl DhcpSettings {
    /// The metric of routes over the interface with that index.
    pub fn metric_for(&self, index: u32) -> u32 {
        // Above what administrators give by hand, below what the kernel gives IPv6 routes.
        self.metric
            .unwrap_or_else(|| 1000_u32.saturating_add(index))
    }
}

impl Default for Config {
    /// DHCPv4 on every wired interface.
    fn default() -> Self {
        Self {
            rules: vec![Rule {
                select: Select::Wired,
                ipv4: Ipv4Method::Dhcp(DhcpSettings::default()),
            }],
        }
    }
}

impl Config {
    /// The rule that holds for a link; `wired` says whether it is a wired interface of the machine itself.
    pub fn rule_for(&self, link: &Link, wired: bool) -> Option<&Rule> {
        self.rules.iter().find(|rule| match &rule.select {
            Select::Wired => wired,
            Select::Name(name) => *name == link.name,
            Select::HardwareAddress(address) => *address == link.hardware_address,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_default_takes_wired_links_and_no_others() {
        let link = Link {
            index: 2,
            name: "eth0".into(),
            ..Link::default()
        };
        let config = Config::default();
        assert!(matches!(
            config.rule_for(&link, true).unwrap().ipv4,
            Ipv4Method::Dhcp(_)
        ));
        assert_eq!(config.rule_for(&link, false), None);
    }

    #[test]
    fn the_first_rule_that_selects_a_link_decides() {
        let off = Rule {
            select: Select::Name("eth1".into()),
            ipv4: Ipv4Method::None,
        };
        let mut config = Config::default();
        config.rules.insert(0, off.clone());
        let link = |name: &str| Link {
            name: name.into(),
            ..Link::default()
        };
        assert_eq!(config.rule_for(&link("eth1"), true), Some(&off));
        assert_ne!(config.rule_for(&link("eth0"), true), Some(&off));
    }

    #[test]
    fn earlier_interfaces_are_preferred_unless_a_metric_is_given() {
        let settings = DhcpSettings::default();
        assert!(settings.metric_for(2) < settings.metric_for(3));
        assert_eq!(
            DhcpSettings {
                metric: Some(7),
                ..settings
            }
            .metric_for(3),
            7
        );
    }
}
