use super::*;
use crate::yaml;

fn read(text: &str) -> (Option<Network>, Vec<String>) {
    let mut diagnostics = Diagnostics::new("network-config");
    let root = yaml::parse(text).unwrap().root;
    let network = parse(&root, &mut diagnostics);
    let messages = diagnostics.into_sorted();
    (network, messages.iter().map(ToString::to_string).collect())
}

fn clean(text: &str) -> Network {
    let (network, messages) = read(text);
    assert_eq!(messages, [] as [&str; 0]);
    network.unwrap()
}

#[test]
fn both_versions_say_the_same_of_a_static_address() {
    let first = clean(
        "version: 1\nconfig:\n- type: physical\n  name: eth0\n  subnets:\n  - {type: static, address: 192.0.2.5, netmask: 255.255.255.0, gateway: 192.0.2.1, dns_nameservers: [192.0.2.53], dns_search: a.example b.example}\n",
    );
    let second = clean(
        "network:\n  version: 2\n  ethernets:\n    eth0:\n      addresses: [192.0.2.5/24]\n      gateway4: 192.0.2.1\n      nameservers: {addresses: [192.0.2.53], search: [a.example, b.example]}\n",
    );
    assert_eq!(first, second);
    assert_eq!(first.interfaces[0].addresses[0].to_string(), "192.0.2.5/24");
}

#[test]
fn what_is_wrong_costs_itself_and_has_its_place() {
    let (network, messages) = read(
        "version: 2\nethernets:\n  eth0:\n    addresses: [192.0.2.5/33, 192.0.2.6/24]\n    dhpc4: true\n  a b: {set-name: \"x y\"}\nvlans:\n  v: {id: 5000, link: eth0}\nwifis: {}\n",
    );
    let network = network.unwrap();
    assert_eq!(network.interfaces.len(), 2);
    assert_eq!(network.interfaces[0].addresses.len(), 1);
    assert_eq!(
        messages,
        [
            "network-config:4:17: ethernets.eth0.addresses: `33` is no network mask; it is left out",
            "network-config:5:5: unknown key `dhpc4` of ethernets.eth0 is ignored; did you mean `dhcp4`?",
            "network-config:6:19: set-name: `x y` is no name of an interface (at most 15 letters, no space, no slash)",
            "network-config:8:6: vlans.v: `id` (0 to 4094) and `link` are needed; it is left out",
            "network-config:9:1: `wifis` of network-config is not applied: there is no wireless network here",
        ]
    );
    let (network, messages) = read("version: 3\n");
    assert!(network.is_none() && messages[0].contains("version 3 is unknown"));
    assert!(clean("network: {config: disabled}").disabled);
}

#[test]
fn rancheros_names_interfaces_by_glob_and_hardware_address() {
    let text = "interfaces:\n  eth*: {dhcp: true}\n  mac=52:54:00:AB:*: {address: 192.0.2.9/24, gateway: 192.0.2.1, gateway_ipv6: '', vlans: '100,200:foo'}\n  bond0: {bond_opts: {mode: 4, miimon: 100}, dhcp: true}\n  eth2: {bond: bond0}\n  br0: {bridge: 'true'}\n  eth3: {bridge: br0}\n  foo: {address: 198.51.100.1/24}\ndns: {nameservers: [192.0.2.53], search: [example]}\n";
    let mut diagnostics = Diagnostics::new("user-data");
    let root = yaml::parse(text).unwrap().root;
    let network = parse_rancher(&root, &mut diagnostics).unwrap();
    assert!(diagnostics.into_sorted().is_empty());
    let find = |name: &str| {
        let mut all = network.interfaces.iter();
        all.find(|interface| interface.name == name).unwrap()
    };
    assert!(find("eth*").dhcp4);
    let by_address = find("mac=52:54:00:AB:*");
    assert_eq!(by_address.matches.mac.as_deref(), Some("52:54:00:ab:*"));
    assert_eq!(by_address.routes.len(), 1);
    let Kind::Bond(bond) = &find("bond0").kind else {
        panic!()
    };
    assert_eq!(
        (bond.members[0].as_str(), bond.params["mode"].as_str()),
        ("eth2", Some("802.3ad"))
    );
    assert!(matches!(&find("br0").kind, Kind::Bridge(bridge) if bridge.members == ["eth3"]));
    let foo = find("foo");
    assert!(matches!(&foo.kind, Kind::Vlan(vlan) if vlan.id == 200) && foo.addresses.len() == 1);
    assert_eq!(network.global_dns.search, ["example"]);
}

#[test]
fn the_model_survives_as_json() {
    let network = clean(
        "version: 2\nethernets:\n  id0: {match: {macaddress: AA:BB:CC:00:11:22}, set-name: lan, dhcp4: true, dhcp4-overrides: {use-dns: false}}\nbonds: {b: {interfaces: [lan], parameters: {mode: 802.3ad}}}\ntunnels: {w: {mode: wireguard, key: dwdtCnMYpX08FsFyUbJmRd9PL5LrwJkqwXf7pR25LCo=, peers: [{keys: {public: 3p7bfXt9wbTTW2HC7OQ1Nz+DQ8hbeGdNrfx+FG+IK08=}, allowed-ips: [0.0.0.0/0]}]}, x: {mode: vxlan, id: 7}, g: {mode: gre, keys: {input: 1}, local: 192.0.2.1}}\n",
    );
    let json = serde_json::to_string(&network).unwrap();
    assert_eq!(serde_json::from_str::<Network>(&json).unwrap(), network);
}

#[test]
fn tunnels_that_cannot_be_are_named() {
    let mut diagnostics = Diagnostics::new("network-config");
    let text = "version: 2\ntunnels:\n  a: {mode: grep}\n  b: {mode: vxlan}\n  c: {mode: gre, local: '2001:db8::1'}\n  d: {mode: gre, key: seven}\n\
                \x20 e: {mode: wireguard, key: /etc/key}\n  f: {mode: wireguard, key: dwdtCnMYpX08FsFyUbJmRd9PL5LrwJkqwXf7pR25LCo=, peers: [{keys: {public: x}}]}\n";
    let root = yaml::parse(text).unwrap().root;
    let network = parse(&root, &mut diagnostics).unwrap();
    let names: Vec<&str> = network
        .interfaces
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(names, ["e", "f"]);
    let said: Vec<String> = diagnostics
        .into_sorted()
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(said.len(), 6, "{said:#?}");
    assert!(said[0].contains("did you mean `gre`?"), "{said:#?}");
}
