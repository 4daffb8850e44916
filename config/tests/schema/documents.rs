//! Whole documents, right and wrong.

use std::path::{Path, PathBuf};

use keelson_config::yaml::{self, Value};

use crate::Kind::{CloudConfig, Network};
use crate::{KINDS, Kind, both_versions};

const RIGHT: [(Kind, &str); 16] = [
    (
        CloudConfig,
        "ssh_pwauth: yes\ndisable_root: 'Off'\npreserve_hostname: on\n",
    ),
    (
        CloudConfig,
        "write-files:\n- {path: /opt/a, permissions: 0o644, content: 5}\n- {path: /opt/b, permissions: '0755'}\n",
    ),
    (
        CloudConfig,
        "users: [default, {name: ann, uid: '1000', sudo: false, groups: 'a,b'}, {bob: {gecos: B}}]\n",
    ),
    (
        CloudConfig,
        "users: {ann: {lock_passwd: no, hashed_passwd: $6$a$b}, default: yes}\n",
    ),
    (CloudConfig, "runcmd: [echo a, [ls, -l, 5], ~]\nbootcmd:\n"),
    (
        CloudConfig,
        "keelson: {firewall: [22, {port: [53/udp], from: 10.0.0.0/8}], network: {version: 2, ethernets: {eth0: {dhcp4: yes}}}}\n",
    ),
    (
        CloudConfig,
        "keelson: {network: {config: disabled}, services: {a: {image: b}}}\n",
    ),
    (
        CloudConfig,
        "swap: {size: auto, maxsize: 1G}\ndisk_setup: {/dev/vdb: {layout: [50, [50, 82]]}}\n",
    ),
    (
        CloudConfig,
        "datasource: {nocloud: {seedfrom: 'http://h/'}}\ndatasource_list: NoCloud\nssh_import_id: 'gh:ann,lp:bob'\n",
    ),
    (
        CloudConfig,
        "rsyslog: ['*.warn @192.0.2.1', {content: '*.* @@h', filename: a}]\nkeelson: {log: {remotes: {a: h}}}\n",
    ),
    (
        CloudConfig,
        "ssh_genkeytypes: [rsa]\nssh: {emit-keys-to-console: no}\nssh_fp_console_blacklist: ssh-rsa\n",
    ),
    (
        CloudConfig,
        "rancher: {console: default, disable: [autologin], upgrade: {}, debug: off, state: ~, services_include: {a: false}}\n",
    ),
    (CloudConfig, ""),
    (Network, "{}"),
    (
        Network,
        "network: {version: '1', config: [{type: bond, name: b, bond_interfaces: [a], params: {bond_mode: 1, miimon: 5}}]}\n",
    ),
    (
        Network,
        "version: 2\nbonds: {b: {interfaces: [a], parameters: {mode: 802.3ad, x: 1}}}\n",
    ),
];

const WRONG: [(Kind, &str); 34] = [
    (CloudConfig, "hostnam: a"),
    (CloudConfig, "datasource: {NoCloud: {seed: 'http://h/'}}"),
    (CloudConfig, "rsyslog: [{filename: a}]"),
    (CloudConfig, "keelson: {upgrade: {sauce: a/b}}"),
    (CloudConfig, "keelson: {log: {remotes: [a]}}"),
    (CloudConfig, "ssh_genkeytypes: [dsa]"),
    (CloudConfig, "rancher: {cloud_init: {datasource: [ec2]}}"),
    (CloudConfig, "[a, b]"),
    (CloudConfig, "hostname: [a]"),
    (CloudConfig, "ssh_pwauth: maybe"),
    (CloudConfig, "users: [{nam: ann}]"),
    (CloudConfig, "users: [{name: ann, shel: /bin/sh}]"),
    (CloudConfig, "users: [{gecos: A}]"),
    (CloudConfig, "write_files: [{content: a}]"),
    (
        CloudConfig,
        "write_files: [{path: /opt/a, permissions: '0999'}]",
    ),
    (CloudConfig, "runcmd: [echo a: b]"),
    (CloudConfig, "runcmd: [5]"),
    (CloudConfig, "runcmd: ls"),
    (CloudConfig, "power_state: {mode: sleep}"),
    (CloudConfig, "phone_home: {tries: 1}"),
    (
        CloudConfig,
        "phone_home: {url: 'http://a', post: all_of_it}",
    ),
    (CloudConfig, "chpasswd: {users: [{password: a}]}"),
    (CloudConfig, "ntp: {server: [a]}"),
    (CloudConfig, "vendor_data: {enabled: perhaps}"),
    (
        CloudConfig,
        "fs_setup: [{device: /dev/vdb, filesystem: ntfs}]",
    ),
    (CloudConfig, "ssh_keys: {dsa_private: a}"),
    (CloudConfig, "keelson: {service: {a: {image: b}}}"),
    (CloudConfig, "keelson: {services: [a]}"),
    (
        CloudConfig,
        "keelson: {network: {version: 2, ethernet: {}}}",
    ),
    (
        CloudConfig,
        "rancher: {network: {interfaces: {eth0: {dhcp: maybe}}}}",
    ),
    (Network, "{ethernets: {eth0: {dhcp4: true}}}"),
    (
        Network,
        "{version: 2, ethernets: {eth0: {dhcp4: true, adresses: [10.0.0.1/8]}}}",
    ),
    (Network, "{version: 1, config: [{type: bnd, name: a}]}"),
    (
        Network,
        "{version: 1, config: [{type: bond, name: a, params: {bond-mod: 1}}]}",
    ),
];

/// Whether the schema takes it, in either version of YAML.
fn is_valid(validator: &jsonschema::Validator, text: &str) -> [bool; 2] {
    both_versions(text)
        .unwrap()
        .map(|json| validator.is_valid(&json))
}

#[test]
fn what_is_right_is_so_for_both() {
    for (kind, text) in RIGHT {
        let said = kind.read(text);
        assert!(said.is_empty(), "{text}: {said:?}");
        assert_eq!(is_valid(&kind.validator(), text), [true; 2], "{text}");
    }
}

#[test]
fn what_is_wrong_is_so_for_both() {
    for (kind, text) in WRONG {
        assert!(!kind.read(text).is_empty(), "{text}");
        assert_eq!(is_valid(&kind.validator(), text), [false; 2], "{text}");
    }
}

/// Keys that are said not to be applied: an editor gets the same reason, and no other complaint.
#[test]
fn what_is_not_applied_is_marked_and_valid() {
    for (text, place) in [
        ("packages: [vim]", "/properties/packages"),
        (
            "rancher: {firewall: [22]}",
            "/definitions/rancher/properties/firewall",
        ),
        (
            "users: [{name: ann, doas: [a]}]",
            "/definitions/user/properties/doas",
        ),
    ] {
        let said = CloudConfig.read(text);
        let schema = CloudConfig.schema();
        let marked = schema.pointer(place).unwrap();
        let reason = marked["deprecationMessage"].as_str().unwrap();
        assert!(
            marked["deprecated"] == true && said.iter().any(|said| said.message.ends_with(reason)),
            "{said:?}"
        );
        assert_eq!(
            is_valid(&CloudConfig.validator(), text),
            [true; 2],
            "{text}"
        );
    }
}

fn files(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        match path.is_dir() {
            true => files(&path, found),
            false => found.push(path),
        }
    }
}

/// Whether it looks like a document of that kind: any mapping is a cloud-config, not each is a network-config.
fn is_of(kind: Kind, text: &str) -> bool {
    let Ok(parsed) = yaml::parse(text) else {
        return false;
    };
    let Value::Mapping(entries) = parsed.root.value else {
        return false;
    };
    let has = |name: &str| entries.iter().any(|(key, _)| key.text == name);
    kind == CloudConfig || has("network") || has("config") || has("version")
}

#[test]
fn documents_of_the_corpus_that_nothing_is_said_of_are_valid() {
    let Some(corpus) = std::env::var_os("KEELSON_CORPUS") else {
        eprintln!("skipped: KEELSON_CORPUS is not set");
        return;
    };
    let mut found = Vec::new();
    files(&Path::new(&corpus).join("raw"), &mut found);
    files(&Path::new(&corpus).join("extracted"), &mut found);
    for kind in KINDS {
        let validator = kind.validator();
        let mut compared = 0;
        let mut refused = Vec::new();
        for path in &found {
            let Ok(text) = std::fs::read_to_string(path) else {
                continue;
            };
            if !is_of(kind, &text) || !kind.read(&text).is_empty() {
                continue;
            }
            compared += 1;
            for json in both_versions(&text).unwrap() {
                let errors = validator.iter_errors(&json);
                refused.extend(
                    errors.map(|error| format!("{path:?}: {}: {error}", error.instance_path())),
                );
            }
        }
        println!(
            "{kind:?}: {compared} documents, {} complaints",
            refused.len()
        );
        assert!(
            compared > 20 && refused.is_empty(),
            "{kind:?}: {compared}\n{}",
            refused.join("\n")
        );
    }
}
