//! Parts of delegated prefixes on other links, and leases of DHCPv6, when links and configurations change.

use std::fs;

use crate::prefixes::{ISC, WISHES, addresses, is_unused, is_used, lab, lease_file, routes};
use crate::support::{Lab, Namespace, SOON};

#[test]
fn other_links_lose_their_parts_when_the_one_that_asks_does_not_any_more_or_is_gone() {
    let (mut lab, _hosts) = lab();
    // Both ways of asking, which end together.
    let wishes = WISHES.replace("e0}, dhcp6", "e0}, dhcp4: true, dhcp6");
    lab.declare(&wishes);
    lab.start_isc("-6", ISC);
    lab.start_service();
    let used = |lab: &Lab| is_used(lab, "2001:db8:fe00:");
    lab.wait("what comes of a prefix", SOON, used);
    let asks = "dhcp4: true, dhcp6: true, dhcp6-overrides: {request-prefix: 56}";
    lab.declare_in_part(&wishes.replace(asks, "mtu: 1400"));
    lab.wait("nothing of it is left", SOON, is_unused);
    lab.declare(&wishes);
    lab.wait("it is asked for again", SOON, used);
    // The configuration does not have the one that asks.
    let without = wishes.lines().filter(|line| !line.contains("  wan:"));
    lab.declare_in_part(&without.collect::<Vec<_>>().join("\n"));
    lab.wait("nothing of it is left again", SOON, is_unused);
    lab.declare(&wishes);
    lab.wait("it is asked for a third time", SOON, used);
    lab.client.ip("link del e0");
    lab.wait("nothing is left without the link", SOON, is_unused);
}

#[test]
fn interfaces_of_one_ethernet_address_have_leases_of_their_own_over_restarts() {
    let mut lab = Lab::new();
    // As a VLAN has the address of the interface that it is on.
    lab.client.join(&lab.server, "e1", "s1");
    lab.client.ip("link set e1 address 02:00:5e:10:00:01");
    lab.server.ip("link set s1 up");
    lab.server.ip("addr add 2001:db8:77::1/64 dev s0 nodad");
    lab.server.ip("addr add 2001:db8:78::1/64 dev s1 nodad");
    let options = [
        "--dhcp-range=2001:db8:77::50,2001:db8:77::5f,64,120",
        "--dhcp-range=2001:db8:78::50,2001:db8:78::5f,64,120",
        "--enable-ra",
    ];
    lab.declare("version: 2\nethernets:\n  one: {match: {name: e0}, dhcp6: true}\n  other: {match: {name: e1}, dhcp6: true}\n");
    lab.start_server(50, 50, &options);
    lab.start_service();
    let both = |lab: &Lab| {
        let [one, other] = ["e0", "e1"].map(|link| addresses(lab, link));
        one.contains("2001:db8:77::5")
            && other.contains("2001:db8:78::5")
            && one.contains("/128 scope")
            && other.contains("/128 scope")
    };
    let other_lease = "state/lease6-02-00-5e-10-00-01-e1.json";
    lab.wait("two leases", SOON, |lab| both(lab));
    lab.wait("both are kept", SOON, |lab| {
        lease_file(lab).exists() && lab.path(other_lease).exists()
    });
    lab.stop_service();
    lab.announcements.clear();
    lab.log.clear();
    lab.start_service();
    lab.wait("both are confirmed", SOON, |lab| {
        lab.log.count("e0: DHCPv6: confirming -> bound") == 1
            && lab.log.count("e1: DHCPv6: confirming -> bound") == 1
    });
    assert!(both(&lab));
    let gone = lab.announcements.all();
    let gone: Vec<_> = gone
        .iter()
        .filter(|line| line.contains("Deleted") && line.contains("/128"))
        .collect();
    assert!(gone.is_empty(), "{gone:?}");

    // Of what the machine has nothing, a server is asked before it is used.
    lab.stop_service();
    let flush = ["-6", "addr", "flush", "dev", "e1", "scope", "global"];
    lab.client.output("ip", &flush);
    lab.log.clear();
    lab.start_service();
    lab.wait("both again", SOON, |lab| both(lab));
    assert_eq!(lab.log.count("e0: starts with DHCPv6 from Adopted"), 1);
    assert_eq!(lab.log.count("e1: starts with DHCPv6 from Saved"), 1);
}

#[test]
fn one_network_is_one_links_and_another_ones_when_that_is_gone() {
    let (mut lab, _hosts) = lab();
    let both = "  lan: {match: {name: '*n*0'}, dhcp6-prefix";
    let shared = WISHES.replace("  lan: {match: {name: lan0}, dhcp6-prefix", both);
    let shared = shared.lines().filter(|line| !line.contains("  dmz:"));
    let shared = shared.collect::<Vec<_>>().join("\n");
    // Patterns are for cards.
    for name in ["lan0", "wlan0"] {
        fs::create_dir_all(lab.path(&format!("sys/{name}/device"))).unwrap();
    }
    let second = Namespace::new();
    lab.client.join(&second, "wlan0", "h0");
    second.ip("link set h0 up");
    lab.declare(&shared);
    lab.start_isc("-6", ISC);
    lab.start_service();
    lab.wait("the network on one link, and a complaint", SOON, |lab| {
        let all = ["lan0", "wlan0"].map(|link| addresses(lab, link).contains("5::53/64"));
        all == [true, false]
            && lab
                .log
                .count("wlan0: `lan` in the configuration fits lan0 as well, which has the network")
                == 1
    });
    lab.client.ip("link del lan0");
    lab.wait("the network on the other one", SOON, |lab| {
        addresses(lab, "wlan0").contains("5::53/64")
    });
}

#[test]
fn an_uplink_without_a_server_does_not_keep_routes_of_another_ones_prefixes() {
    let (mut lab, _hosts) = lab();
    let wan = "dhcp6: true, dhcp6-overrides: {request-prefix: 56}";
    lab.declare(&WISHES.replace(
        "name: dmz0}, dhcp6-prefix: {from: e0}",
        &format!("name: dmz0}}, {wan}"),
    ));
    lab.start_isc("-6", ISC);
    lab.start_service();
    lab.wait("what comes of a prefix", SOON, |lab| {
        addresses(lab, "lan0").contains("5::53/64") && routes(lab).contains("unreachable")
    });
    lab.declare_in_part(&WISHES.replace(wan, "mtu: 1400").replace(
        "name: dmz0}, dhcp6-prefix: {from: e0}",
        &format!("name: dmz0}}, {wan}"),
    ));
    lab.wait("nothing of it is left", SOON, is_unused);
}

#[test]
fn a_lease_that_is_had_while_the_one_before_is_given_back_stays_on_disk() {
    let (mut lab, _hosts) = lab();
    lab.start_isc("-6", ISC);
    lab.start_service();
    lab.wait("a lease on disk", SOON, |lab| lease_file(lab).exists());
    // Nobody hears that it is given back.
    lab.stop_peers();
    lab.declare_in_part(&WISHES.replace(
        "dhcp6: true, dhcp6-overrides: {request-prefix: 56}",
        "mtu: 1400",
    ));
    lab.wait("the lease is forgotten at once", SOON, |lab| {
        lab.log.count("bound -> releasing") == 1 && !lease_file(lab).exists()
    });
    assert_eq!(lab.log.count("releasing -> idle"), 0);
    // As the next client would write it.
    fs::write(lease_file(&lab), "kept").unwrap();
    lab.wait("the end of that", SOON, |lab| {
        lab.log.count("releasing -> idle") == 1
    });
    assert_eq!(fs::read_to_string(lease_file(&lab)).unwrap(), "kept");
}

#[test]
fn an_address_of_a_prefix_that_somebody_has_is_reported() {
    let (mut lab, hosts) = lab();
    // Whatever prefix it is: these are all of the server's.
    let all = (0..16).map(|number| format!("2001:db8:fe00:{number:x}05::53/64"));
    for address in all {
        hosts[0].ip(&format!("addr add {address} dev h0 nodad"));
    }
    lab.start_isc("-6", ISC);
    lab.start_service();
    lab.wait("the report", SOON, |lab| {
        lab.log.count("already, its part of a delegated prefix") == 1
    });
}
