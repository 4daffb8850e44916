//! DHCP servers and a router of other makes: Kea, ISC's dhcpd, radvd.

use std::fs;

use crate::support::{Lab, SOON};

const KEA_4: &str = r#"{"Dhcp4": {"interfaces-config": {"interfaces": ["s0"], "dhcp-socket-type": "raw"},
 "lease-database": {"type": "memfile", "persist": false}, "valid-lifetime": 30, "renew-timer": 3, "rebind-timer": 20,
 "subnet4": [{"id": 1, "subnet": "10.77.0.0/24", "pools": [{"pool": "10.77.0.60 - 10.77.0.70"}], "option-data": [
  {"name": "routers", "data": "10.77.0.1"}, {"name": "domain-name-servers", "data": "10.77.0.53"},
  {"name": "domain-search", "data": "sea.example"}, {"name": "classless-static-route", "data": "0.0.0.0/0 - 10.77.0.1, 198.51.100.0/24 - 10.77.0.2"}]}],
 "loggers": [{"name": "kea-dhcp4", "output-options": [{"output": "stdout"}], "severity": "INFO"}]}}"#;
const KEA_6: &str = r#"{"Dhcp6": {"interfaces-config": {"interfaces": ["s0"]},
 "server-id": {"type": "LL", "persist": false}, "lease-database": {"type": "memfile", "persist": false}, "preferred-lifetime": 25, "valid-lifetime": 30, "renew-timer": 3, "rebind-timer": 20,
 "subnet6": [{"id": 1, "subnet": "2001:db8:77::/64", "interface": "s0", "pools": [{"pool": "2001:db8:77::60 - 2001:db8:77::6f"}],
  "option-data": [{"name": "dns-servers", "data": "2001:db8:77::54"}]}],
 "loggers": [{"name": "kea-dhcp6", "output-options": [{"output": "stdout"}], "severity": "INFO"}]}}"#;
const ISC_4: &str = "authoritative; default-lease-time 30; max-lease-time 30; min-lease-time 30; option dhcp-renewal-time 3;
subnet 10.77.0.0 netmask 255.255.255.0 { range 10.77.0.80 10.77.0.90; option routers 10.77.0.1; option domain-name-servers 10.77.0.53;
 option domain-search \"sea.example\"; }\n";
const ISC_6: &str = "authoritative; default-lease-time 30; preferred-lifetime 25; option dhcp-renewal-time 3; option dhcp6.name-servers 2001:db8:77::54;
subnet6 2001:db8:77::/64 { range6 2001:db8:77::80 2001:db8:77::8f; }\n";
const RADVD: &str = "interface s0 { AdvSendAdvert on; MinRtrAdvInterval 3; MaxRtrAdvInterval 4; AdvManagedFlag on; AdvOtherConfigFlag on; AdvDefaultLifetime 60;
 prefix 2001:db8:77::/64 { AdvOnLink on; AdvAutonomous on; }; RDNSS 2001:db8:77::53 { }; DNSSL sea.example { }; };\n";

impl Lab {
    /// Writes a file for a program; gives its path.
    fn file(&self, name: &str, content: &str) -> String {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    }

    pub(crate) fn start_kea(&mut self, version: &str, config: &str) {
        // It listens where there is a carrier and an address when it starts, and nowhere else.
        let no_wait = "echo 0 >/proc/sys/net/ipv6/conf/s0/accept_dad";
        let done = self.server.command("sh").args(["-c", no_wait]).status();
        assert!(done.unwrap().success());
        self.client.ip("link set e0 up");
        let path = self.file("kea.conf", config);
        let program = format!("kea-dhcp{version}");
        let ready = format!("DHCP{version}_STARTED");
        self.start_peer(&program, &["-c", &path], &ready);
    }

    pub(crate) fn start_isc(&mut self, option: &str, config: &str) {
        let (path, leases) = (self.file("isc.conf", config), self.file("isc.leases", ""));
        let pid = self.path("isc.pid").to_str().unwrap().to_owned();
        let arguments = [
            option, "-f", "-d", "-cf", &path, "-lf", &leases, "-pf", &pid, "s0",
        ];
        self.start_peer("dhcpd", &arguments, "Server starting service");
    }

    pub(crate) fn start_radvd(&mut self) {
        let forward = "echo 1 >/proc/sys/net/ipv6/conf/all/forwarding";
        let done = self.server.command("sh").args(["-c", forward]).status();
        assert!(done.unwrap().success());
        let path = self.file("radvd.conf", RADVD);
        let pid = self.path("radvd.pid").to_str().unwrap().to_owned();
        let arguments = ["-n", "-d", "3", "-m", "stderr", "-C", &path, "-p", &pid];
        self.start_peer("radvd", &arguments, "radvd PID is");
    }
}

/// The service has a lease of version 4 from `first` on, uses all that came with it, and prolongs it.
fn lends(mut lab: Lab, first: &str) {
    lab.start_service();
    lab.wait("a lease", SOON, |lab| {
        lab.has_address("e0") && lab.read("run/resolv.conf").contains("10.77.0.53")
    });
    let address = lab.addresses("e0")[0].0.to_string();
    assert!(address.starts_with(first), "{address}");
    assert!(lab.read("run/resolv.conf").contains("search sea.example"));
    lab.wait("a route", SOON, |lab| {
        lab.routes().contains("default via 10.77.0.1")
    });
    lab.wait("the lease for longer", SOON, |lab| {
        lab.log.count("bound -> renewing") > 0 && lab.log.count("renewing -> bound") > 0
    });
}

#[test]
fn kea_lends_an_address_and_prolongs_it() {
    let mut lab = Lab::new();
    lab.start_kea("4", KEA_4);
    lends(lab, "10.77.0.6");
}

#[test]
fn iscs_server_lends_an_address_and_prolongs_it() {
    let mut lab = Lab::new();
    lab.start_isc("-4", ISC_4);
    lends(lab, "10.77.0.8");
}

#[test]
fn a_lease_goes_on_with_another_server_of_the_same_network() {
    let mut lab = Lab::new();
    lab.start_isc("-4", ISC_4);
    lab.start_service();
    lab.wait("a lease", SOON, |lab| lab.has_address("e0"));
    lab.stop_peers();
    // Kea does not know the address: it refuses it, and lends another.
    lab.start_kea(
        "4",
        &KEA_4.replace(
            "\"rebind-timer\"",
            "\"authoritative\": true, \"rebind-timer\"",
        ),
    );
    lab.client.ip("link set e0 down");
    lab.client.ip("link set e0 up");
    lab.wait("another lease", SOON, |lab| {
        let addresses = lab.addresses("e0");
        addresses.len() == 1 && addresses[0].0.to_string().starts_with("10.77.0.6")
    });
}

/// The service has a lease of version 6 from `first` on beside what the router says, and prolongs it.
fn lends_six(mut lab: Lab, first: &str) {
    lab.start_service();
    let six = |lab: &Lab| {
        lab.client
            .output("ip", &["-6", "addr", "show", "dev", "e0"])
    };
    lab.wait("an address", SOON, |lab| {
        let all = six(lab);
        all.contains(first) && all.contains("2001:db8:77::5eff:fe10:1/64")
    });
    lab.wait("name servers of both", SOON, |lab| {
        let text = lab.read("run/resolv.conf");
        let has = |part: &str| text.contains(part);
        has("2001:db8:77::53") && has("2001:db8:77::54") && has("sea.example")
    });
    lab.wait("a router", SOON, |lab| {
        lab.client
            .output("ip", &["-6", "route"])
            .contains("default via fe80:")
    });
    lab.wait("the lease for longer", SOON, |lab| {
        lab.log.count("bound -> renewing") > 0 && lab.log.count("renewing -> bound") > 0
    });
    assert!(six(&lab).contains(first));
}

#[test]
fn kea_lends_an_address_of_version_6_where_radvd_says_so() {
    let mut lab = Lab::new();
    lab.server.ip("addr add 2001:db8:77::1/64 dev s0 nodad");
    lab.start_kea("6", KEA_6);
    lab.start_radvd();
    lends_six(lab, "2001:db8:77::6");
}

#[test]
fn iscs_server_lends_an_address_of_version_6_where_radvd_says_so() {
    let mut lab = Lab::new();
    lab.server.ip("addr add 2001:db8:77::1/64 dev s0 nodad");
    lab.start_isc("-6", ISC_6);
    lab.start_radvd();
    lends_six(lab, "2001:db8:77::8");
}
