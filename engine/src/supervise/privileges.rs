//! What a service may do beyond an ordinary process in a container, and why.

use crate::api::{Privilege, Privileges};
use crate::compose::{Definition, Namespace, NetworkMode, SecurityOption};

/// Everything, in the order in which a definition is read.
pub(super) fn privileges(definition: &Definition) -> Privileges {
    let service = &definition.service;
    let mut all = Vec::new();
    let mut add = |key: &str, value: &str, what: String| {
        let mut reasons = definition.reasons.iter();
        let reason = reasons.find(|reason| {
            reason.key == key && reason.value.to_uppercase().contains(&value.to_uppercase())
        });
        all.push(Privilege {
            what,
            why: reason.map(|reason| reason.why.clone()),
        });
    };
    if service.privileged {
        add("privileged", "true", "everything (privileged)".to_owned());
    }
    if service.network_mode == Some(NetworkMode::Host) {
        add("network_mode", "host", "the host's network".to_owned());
    }
    for (key, namespace) in [
        ("pid", service.pid),
        ("ipc", service.ipc),
        ("uts", service.uts),
        ("cgroup", service.cgroup),
    ] {
        if namespace == Some(Namespace::Host) {
            add(key, "host", format!("the host's {key} namespace"));
        }
    }
    if !service.privileged {
        for capability in definition.capabilities() {
            add("cap_add", &capability, capability.clone());
        }
    }
    for option in &service.security_opt {
        let (value, what) = match option {
            SecurityOption::NoNewPrivileges(true) => continue,
            SecurityOption::NoNewPrivileges(false) => ("no-new-privileges", "setuid programs"),
            SecurityOption::SeccompUnconfined => ("seccomp", "every system call"),
            SecurityOption::SystemPathsUnconfined => ("systempaths", "all of /proc and /sys"),
        };
        add("security_opt", value, what.to_owned());
    }
    for device in &service.devices {
        let (path, access) = (&device.source, &device.permissions);
        add("devices", path, format!("{path} {access}"));
    }
    for rule in &service.device_cgroup_rules {
        let text = rule.to_string();
        add("device_cgroup_rules", &text, format!("devices {text}"));
    }
    for request in &service.keelson.requests.0 {
        let word = request.as_str();
        add("x-keelson", word, format!("may ask for: {word}"));
    }
    for socket in &service.keelson.sockets {
        let text = socket.listen.to_string();
        add("x-keelson", &text, format!("is given the socket {text}"));
    }
    Privileges {
        capabilities: definition.capabilities(),
        privileged: service.privileged,
        all,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compose::{Environment, load::parse};
    use std::path::Path;

    #[test]
    fn every_privilege_has_the_reason_that_stands_beside_it() {
        let text = "services:\n  web:\n    image: keelson/web\n    command: run\n    network_mode: host   # it listens\n    cap_add:\n      - NET_RAW          # pings\n      - kill\n    device_cgroup_rules: [\"c 13:* r\"]   # keys\n    security_opt: [\"no-new-privileges:false\"]\n    x-keelson:\n      requests: [hostname]   # names itself\n";
        let definition = parse(Path::new("web.yml"), text, &Environment::default())
            .unwrap()
            .remove(0);
        let all = privileges(&definition).all;
        let rows: Vec<(&str, Option<&str>)> = all
            .iter()
            .map(|privilege| (privilege.what.as_str(), privilege.why.as_deref()))
            .collect();
        assert_eq!(
            rows,
            [
                ("the host's network", Some("it listens")),
                ("KILL", None),
                ("NET_RAW", Some("pings")),
                ("setuid programs", None),
                ("devices c 13:* r", Some("keys")),
                ("may ask for: hostname", Some("names itself")),
            ]
        );
    }
}
