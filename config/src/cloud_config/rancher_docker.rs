//! `rancher.docker`: settings of RancherOS' user Docker as keys of `daemon.json`.

use serde_json::{Map, Value as Json};

use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Node};

/// Their names and ours. Lists are those whose name ends in a list's.
const KEYS: [(&str, &str); 14] = [
    ("bip", "bip"),
    ("bridge", "bridge"),
    ("debug", "debug"),
    ("host", "hosts"),
    ("insecure_registry", "insecure-registries"),
    ("live_restore", "live-restore"),
    ("log_driver", "log-driver"),
    ("log_opts", "log-opts"),
    ("registry_mirror", "registry-mirrors"),
    ("selinux_enabled", "selinux-enabled"),
    ("storage_driver", "storage-driver"),
    ("userland_proxy", "userland-proxy"),
    ("userns_enabled", "userns-remap"),
    ("group", "group"),
];
const LISTS: [&str; 3] = ["hosts", "insecure-registries", "registry-mirrors"];
const FIXED: &str = "it belongs to the container that Docker runs in";
const UNSUPPORTED: [(&str, &str); 18] = [
    (
        "args",
        "write `keelson.docker` with the keys of daemon.json",
    ),
    (
        "extra_args",
        "write `keelson.docker` with the keys of daemon.json",
    ),
    ("engine", "use `keelson engine switch`"),
    (
        "tls",
        "give `hosts`, `tlsverify` and the paths of the certificates under `keelson.docker`",
    ),
    (
        "tls_args",
        "give the paths of the certificates under `keelson.docker`",
    ),
    (
        "server_cert",
        "write it with write_files, and its path under `keelson.docker`",
    ),
    (
        "server_key",
        "write it with write_files, and its path under `keelson.docker`",
    ),
    (
        "ca_cert",
        "write it with write_files, and its path under `keelson.docker`",
    ),
    (
        "ca_key",
        "keys of an authority do not belong on the machine",
    ),
    ("environment", "set a proxy with `keelson.proxy`"),
    ("storage_context", FIXED),
    ("exec", FIXED),
    ("config_file", FIXED),
    ("containerd", FIXED),
    ("exec_root", FIXED),
    ("graph", FIXED),
    ("pid_file", FIXED),
    ("restart", FIXED),
];

/// Adds what is set to the keys.
pub(super) fn read(docker: &mut Map<String, Json>, node: &Node, diagnostics: &mut Diagnostics) {
    let Some(fields) = yaml::mapping("rancher.docker", node, diagnostics) else {
        return;
    };
    let known = KEYS.map(|(name, _)| name);
    fields.check(" of rancher.docker", &known, &UNSUPPORTED, diagnostics);
    for (theirs, ours) in KEYS {
        let Some(node) = fields.get(theirs).filter(|node| !node.is_null()) else {
            continue;
        };
        let value = match (yaml::to_json(node), LISTS.contains(&ours)) {
            // Empty settings were no settings.
            (Json::String(text), _) if text.is_empty() => continue,
            (Json::Array(items), _) if items.is_empty() => continue,
            (Json::String(text), true) => Json::Array(vec![Json::String(text)]),
            (Json::Bool(true), _) if theirs == "userns_enabled" => Json::from("default"),
            (Json::Bool(false), _) if theirs == "userns_enabled" => continue,
            (value, _) => value,
        };
        docker.insert(ours.to_owned(), value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn settings_get_the_names_of_daemon_json() {
        let text = "{bip: 172.20.0.1/16, registry_mirror: https://mirror.example, insecure_registry: [a, b], log_opts: {max-size: 5m}, debug: yes, storage_driver: '', graph: /x, tls: true}";
        let mut diagnostics = Diagnostics::new("user-data");
        let mut docker = Map::new();
        read(
            &mut docker,
            &yaml::parse(text).unwrap().root,
            &mut diagnostics,
        );
        assert_eq!(
            Json::Object(docker),
            json!({"bip": "172.20.0.1/16", "registry-mirrors": ["https://mirror.example"], "insecure-registries": ["a", "b"],
                "log-opts": {"max-size": "5m"}, "debug": true})
        );
        assert_eq!(diagnostics.into_sorted().len(), 2);
    }
}
