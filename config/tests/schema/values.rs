//! A value of each kind at each place of the schema: where the reader says nothing the schema takes it, and where the schema
//! takes it the reader does not find that it is of another type than it wants.

use std::collections::BTreeSet;

use jsonschema::Validator;
use serde_json::{Map, Value as Json, json};

use crate::{KINDS, Kind};

/// Values of each kind.
fn values() -> Vec<Json> {
    vec![
        Json::Null,
        json!(true),
        json!(5),
        json!(1.5),
        json!("word"),
        json!([]),
        json!(["word"]),
        json!({}),
        json!({"word": "word"}),
        json!([{"word": "word"}]),
        json!([["word"]]),
    ]
}

/// What stands beside a key for it to be looked at, by the table's name.
fn beside(table: &str) -> Json {
    match table {
        "write_files" => json!({"path": "/opt/a"}),
        "chpasswd.users" => json!({"name": "ann", "password": "secret", "type": "text"}),
        "phone_home" => json!({"url": "http://a"}),
        "power_state" => json!({"mode": "reboot"}),
        "fs_setup" => json!({"device": "/dev/vdb"}),
        "disk_setup" => json!({"layout": true}),
        "write_files.source" => json!({"uri": "http://a"}),
        "rsyslog.configs" => json!({"content": "*.* @192.0.2.1"}),
        "random_seed" => json!({"data": "a"}),
        "firewall.allow" => json!({"port": 22}),
        "network-config-1" => json!({"version": 1, "config": []}),
        "network-config-2" => json!({"version": 2}),
        "physical-1" => json!({"type": "physical", "name": "eth0"}),
        "bond-1" => json!({"type": "bond", "name": "bond0"}),
        "bridge-1" => json!({"type": "bridge", "name": "br0"}),
        "vlan-1" => json!({"type": "vlan", "name": "v", "vlan_link": "eth0", "vlan_id": 5}),
        "nameserver-1" => json!({"type": "nameserver"}),
        "route-1" => json!({"type": "route"}),
        "subnet-1" => json!({"type": "static", "address": "10.0.0.2/24", "gateway": "10.0.0.1"}),
        "vlan" => json!({"id": 5, "link": "eth0"}),
        "vrf" => json!({"table": 5}),
        "tunnel" => json!({"mode": "gre"}),
        _ => json!({}),
    }
}

/// What is read in other company than [`beside`]'s.
fn beside_key(table: &str, key: &str) -> Json {
    match (table, key) {
        ("tunnel", "mark" | "peers") => {
            json!({"mode": "wireguard", "key": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="})
        }
        ("peer", key) if key != "keys" => {
            json!({"keys": {"public": "MDEyMzQ1Njc4OTAxMjM0NTY3ODkwMTIzNDU2Nzg5MDE="}})
        }
        _ => beside(table),
    }
}

struct Walk<'a> {
    kind: Kind,
    schema: &'a Json,
    validator: &'a Validator,
    /// Where it has been: definitions lead to each other.
    seen: BTreeSet<String>,
    tried: usize,
    wrong: Vec<String>,
}

/// Puts a value at its place in a document.
type Place<'p> = &'p dyn Fn(Json) -> Json;

impl Walk<'_> {
    /// Tries values at a place, and at all places below it. `table` is the one whose keys are met next.
    fn visit(&mut self, shape: &Json, table: &str, path: &str, place: Place<'_>) {
        if let Some(reference) = shape["$ref"].as_str() {
            // Lists in lists: there is no end to them.
            if reference.starts_with("#/properties") {
                return;
            }
            let name = reference.trim_start_matches("#/definitions/").to_owned();
            let target = self
                .schema
                .pointer(reference.trim_start_matches('#'))
                .unwrap();
            return self.visit(target, &name, path, place);
        }
        if self.seen.insert(path.to_owned()) {
            values()
                .into_iter()
                .for_each(|value| self.compare(path, place(value)));
        }
        for key in ["anyOf", "allOf"] {
            for branch in shape[key].as_array().into_iter().flatten() {
                self.visit(branch, table, path, place);
            }
        }
        for key in ["then", "else"] {
            if shape[key].is_object() {
                self.visit(&shape[key], table, path, place);
            }
        }
        for (key, below) in shape["properties"].as_object().into_iter().flatten() {
            if below["deprecated"] == true || path.matches('.').count() > 12 {
                continue;
            }
            self.visit(below, "", &format!("{path}.{key}"), &|value| {
                let mut all = beside_key(table, key);
                // A key of a firewall's entry stands for itself.
                if table == "firewall.allow" {
                    all = json!({"port": 22, "interface": "eth0"});
                }
                all[key] = value;
                place(all)
            });
        }
        let below = &shape["additionalProperties"];
        if below.is_object() {
            self.visit(below, "", &format!("{path}.*"), &|value| {
                place(Json::Object(Map::from_iter([("name0".to_owned(), value)])))
            });
        }
        if shape["items"].is_object() {
            self.visit(&shape["items"], "", &format!("{path}[]"), &|value| {
                place(json!([value]))
            });
        }
    }

    fn compare(&mut self, path: &str, document: Json) {
        // The name of a user that is named by its key is not looked at.
        if path.ends_with("users.*.name") {
            return;
        }
        self.tried += 1;
        let said = self.kind.read(&document.to_string());
        let is_valid = self.validator.is_valid(&document);
        if said.is_empty() && !is_valid {
            self.wrong
                .push(format!("{path}: refused by the schema alone: {document}"));
        }
        let of_type =
            |message: &str| message.contains(": expected ") && message.contains(", found ");
        if let Some(message) = said.iter().find(|said| of_type(&said.message))
            && is_valid
        {
            self.wrong.push(format!(
                "{path}: taken by the schema: {document}: {}",
                message.message
            ));
        }
    }
}

#[test]
fn values_of_each_kind_are_taken_by_the_schema_where_the_reader_takes_them() {
    for kind in KINDS {
        let (schema, validator) = (kind.schema(), kind.validator());
        let mut walk = Walk {
            kind,
            schema: &schema,
            validator: &validator,
            seen: BTreeSet::new(),
            tried: 0,
            wrong: Vec::new(),
        };
        let root = match kind {
            Kind::CloudConfig => "cloud-config",
            Kind::Network => "network-config",
        };
        walk.visit(&schema, root, "", &|value| value);
        println!("{kind:?}: {} documents", walk.tried);
        assert!(walk.tried > 1000);
        assert!(
            walk.wrong.is_empty(),
            "{kind:?}: {}\n{}",
            walk.wrong.len(),
            walk.wrong.join("\n")
        );
    }
}
