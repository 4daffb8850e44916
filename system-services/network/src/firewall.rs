//! What may come in (`keelson.firewall`): a chain of our own in the kernel's packet filter.
//!
//! It decides on what is for the machine itself; what is passed on to containers goes by Docker's own rules, and the system
//! engine's. The `iptables` of the user engine's image is run, so that the system has it only once.

use std::fmt::Write as _;
use std::path::Path;
use std::process::Stdio;

use anyhow::{Context, Result, bail};
use keelson_config::network::{Allow, Firewall};
use keelson_sys::process::program_of_image;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::files::{self, Durability};

const CHAIN: &str = "KEELSON-INPUT";
/// Tells that there are rules of ours: a service that is started again knows what to take away.
const MARKER: &str = "firewall";
/// Interfaces of containers (Docker's and the system engine's): what they may do is said elsewhere.
const CONTAINERS: [&str; 4] = ["docker0", "br-+", "keelson0", "kb-+"];

/// IP's two versions and their programs.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Version {
    Four,
    Six,
}

impl Version {
    fn program(self) -> &'static str {
        match self {
            Version::Four => "iptables",
            Version::Six => "ip6tables",
        }
    }
}

/// Puts rules in force, or takes them away. `image` is the root of the image that has iptables, `run` where the marker is.
///
/// # Errors
/// What iptables said; the rules that were there stay.
pub async fn apply(image: &Path, run: &Path, firewall: Option<&Firewall>) -> Result<()> {
    let marker = run.join(MARKER);
    let Some(firewall) = firewall else {
        if !marker.exists() {
            return Ok(());
        }
        for version in [Version::Four, Version::Six] {
            remove(image, version).await?;
        }
        return files::remove(&marker, Durability::Memory)
            .with_context(|| marker.display().to_string());
    };
    files::replace(&marker, b"in force\n", Durability::Memory)
        .with_context(|| marker.display().to_string())?;
    for version in [Version::Four, Version::Six] {
        let restore = format!("{}-restore", version.program());
        let rules = rules(version, firewall);
        iptables(image, &restore, &["--noflush", "--wait"], Some(&rules)).await?;
        let jump = |action| ["--wait", action, "INPUT", "-j", CHAIN];
        if iptables(image, version.program(), &jump("-C"), None)
            .await
            .is_err()
        {
            iptables(image, version.program(), &jump("-I"), None).await?;
        }
    }
    Ok(())
}

async fn remove(image: &Path, version: Version) -> Result<()> {
    let program = version.program();
    let jump = ["--wait", "-D", "INPUT", "-j", CHAIN];
    // It may be gone already.
    while iptables(image, program, &jump, None).await.is_ok() {}
    for action in ["-F", "-X"] {
        let _ = iptables(image, program, &["--wait", action, CHAIN], None).await;
    }
    // Whoever is not in is not in: that there is no such chain is what counts.
    match iptables(image, program, &["--wait", "-S", CHAIN], None).await {
        Ok(()) => bail!("{program}: the chain {CHAIN} is still there"),
        Err(_) => Ok(()),
    }
}

/// The chain, in the form that iptables-restore(8) takes.
fn rules(version: Version, firewall: &Firewall) -> String {
    let mut text = format!("*filter\n:{CHAIN} -\n");
    let mut rule = |words: &str| {
        let _ = writeln!(text, "-A {CHAIN} {words}");
    };
    rule("-i lo -j RETURN");
    rule("-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN");
    rule("-m conntrack --ctstate INVALID -j DROP");
    for interface in CONTAINERS {
        rule(&format!("-i {interface} -j RETURN"));
    }
    match version {
        Version::Four => {
            rule("-p icmp --icmp-type echo-request -j RETURN");
            rule("-p 2 -j RETURN"); // IGMP; names of protocols are in a file that is not here
        }
        // Neighbours and routers are found by it (RFC 4890 4.4); answers of DHCPv6 servers come to a port.
        Version::Six => {
            rule("-p ipv6-icmp -j RETURN");
            rule("-s fe80::/10 -p udp --dport 546 -j RETURN");
        }
    }
    for allow in &firewall.allow {
        for words in allowed(version, allow) {
            rule(&format!("{words}-j RETURN"));
        }
    }
    rule("-j DROP");
    text.push_str("COMMIT\n");
    text
}

/// What has to fit, for each rule that an entry needs.
fn allowed(version: Version, allow: &Allow) -> Vec<String> {
    let networks = allow.from.iter();
    let networks: Vec<String> = networks
        .filter(|cidr| cidr.address.is_ipv6() == (version == Version::Six))
        .map(|cidr| format!("-s {cidr} "))
        .collect();
    let from = match allow.from.is_empty() {
        true => vec![String::new()],
        false => networks,
    };
    let ports = allow.ports.iter().map(|ports| {
        let (protocol, first, last) = (ports.protocol.name(), ports.first, ports.last);
        format!("-p {protocol} --dport {first}:{last} ")
    });
    let ports: Vec<String> = match allow.ports.is_empty() {
        true => vec![String::new()],
        false => ports.collect(),
    };
    let interface = allow.interface.as_ref();
    let interface = interface
        .map(|name| format!("-i {name} "))
        .unwrap_or_default();
    let rules = from.iter().flat_map(|from| {
        let interface = &interface;
        ports
            .iter()
            .map(move |ports| format!("{interface}{from}{ports}"))
    });
    rules.collect()
}

async fn iptables(image: &Path, name: &str, words: &[&str], input: Option<&str>) -> Result<()> {
    let mut command = Command::from(program_of_image(image, "usr/sbin/xtables-nft-multi"));
    let stdin = match input {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    };
    command
        .arg(name)
        .args(words)
        .stdin(stdin)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let mut child = command.spawn().context("cannot run iptables")?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        stdin.write_all(text.as_bytes()).await?;
    }
    let output = child.wait_with_output().await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} {}: {}", words.join(" "), said.trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_config::network::{Ports, Protocol};

    #[test]
    fn entries_are_rules_of_the_version_that_they_are_for() {
        let ssh = Ports {
            protocol: Protocol::Tcp,
            first: 22,
            last: 22,
        };
        let firewall = Firewall {
            allow: vec![
                Allow {
                    ports: vec![ssh],
                    ..Allow::default()
                },
                Allow {
                    from: vec!["10.0.0.0/8".parse().unwrap()],
                    interface: Some("eth1".to_owned()),
                    ..Allow::default()
                },
            ],
        };
        let four = rules(Version::Four, &firewall);
        let six = rules(Version::Six, &firewall);
        let (ssh, lan) = (
            "-A KEELSON-INPUT -p tcp --dport 22:22 -j RETURN\n",
            "-A KEELSON-INPUT -i eth1 -s 10.0.0.0/8 -j RETURN\n",
        );
        assert!(four.contains(ssh) && six.contains(ssh) && four.contains(lan));
        assert!(!six.contains("eth1"), "{six}");
        for text in [four, six] {
            assert!(
                text.ends_with("-A KEELSON-INPUT -j DROP\nCOMMIT\n"),
                "{text}"
            );
        }
    }
}
