//! Kernel modules and parameters, as services of the system engine: each has the privilege that it needs, and no other does.

use super::{ServiceFile, System};
use crate::diagnostic::Position;
use crate::yaml;
use serde_json::{Map, Value as Json, json};

/// Name of the file.
const NAME: &str = "user-data-kernel";

/// The services that load modules and set parameters; `None` when nothing is asked for.
pub(super) fn services(system: &System) -> Option<ServiceFile> {
    let mut services = Map::new();
    for module in &system.modules {
        let words: Vec<&str> = module.split_whitespace().collect();
        let name = words.first().copied().unwrap_or_default();
        let command = [&["/usr/sbin/modprobe"][..], &words].concat();
        services.insert(
            format!("module-{name}"),
            json!({
                "image": "keelson/udev",
                "command": command,
                "network_mode": "none",
                "read_only": true,
                "cap_add": ["SYS_MODULE"],
                "volumes": ["/usr/lib/modules:/usr/lib/modules:ro"],
                "restart": "no",
                "x-keelson": {"ready": "exit", "follows": true},
            }),
        );
    }
    if !system.sysctls.is_empty() {
        let settings = system
            .sysctls
            .iter()
            .map(|(name, value)| format!("{name}={value}"));
        let mut command: Vec<String> = ["/usr/sbin/sysctl", "-w"].map(str::to_owned).to_vec();
        command.extend(settings);
        let below = |part: &str| {
            let mut names = system.sysctls.iter();
            names.any(|(name, _)| name.starts_with(part))
        };
        let capabilities = [
            ("net", "NET_ADMIN"),
            ("kernel", "SYS_ADMIN"),
            ("fs", "SYS_ADMIN"),
        ];
        let mut capabilities: Vec<&str> = capabilities
            .into_iter()
            .filter(|(part, _)| below(part))
            .map(|(_, capability)| capability)
            .collect();
        capabilities.dedup();
        services.insert(
            "kernel-parameters".to_owned(),
            json!({
                "image": "keelson/console",
                "command": command,
                "network_mode": "host",
                "ipc": "host",
                "uts": "host",
                "read_only": true,
                "cap_add": capabilities,
                "security_opt": ["systempaths=unconfined"],
                "restart": "no",
                "x-keelson": {"ready": "exit", "follows": true},
            }),
        );
    }
    if services.is_empty() {
        return None;
    }
    let document = yaml::from_json(
        &json!({ "services": Json::Object(services) }),
        Position::new(1, 1),
    );
    // A dollar sign would be a variable.
    let text = yaml::write(&document).replace('$', "$$");
    Some(ServiceFile {
        name: NAME,
        text: format!(
            "# From `modules` and `sysctl` of the configuration; written anew with each boot.\n{text}"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_module_is_a_service_and_parameters_are_one() {
        let system = System {
            modules: vec!["nbd max_part=8".into()],
            sysctls: vec![
                ("vm.swappiness".into(), "5".into()),
                ("net.core.somaxconn".into(), "100".into()),
            ],
            ..System::default()
        };
        let file = services(&system).unwrap();
        let json = yaml::to_json(&yaml::parse(&file.text).unwrap().root);
        let module = &json["services"]["module-nbd"];
        assert_eq!(
            module["command"],
            json!(["/usr/sbin/modprobe", "nbd", "max_part=8"])
        );
        let parameters = &json["services"]["kernel-parameters"];
        assert_eq!(
            parameters["command"],
            json!([
                "/usr/sbin/sysctl",
                "-w",
                "vm.swappiness=5",
                "net.core.somaxconn=100"
            ])
        );
        assert_eq!(parameters["cap_add"], json!(["NET_ADMIN"]));
        assert_eq!(services(&System::default()), None);
    }
}
