//! Router advertisements and DHCPv6, from a real router and server.

use std::time::Duration;

use keelson_config::network::status::Status;

use crate::support::{Lab, SOON};

/// Addresses by DHCPv6 from 2001:db8:77::50 to ::5f, of two minutes; `flags` is what the router says of them.
fn options(flags: &str) -> Vec<String> {
    vec![
        format!("--dhcp-range=2001:db8:77::50,2001:db8:77::5f,{flags}64,120"),
        "--enable-ra".to_owned(),
        "--ra-param=s0,10,60".to_owned(),
        "--dhcp-option=option6:dns-server,[2001:db8:77::53]".to_owned(),
        "--dhcp-option=option6:domain-search,sea.example".to_owned(),
        "--dhcp-option=option6:ntp-server,[2001:db8:77::123]".to_owned(),
        "--dhcp-option=option6:58,4".to_owned(),
    ]
}

/// A network with that router, and the service in it.
fn lab(options: &[String]) -> Lab {
    let mut lab = Lab::new();
    lab.server.ip("addr add 2001:db8:77::1/64 dev s0 nodad");
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    lab.start_server(50, 50, &options);
    lab.start_service();
    lab
}

fn addresses(lab: &Lab) -> String {
    lab.client
        .output("ip", &["-6", "addr", "show", "dev", "e0"])
}

fn has_lease(lab: &Lab) -> bool {
    addresses(lab).contains("/128 scope global dynamic")
}

#[test]
fn an_address_name_servers_and_time_servers_are_had_by_dhcpv6() {
    let mut lab = lab(&options(""));
    lab.wait("an address", SOON, has_lease);
    lab.wait("name servers", SOON, |lab| {
        let text = lab.read("run/resolv.conf");
        text.contains("nameserver 2001:db8:77::53") && text.contains("sea.example")
    });
    lab.wait("time servers", SOON, |lab| {
        lab.read("run/ntp-servers").contains("2001:db8:77::123")
    });
    lab.wait("it is written down", SOON, |lab| {
        lab.read("run/addresses").contains("2001:db8:77::5")
    });

    lab.wait("word of it", SOON, |lab| {
        let status: Status = serde_json::from_str(&lab.read("run/status.json")).unwrap_or_default();
        status.links.iter().any(|link| !link.dhcp6.is_empty())
    });

    // A service that starts again asks again; nothing is taken away in between.
    lab.stop_service();
    assert!(has_lease(&lab));
    lab.announcements.clear();
    lab.start_service();
    lab.wait("a lease again", SOON, |lab| {
        lab.read("run/resolv.conf").contains("2001:db8:77::53")
    });
    assert!(has_lease(&lab));
    let gone = lab.announcements.all();
    assert!(
        !gone
            .iter()
            .any(|line| line.contains("Deleted") && line.contains("2001:db8:77::5")),
        "{gone:#?}"
    );
}

#[test]
fn a_lease_goes_with_its_end_when_the_server_is_gone() {
    let mut lab = lab(&options(""));
    lab.wait("an address", SOON, has_lease);
    lab.stop_server();
    lab.wait("any server is asked", Duration::from_secs(140), |lab| {
        lab.log.count("renewing -> rebinding") > 0
    });
    lab.wait("the end of the lease", Duration::from_secs(150), |lab| {
        !has_lease(lab)
    });
}

#[test]
fn what_a_router_says_of_other_settings_is_asked_for_without_an_address() {
    let mut lab = lab(&options("ra-stateless,"));
    lab.wait("name servers", SOON, |lab| {
        lab.log.count("-> informed") > 0 && lab.read("run/resolv.conf").contains("2001:db8:77::53")
    });
    lab.wait("the kernel's own address", SOON, |lab| {
        addresses(lab).contains("2001:db8:77::5eff:fe10:1/64")
    });
    assert!(!has_lease(&lab), "{}", addresses(&lab));
    assert_eq!(lab.log.count("soliciting"), 0);
}

#[test]
fn an_address_that_somebody_has_is_declined_and_another_is_used() {
    let mut lab = Lab::new();
    let _other = lab.add_host("2001:db8:77::50/64");
    lab.server.ip("addr add 2001:db8:77::1/64 dev sw0 nodad");
    let options = [
        "--dhcp-range=2001:db8:77::50,2001:db8:77::51,64,120",
        "--dhcp-host=02:00:5e:10:00:01,[2001:db8:77::50]",
        "--enable-ra",
    ];
    lab.start_server(50, 50, &options);
    lab.start_service();
    lab.wait("the refusal", SOON, |lab| {
        lab.log.count("somebody else uses 2001:db8:77::50 already") == 1
            && lab.server_log.count("DHCPDECLINE") >= 1
    });
    lab.wait("another address", SOON, |lab| {
        addresses(lab).contains("2001:db8:77::51")
    });
}

#[test]
fn name_servers_that_a_router_tells_hold_as_long_as_it_says() {
    let options = [
        "--dhcp-range=2001:db8:77::,ra-only,64,120",
        "--enable-ra",
        "--ra-param=s0,10,60",
        "--dhcp-option=option6:dns-server,[2001:db8:77::54]",
    ];
    let mut lab = lab(&options.map(str::to_owned));
    lab.wait("name servers", SOON, |lab| {
        lab.read("run/resolv.conf")
            .contains("nameserver 2001:db8:77::54")
    });
    assert_eq!(lab.log.count("DHCPv6"), 0, "nobody is asked");
    // A router that says farewell, or another thing.
    lab.stop_server();
    lab.start_server(
        50,
        50,
        &[
            "--dhcp-range=2001:db8:77::,ra-only,64,120",
            "--enable-ra",
            "--dhcp-option=option6:dns-server,[2001:db8:77::55]",
        ],
    );
    lab.wait("the other one", SOON, |lab| {
        lab.read("run/resolv.conf")
            .contains("nameserver 2001:db8:77::55")
    });
}
