//! Prefixes from real servers, put on other links; leases of DHCPv6 over restarts.

use std::fs;
use std::time::Duration;

use keelson_config::network::status::Status;

use crate::support::{Lab, Namespace, SOON};

/// Leases of thirty seconds, renewed after three; prefixes of 56 bits from 2001:db8:ff00::/40.
const KEA: &str = r#"{"Dhcp6": {"interfaces-config": {"interfaces": ["s0"]},
 "server-id": {"type": "LL", "persist": false}, "lease-database": {"type": "memfile", "persist": false}, "preferred-lifetime": 25, "valid-lifetime": 30, "renew-timer": 3, "rebind-timer": 20,
 "subnet6": [{"id": 1, "subnet": "2001:db8:77::/64", "interface": "s0", "pools": [{"pool": "2001:db8:77::60 - 2001:db8:77::6f"}],
  "pd-pools": [{"prefix": "2001:db8:ff00::", "prefix-len": 40, "delegated-len": 56}],
  "option-data": [{"name": "dns-servers", "data": "2001:db8:77::54"}]}],
 "loggers": [{"name": "kea-dhcp6", "output-options": [{"output": "stdout"}], "severity": "INFO"}]}}"#;
/// The same of two minutes and from 2001:db8:fe00::/48, by ISC's server, which says what it is asked.
pub(crate) const ISC: &str = "authoritative; default-lease-time 120; preferred-lifetime 100;
subnet6 2001:db8:77::/64 { range6 2001:db8:77::80 2001:db8:77::8f; prefix6 2001:db8:fe00:: 2001:db8:fe00:f00:: /56; }\n";
pub(crate) const WISHES: &str = "version: 2\nethernets:\n  wan: {match: {name: e0}, dhcp6: true, dhcp6-overrides: {request-prefix: 56}}\n  lan: {match: {name: lan0}, dhcp6-prefix: {from: wan, subnet-id: 5, token: '::53'}}\n  dmz: {match: {name: dmz0}, dhcp6-prefix: {from: e0}}\n";

/// A network with a server, and two links behind the service.
pub(crate) fn lab() -> (Lab, [Namespace; 2]) {
    let lab = Lab::new();
    lab.server.ip("addr add 2001:db8:77::1/64 dev s0 nodad");
    let hosts = [Namespace::new(), Namespace::new()];
    for (host, link) in hosts.iter().zip(["lan0", "dmz0"]) {
        lab.client.join(host, link, "h0");
        host.ip("link set h0 up");
    }
    lab.declare(WISHES);
    (lab, hosts)
}

pub(crate) fn addresses(lab: &Lab, link: &str) -> String {
    let show = ["-6", "-o", "addr", "show", "dev", link, "scope", "global"];
    lab.client.output("ip", &show)
}

pub(crate) fn routes(lab: &Lab) -> String {
    lab.client.output("ip", &["-6", "route"])
}

/// Everything that comes of a prefix from `start` is there.
pub(crate) fn is_used(lab: &Lab, start: &str) -> bool {
    let dmz = addresses(lab, "dmz0");
    addresses(lab, "lan0").contains("5::53/64")
        && dmz.contains(start)
        && dmz.contains("::1/64")
        && routes(lab).contains(&format!("unreachable {start}"))
}

pub(crate) fn is_unused(lab: &Lab) -> bool {
    addresses(lab, "lan0").is_empty()
        && addresses(lab, "dmz0").is_empty()
        && !routes(lab).contains("unreachable")
}

pub(crate) fn lease_file(lab: &Lab) -> std::path::PathBuf {
    lab.path("state/lease6-02-00-5e-10-00-01-e0.json")
}

/// As after a reboot: nothing of the service's is left, and the clock that the lease's times are on is another one.
fn reboot(lab: &mut Lab) {
    lab.stop_service();
    for link in ["e0", "lan0", "dmz0"] {
        let flush = ["-6", "addr", "flush", "dev", link, "scope", "global"];
        let _ = lab.client.command("ip").args(flush).status(); // not every laboratory has all links
    }
    let flush = ["-6", "route", "flush", "type", "unreachable"];
    lab.client.output("ip", &flush);
    let text = fs::read_to_string(lease_file(lab)).unwrap();
    let boot = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    assert!(text.contains(boot.trim()), "{text}");
    fs::write(lease_file(lab), text.replace(boot.trim(), "earlier")).unwrap();
}

#[test]
fn a_prefix_is_had_used_on_other_links_renewed_and_gone_with_its_end() {
    let (mut lab, _hosts) = lab();
    lab.start_kea("6", KEA);
    lab.start_service();
    lab.wait("what comes of a prefix", SOON, |lab| {
        is_used(lab, "2001:db8:ff")
    });
    lab.wait("word of it", SOON, |lab| {
        let status: Status = serde_json::from_str(&lab.read("run/status.json")).unwrap_or_default();
        let of = |name: &str| status.links.iter().find(|link| link.name == name);
        let (Some(wan), Some(lan)) = (of("e0"), of("lan0")) else {
            return false;
        };
        let [prefix] = &wan.prefixes[..] else {
            return false;
        };
        let [part] = &lan.delegated[..] else {
            return false;
        };
        let is_in = prefix.prefix.contains(part.address.address);
        is_in && prefix.prefix.prefix == 56 && prefix.ends_at_s.is_some() && part.from == "e0"
    });
    // What of it is on no link is nowhere.
    let text = routes(&lab);
    let route = text.lines().find(|line| line.starts_with("unreachable"));
    let route = route.unwrap();
    assert!(route.contains("proto dhcp"), "{route}");
    let prefix = route.split([' ', '/']).nth(1).unwrap().to_owned();
    let bits = prefix.parse::<std::net::Ipv6Addr>().unwrap().to_bits();
    let elsewhere = std::net::Ipv6Addr::from_bits(bits | 0xff << 64 | 1).to_string();
    let way = lab
        .client
        .command("ip")
        .args(["-6", "route", "get", &elsewhere])
        .output();
    let said = String::from_utf8(way.unwrap().stderr).unwrap();
    assert!(said.contains("No route to host"), "{elsewhere}: {said}");
    // The kernel ends the address by itself.
    assert!(addresses(&lab, "lan0").contains(" dynamic "));

    lab.announcements.clear();
    let renewals = lab.log.count("renewing -> bound");
    lab.wait("two renewals", SOON, |lab| {
        lab.log.count("renewing -> bound") >= renewals + 2
    });
    assert!(is_used(&lab, &prefix));
    assert_eq!(lab.announcements.count("Deleted"), 0);
    assert!(
        lab.server_log.count("DHCP6_PD_LEASE_RENEW") > 0 || lab.server_log.count("PD_LEASE") > 1
    );

    lab.stop_peers();
    lab.wait("the end of the prefix", Duration::from_secs(60), is_unused);
    lab.wait("the lease is forgotten", SOON, |lab| {
        !lease_file(lab).exists()
    });
    lab.start_kea("6", KEA);
    lab.wait("a prefix again", Duration::from_secs(90), |lab| {
        is_used(lab, "2001:db8:ff")
    });
}

#[test]
fn a_prefix_is_rebound_after_restart_and_reboot_and_the_same_is_had() {
    let (mut lab, _hosts) = lab();
    lab.start_isc("-6", ISC);
    lab.start_service();
    lab.wait("what comes of a prefix", SOON, |lab| {
        is_used(lab, "2001:db8:fe00:")
    });
    let before = (addresses(&lab, "lan0"), routes(&lab));
    let address = before.0.split_whitespace().nth(3).unwrap().to_owned();
    lab.wait("the lease is kept", SOON, |lab| lease_file(lab).exists());

    lab.stop_service();
    assert!(
        is_used(&lab, "2001:db8:fe00:"),
        "it stays when the service ends"
    );
    lab.announcements.clear();
    lab.start_service();
    lab.wait("any server is asked", SOON, |lab| {
        lab.server_log.count("Rebind message from") == 1 && lab.log.count("rebinding -> bound") == 1
    });
    assert_eq!(lab.announcements.count("Deleted"), 0);
    assert!(addresses(&lab, "lan0").contains(&address));

    reboot(&mut lab);
    assert!(is_unused(&lab));
    lab.start_service();
    lab.wait("the same as before", SOON, |lab| {
        is_used(lab, "2001:db8:fe00:") && addresses(lab, "lan0").contains(&address)
    });
    assert_eq!(lab.server_log.count("Rebind message from"), 2);
    assert_eq!(lab.server_log.count("Solicit message from"), 1);
    assert_eq!(lab.server_log.count("Release message from"), 0);
}

#[test]
fn what_is_wanted_no_more_is_given_back() {
    let (mut lab, _hosts) = lab();
    lab.start_isc("-6", ISC);
    lab.start_service();
    lab.wait("what comes of a prefix", SOON, |lab| {
        is_used(lab, "2001:db8:fe00:")
    });
    lab.declare(
        &WISHES
            .replace(", dhcp6-overrides: {request-prefix: 56}", "")
            .replace("dhcp6-prefix: {from: e0}", "mtu: 1400")
            .replace(
                "dhcp6-prefix: {from: wan, subnet-id: 5, token: '::53'}",
                "mtu: 1400",
            ),
    );
    lab.wait("the prefix is given back", SOON, |lab| {
        is_unused(lab) && lab.server_log.count("Release message from") == 1
    });
    let has_address = |lab: &Lab| addresses(lab, "e0").contains("2001:db8:77::8");
    assert!(has_address(&lab), "the address stays");
    lab.declare("version: 2\nethernets: {wan: {match: {name: e0}, addresses: [10.77.0.20/24]}}\n");
    lab.wait("the address is given back", SOON, |lab| {
        !has_address(lab) && lab.server_log.count("Release message from") == 2
    });
    lab.wait("the lease is forgotten", SOON, |lab| {
        !lease_file(lab).exists()
    });
}

#[test]
fn a_prefix_with_too_few_networks_is_complained_of() {
    let (mut lab, _hosts) = lab();
    lab.declare(&WISHES.replace("subnet-id: 5", "subnet-id: 256"));
    lab.start_isc("-6", ISC);
    lab.start_service();
    lab.wait("the complaint", SOON, |lab| {
        lab.log.count("has no network 256: no address comes of it") == 1
    });
    lab.wait("the other link's part", SOON, |lab| {
        addresses(lab, "dmz0").contains("2001:db8:fe00:")
    });
    assert_eq!(addresses(&lab, "lan0"), "");
}

#[test]
fn addresses_are_confirmed_when_the_link_is_back_after_a_restart_and_after_a_reboot() {
    let mut lab = Lab::new();
    lab.server.ip("addr add 2001:db8:77::1/64 dev s0 nodad");
    let options = [
        "--dhcp-range=2001:db8:77::50,2001:db8:77::5f,64,120",
        "--enable-ra",
        "--dhcp-option=option6:dns-server,[2001:db8:77::53]",
    ];
    lab.start_server(50, 50, &options);
    lab.start_service();
    let has_lease = |lab: &Lab| addresses(lab, "e0").contains("/128 scope global dynamic");
    let knows_servers = |lab: &Lab| lab.read("run/resolv.conf").contains("2001:db8:77::53");
    lab.wait("a lease", SOON, |lab| has_lease(lab) && knows_servers(lab));
    lab.wait("the lease is kept", SOON, |lab| lease_file(lab).exists());

    lab.server.ip("link set s0 down");
    lab.wait("the link is away", SOON, |lab| {
        lab.log.count("e0: lost its carrier") == 1
    });
    lab.server.ip("link set s0 up");
    lab.server.ip("addr replace 2001:db8:77::1/64 dev s0 nodad");
    lab.wait("a Confirm", SOON, |lab| {
        lab.server_log.count("DHCPCONFIRM") >= 1 && lab.log.count("confirming -> bound") == 1
    });

    lab.stop_service();
    lab.announcements.clear();
    lab.server_log.clear();
    lab.start_service();
    lab.wait("a Confirm after the restart", SOON, |lab| {
        lab.server_log.count("DHCPCONFIRM") >= 1 && lab.log.count("confirming -> bound") == 2
    });
    assert!(has_lease(&lab) && knows_servers(&lab));
    let gone = lab.announcements.all();
    let gone = gone
        .iter()
        .any(|line| line.contains("Deleted") && line.contains("/128"));
    assert!(!gone, "nothing was taken away in between");

    reboot(&mut lab);
    lab.server_log.clear();
    lab.log.clear();
    lab.start_service();
    lab.wait("the address again", SOON, has_lease);
    lab.wait("and it is renewed at once", SOON, |lab| {
        lab.log.count("renewing -> bound") == 1
    });
    for (word, count) in [("DHCPCONFIRM", 1), ("DHCPRENEW", 1), ("DHCPSOLICIT", 0)] {
        assert_eq!(lab.server_log.count(word).min(1), count, "{word}");
    }
    // A server of another network says so.
    lab.stop_service();
    lab.stop_server();
    lab.forget_server_leases();
    lab.server.ip("addr flush dev s0 scope global");
    lab.server.ip("addr add 2001:db8:78::1/64 dev s0 nodad");
    let other = [
        "--dhcp-range=2001:db8:78::50,2001:db8:78::5f,64,120",
        "--enable-ra",
    ];
    lab.start_server(50, 50, &other);
    lab.start_service();
    lab.wait("an address of that network alone", SOON, |lab| {
        let all = addresses(lab, "e0");
        all.contains("2001:db8:78::5") && !all.contains("2001:db8:77::5")
    });
}

#[test]
fn a_damaged_lease_of_dhcpv6_is_reported_and_does_not_matter() {
    let (mut lab, _hosts) = lab();
    fs::write(lease_file(&lab), "{\"identity\": noise").unwrap();
    lab.start_isc("-6", ISC);
    lab.start_service();
    lab.wait("what comes of a prefix", SOON, |lab| {
        is_used(lab, "2001:db8:fe00:")
    });
    assert_eq!(lab.log.count("warning: e0: ignored the lease in"), 1);
}
