//! What data sources say.

use keelson_config::cloud_config::host_names;
use keelson_config::network::{Kind, Network};
use keelson_config::sources::{nocloud, openstack};
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
