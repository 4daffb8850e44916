//! Leases from a real DHCP server: had, renewed, lost, refused, and what the machine looks like then.

use std::time::Duration;

use keelson_config::network::status::Status;

use crate::support::{Lab, SOON, lease_file};

/// T1 and T2 of two and four seconds.
const QUICK: [&str; 2] = ["--dhcp-option=option:T1,2", "--dhcp-option=option:T2,4"];

/// A service with a lease from a server with these options.
fn leased(options: &[&str]) -> Lab {
    let mut lab = Lab::new();
    let mut options = options.to_vec();
    if !options.iter().any(|option| option.contains("dns-server")) {
        options.push("--dhcp-option=option:dns-server,10.77.0.1");
    }
    lab.start_server(50, 50, &options);
    lab.start_service();
    lab.wait("a lease", SOON, |lab| {
        lab.has_address("e0") && lab.read("run/resolv.conf").contains("nameserver")
    });
    lab
}

#[test]
fn a_lease_gives_address_routes_mtu_names_and_time_servers() {
    let mut lab = leased(&[
        "--dhcp-option=option:dns-server,10.77.0.1,9.9.9.9",
        "--domain=lab.example",
        "--dhcp-option=option:domain-search,lab.example,other.example",
        "--dhcp-option=option:ntp-server,10.77.0.1",
        "--dhcp-option=option:mtu,1400",
        "--dhcp-option=option:classless-static-route,0.0.0.0/0,10.77.0.9,172.20.0.0/14,10.77.0.8",
        "--dhcp-host=02:00:5e:10:00:01,node-7",
    ]);
    let [(address, valid_s)] = lab.addresses("e0")[..] else {
        panic!("one address")
    };
    assert_eq!(address.octets(), [10, 77, 0, 50]);
    assert!(
        (60..=120).contains(&valid_s),
        "the kernel would remove it by itself: {valid_s}"
    );
    lab.wait("routes", SOON, |lab| lab.routes().contains("172.20.0.0/14"));
    lab.wait("word of the lease", SOON, |lab| {
        let status: Status = serde_json::from_str(&lab.read("run/status.json")).unwrap_or_default();
        let lease = status.links.iter().find_map(|link| link.lease.as_ref());
        lease.is_some_and(|lease| {
            lease.address.to_string() == "10.77.0.50/24"
                && lease.routers == [std::net::Ipv4Addr::new(10, 77, 0, 9)]
                && lease.ends_at_s.is_some()
        })
    });
    let index = lab.client.json("link show dev e0")[0]["ifindex"]
        .as_u64()
        .unwrap();
    let metric = 1000 + index;
    let routes = lab.routes();
    for route in [
        format!("default via 10.77.0.9 dev e0 proto dhcp src 10.77.0.50 metric {metric} onlink"),
        format!(
            "172.20.0.0/14 via 10.77.0.8 dev e0 proto dhcp src 10.77.0.50 metric {metric} onlink"
        ),
        format!("10.77.0.0/24 dev e0 proto kernel scope link src 10.77.0.50 metric {metric}"),
    ] {
        assert!(
            routes.lines().any(|line| line.trim() == route),
            "{route}\nis not in\n{routes}"
        );
    }
    assert_eq!(lab.client.json("link show dev e0")[0]["mtu"], 1400);
    let resolv_conf = lab.read("run/resolv.conf");
    assert!(
        resolv_conf.ends_with(
            "search lab.example other.example\nnameserver 10.77.0.1\nnameserver 9.9.9.9\n"
        )
    );
    assert_eq!(lab.read("run/ntp-servers"), "10.77.0.1\n");
    assert_eq!(
        lab.read("run/chrony/dhcp.sources"),
        "server 10.77.0.1 iburst\n"
    );
    lab.wait("the name", SOON, |lab| {
        lab.notifications.count("X_KEELSON_HOSTNAME=node-7") == 1
    });
    let lease = std::fs::read_to_string(lease_file(&lab)).unwrap();
    assert!(lease.contains("\"10.77.0.50\""), "{lease}");
}

#[test]
fn the_service_is_ready_without_a_server_and_finds_one_that_comes_later() {
    let mut lab = Lab::new();
    lab.start_service();
    assert!(
        lab.read("run/resolv.conf").starts_with('#'),
        "resolv.conf exists from the start"
    );
    assert!(!lab.has_address("e0"));
    lab.wait("it asks", SOON, |lab| lab.log.count("kind: Discover") > 0);
    lab.start_server(50, 50, &[]);
    lab.wait("a lease", SOON, |lab| lab.has_address("e0"));
}

#[test]
fn a_lease_is_renewed_at_t1_without_a_gap() {
    let mut lab = leased(&QUICK);
    lab.announcements.clear();
    lab.server_log.clear();
    lab.wait("two renewals", SOON, |lab| lab.log.count("for longer") >= 2);
    assert_eq!(
        lab.log.count("renewing -> rebinding"),
        0,
        "its own server answered"
    );
    assert_eq!(lab.server_log.count("DHCPDISCOVER"), 0);
    assert_eq!(
        lab.announcements.count("Deleted"),
        0,
        "nothing was taken away in between"
    );
}

#[test]
fn a_refusal_removes_the_address_and_another_is_had() {
    let mut lab = leased(&QUICK);
    lab.stop_server();
    lab.forget_server_leases();
    lab.start_server(80, 80, &[]);
    lab.wait("another address", SOON, |lab| {
        matches!(lab.addresses("e0")[..], [(address, _)] if address.octets() == [10, 77, 0, 80])
    });
    assert!(lab.server_log.count("DHCPNAK") > 0);
    assert!(lab.log.count("refused the address") > 0);
    lab.wait("its routes", SOON, |lab| {
        lab.routes().contains("default via 10.77.0.1") && !lab.routes().contains("10.77.0.50")
    });
}

#[test]
fn without_its_server_a_lease_is_rebound_and_at_its_end_the_address_goes() {
    let mut lab = leased(&QUICK);
    lab.stop_server();
    lab.wait("any server is asked", SOON, |lab| {
        lab.log.count("renewing -> rebinding") == 1
    });
    assert!(lab.has_address("e0"), "a lease that is not over holds");
    lab.wait("the end of the lease", Duration::from_secs(150), |lab| {
        !lab.has_address("e0")
    });
    lab.wait("name servers are gone", SOON, |lab| {
        !lab.read("run/resolv.conf").contains("nameserver")
    });
    assert!(!lab.routes().contains("10.77.0"), "{}", lab.routes());
    lab.start_server(50, 50, &[]);
    lab.wait(
        "a lease from the server that is back",
        Duration::from_secs(90),
        |lab| lab.has_address("e0"),
    );
}

#[test]
fn an_address_that_somebody_has_is_declined_and_another_is_used() {
    let mut lab = Lab::new();
    let _other = lab.add_host("10.77.0.51/24");
    lab.start_server(51, 51, &[]);
    lab.start_service();
    lab.wait("the refusal", SOON, |lab| {
        lab.server_log.count("DHCPDECLINE") == 1
    });
    assert!(!lab.has_address("e0"));
    assert!(lab.log.count("somebody else uses 10.77.0.51 already") == 1);
    lab.stop_server();
    lab.start_server(52, 52, &[]);
    lab.wait("another address", SOON, |lab| {
        matches!(lab.addresses("e0")[..], [(address, _)] if address.octets() == [10, 77, 0, 52])
    });
}

#[test]
fn a_restarted_service_takes_up_its_lease_and_a_rebooted_machine_asks_for_it() {
    let mut lab = leased(&[]);
    lab.server_log.clear();
    lab.stop_service();
    assert!(
        lab.has_address("e0"),
        "addresses stay when the service ends"
    );
    lab.announcements.clear();
    lab.start_service();
    assert!(
        lab.read("run/resolv.conf").contains("nameserver"),
        "known at once, before any answer"
    );
    lab.wait("the server confirms", SOON, |lab| {
        lab.log.count("rebooting -> bound") == 1
    });
    assert_eq!(
        lab.announcements.count("Deleted"),
        0,
        "nothing was taken away in between"
    );

    lab.stop_service();
    lab.client.ip("addr flush dev e0");
    lab.client.ip("link set e0 down");
    lab.start_service();
    lab.wait("the address is back", SOON, |lab| lab.has_address("e0"));
    assert_eq!(lab.log.count("rebooting -> probing"), 1);
    assert_eq!(
        lab.server_log.count("DHCPDISCOVER"),
        0,
        "it asks for its own address only"
    );
    assert!(
        !lab.server_log
            .all()
            .iter()
            .any(|line| line.contains("DHCPRELEASE"))
    );
}

#[test]
fn a_damaged_lease_file_is_reported_and_does_not_matter() {
    let mut lab = leased(&[]);
    lab.stop_service();
    std::fs::write(lease_file(&lab), "{\"lease\": noise").unwrap();
    lab.client.ip("addr flush dev e0");
    lab.start_service();
    lab.wait("a lease", SOON, |lab| lab.has_address("e0"));
    assert_eq!(lab.log.count("warning: e0: ignored the lease in"), 1);
}

#[test]
fn the_mtu_of_a_lease_goes_with_it_and_one_set_by_hand_stays() {
    let mut lab = leased(&["--dhcp-option=option:mtu,1400", QUICK[0], QUICK[1]]);
    let mtu = |lab: &Lab| lab.client.json("link show dev e0")[0]["mtu"].as_u64();
    lab.wait("the lease's MTU", SOON, |lab| mtu(lab) == Some(1400));
    lab.stop_server();
    lab.start_server(50, 50, &QUICK);
    lab.wait("the former MTU", SOON, |lab| mtu(lab) == Some(1500));
    lab.client.ip("link set e0 mtu 1300");
    let renewals = lab.log.count("for longer");
    lab.wait("a renewal", SOON, |lab| {
        lab.log.count("for longer") > renewals
    });
    assert_eq!(mtu(&lab), Some(1300));
}
