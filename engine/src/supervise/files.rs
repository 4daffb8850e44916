//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container that a client made.

use crate::compose::{Definition, Namespace, NetworkMode};
use crate::containers::Stored;
use anyhow::Context;
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

/// Writes them into the container's directory; path in the container, path on the host.
pub(super) fn write(
    stored: &Stored,
    definition: &Definition,
    container: &Path,
) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let service = &definition.service;
    let shares_host = service.network_mode == Some(NetworkMode::Host);
    let hostname = match service.uts {
        Some(Namespace::Host) => fs::read_to_string("/proc/sys/kernel/hostname")?
            .trim()
            .to_owned(),
        _ => service.hostname.clone().unwrap_or_default(),
    };
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let hosts = if shares_host {
        read("/etc/hosts")
    } else {
        String::new()
    };
    let all = [
        ("/etc/hostname", "hostname", format!("{hostname}\n")),
        ("/etc/hosts", "hosts", hosts_file(stored, &hostname, &hosts)),
        (
            "/etc/resolv.conf",
            "resolv.conf",
            resolver_file(stored, &read("/etc/resolv.conf")),
        ),
    ];
    let mut files = Vec::new();
    for (target, name, content) in all {
        let path = container.join(name);
        fs::write(&path, content).with_context(|| format!("cannot write {}", path.display()))?;
        files.push((target, path));
    }
    Ok(files)
}

/// hosts(5): the host's own, or what a machine without network has; then what the client adds (`HOST:ADDRESS`).
fn hosts_file(stored: &Stored, hostname: &str, host: &str) -> String {
    let mut text = host.to_owned();
    if text.is_empty() {
        text.push_str("127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n");
        let _ = writeln!(text, "127.0.1.1\t{hostname}");
    }
    let extra = stored.body.host_config.as_ref();
    for line in extra
        .and_then(|host| host.extra_hosts.as_ref())
        .into_iter()
        .flatten()
    {
        if let Some((name, address)) = line.split_once(':') {
            let _ = writeln!(text, "{address}\t{name}");
        }
    }
    text
}

/// resolv.conf(5): the host's, or what the client says.
fn resolver_file(stored: &Stored, host: &str) -> String {
    let Some(config) = &stored.body.host_config else {
        return host.to_owned();
    };
    let own = |list: &Option<Vec<String>>, key: &str| {
        let list = list.clone().unwrap_or_default();
        match list.is_empty() {
            true => host
                .lines()
                .filter(|line| line.starts_with(key))
                .map(str::to_owned)
                .collect(),
            false if key == "nameserver" => {
                list.iter().map(|item| format!("{key} {item}")).collect()
            }
            false => vec![format!("{key} {}", list.join(" "))],
        }
    };
    let mut lines: Vec<String> = own(&config.dns, "nameserver");
    lines.extend(own(&config.dns_search, "search"));
    lines.extend(own(&config.dns_options, "options"));
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use bollard_stubs::models::{ContainerCreateBody, HostConfig};

    fn stored(host_config: HostConfig) -> Stored {
        Stored {
            id: String::new(),
            name: String::new(),
            created_us: 0,
            image_id: String::new(),
            layers: Vec::new(),
            body: ContainerCreateBody {
                host_config: Some(host_config),
                ..ContainerCreateBody::default()
            },
            outcome: crate::containers::Outcome::default(),
        }
    }

    #[test]
    fn what_the_client_says_replaces_the_hosts_part_by_part() {
        let host = "search example.org\nnameserver 192.0.2.1\n";
        let plain = resolver_file(&stored(HostConfig::default()), host);
        assert_eq!(plain, "nameserver 192.0.2.1\nsearch example.org\n");
        let own = stored(HostConfig {
            dns: Some(vec!["198.51.100.1".into(), "198.51.100.2".into()]),
            ..HostConfig::default()
        });
        let text = "nameserver 198.51.100.1\nnameserver 198.51.100.2\nsearch example.org\n";
        assert_eq!(resolver_file(&own, host), text);
    }

    #[test]
    fn added_hosts_come_last_and_may_be_of_version_6() {
        let own = stored(HostConfig {
            extra_hosts: Some(vec!["db:2001:db8::1".into()]),
            ..HostConfig::default()
        });
        assert!(hosts_file(&own, "web", "").ends_with("127.0.1.1\tweb\n2001:db8::1\tdb\n"));
        assert_eq!(hosts_file(&own, "web", "host\n"), "host\n2001:db8::1\tdb\n");
    }
}
