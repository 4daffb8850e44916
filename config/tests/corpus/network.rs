//! Network configurations.

use keelson_config::network::{self, Cidr, Kind, Network};
use keelson_config::{Diagnostics, yaml};
use serde_json::{Map, Value, json};

use super::{check, corpus};

/// The model as the corpus writes it.
fn shape(network: &Network) -> Value {
    let mut interfaces = Map::new();
    for interface in &network.interfaces {
        let mut shape = serde_json::to_value(interface).unwrap();
        let fields = shape.as_object_mut().unwrap();
        fields.remove("name");
        let kind = match &interface.kind {
            Kind::Physical => "physical",
            Kind::Bond(bond) => {
                fields.insert("bond".into(), serde_json::to_value(bond).unwrap());
                "bond"
            }
            Kind::Bridge(bridge) => {
                fields.insert("bridge".into(), serde_json::to_value(bridge).unwrap());
                "bridge"
            }
            Kind::Vlan(vlan) => {
                fields.insert("vlan".into(), json!({"id": vlan.id, "link": vlan.link}));
                "vlan"
            }
            Kind::Dummy => "dummy",
            Kind::Loopback => continue,
            Kind::Vrf(_) => "vrf",
            Kind::Tunnel(_) | Kind::WireGuard(_) => "tunnel",
        };
        fields.insert("kind".into(), kind.into());
        if let Some(driver) = fields
            .get_mut("match")
            .and_then(|found| found.get_mut("driver"))
            && let Some(first) = driver
                .as_array()
                .filter(|all| all.len() == 1)
                .map(|all| all[0].clone())
        {
            *driver = first;
        }
        // What the corpus does not compare.
        for route in fields
            .get_mut("routes")
            .and_then(Value::as_array_mut)
            .into_iter()
            .flatten()
        {
            for key in ["mtu", "scope", "table", "type", "from"] {
                route.as_object_mut().unwrap().remove(key);
            }
        }
        fields.remove("rules");
        interfaces.insert(interface.name.clone(), shape);
    }
    let mut whole = json!({ "interfaces": interfaces });
    if !network.global_dns.is_empty() {
        whole["global_dns"] = serde_json::to_value(&network.global_dns).unwrap();
    }
    if !network.global_routes.is_empty() {
        whole["global_routes"] = serde_json::to_value(&network.global_routes).unwrap();
    }
    whole
}

/// Addresses and routes as our model writes them, and in one order.
fn normal(value: &Value) -> Value {
    match value {
        Value::Object(entries) => {
            let entries = entries.iter();
            Value::Object(
                entries
                    .map(|(key, value)| {
                        let mut value = normal(value);
                        if matches!(key.as_str(), "routes" | "addresses" | "global_routes")
                            && let Value::Array(items) = &mut value
                        {
                            items.sort_by_key(Value::to_string);
                        }
                        (key.clone(), value)
                    })
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.iter().map(normal).collect()),
        Value::String(text) if text.len() == 17 && text.matches('-').count() == 5 => {
            Value::String(text.replace('-', ":"))
        }
        Value::String(text) => match (
            text.contains('/'),
            text.parse::<Cidr>(),
            text.parse::<std::net::IpAddr>(),
        ) {
            (true, Ok(cidr), _) => Value::String(cidr.to_string()),
            (false, _, Ok(address)) => Value::String(address.to_string()),
            _ => value.clone(),
        },
        other => other.clone(),
    }
}

const KNOWN: [(&str, &str); 5] = [
    (
        "large_v1",
        "an InfiniBand interface is configured; netplan's renderer leaves it out",
    ),
    (
        "v1-dns",
        "name servers of one interface are kept, as the format says; netplan's renderer loses them",
    ),
    (
        "netplan-nameserver_gateway4",
        "a name server's address is taken without its prefix",
    ),
    (
        "bond_active_backup_b",
        "resend-igmp is kept; cloud-init's renderer does not know it",
    ),
    (
        "TEST_DATA_V1_LEGACY",
        "members of a bond are not bonds themselves",
    ),
];

fn compare(name: &str, known: &[(&str, &str)]) {
    let Some(corpus) = corpus() else { return };
    let text = std::fs::read(corpus.join("expected").join(name)).unwrap();
    let cases: Vec<Value> = serde_json::from_slice(&text).unwrap();
    let mut differing = Vec::new();
    let mut compared = 0;
    for case in &cases {
        let path = corpus.join(case["input"].as_str().unwrap());
        let Ok(text) = std::fs::read_to_string(path) else {
            continue;
        };
        compared += 1;
        let id = case["id"].as_str().unwrap().to_owned();
        let mut diagnostics = Diagnostics::new("network-config");
        let root = match yaml::parse(&text) {
            Ok(parsed) => parsed.root,
            Err(error) => {
                differing.push((id, format!("{error:?}")));
                continue;
            }
        };
        let network = network::parse(&root, &mut diagnostics);
        let Some(wanted) = case.get("expected") else {
            if !diagnostics.has_errors() {
                differing.push((id, format!("no error, as {}", case["expected_error"])));
            }
            continue;
        };
        let found = normal(&network.as_ref().map_or(Value::Null, shape));
        let wanted = normal(wanted);
        if found != wanted {
            differing.push((id, first_difference("", &found, &wanted)));
        }
    }
    check(name, compared, &differing, known);
}

/// The first place at which two values differ.
fn first_difference(at: &str, found: &Value, wanted: &Value) -> String {
    if let (Value::Object(found), Value::Object(wanted)) = (found, wanted) {
        let keys = found.keys().chain(wanted.keys());
        for key in keys {
            let (left, right) = (found.get(key), wanted.get(key));
            if left != right {
                let none = Value::Null;
                return first_difference(
                    &format!("{at}.{key}"),
                    left.unwrap_or(&none),
                    right.unwrap_or(&none),
                );
            }
        }
    }
    format!("{at}: {found} instead of {wanted}")
}

#[test]
fn network_configs_mean_what_netplan_makes_of_them() {
    compare("network_expected.json", &KNOWN);
}

#[test]
fn the_core_of_network_configs_is_the_same() {
    compare("network_core62.json", &KNOWN);
}
