//! Cables that are pulled and plugged, interfaces that come and go, and hostile neighbours.

use std::fs;

use crate::support::{Lab, SOON};
use keelson_sys::packet::{ETHERTYPE_ARP, ETHERTYPE_IPV4, PacketSocket};

fn leased(options: &[&str]) -> Lab {
    let mut lab = Lab::new();
    lab.start_server(50, 60, options);
    lab.start_service();
    lab.wait("a lease", SOON, |lab| {
        lab.has_address("e0") && lab.routes().contains("default")
    });
    lab
}

#[test]
fn a_pulled_cable_keeps_the_address_and_a_plugged_one_confirms_it() {
    let mut lab = leased(&[]);
    lab.server.ip("link set s0 down");
    lab.wait("the loss is noticed", SOON, |lab| {
        lab.log.count("lost its carrier") == 1
    });
    assert!(lab.has_address("e0"));
    lab.server.ip("link set s0 up");
    lab.wait("the lease is confirmed", SOON, |lab| {
        lab.log.count("rebooting -> bound") == 1
    });
    assert!(lab.routes().contains("default"));
}

#[test]
fn an_interface_taken_down_and_up_by_hand_gets_its_routes_back() {
    let mut lab = leased(&[]);
    lab.client.ip("link set e0 down");
    lab.wait("the kernel dropped its routes", SOON, |lab| {
        !lab.routes().contains("default")
    });
    lab.client.ip("link set e0 up");
    lab.wait("its routes are back", SOON, |lab| {
        lab.routes().contains("default")
    });
}

#[test]
fn an_address_removed_by_hand_comes_back() {
    let mut lab = leased(&[]);
    lab.client.ip("addr flush dev e0");
    lab.wait("it is back", SOON, |lab| {
        lab.has_address("e0") && lab.routes().contains("default")
    });
}

#[test]
fn an_interface_that_comes_later_gets_an_address_too_and_one_that_goes_is_forgotten() {
    let mut lab = leased(&["--dhcp-option=option:dns-server,10.77.0.1"]);
    lab.stop_server();
    fs::create_dir_all(lab.path("sys/e1/device")).unwrap();
    lab.client.join(&lab.server, "e1", "s1");
    lab.server.ip("addr add 10.78.0.1/24 dev s1");
    lab.server.ip("link set s1 up");
    lab.start_server(
        50,
        60,
        &[
            "--dhcp-range=10.78.0.50,10.78.0.60,255.255.255.0,120",
            "--dhcp-option=tag:s0,option:dns-server,10.77.0.1",
            "--dhcp-option=tag:s1,option:dns-server,10.78.0.1",
        ],
    );
    lab.wait("both have addresses", SOON, |lab| {
        lab.has_address("e0") && lab.has_address("e1")
    });
    lab.wait("both name servers", SOON, |lab| {
        lab.read("run/resolv.conf")
            .ends_with("nameserver 10.77.0.1\nnameserver 10.78.0.1\n")
    });
    let routes = lab.routes();
    let defaults: Vec<_> = routes
        .lines()
        .filter(|line| line.starts_with("default"))
        .collect();
    assert!(
        matches!(defaults[..], [first, _] if first.contains("dev e0")),
        "the first interface is preferred: {routes}"
    );
    lab.client.ip("link del e1");
    lab.wait("one name server", SOON, |lab| {
        lab.read("run/resolv.conf")
            .ends_with("nameserver 10.77.0.1\n")
            && !lab.read("run/resolv.conf").contains("10.78")
    });
    assert!(lab.has_address("e0"));
}

#[test]
fn interfaces_without_a_device_and_ports_of_bridges_are_left_alone() {
    let mut lab = Lab::new();
    fs::create_dir_all(lab.path("sys/port0/device")).unwrap();
    lab.client.ip("link add veth0 type veth peer name veth1");
    lab.client.ip("link add br0 type bridge");
    lab.client.join(&lab.server, "port0", "s1");
    lab.client.ip("link set port0 master br0");
    lab.start_server(50, 60, &[]);
    lab.start_service();
    lab.wait("a lease", SOON, |lab| lab.has_address("e0"));
    for name in ["veth0", "veth1", "br0", "port0"] {
        assert_eq!(
            lab.client.json(&format!("link show dev {name}"))[0]["operstate"],
            "DOWN",
            "{name}"
        );
    }
    // One that becomes a port later is let go.
    lab.client.ip("link set e0 master br0");
    lab.wait("its address is gone", SOON, |lab| {
        !lab.has_address("e0") && lab.log.count("no longer ours") == 1
    });
}

#[test]
fn garbage_and_forged_answers_change_nothing() {
    // Long enough for the noise to be over: a flood may drown an answer, which costs a renewal a minute.
    let mut lab = leased(&["--dhcp-option=option:T1,8"]);
    let before = lab.addresses("e0")[0].0;
    lab.announcements.clear();
    let index = lab.server.json("link show dev s0")[0]["ifindex"]
        .as_u64()
        .unwrap() as u32;
    lab.server.inside(|| send_garbage(index));
    lab.log.clear();
    lab.wait("a renewal after it", SOON, |lab| {
        lab.log.count("for longer") >= 1
    });
    assert_eq!(lab.addresses("e0")[0].0, before);
    assert_eq!(lab.announcements.count("Deleted"), 0);
}

/// Thousands of packets, from noise to a NAK that is right but for its transaction.
fn send_garbage(index: u32) {
    let ip = PacketSocket::open(index, ETHERTYPE_IPV4, &[]).unwrap();
    let arp = PacketSocket::open(index, ETHERTYPE_ARP, &[]).unwrap();
    let mut random = keelson_network::dhcp4::random::Random::from_seed(7);
    for round in 0..3000_u32 {
        let mut noise: Vec<u8> = (0..random.next_u64() % 900)
            .map(|_| random.next_u64() as u8)
            .collect();
        let packet = match round % 4 {
            0 => noise,
            1 => reply(&noise),
            2 => {
                noise.splice(..0, message(6, round));
                reply(&noise)
            }
            _ => reply(&message(if round % 8 == 3 { 6 } else { 5 }, round)),
        };
        // A full queue drops some: there are enough.
        let _ = ip.send([0xff; 6], &packet);
        let _ = arp.send([0xff; 6], &packet);
    }
}

/// A UDP packet to the client's port.
fn reply(payload: &[u8]) -> Vec<u8> {
    let mut packet = keelson_network::dhcp4::datagram::build(
        [10, 77, 0, 1].into(),
        [255, 255, 255, 255].into(),
        payload,
    );
    packet[20..24].copy_from_slice(&[0, 67, 0, 68]); // the checksum stays right
    packet
}

/// A server's message of that kind to the service's interface, about an address of the attacker's.
fn message(kind: u8, xid: u32) -> Vec<u8> {
    let mut bytes = vec![0; 240];
    bytes[..3].copy_from_slice(&[2, 1, 6]);
    bytes[4..8].copy_from_slice(&xid.to_be_bytes());
    bytes[16..20].copy_from_slice(&[10, 77, 0, 66]);
    bytes[28..34].copy_from_slice(&[2, 0, 0x5e, 0x10, 0, 1]);
    bytes[236..].copy_from_slice(&[99, 130, 83, 99]);
    bytes.extend_from_slice(&[53, 1, kind, 54, 4, 10, 77, 0, 1, 51, 4, 0, 0, 14, 16, 255]);
    bytes
}
