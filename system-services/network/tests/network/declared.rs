//! What a configuration declares, on a real interface.

use std::fs;

use keelson_config::network;
use keelson_config::network::status::Status;
use keelson_config::network::trial::{TRIAL_FILE, Trial};
use keelson_config::{Diagnostics, yaml};

use crate::support::{Lab, SOON};

impl Lab {
    /// Has the service find this network-config: whole or not at all, as first-boot writes it.
    pub(crate) fn declare(&self, text: &str) {
        let diagnostics = self.declare_in_part(text);
        assert_eq!(diagnostics.into_sorted(), []);
    }

    /// The same with what there is to say of it.
    pub(crate) fn declare_in_part(&self, text: &str) -> Diagnostics {
        let mut diagnostics = Diagnostics::new("network-config");
        let root = yaml::parse(text).unwrap().root;
        let network = network::parse(&root, &mut diagnostics).unwrap();
        let path = self.path("state/config.json");
        fs::write(
            self.path("state/new"),
            serde_json::to_vec(&network).unwrap(),
        )
        .unwrap();
        fs::rename(self.path("state/new"), path).unwrap();
        diagnostics
    }

    fn all_addresses(&self) -> String {
        self.client
            .output("ip", &["-br", "addr", "show", "dev", "e0"])
    }
}

const STATIC: &str = "version: 2\nethernets:\n  lan:\n    match: {macaddress: '02:00:5e:10:00:01'}\n    addresses: [10.77.0.20/24, '2001:db8:77::20/64']\n    mtu: 1400\n    accept-ra: no\n\
    \x20   routes: [{to: default, via: 10.77.0.1, metric: 50}, {to: 198.51.100.0/24, via: 10.77.0.1, table: 70}, {to: '::/0', via: '2001:db8:77::1'}]\n\
    \x20   routing-policy: [{from: 10.77.0.0/24, table: 70, priority: 77}]\n    nameservers: {addresses: [10.77.0.53], search: [sea.example]}\n";

#[test]
fn a_static_configuration_is_what_the_kernel_has() {
    let mut lab = Lab::new();
    lab.declare(STATIC);
    lab.start_service();
    lab.wait("the addresses", SOON, |lab| {
        let addresses = lab.all_addresses();
        addresses.contains("10.77.0.20/24") && addresses.contains("2001:db8:77::20/64")
    });
    lab.wait("the routes", SOON, |lab| {
        lab.routes()
            .contains("default via 10.77.0.1 dev e0 proto 75 metric 50")
    });
    let table = lab.client.output("ip", &["route", "show", "table", "70"]);
    assert!(table.contains("198.51.100.0/24 via 10.77.0.1"), "{table}");
    let sixth = lab.client.output("ip", &["-6", "route"]);
    assert!(sixth.contains("default via 2001:db8:77::1"), "{sixth}");
    let rules = lab.client.output("ip", &["rule"]);
    assert!(
        rules.contains("77:\tfrom 10.77.0.0/24 lookup 70"),
        "{rules}"
    );
    assert!(lab.client.ip("link show dev e0").contains("mtu 1400"));
    assert_eq!(
        lab.client
            .output("cat", &["/proc/sys/net/ipv6/conf/e0/accept_ra"]),
        "0\n"
    );
    let resolver = lab.read("run/resolv.conf");
    assert!(
        resolver.contains("search sea.example\nnameserver 10.77.0.53\n"),
        "{resolver}"
    );
    assert!(lab.read("run/addresses").starts_with("10.77.0.20\n"));
    assert_eq!(lab.log.count("asks for an address by DHCP"), 0);

    // Taken away by others, it comes back; changed, what was there before goes.
    lab.client.ip("addr del 10.77.0.20/24 dev e0");
    lab.wait("the address again", SOON, |lab| {
        lab.all_addresses().contains("10.77.0.20/24") && lab.routes().contains("default via")
    });
    lab.declare("version: 2\nethernets: {lan: {match: {name: e0}, addresses: [10.77.0.21/24]}}\n");
    lab.wait("the other address alone", SOON, |lab| {
        let addresses = lab.all_addresses();
        addresses.contains("10.77.0.21/24")
            && !addresses.contains("10.77.0.20")
            && !addresses.contains("2001:db8")
    });
    assert!(!lab.routes().contains("default"), "{}", lab.routes());
    lab.wait("no rule", SOON, |lab| {
        !lab.client.output("ip", &["rule"]).contains("lookup 70")
    });
    lab.stop_service();
    // A service that comes back knows what is its own.
    fs::remove_file(lab.path("state/config.json")).unwrap();
    lab.start_service();
    lab.wait("nothing declared", SOON, |lab| {
        !lab.all_addresses().contains("10.77.0.21")
    });
}

#[test]
fn static_addresses_and_dhcp_follow_the_configuration_while_it_runs() {
    let mut lab = Lab::new();
    lab.start_server(50, 60, &[]);
    lab.start_service();
    lab.wait("a lease", SOON, |lab| lab.has_address("e0"));
    lab.declare("version: 1\nconfig:\n- type: physical\n  name: e0\n  subnets: [{type: static, address: 10.77.0.9/24, gateway: 10.77.0.1}]\n");
    lab.wait("the static address alone", SOON, |lab| {
        let addresses = lab.addresses("e0");
        addresses.len() == 1 && addresses[0].0.to_string() == "10.77.0.9"
    });
    lab.wait("the lease given back", SOON, |lab| {
        lab.server_log.count("DHCPRELEASE(s0) 10.77.0.5") == 1
    });
    assert!(lab.routes().contains("default via 10.77.0.1"));
    lab.declare("version: 2\nethernets: {e0: {dhcp4: true, addresses: [10.77.0.9/24], dhcp4-overrides: {use-dns: no, route-metric: 7}}}\n");
    lab.wait("both", SOON, |lab| lab.addresses("e0").len() == 2);
    lab.wait("the metric", SOON, |lab| lab.routes().contains("metric 7"));
    assert!(
        !lab.read("run/resolv.conf").contains("nameserver"),
        "{}",
        lab.read("run/resolv.conf")
    );
}

#[test]
fn a_configuration_that_cannot_be_read_leaves_dhcp() {
    let mut lab = Lab::new();
    lab.start_server(50, 60, &[]);
    fs::write(lab.path("state/config.json"), "{").unwrap();
    lab.start_service();
    lab.wait("a lease", SOON, |lab| lab.has_address("e0"));
    assert_eq!(lab.log.count("config.json: EOF"), 1);
}

#[test]
fn an_interface_gets_its_name_and_its_hardware_address() {
    let mut lab = Lab::new();
    fs::create_dir_all(lab.path("sys/harbour0/device")).unwrap();
    lab.declare("version: 2\nethernets: {lan: {match: {macaddress: '02:00:5e:10:00:01'}, set-name: harbour0, addresses: [10.77.0.20/24]}}\n");
    lab.start_service();
    lab.wait("the name", SOON, |lab| {
        lab.client
            .output("ip", &["-br", "addr"])
            .lines()
            .any(|line| line.starts_with("harbour0") && line.contains("10.77.0.20/24"))
    });
}

#[test]
fn what_is_made_goes_when_it_is_no_longer_declared() {
    let mut lab = Lab::new();
    let with = |members: &str, parameters: &str| {
        format!(
            "version: 2\nethernets: {{e0: {{accept-ra: no}}}}\nbridges: {{sw: {{interfaces: [{members}], addresses: [10.77.0.30/24], parameters: {{{parameters}}}}}}}\n"
        )
    };
    lab.declare(&with("e0", "stp: false"));
    lab.start_service();
    let is_part = |lab: &Lab| lab.client.ip("link show dev e0").contains("master sw");
    lab.wait("the bridge with its port", SOON, |lab| {
        is_part(lab)
            && lab
                .client
                .output("ip", &["-br", "addr"])
                .contains("10.77.0.30/24")
    });
    // A port that is no longer one goes on alone, and comes back.
    lab.declare(&with("", "stp: false"));
    lab.wait("the port let go", SOON, |lab| !is_part(lab));
    lab.declare(&with("e0", "stp: false"));
    lab.wait("the port again", SOON, is_part);
    // Another bridge of that name is made anew.
    let index = |lab: &Lab| lab.client.json("link show dev sw")[0]["ifindex"].as_u64();
    let first = index(&lab);
    lab.declare(&with("e0", "stp: true"));
    lab.wait("another bridge", SOON, |lab| {
        let links = lab.client.output("ip", &["-br", "link"]);
        links.contains("sw ") && is_part(lab) && index(lab) != first
    });
    // Taken away by others, it comes back; no longer declared, it goes, and the port is up.
    lab.client.ip("link del sw");
    lab.wait("the bridge again", SOON, |lab| {
        lab.client.output("ip", &["-br", "link"]).contains("sw ") && is_part(lab)
    });
    lab.declare("version: 2\nethernets: {e0: {addresses: [10.77.0.31/24]}}\n");
    lab.wait("no bridge", SOON, |lab| {
        !lab.client.output("ip", &["-br", "link"]).contains("sw ")
            && lab.all_addresses().contains("10.77.0.31/24")
            && lab.client.ip("link show dev e0").contains(",UP")
    });
}

#[test]
fn routes_to_one_network_stand_beside_each_other_and_change_with_what_is_said_of_them() {
    let mut lab = Lab::new();
    let two = |first: &str, more: &str| {
        format!(
            "version: 2\nethernets: {{e0: {{addresses: [10.77.0.20/24, '2001:db8:77::20/64'], routes: [{{to: default, via: 10.77.0.1{first}}}, {{to: default, via: 10.77.0.2}}, \
             {{to: '::/0', via: '2001:db8:77::1', metric: 0}}, {{to: '::/0', via: '2001:db8:77::2'}}{more}]}}}}\n"
        )
    };
    lab.declare(&two("", ", {to: 192.0.2.0/24, type: blackhole}"));
    lab.start_service();
    let has_both = |lab: &Lab| {
        let sixth = lab.client.output("ip", &["-6", "route"]);
        let routes = lab.routes();
        routes.contains("via 10.77.0.1 ")
            && routes.contains("via 10.77.0.2 ")
            && sixth.contains("via 2001:db8:77::1 ")
            && sixth.contains("via 2001:db8:77::2 ")
    };
    lab.wait("both", SOON, |lab| {
        has_both(lab) && lab.routes().contains("blackhole 192.0.2.0/24")
    });
    // Somebody's own stays, and looking again changes nothing.
    lab.client.ip("route add default via 10.77.0.3 metric 9");
    lab.announcements.clear();
    lab.client.ip("addr del 10.77.0.20/24 dev e0");
    lab.wait("both again", SOON, has_both);
    lab.declare(&two(", mtu: 1300", ""));
    lab.wait("the packets' size", SOON, |lab| {
        lab.routes().contains("mtu 1300") && has_both(lab)
    });
    lab.wait("no black hole", SOON, |lab| {
        !lab.routes().contains("blackhole")
    });
    lab.stop_service();
    lab.announcements.clear();
    lab.log.clear();
    lab.start_service();
    assert_eq!(lab.log.count("Route"), 0, "{:?}", lab.log.all());
}

#[test]
fn two_interfaces_change_names() {
    let mut lab = Lab::new();
    fs::create_dir_all(lab.path("sys/e1/device")).unwrap();
    let other = crate::support::Namespace::new();
    lab.client.join(&other, "e1", "far");
    let mac = |name: &str| {
        let link = lab.client.json(&format!("link show dev {name}"));
        link[0]["address"].as_str().unwrap().to_owned()
    };
    let (first, second) = (mac("e0"), mac("e1"));
    lab.declare(&format!(
        "version: 2\nethernets:\n  a: {{match: {{macaddress: '{first}'}}, set-name: e1}}\n  b: {{match: {{macaddress: '{second}'}}, set-name: e0}}\n"
    ));
    lab.start_service();
    lab.wait("the names", SOON, |lab| {
        let of = |name: &str| {
            let links = lab.client.json("link show");
            let mut links = links.as_array().into_iter().flatten();
            let found = links.find(|link| link["ifname"] == name);
            found.and_then(|link| link["address"].as_str().map(str::to_owned))
        };
        of("e1").as_ref() == Some(&first) && of("e0").as_ref() == Some(&second)
    });
}

#[test]
fn what_is_tried_out_ends_by_itself_and_only_in_its_own_boot() {
    let mut lab = Lab::new();
    let boot_id = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap();
    let now = || {
        let now = nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME).unwrap();
        u64::try_from(now.tv_sec()).unwrap()
    };
    let one = |address: &str| {
        format!(
            "version: 2\nethernets: {{lan: {{match: {{name: e0}}, addresses: [{address}/24]}}}}\n"
        )
    };
    let trial = |lab: &Lab, boot_id: &str, seconds: u64| {
        let mut diagnostics = Diagnostics::new("network-config");
        let document = one("10.77.0.31");
        let root = yaml::parse(&document).unwrap().root;
        let trial = Trial {
            boot_id: boot_id.trim().to_owned(),
            ends_at_s: now() + seconds,
            network: network::parse(&root, &mut diagnostics).unwrap(),
            document,
        };
        let json = serde_json::to_vec(&trial).unwrap();
        fs::write(lab.path("state/new"), json).unwrap();
        fs::rename(lab.path("state/new"), lab.path("state").join(TRIAL_FILE)).unwrap();
    };
    lab.declare(&one("10.77.0.30"));
    // That of an earlier boot is nothing.
    trial(&lab, "another-boot", 1000);
    lab.start_service();
    lab.wait("the declared address", SOON, |lab| {
        lab.all_addresses().contains("10.77.0.30/24")
    });
    assert!(!lab.path("state").join(TRIAL_FILE).exists());
    trial(&lab, &boot_id, 8);
    lab.wait("the other address", SOON, |lab| {
        let addresses = lab.all_addresses();
        addresses.contains("10.77.0.31/24") && !addresses.contains("10.77.0.30")
    });
    lab.wait("the declared address again", SOON, |lab| {
        let addresses = lab.all_addresses();
        addresses.contains("10.77.0.30/24") && !addresses.contains("10.77.0.31")
    });
    assert!(!lab.path("state").join(TRIAL_FILE).exists());
    // Those who ask hear it as well.
    lab.wait("word of it", SOON, |lab| {
        let status: Status = serde_json::from_str(&lab.read("run/status.json")).unwrap_or_default();
        let mut links = status.links.iter();
        links.any(|link| {
            let addresses: Vec<String> = link.addresses.iter().map(ToString::to_string).collect();
            link.name == "e0" && link.managed && link.up && addresses == ["10.77.0.30/24"]
        })
    });
}
