//! `rancher.docker`: settings of RancherOS' user Docker as keys of `daemon.json`.

use serde_json::{Map, Value as Json};

use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Node, Shape, Table};

/// Names of RancherOS; the others have a hyphen where ours has an underscore.
const RENAMED: [(&str, &str); 4] = [
    ("host", "hosts"),
    ("insecure_registry", "insecure-registries"),
    ("registry_mirror", "registry-mirrors"),
    ("userns_enabled", "userns-remap"),
];
const LISTS: [&str; 3] = ["hosts", "insecure-registries", "registry-mirrors"];
const SWITCH: Shape = Shape::Hint(&Shape::Boolean);
/// `rancher.docker`. Values are Docker's to judge.
pub(super) static DOCKER: Table = Table::new(
    "rancher.docker",
    &[
        (
            "bip",
            Shape::Any,
            "Address of the bridge docker0, with its prefix",
        ),
        ("bridge", Shape::Any, "Another bridge than docker0"),
        ("debug", SWITCH, "Says more in the log"),
        ("host", Shape::Any, "Addresses that Docker listens at"),
        (
            "insecure_registry",
            Shape::Any,
            "Registries without certificates",
        ),
        ("live_restore", SWITCH, "Containers outlive Docker"),
        ("log_driver", Shape::Any, "Where output of containers goes"),
        ("log_opts", Shape::Any, "Options of `log_driver`"),
        ("registry_mirror", Shape::Any, "Mirrors of Docker Hub"),
        ("selinux_enabled", SWITCH, "SELinux for containers"),
        ("storage_driver", Shape::Any, "How layers are kept"),
        (
            "userland_proxy",
            SWITCH,
            "A process for each published port",
        ),
        (
            "userns_enabled",
            SWITCH,
            "Containers have user ids of their own",
        ),
        ("group", Shape::Any, "Group that may use Docker's socket"),
    ],
)
.unsupported(&UNSUPPORTED);
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
    fields.check(" of rancher.docker", &DOCKER, diagnostics);
    for (theirs, ..) in DOCKER.settings {
        let renamed = RENAMED.iter().find(|(name, _)| name == theirs);
        let ours = renamed.map_or_else(|| theirs.replace('_', "-"), |(_, ours)| (*ours).to_owned());
        let Some(node) = fields.get(theirs).filter(|node| !node.is_null()) else {
            continue;
        };
        let value = match (yaml::to_json(node), LISTS.contains(&ours.as_str())) {
            // Empty settings were no settings.
            (Json::String(text), _) if text.is_empty() => continue,
            (Json::Array(items), _) if items.is_empty() => continue,
            (Json::String(text), true) => Json::Array(vec![Json::String(text)]),
            (Json::Bool(true), _) if *theirs == "userns_enabled" => Json::from("default"),
            (Json::Bool(false), _) if *theirs == "userns_enabled" => continue,
            (value, _) => value,
        };
        docker.insert(ours, value);
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
