//! What may come in (`keelson.firewall`): chains of our own in the kernel's packet filter.
//!
//! They decide on what is for the machine itself; what is passed on to containers goes by Docker's own rules, and the system
//! engine's. The `iptables` of the user engine's image is run, so that the system has it only once.

use std::fmt::Write as _;
use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, bail};
use keelson_config::names;
use keelson_config::network::{Allow, Interface, Kind, Tunnel};
use keelson_sys::process;
use tokio::io::AsyncWriteExt;
use tokio::process::Command;

use crate::config::Config;
use crate::files::{self, Durability};

const CHAIN: &str = "KEELSON-INPUT";
/// What is let in by name; whoever is not goes no further.
const ALLOWED: &str = "KEELSON-ALLOWED";
/// Tells that there are rules of ours: a service that is started again knows what to take away.
const MARKER: &str = "firewall";
/// Interfaces of containers (Docker's and the system engine's): what they may do is said elsewhere.
const CONTAINERS: [&str; 4] = ["docker0", "br-+", "keelson0", "kb-+"];
/// How long iptables may take, on a machine that is busy.
const DEADLINE: Duration = Duration::from_secs(30);
/// VXLAN's port where none is said, as the kernel has it.
const VXLAN_PORT: u16 = 8472;

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

/// What is to be in force, for versions 4 and 6; `None` lets everything in.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rules(Option<[String; 2]>);

impl Rules {
    /// What a configuration asks for.
    pub fn of(config: &Config) -> Self {
        let Some(firewall) = config.firewall() else {
            return Rules(None);
        };
        // Other names are refused by iptables, and by the kernel: with them nothing at all would be let in.
        let made = config
            .virtuals()
            .filter(|one| names::is_plain_interface(&one.name));
        let made: Vec<&Interface> = made.collect();
        let of = |version| rules(version, &firewall.allow, &made);
        Rules(Some([of(Version::Four), of(Version::Six)]))
    }

    /// Whether something is held back.
    pub fn hold_back(&self) -> bool {
        self.0.is_some()
    }

    /// Puts the rules in force, or takes them away. `image` is the root of the image that has iptables, `run` where the marker
    /// is. When iptables refuses them, nothing is let in but answers and what keeps the network going.
    ///
    /// # Errors
    /// What iptables said, of both versions.
    pub async fn apply(&self, image: &Path, run: &Path) -> Result<()> {
        let marker = run.join(MARKER);
        let named = || marker.display().to_string();
        let mut failures = Vec::new();
        let versions = [Version::Four, Version::Six];
        match &self.0 {
            None if !marker.exists() => return Ok(()),
            None => {
                for version in versions {
                    failures.extend(remove(image, version).await.err());
                }
                if failures.is_empty() {
                    files::remove(&marker, Durability::Memory).with_context(named)?;
                }
            }
            Some(all) => {
                files::replace(&marker, b"in force\n", Durability::Memory).with_context(named)?;
                for (version, rules) in versions.into_iter().zip(all) {
                    failures.extend(put(image, version, rules).await.err());
                }
            }
        }
        let texts: Vec<String> = failures.iter().map(|error| format!("{error:#}")).collect();
        match texts.is_empty() {
            true => Ok(()),
            false => Err(anyhow!(texts.join("; "))),
        }
    }
}

/// Puts the rules of one version in force.
async fn put(image: &Path, version: Version, rules: &str) -> Result<()> {
    let restore = format!("{}-restore", version.program());
    let options = ["--noflush", "--wait"];
    let refused = check(image, &restore, &options, Some(rules)).await.err();
    if refused.is_some() {
        let least = self::rules(version, &[], &[]);
        check(image, &restore, &options, Some(&least)).await?;
    }
    let jump = |action| ["--wait", action, "INPUT", "-j", CHAIN];
    let is_there = iptables(image, version.program(), &jump("-C"), None).await?;
    if !is_there.status.success() {
        check(image, version.program(), &jump("-I"), None).await?;
    }
    match refused {
        Some(error) => Err(error.context("nothing is let in")),
        None => Ok(()),
    }
}

async fn remove(image: &Path, version: Version) -> Result<()> {
    let program = version.program();
    let run = async |words: &[&str]| iptables(image, program, words, None).await;
    while run(&["--wait", "-D", "INPUT", "-j", CHAIN])
        .await?
        .status
        .success()
    {}
    for chain in [CHAIN, ALLOWED] {
        run(&["--wait", "-F", chain]).await?;
    }
    for chain in [CHAIN, ALLOWED] {
        run(&["--wait", "-X", chain]).await?;
    }
    // It may not have been there: that it is not there now is what counts.
    let all = check(image, program, &["--wait", "-S"], None).await?;
    match all.lines().any(|line| line.contains(CHAIN)) {
        true => bail!("{program}: the chain {CHAIN} is still there"),
        false => Ok(()),
    }
}

/// The chains, in the form that iptables-restore(8) takes.
fn rules(version: Version, allowed: &[Allow], made: &[&Interface]) -> String {
    let mut text = format!("*filter\n:{CHAIN} -\n:{ALLOWED} -\n");
    let mut rule = |chain: &str, words: &str| {
        let _ = writeln!(text, "-A {chain} {words}");
    };
    let mut first = |words: &str| rule(CHAIN, words);
    first("-i lo -j RETURN");
    first("-m conntrack --ctstate RELATED,ESTABLISHED -j RETURN");
    first("-m conntrack --ctstate INVALID -j DROP");
    // A bridge that the configuration makes may be called like those of containers.
    let is_taken = |name: &str| name.starts_with("br-") || name.starts_with("kb-");
    for interface in made.iter().filter(|one| is_taken(&one.name)) {
        first(&format!("-i {} -j {ALLOWED}", interface.name));
    }
    for interface in CONTAINERS {
        first(&format!("-i {interface} -j RETURN"));
    }
    first(&format!("-j {ALLOWED}"));
    let mut second = |words: &str| rule(ALLOWED, words);
    match version {
        Version::Four => {
            second("-p icmp --icmp-type echo-request -j RETURN");
            second("-p 2 -j RETURN"); // IGMP; names of protocols are in a file that is not here
        }
        // Neighbours and routers are found by it (RFC 4890 4.4); answers of DHCPv6 servers come to a port.
        Version::Six => {
            second("-p ipv6-icmp -j RETURN");
            second("-s fe80::/10 -p udp --dport 546 -j RETURN");
        }
    }
    for interface in made {
        if let Some(words) = tunnelled(version, &interface.kind) {
            second(&format!("{words}-j RETURN"));
        }
    }
    for allow in allowed {
        for words in of_entry(version, allow) {
            second(&format!("{words}-j RETURN"));
        }
    }
    second("-j DROP");
    text.push_str("COMMIT\n");
    text
}

/// What comes out of a tunnel's other end.
fn tunnelled(version: Version, kind: &Kind) -> Option<String> {
    match kind {
        Kind::WireGuard(tunnel) => Some(format!("-p udp --dport {} ", tunnel.port?)),
        Kind::Tunnel(tunnel) => {
            let remote = tunnel.remote.filter(|remote| !remote.is_multicast());
            let ends = tunnel.local.or(tunnel.remote);
            let is_of_version = ends.is_none_or(|end| end.is_ipv6() == (version == Version::Six));
            let packets = packets(version, tunnel).filter(|_| is_of_version)?;
            let from = remote
                .map(|remote| format!("-s {remote} "))
                .unwrap_or_default();
            Some(format!("{from}{packets}"))
        }
        _ => None,
    }
}

/// Which packets carry a tunnel's; `None` when they are none of this version.
fn packets(version: Version, tunnel: &Tunnel) -> Option<String> {
    // Numbers of IANA's "Protocol Numbers".
    let (protocol, of) = match tunnel.mode.as_str() {
        "gre" | "gretap" => (47, Version::Four),
        "ip6gre" | "ip6gretap" => (47, Version::Six),
        "ipip" => (4, Version::Four),
        "ipip6" => (4, Version::Six),
        "sit" | "isatap" => (41, Version::Four),
        "ip6ip6" => (41, Version::Six),
        "vxlan" => {
            let port = tunnel.port.unwrap_or(VXLAN_PORT);
            return Some(format!("-p udp --dport {port} "));
        }
        _ => return None,
    };
    (of == version).then(|| format!("-p {protocol} "))
}

/// What has to fit, for each rule that an entry needs.
fn of_entry(version: Version, allow: &Allow) -> Vec<String> {
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

/// Runs iptables; gives what it printed.
async fn check(image: &Path, name: &str, words: &[&str], input: Option<&str>) -> Result<String> {
    let output = iptables(image, name, words, input).await?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{name} {}: {}", words.join(" "), said.trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn iptables(image: &Path, name: &str, words: &[&str], input: Option<&str>) -> Result<Output> {
    let mut command = Command::from(process::iptables(image, name));
    let stdin = match input {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    };
    command
        .args(words)
        .stdin(stdin)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true);
    let mut child = command.spawn().context("cannot run iptables")?;
    if let (Some(text), Some(mut stdin)) = (input, child.stdin.take()) {
        // One that ends before it has read all says why itself.
        let _ = stdin.write_all(text.as_bytes()).await;
    }
    let output = tokio::time::timeout(DEADLINE, child.wait_with_output()).await;
    let output = output.map_err(|_| anyhow!("{name} does not end"))?;
    output.with_context(|| format!("waiting for {name}"))
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
        let allowed = [
            Allow {
                ports: vec![ssh],
                ..Allow::default()
            },
            Allow {
                from: vec!["10.0.0.0/8".parse().unwrap()],
                interface: Some("eth1".to_owned()),
                ..Allow::default()
            },
        ];
        let four = rules(Version::Four, &allowed, &[]);
        let six = rules(Version::Six, &allowed, &[]);
        let (ssh, lan) = (
            "-A KEELSON-ALLOWED -p tcp --dport 22:22 -j RETURN\n",
            "-A KEELSON-ALLOWED -i eth1 -s 10.0.0.0/8 -j RETURN\n",
        );
        assert!(four.contains(ssh) && six.contains(ssh) && four.contains(lan));
        assert!(!six.contains("eth1"), "{six}");
        for text in [four, six] {
            assert!(
                text.ends_with("-A KEELSON-ALLOWED -j DROP\nCOMMIT\n"),
                "{text}"
            );
        }
    }

    #[test]
    fn tunnels_come_in_and_a_bridge_is_not_taken_for_a_containers() {
        let tunnel = |mode: &str, local: &str, remote: &str| Interface {
            name: mode.to_owned(),
            kind: Kind::Tunnel(Tunnel {
                mode: mode.to_owned(),
                local: Some(local.parse().unwrap()),
                remote: Some(remote.parse().unwrap()),
                ..Tunnel::default()
            }),
            ..Interface::default()
        };
        let bridge = Interface {
            name: "br-lan".to_owned(),
            kind: Kind::Bridge(keelson_config::network::Bridge::default()),
            ..Interface::default()
        };
        let all = [
            tunnel("gre", "192.0.2.1", "192.0.2.2"),
            tunnel("ip6ip6", "2001:db8::1", "2001:db8::2"),
            tunnel("vxlan", "192.0.2.1", "239.1.1.1"),
            bridge,
        ];
        let made: Vec<&Interface> = all.iter().collect();
        let (four, six) = (
            rules(Version::Four, &[], &made),
            rules(Version::Six, &[], &made),
        );
        for (text, part) in [
            (&four, "-s 192.0.2.2 -p 47 -j RETURN"),
            (&four, "-A KEELSON-ALLOWED -p udp --dport 8472 -j RETURN"),
            (&six, "-s 2001:db8::2 -p 41 -j RETURN"),
        ] {
            assert!(text.contains(part), "{part}: {text}");
        }
        assert!(!six.contains("8472") && !four.contains("-p 41"));
        let place = |part: &str| four.find(part).unwrap();
        assert!(place("-i br-lan -j KEELSON-ALLOWED") < place("-i br-+ -j RETURN"));
    }
}
