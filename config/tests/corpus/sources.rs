//! What data sources say.

use keelson_config::cloud_config::host_names;
use keelson_config::network::{Kind, Network};
use keelson_config::sources::machine::{Machine, Platform};
use keelson_config::sources::{azure, ec2, nocloud, openstack, vultr};
use keelson_config::{Diagnostics, network, yaml};
use serde_json::{Value, json};

use super::{check, corpus, pairs};

/// What has to be the same, whatever interfaces are called.
fn essence(network: &Network) -> Vec<Value> {
    let mut all: Vec<Value> = network
        .interfaces
        .iter()
        .map(|interface| {
            let kind = match &interface.kind {
                Kind::Bond(bond) => json!({"bond": bond.params}),
                Kind::Vlan(vlan) => json!({"vlan": vlan.id}),
                _ => Value::Null,
            };
            json!({"mac": interface.matches.mac.as_ref().or(interface.mac.as_ref()), "kind": kind,
                "dhcp": [interface.dhcp4, interface.dhcp6], "addresses": interface.addresses,
                "routes": interface.routes, "dns": interface.dns, "mtu": interface.mtu})
        })
        .collect();
    all.sort_by_key(Value::to_string);
    all
}

#[test]
fn openstacks_networks_are_what_cloud_init_makes_of_them() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "openstack_netjson.jsonl");
    let mut differing = Vec::new();
    let mut compared = 0;
    for case in &cases {
        if case.get("exc").is_some() || case["in"]["network_json"].is_null() {
            continue;
        }
        compared += 1;
        let mut diagnostics = Diagnostics::new("");
        let found = openstack::network(&case["in"]["network_json"], &mut diagnostics);
        let wanted = yaml::from_json(&case["out"], Default::default());
        let wanted = network::parse(&wanted, &mut diagnostics).unwrap_or_default();
        let (found, wanted) = (essence(&found), essence(&wanted));
        if found != wanted {
            let name = case["in"]["network_json"].to_string();
            differing.push((
                name,
                format!("{} instead of {}", json!(found), json!(wanted)),
            ));
        }
    }
    check("openstack", compared, &differing, &[]);
}

#[test]
fn command_lines_ask_for_nocloud_as_in_cloud_init() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "nocloud_parse_cmdline.jsonl");
    let mut differing = Vec::new();
    for case in &cases {
        let line = case["in"]["cmdline"].as_str().unwrap_or_default();
        let wanted = case["in"]["ds_id"].as_str().unwrap_or_default();
        if !wanted.starts_with("ds=nocloud") {
            continue;
        }
        let asked = nocloud::asked(line);
        if asked.is_some() != case["out"]["ret"].as_bool().unwrap() {
            differing.push((
                line.to_owned(),
                format!("{asked:?} instead of {}", case["out"]),
            ));
        }
        let fill = &case["out"]["fill"];
        let asked = asked.unwrap_or_default();
        for (name, found) in [
            ("seedfrom", asked.seed_from),
            ("local-hostname", asked.hostname),
            ("instance-id", asked.instance_id),
        ] {
            if fill[name].as_str() != found.as_deref() {
                differing.push((
                    line.to_owned(),
                    format!("{name}: {found:?} instead of {}", fill[name]),
                ));
            }
        }
    }
    check("command lines", cases.len(), &differing, &[]);
}

#[test]
fn host_names_are_those_of_cloud_init() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "hostname_fqdn.jsonl");
    let mut differing = Vec::new();
    for case in &cases {
        let text = |name: &str| case["in"]["cfg"][name].as_str().map(str::to_owned);
        let (hostname, fqdn) = host_names(text("hostname"), text("fqdn"));
        // Without a domain the full name is the host's name.
        let fqdn = fqdn.or_else(|| hostname.clone());
        let found = json!([hostname, fqdn, case["out"][2]]);
        if found != case["out"] {
            differing.push((
                case["in"].to_string(),
                format!("{found} instead of {}", case["out"]),
            ));
        }
    }
    check("host names", cases.len(), &differing, &[]);
}

/// Compares what is made of cards with what cloud-init makes of them.
fn check_networks(file: &str, made: impl Fn(&Value) -> Option<Value>) {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, file);
    let mut differing = Vec::new();
    let mut compared = 0;
    for case in cases.iter().filter(|case| case.get("exc").is_none()) {
        compared += 1;
        let mut diagnostics = Diagnostics::new("");
        let mut read = |json: &Value| {
            let node = yaml::from_json(json, Default::default());
            essence(&network::parse(&node, &mut diagnostics).unwrap_or_default())
        };
        let found = made(case).map(|made| read(&made)).unwrap_or_default();
        let wanted = read(&case["out"]);
        if found != wanted {
            let difference = format!("{} instead of {}", json!(found), json!(wanted));
            differing.push((case["in"].to_string(), difference));
        }
    }
    check(file, compared, &differing, &[]);
}

#[test]
fn networks_of_metadata_services_are_what_cloud_init_makes_of_them() {
    check_networks("ec2_net.jsonl", |case| {
        // cloud-init leaves out cards that it does not find in the machine.
        let devices = case["out"]["ethernets"].as_object().unwrap();
        let there: Vec<&Value> = devices
            .values()
            .map(|device| &device["match"]["macaddress"])
            .collect();
        let mut metadata = case["in"]["network_md"].clone();
        let cards = metadata["interfaces"]["macs"].as_object_mut().unwrap();
        cards.retain(|mac, _| there.iter().any(|other| *other == mac));
        ec2::network(&metadata)
    });
    check_networks("azure_net.jsonl", |case| {
        let all = case["in"]["apply_network_config_for_secondary_ips"] == true;
        azure::network(&case["in"]["metadata"], all)
    });
    check_networks("vultr_net.jsonl", |case| {
        vultr::network(&case["in"]["interfaces"])
    });
}

/// Data sources that this system has not, and ways to find one that it has not.
const NOT_HERE: [&str; 9] = [
    "IBMCloud", "LXD", "NWCS", "OVF", "RbxCloud", "SmartOS", "VMware", "WSL", "None",
];

#[test]
fn machines_have_the_data_source_that_cloud_init_finds() {
    let Some(corpus) = corpus() else { return };
    let text = std::fs::read(corpus.join("expected/ds_identify.json")).unwrap();
    let cases: Value = serde_json::from_slice(&text).unwrap();
    let mut differing = Vec::new();
    let mut compared = 0;
    for (name, case) in cases.as_object().unwrap() {
        let wanted = case["ds"].as_str().unwrap_or("None");
        if NOT_HERE.iter().any(|other| wanted.starts_with(other)) {
            continue;
        }
        let files = case["files"].as_object().into_iter().flatten();
        let mut machine = Machine::default();
        for (path, content) in files {
            let content = content.as_str().unwrap_or_default().trim().to_owned();
            match path
                .trim_start_matches('/')
                .strip_prefix("sys/class/dmi/id/")
            {
                Some(field) => drop(machine.dmi.insert(field.to_owned(), content)),
                None if path.ends_with("proc/cmdline") => machine.command_line = content,
                None => {}
            }
        }
        if machine == Machine::default() {
            continue;
        }
        compared += 1;
        let found = machine.platform().map(|platform: Platform| platform.name());
        let is_found = found == Some(wanted);
        if Some(is_found) != case["expected_found"].as_bool() {
            differing.push((name.clone(), format!("{found:?} instead of {wanted}")));
        }
    }
    check("machines", compared, &differing, &[]);
}
