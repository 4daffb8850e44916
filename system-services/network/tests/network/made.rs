//! Addresses that an interface chooses itself, tunnels, and what is set of parts of bridges. Kinds of tunnels that this machine's
//! kernel may not have are tried in virtual machines.

use crate::support::{Lab, SOON};

impl Lab {
    /// The interface's address of RFC 3927.
    fn chosen(&self) -> Option<String> {
        let addresses = self
            .client
            .output("ip", &["-o", "-4", "addr", "show", "dev", "e0"]);
        let words = addresses.split_whitespace();
        let mut chosen = words.filter_map(|word| word.strip_suffix("/16"));
        chosen
            .find(|word| word.starts_with("169.254."))
            .map(str::to_owned)
    }
}

#[test]
fn an_address_is_chosen_defended_and_left_to_those_who_have_it() {
    let mut lab = Lab::new();
    lab.declare("version: 2\nethernets: {e0: {link-local: [ipv4], addresses: [10.77.0.20/24]}}\n");
    lab.start_service();
    lab.wait("an address", SOON, |lab| lab.chosen().is_some());
    let first = lab.chosen().unwrap();
    let link = lab
        .client
        .output("ip", &["-4", "addr", "show", "dev", "e0"]);
    assert!(
        link.contains("10.77.0.20/24") && link.contains("scope link"),
        "{link}"
    );
    // Who takes it without asking is told otherwise once, and has it when that does not help.
    lab.server.ip(&format!("addr add {first}/16 dev s0"));
    let notify = lab
        .server
        .command("sh")
        .args(["-c", "echo 1 >/proc/sys/net/ipv4/conf/s0/arp_notify"])
        .status();
    assert!(notify.unwrap().success());
    lab.server.ip("link set dev s0 address 02:00:5e:10:00:71");
    lab.wait("word to the other one", SOON, |lab| {
        lab.log.count("is defended") == 1
    });
    lab.server.ip("link set dev s0 address 02:00:5e:10:00:72");
    lab.wait("another address", SOON, |lab| {
        lab.chosen().is_some_and(|chosen| chosen != first)
    });
    let second = lab.chosen();
    lab.stop_service();
    lab.announcements.clear();
    lab.start_service();
    lab.wait("the interface", SOON, |lab| lab.log.count("e0: found") > 1);
    assert_eq!(
        lab.chosen(),
        second,
        "a service that starts again takes nothing away"
    );
    let gone = second.unwrap();
    let all = lab.announcements.all();
    assert!(
        !all.iter()
            .any(|line| line.contains("Deleted") && line.contains(&gone)),
        "{all:#?}"
    );
    lab.declare("version: 2\nethernets: {e0: {addresses: [10.77.0.20/24]}}\n");
    lab.wait("no such address", SOON, |lab| lab.chosen().is_none());
}

#[test]
fn a_vxlan_is_made_and_made_anew_when_it_is_another_one() {
    let mut lab = Lab::new();
    let with = |id: u32| {
        format!(
            "version: 2\nethernets: {{e0: {{addresses: [10.77.0.20/24]}}}}\n\
             tunnels: {{far: {{mode: vxlan, id: {id}, local: 10.77.0.20, remote: 10.77.0.1, port: 4789, link: e0, addresses: [10.99.0.1/24]}}}}\n"
        )
    };
    lab.declare(&with(8));
    lab.start_service();
    lab.wait("the tunnel", SOON, |lab| {
        let all = lab.client.output("ip", &["-br", "addr"]);
        all.contains("10.99.0.1/24")
    });
    lab.declare(&with(7));
    lab.wait("the other tunnel", SOON, |lab| {
        let tunnel = lab.client.output("ip", &["-d", "link"]);
        tunnel.contains("vxlan id 7 ") && tunnel.contains("dstport 4789")
    });
    lab.wait("its address", SOON, |lab| {
        let all = lab.client.output("ip", &["-br", "addr"]);
        all.contains("10.99.0.1/24")
    });
    lab.declare("version: 2\nethernets: {e0: {addresses: [10.77.0.20/24]}}\n");
    lab.wait("no tunnel", SOON, |lab| {
        !lab.client.output("ip", &["-br", "link"]).contains("far")
    });
}

#[test]
fn a_bridges_port_costs_what_is_said() {
    let mut lab = Lab::new();
    let with = |cost: u32| {
        format!(
            "version: 2\nethernets: {{lan: {{match: {{name: e0}}}}}}\n\
             bridges: {{sw: {{interfaces: [lan], parameters: {{stp: true, path-cost: {{lan: {cost}}}, port-priority: {{lan: 7}}}}}}}}\n"
        )
    };
    let port = |lab: &Lab| {
        lab.client
            .output("ip", &["-d", "link", "show", "dev", "e0"])
    };
    let index = |lab: &Lab| lab.client.json("link show dev sw")[0]["ifindex"].as_u64();
    lab.declare(&with(55));
    lab.start_service();
    lab.wait("the port", SOON, |lab| {
        port(lab).contains("cost 55 ") && port(lab).contains("priority 7 ")
    });
    let first = index(&lab);
    lab.declare(&with(66));
    lab.wait("another cost", SOON, |lab| port(lab).contains("cost 66 "));
    assert_eq!(index(&lab), first, "the bridge is the same one");
}
