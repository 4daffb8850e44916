use super::super::Protocol;
use super::*;

fn attachment(network: &str, address: Option<Ipv4Addr>) -> Attachment {
    Attachment {
        network: network.to_owned(),
        aliases: Vec::new(),
        address,
    }
}

fn named(name: &str) -> New {
    New {
        name: name.to_owned(),
        ..New::default()
    }
}

#[test]
fn containers_get_addresses_of_their_own_until_they_end() {
    let mut networks = Networks::new(Vec::new());
    let net = networks.add(named("back"), "").unwrap();
    assert_eq!(net.subnet.to_string(), "10.213.1.0/24");
    let both = [attachment("back", None), attachment("bridge", None)];
    let first = networks.connect("a", &both, &[]).unwrap();
    let second = networks.connect("b", &both, &[]).unwrap();
    let addresses = |connection: &Connection| -> Vec<String> {
        let all = connection.endpoints.iter();
        all.map(|endpoint| endpoint.address.to_string()).collect()
    };
    assert_eq!(addresses(&first), ["10.213.1.2", "10.213.0.2"]);
    assert_eq!(addresses(&second), ["10.213.1.3", "10.213.0.3"]);
    assert_eq!(
        networks
            .wires(&first)
            .iter()
            .filter(|wire| wire.is_default)
            .count(),
        1
    );
    let taken = attachment("back", Some([10, 213, 1, 2].into()));
    assert!(
        networks
            .connect("c", std::slice::from_ref(&taken), &[])
            .is_err()
    );
    networks.release("a");
    assert_eq!(
        addresses(&networks.connect("c", &[taken], &[]).unwrap()),
        ["10.213.1.2"]
    );
    let outside = attachment("back", Some([10, 9, 9, 9].into()));
    assert!(networks.connect("d", &[outside], &[]).is_err());
    let missing = networks.connect("d", &[attachment("nope", None)], &[]);
    assert_eq!(missing.unwrap_err().to_string(), "network nope not found");
}

#[test]
fn a_container_joins_and_leaves_while_it_runs() {
    let mut networks = Networks::new(Vec::new());
    networks.add(named("one"), "").unwrap();
    networks.add(named("two"), "").unwrap();
    let bridge = attachment("bridge", None);
    networks
        .connect("a", std::slice::from_ref(&bridge), &[])
        .unwrap();
    let one = networks.join("a", &attachment("one", None)).unwrap();
    assert_eq!(one.interface, "eth1");
    assert_eq!(networks.gateway("a"), Some([10, 213, 0, 1].into()));
    assert!(networks.leave("a", "bridge").is_some());
    assert!(networks.leave("a", "bridge").is_none());
    assert_eq!(networks.gateway("a"), Some([10, 213, 1, 1].into()));
    // The number is free again.
    let two = networks.join("a", &attachment("two", None)).unwrap();
    assert_eq!(two.interface, "eth0");
    assert_eq!(networks.members("two").count(), 1);
}

#[test]
fn a_network_has_a_name_and_addresses_that_no_other_has() {
    let mut networks = Networks::new(Vec::new());
    networks.add(named("one"), "").unwrap();
    for name in ["one", "bridge", "host", "", "a b"] {
        assert!(networks.add(named(name), "").is_err(), "{name}");
    }
    let overlapping = New {
        subnet: Some("10.213.0.0/16".parse().unwrap()),
        ..named("two")
    };
    assert!(
        networks
            .add(overlapping, "")
            .unwrap_err()
            .contains("overlaps")
    );
    let id = networks.find("one").unwrap().id.clone();
    assert_eq!(networks.find(&id[..8]).unwrap().name, "one");
    assert!(networks.find("").is_none());
    networks.remove("one");
    assert!(networks.find("one").is_none());
}

#[test]
fn a_port_of_the_host_belongs_to_one_container() {
    let mut networks = Networks::new(Vec::new());
    let any = Publish {
        protocol: Protocol::Tcp,
        target: 80,
        address: Ipv4Addr::LOCALHOST,
        ports: (0, 0),
    };
    let first = networks.connect(
        "a",
        &[attachment("bridge", None)],
        std::slice::from_ref(&any),
    );
    let port = first.unwrap().published[0].port;
    assert_ne!(port, 0);
    let same = Publish {
        ports: (port, port),
        ..any
    };
    let second = networks.connect(
        "b",
        &[attachment("bridge", None)],
        std::slice::from_ref(&same),
    );
    let said = format!("{:#}", second.unwrap_err());
    assert_eq!(
        said,
        format!("Bind for 127.0.0.1:{port} failed: port is already allocated")
    );
    assert!(
        networks
            .rules()
            .contains(&format!("--dport {port} -j DNAT"))
    );
    assert!(networks.release("a"));
    networks
        .connect("b", &[attachment("bridge", None)], &[same])
        .unwrap();
}

#[test]
fn the_network_of_those_who_say_nothing_gives_way_to_the_hosts_own() {
    let routes = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t0000D50A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0\n";
    let own = routes.replace("eth0", "keelson0");
    let place = |networks: &Networks| networks.find("bridge").unwrap().subnet.to_string();
    let mut networks = Networks::new(Vec::new());
    networks.settle(&own.replace("0000FFFF", "00FFFFFF"));
    assert_eq!(place(&networks), "10.213.0.0/24");
    networks.settle(routes);
    assert_eq!(place(&networks), "172.30.0.0/24");
    let connection = networks
        .connect("a", &[attachment("bridge", None)], &[])
        .unwrap();
    assert_eq!(
        connection.endpoints[0].gateway,
        Ipv4Addr::new(172, 30, 0, 1)
    );
    // Whoever is in it stays where it is, for an engine that comes later too.
    networks.settle(&routes.replace("0000D50A", "00001EAC"));
    assert_eq!(place(&networks), "172.30.0.0/24");
    let mut later = Networks::new(Vec::new());
    later.adopt("a", connection);
    later.settle(&own);
    assert_eq!(place(&later), "172.30.0.0/24");
}
