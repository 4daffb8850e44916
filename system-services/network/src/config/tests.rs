use super::*;
use keelson_config::{Diagnostics, network, yaml};

fn declared(text: &str) -> Config {
    let mut diagnostics = Diagnostics::new("");
    let root = yaml::parse(text).unwrap().root;
    Config::new(network::parse(&root, &mut diagnostics))
}

fn link(name: &str) -> Link {
    Link {
        index: 2,
        name: name.into(),
        ethernet: true,
        has_device: true,
        hardware_address: [0x52, 0x54, 0, 0, 0, 1],
        driver: "virtio_net".into(),
        ..Link::default()
    }
}

#[test]
fn without_a_configuration_wired_links_ask_dhcp_and_no_others() {
    let config = Config::default();
    let (settings, _) = config.settings_for(&link("eth0"), true);
    assert!(settings.unwrap().dhcp4.is_some());
    assert_eq!(config.settings_for(&link("eth0"), false).0, None);
}

#[test]
fn the_most_specific_part_counts_and_equals_are_named() {
    let config = declared(
        "version: 2\nethernets:\n  all: {match: {name: 'e*'}, dhcp4: true}\n  one: {match: {macaddress: '52:54:00:00:00:01'}, addresses: [192.0.2.1/24]}\n  named: {match: {name: eth9}, mtu: 1400}\n  virtio: {match: {name: 'e*', driver: 'virtio*'}, dhcp4: true}\n",
    );
    let of = |name: &str, mac: u8| {
        let link = Link {
            hardware_address: [0x52, 0x54, 0, 0, 0, mac],
            ..link(name)
        };
        config
            .settings_for(&link, true)
            .0
            .map(|settings| settings.id)
    };
    assert_eq!(of("eth0", 1).as_deref(), Some("one"));
    assert_eq!(of("eth9", 2).as_deref(), Some("named"));
    assert_eq!(of("eth1", 2).as_deref(), Some("virtio"));
    assert_eq!(of("wlan0", 2), None);
    let both =
        declared("version: 2\nethernets: {a: {match: {name: 'e*'}}, b: {match: {name: 'et*'}}}\n");
    let (settings, other) = both.settings_for(&link("eth0"), true);
    assert_eq!((settings.unwrap().id.as_str(), other), ("a", Some("b")));
}

#[test]
fn globs_spare_what_has_no_device() {
    let config = declared("version: 2\nethernets: {all: {match: {name: '*'}, dhcp4: true}}\n");
    let veth = Link {
        has_device: false,
        ..link("veth12")
    };
    assert_eq!(config.settings_for(&veth, false).0, None);
}

#[test]
fn members_have_controllers_and_no_dhcp_of_their_own() {
    let config = declared(
        "version: 2\nethernets: {card: {match: {name: eth0}, dhcp4: true}}\nbonds: {b: {interfaces: [card], dhcp4: true}}\nvrfs: {v: {table: 7, interfaces: [b]}}\n",
    );
    let (card, _) = config.settings_for(&link("eth0"), true);
    let card = card.unwrap();
    assert_eq!((card.controller.as_deref(), card.dhcp4), (Some("b"), None));
    let (bond, _) = config.settings_for(
        &Link {
            kind: "bond".into(),
            ..link("b")
        },
        false,
    );
    assert_eq!(bond.unwrap().table, Some(7));
    assert_eq!(config.virtuals().count(), 2);
}

#[test]
fn earlier_interfaces_are_preferred_unless_a_metric_is_given() {
    let settings = DhcpSettings::default();
    assert!(settings.metric_for(2) < settings.metric_for(3));
    let config = declared(
        "version: 2\nethernets: {eth0: {dhcp4: true, dhcp4-overrides: {route-metric: 7, use-dns: no}}}\n",
    );
    let settings = config
        .settings_for(&link("eth0"), true)
        .0
        .unwrap()
        .dhcp4
        .unwrap();
    assert_eq!((settings.metric_for(3), settings.use_dns), (7, false));
}
