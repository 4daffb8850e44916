//! Rules of the kernel's packet filter for our networks: what may pass, whose address is hidden, which ports lead where.
//!
//! They stand in chains of our own in the tables that Docker uses too: where the user engine drops what it does not
//! know, nothing but a rule in the same chain lets our packets pass. The `iptables` of the user engine's image is run
//! by its own loader, so that the system has it only once.

use super::{Network, Published};
use anyhow::{Context, bail};
use keelson_sys::process::iptables;
use std::fmt::Write;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::Stdio;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;
use tokio::sync::Mutex;

/// Table, the kernel's chain, our chain that it jumps to, and for which packets.
const JUMPS: [(&str, &str, &str, &[&str]); 5] = [
    ("filter", "FORWARD", "KEELSON-FORWARD", &[]),
    (
        "nat",
        "PREROUTING",
        "KEELSON-PORTS",
        &["-m", "addrtype", "--dst-type", "LOCAL"],
    ),
    (
        "nat",
        "OUTPUT",
        "KEELSON-PORTS",
        &["-m", "addrtype", "--dst-type", "LOCAL"],
    ),
    ("nat", "POSTROUTING", "KEELSON-POST", &[]),
    ("raw", "PREROUTING", "KEELSON-RAW", &[]),
];

/// A published port and the container that it leads to.
#[derive(Clone, Debug)]
pub(super) struct Forward<'a> {
    pub(super) address: Ipv4Addr,
    pub(super) port: &'a Published,
}

/// All rules, in the form that iptables-restore(8) takes; our chains only.
pub(super) fn rules(networks: &[&Network], forwards: &[Forward<'_>]) -> String {
    let mut text = String::new();
    filter(&mut text, networks);
    translate(&mut text, networks, forwards);
    // Ports lead to containers from the host's own loopback addresses, too: nobody else may send to those.
    text.push_str("*raw\n:KEELSON-RAW -\n");
    for network in networks {
        let bridge = network.bridge();
        let _ = writeln!(text, "-A KEELSON-RAW -i {bridge} -d 127.0.0.0/8 -j DROP");
    }
    text.push_str("COMMIT\n");
    text
}

fn filter(text: &mut String, networks: &[&Network]) {
    text.push_str("*filter\n:KEELSON-FORWARD -\n:KEELSON-APART -\n");
    for network in networks {
        let bridge = network.bridge();
        let _ = writeln!(text, "-A KEELSON-APART -o {bridge} -j DROP");
        // DNAT: who comes by a published port, from wherever.
        let _ = writeln!(
            text,
            "-A KEELSON-FORWARD -o {bridge} -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT"
        );
        let _ = writeln!(text, "-A KEELSON-FORWARD -i {bridge} -o {bridge} -j ACCEPT");
    }
    for network in networks {
        let bridge = network.bridge();
        let _ = writeln!(text, "-A KEELSON-FORWARD -i {bridge} -j KEELSON-APART");
        let verdict = if network.internal { "DROP" } else { "ACCEPT" };
        let _ = writeln!(text, "-A KEELSON-FORWARD -i {bridge} -j {verdict}");
        let _ = writeln!(text, "-A KEELSON-FORWARD -o {bridge} -j DROP");
    }
    text.push_str("COMMIT\n");
}

fn translate(text: &mut String, networks: &[&Network], forwards: &[Forward<'_>]) {
    text.push_str("*nat\n:KEELSON-PORTS -\n:KEELSON-POST -\n");
    for Forward { address, port, .. } in forwards {
        let (protocol, host, target) = (port.protocol, port.port, port.target);
        let at = match port.address.is_unspecified() {
            true => String::new(),
            false => format!(" -d {}", port.address),
        };
        let _ = writeln!(
            text,
            "-A KEELSON-PORTS{at} -p {protocol} --dport {host} -j DNAT --to-destination {address}:{target}"
        );
        // To itself, by the host's port.
        let _ = writeln!(
            text,
            "-A KEELSON-POST -s {address} -d {address} -p {protocol} --dport {target} -j MASQUERADE"
        );
    }
    for network in networks {
        let (bridge, subnet) = (network.bridge(), network.subnet);
        if !network.internal {
            let _ = writeln!(
                text,
                "-A KEELSON-POST -s {subnet} ! -o {bridge} -j MASQUERADE"
            );
        }
        // From a loopback address no answer would come back.
        let _ = writeln!(
            text,
            "-A KEELSON-POST -s 127.0.0.0/8 -o {bridge} -j MASQUERADE"
        );
    }
    text.push_str("COMMIT\n");
}

/// The packet filter.
#[derive(Debug)]
pub(super) struct Firewall {
    /// The root directory of the image that has iptables.
    image: PathBuf,
    /// The rules that are in force; one change at a time.
    applied: Mutex<Option<String>>,
}

impl Firewall {
    pub(super) fn new(image: PathBuf) -> Self {
        Self {
            image,
            applied: Mutex::new(None),
        }
    }

    /// Puts the rules in force that `render` gives when it is this call's turn: all or none.
    ///
    /// # Errors
    /// With what iptables said.
    pub(super) async fn apply(&self, render: impl FnOnce() -> String) -> anyhow::Result<()> {
        let mut applied = self.applied.lock().await;
        let rules = render();
        if applied.as_ref() == Some(&rules) {
            return Ok(());
        }
        self.run("iptables-restore", &["--noflush", "--wait"], Some(&rules))
            .await
            .context("cannot set the packet filter")?;
        if applied.is_none() {
            for (table, chain, own, packets) in JUMPS {
                let rule = |action| {
                    let mut words = vec!["--wait", "-t", table, action, chain];
                    words.extend(packets);
                    words.extend(["-j", own]);
                    words
                };
                if self.run("iptables", &rule("-C"), None).await.is_err() {
                    self.run("iptables", &rule("-I"), None).await?;
                }
            }
        }
        *applied = Some(rules);
        Ok(())
    }

    async fn run(&self, name: &str, words: &[&str], input: Option<&str>) -> anyhow::Result<()> {
        let mut command = Command::from(iptables(&self.image, name));
        command
            .args(words)
            .stdin(if input.is_some() {
                Stdio::piped()
            } else {
                Stdio::null()
            })
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
}

#[cfg(test)]
mod tests {
    use super::super::Protocol;
    use super::*;

    #[test]
    fn networks_are_kept_apart_and_ports_lead_to_their_container() {
        let (front, mut back) = (Network::default_bridge(), Network::default_bridge());
        back.name = "back".to_owned();
        back.id = "b".repeat(64);
        back.internal = true;
        let port = Published {
            protocol: Protocol::Tcp,
            address: Ipv4Addr::LOCALHOST,
            port: 8080,
            target: 80,
        };
        let forward = Forward {
            address: [10, 213, 0, 2].into(),
            port: &port,
        };
        let text = rules(&[&front, &back], &[forward]);
        let at = |line: &str| {
            text.find(line)
                .unwrap_or_else(|| panic!("{line} is not in {text}"))
        };
        // Who comes by a published port may pass; only then are networks closed to each other.
        assert!(
            at("-o keelson0 -m conntrack --ctstate RELATED,ESTABLISHED,DNAT -j ACCEPT")
                < at("-i keelson0 -j KEELSON-APART")
        );
        at(
            "-A KEELSON-PORTS -d 127.0.0.1 -p tcp --dport 8080 -j DNAT --to-destination 10.213.0.2:80\n",
        );
        at("-A KEELSON-FORWARD -i kb-bbbbbbbbbbbb -j DROP");
        assert!(
            !text.contains("! -o kb-bbbbbbbbbbbb -j MASQUERADE"),
            "{text}"
        );
        assert_eq!(text.matches("COMMIT\n").count(), 3);
    }
}
