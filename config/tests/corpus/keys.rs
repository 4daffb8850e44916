//! Users, SSH keys, commands, files: the shapes that their values take.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_config::cloud_config::UserEntry;
use keelson_config::{CloudConfig, Diagnostics, shell};
use serde_json::{Value, json};

use crate::{bytes, check, corpus, pairs};

/// A cloud-config of these keys, and how many errors it has.
fn read(keys: &Value) -> (CloudConfig, usize) {
    let mut diagnostics = Diagnostics::new("");
    let root = keelson_config::yaml::parse(&keys.to_string()).unwrap().root;
    let config = CloudConfig::from_node(&root, &mut diagnostics);
    let messages = diagnostics.into_sorted();
    let errors = messages
        .iter()
        .filter(|message| message.severity == keelson_config::Severity::Error);
    (config.unwrap_or_else(CloudConfig::nothing), errors.count())
}

fn name_of(case: &Value) -> String {
    format!("{} {}", case["test"], case["in"])
}

#[test]
fn lines_of_keys_are_those_that_cloud_init_takes() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "authkey_parse.jsonl");
    let mut differing = Vec::new();
    for case in &cases {
        let line = case["in"]["line"].as_str().unwrap();
        let (config, _) = read(&json!({"ssh_authorized_keys": [line]}));
        let wanted = !case["out"]["valid"].is_null();
        if config.ssh_authorized_keys.is_empty() == wanted {
            differing.push((name_of(case), format!("taken: {}", !wanted)));
        }
    }
    check("keys", cases.len(), &differing, &[]);
}

#[test]
fn commands_are_the_script_that_cloud_init_makes() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "shellify.jsonl");
    let mut differing = Vec::new();
    for case in &cases {
        let (config, errors) = read(&json!({"runcmd": case["in"]["cmdlist"]}));
        let found = shell::script(&config.commands);
        let same = match case["out"].as_str() {
            Some(wanted) => found == wanted,
            None => errors > 0 && config.commands.is_empty(),
        };
        if !same {
            differing.push((name_of(case), format!("{found:?}, {errors} errors")));
        }
    }
    let known = [(
        "test_value_with_int",
        "a number is a command of that name: YAML's readers differ in what is a number",
    )];
    check("commands", cases.len(), &differing, &known);
}

#[test]
fn users_and_groups_are_those_that_cloud_init_makes() {
    let Some(corpus) = corpus() else { return };
    let cases = pairs(&corpus, "users_groups.jsonl");
    let mut differing = Vec::new();
    for case in &cases {
        let given = &case["in"]["cfg"];
        // With no word of users there is the default user here, as in every image of cloud-init's.
        let says_users = !given["users"].is_null() || !given["user"].is_null();
        let (config, _) = read(given);
        let default = config.default_user.name.clone();
        let default = default.or_else(|| {
            case["in"]["default_user"]["name"]
                .as_str()
                .map(str::to_owned)
        });
        let default = default.unwrap_or_default();
        let mut users: BTreeMap<String, bool> = BTreeMap::new();
        let no_users = Vec::new();
        let entries = match &config.users {
            Some(entries) => entries,
            None if says_users => &vec![UserEntry::Default],
            None => &no_users,
        };
        for entry in entries {
            match entry {
                UserEntry::Default => *users.entry(default.clone()).or_default() = true,
                UserEntry::Named(user) => {
                    users.entry(user.name.clone()).or_default();
                }
            }
        }
        let wanted: BTreeMap<String, bool> = case["out"][0]
            .as_object()
            .unwrap()
            .iter()
            .map(|(name, user)| (name.clone(), user["default"] == true))
            .collect();
        let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
        for group in &config.groups {
            let members = groups.entry(group.name.clone()).or_default();
            members.extend(group.members.clone());
            members.sort();
        }
        let found = json!([users, groups]);
        let wanted = json!([wanted, case["out"][1]]);
        if found != wanted {
            differing.push((name_of(case), format!("{found} instead of {wanted}")));
        }
    }
    check("users and groups", cases.len(), &differing, &[]);
}

#[test]
fn files_are_decoded_as_in_cloud_init() {
    let Some(corpus) = corpus() else { return };
    let mut differing = Vec::new();
    let cases = pairs(&corpus, "writefiles_extract.jsonl");
    for case in &cases {
        let steps = case["in"]["extractions"].as_array().unwrap();
        let has = |step: &str| steps.iter().any(|other| other == step);
        let encoding = match (has("application/base64"), has("application/x-gzip")) {
            (true, true) => "gz+b64",
            (true, false) => "b64",
            (false, true) => "gzip",
            (false, false) => "text/plain",
        };
        let content = bytes(&case["in"]["contents"]);
        let (content, encoding) = match std::str::from_utf8(&content) {
            Ok(text) => (text.to_owned(), encoding),
            // As YAML has it: binary text.
            Err(_) => (STANDARD.encode(&content), "gz+b64"),
        };
        let file = json!({"path": "/x", "content": content, "encoding": encoding});
        let (config, _) = read(&json!({"write_files": [file]}));
        let wanted = bytes(&case["out"]);
        if config.write_files.first().map(|file| &file.content) != Some(&wanted) {
            differing.push((name_of(case), "another content".to_owned()));
        }
    }
    let modes = pairs(&corpus, "writefiles_perms.jsonl");
    for case in &modes {
        let (config, _) =
            read(&json!({"write_files": [{"path": "/x", "permissions": case["in"]["perm"]}]}));
        let found = config.write_files.first().map(|file| file.mode);
        if found.map(u64::from) != case["out"].as_u64() {
            differing.push((name_of(case), format!("{found:?}")));
        }
    }
    check("files", cases.len() + modes.len(), &differing, &[]);
}
