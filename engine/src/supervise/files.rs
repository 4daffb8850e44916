//! `/etc/hosts`, `/etc/hostname` and `/etc/resolv.conf` of a container whose image is not the OS image's.

use crate::compose::names::Names;
use crate::compose::{Definition, Namespace, NetworkMode};
use anyhow::Context;
use std::fmt::Write;
use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// Where programs look for name servers.
pub(super) const RESOLVER: &str = "/etc/resolv.conf";

/// A file of the host; empty when there is none.
pub(super) fn read(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

/// Writes them into the container's directory; path in the container, path on the host.
pub(super) fn write(
    definition: &Definition,
    container: &Path,
    known: &str,
) -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let service = &definition.service;
    let shares_host = service.network_mode == Some(NetworkMode::Host);
    let hostname = match service.uts {
        Some(Namespace::Host) => fs::read_to_string("/proc/sys/kernel/hostname")?
            .trim()
            .to_owned(),
        _ => hostname_of(definition).to_owned(),
    };
    let hosts = match shares_host {
        true => read("/etc/hosts"),
        false => own_hosts(&hostname, known),
    };
    let all = [
        ("/etc/hostname", "hostname", format!("{hostname}\n")),
        ("/etc/hosts", "hosts", hosts_file(&service.names, hosts)),
        (
            RESOLVER,
            "resolv.conf",
            resolver_file(&service.names, &read(RESOLVER)),
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

/// Writes who is in a container's networks into the file that it has, which is mounted and has to stay the same one.
pub(super) fn rewrite_hosts(
    definition: &Definition,
    container: &Path,
    known: &str,
) -> anyhow::Result<()> {
    let text = hosts_file(
        &definition.service.names,
        own_hosts(hostname_of(definition), known),
    );
    rewrite(&container.join("hosts"), &text)
}

/// Writes the host's name servers into the file that a container has, unless it was given its own.
pub(super) fn rewrite_resolver(names: &Names, container: &Path, host: &str) -> anyhow::Result<()> {
    rewrite(&container.join("resolv.conf"), &resolver_file(names, host))
}

fn hostname_of(definition: &Definition) -> &str {
    let own = definition.service.hostname.as_deref();
    own.unwrap_or(&definition.name)
}

/// Writes into a file that is mounted somewhere and so has to stay the same one; fine when there is none.
fn rewrite(path: &Path, text: &str) -> anyhow::Result<()> {
    let write = || {
        // Longer or shorter, a reader finds whole lines.
        let file = match fs::File::options().write(true).open(path) {
            // It is being made, with the same content.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            other => other?,
        };
        file.write_all_at(text.as_bytes(), 0)?;
        file.set_len(text.len() as u64)
    };
    write().with_context(|| format!("cannot write {}", path.display()))
}

/// hosts(5) of a machine of its own: in networks, or with its loopback interface alone.
fn own_hosts(hostname: &str, known: &str) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    match known.is_empty() {
        true => drop(writeln!(text, "127.0.1.1\t{hostname}")),
        false => text.push_str(known),
    }
    text
}

/// With the hosts that are added.
fn hosts_file(names: &Names, mut text: String) -> String {
    for (name, address) in &names.hosts {
        let _ = writeln!(text, "{address}\t{name}");
    }
    text
}

/// resolv.conf(5): the host's, but for the parts that are said.
fn resolver_file(names: &Names, host: &str) -> String {
    if names.servers.is_empty() && names.search.is_empty() && names.options.is_empty() {
        return host.to_owned();
    }
    let own = |list: &[String], key: &str| match list.is_empty() {
        true => host
            .lines()
            .filter(|line| line.starts_with(key))
            .map(str::to_owned)
            .collect(),
        false if key == "nameserver" => list.iter().map(|item| format!("{key} {item}")).collect(),
        false => vec![format!("{key} {}", list.join(" "))],
    };
    let mut lines: Vec<String> = own(&names.servers, "nameserver");
    lines.extend(own(&names.search, "search"));
    lines.extend(own(&names.options, "options"));
    lines.push(String::new());
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_replaces_the_hosts_part_by_part() {
        let host = "search example.org\nnameserver 192.0.2.1\n";
        assert_eq!(resolver_file(&Names::default(), host), host);
        let own = Names {
            servers: vec!["198.51.100.1".into(), "198.51.100.2".into()],
            ..Names::default()
        };
        let text = "nameserver 198.51.100.1\nnameserver 198.51.100.2\nsearch example.org\n";
        assert_eq!(resolver_file(&own, host), text);
    }

    #[test]
    fn added_hosts_come_last_and_may_be_of_version_6() {
        let own = Names {
            hosts: vec![("db".into(), "2001:db8::1".into())],
            ..Names::default()
        };
        let text = hosts_file(&own, own_hosts("web", ""));
        assert!(text.ends_with("127.0.1.1\tweb\n2001:db8::1\tdb\n"));
        let text = hosts_file(&own, own_hosts("web", "10.0.0.2\tweb\n"));
        assert!(text.ends_with("ip6-loopback\n10.0.0.2\tweb\n2001:db8::1\tdb\n"));
    }
}
