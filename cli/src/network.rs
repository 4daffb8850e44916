//! `keelson network`.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use keelson_config::Diagnostics;
use keelson_config::instance::{CONFIG_DIRECTORY, NETWORK_FILE};
use keelson_config::network::status::{LinkStatus, STATUS_FILE, Status};
use keelson_config::network::trial::{TRIAL_FILE, Trial};
use keelson_config::network::{Cidr, Network};
use keelson_config::sources::nocloud;
use keelson_config::yaml::{self, Node};
use keelson_sys::durable::{Access, Tree};
use nix::ifaddrs::getifaddrs;

use crate::arguments::{self, Config};
use crate::config;
use crate::failure::Failure;
use crate::output::{Output, table, uptime};

/// Where the network service writes.
const DIRECTORY: &str = "/run/keelson/network";

/// How long making it last may take, in seconds.
const CONFIRMING_S: u64 = 120;
/// Where the configuration has it.
const KEY: &str = "keelson.network";

/// Runs a command about the network.
pub(crate) fn run(command: arguments::Network, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        arguments::Network::Status => status(output),
        arguments::Network::Apply { file, confirm } => apply(&file, confirm, output),
        arguments::Network::Confirm => confirm(output),
    }
}

fn apply(file: &Path, time: Option<Duration>, output: &mut Output<'_>) -> Result<(), Failure> {
    let bytes = config::read(file)?;
    let name = file.display().to_string();
    let document = String::from_utf8_lossy(&bytes).into_owned();
    let node = check(&document, &name, output)?;
    let Some(time) = time else {
        return keep(node, output);
    };
    let network = config::network_with(KEY, node)?.unwrap_or_else(Network::dhcp_everywhere);
    let trial = Trial {
        boot_id: boot_id()?,
        ends_at_s: now_s().saturating_add(time.as_secs()),
        document,
        network,
    };
    write_trial(Some(&trial))?;
    if output.json {
        return output.value(&serde_json::json!({"ends_at_s": trial.ends_at_s}));
    }
    let time = humantime::format_duration(time);
    output.text(&format!(
        "The network is what {name} says, for {time}; `keelson network confirm` keeps it.\n"
    ))
}

/// The document's content, when nothing of it is an error.
fn check(document: &str, name: &str, output: &mut Output<'_>) -> Result<Node, Failure> {
    let mut diagnostics = Diagnostics::new("");
    let found = nocloud::network_config_of(document.as_bytes(), name, &mut diagnostics);
    let messages = diagnostics.into_sorted();
    if !messages.is_empty() {
        config::report(messages, output)?;
    }
    match (found, yaml::parse(document)) {
        (Some(_), Ok(parsed)) => Ok(parsed.root),
        _ => Err(Failure::Failed(format!("{name}: nothing is in it"))),
    }
}

fn confirm(output: &mut Output<'_>) -> Result<(), Failure> {
    let boot_id = boot_id()?;
    let trial = read_trial()?.filter(|trial| trial.holds(&boot_id, now_s()));
    let Some(mut trial) = trial else {
        return Err(Failure::Failed(
            "nothing is tried out: its time is over, or there was nothing".to_owned(),
        ));
    };
    // It must not end while it is made to last.
    trial.ends_at_s = now_s().saturating_add(CONFIRMING_S);
    write_trial(Some(&trial))?;
    let parsed = yaml::parse(&trial.document);
    let parsed =
        parsed.map_err(|error| Failure::Failed(format!("{TRIAL_FILE}: {}", error.message)))?;
    keep(parsed.root, output)
}

/// Makes a document the configuration's. What is tried out ends: it is what the configuration says by now, or is another one.
fn keep(node: Node, output: &mut Output<'_>) -> Result<(), Failure> {
    config::replace(KEY, node)?;
    // Something else in the configuration may be wrong, which is said and changes nothing here.
    let applied = config::run(Config::Apply, output);
    write_trial(None)?;
    applied
}

fn boot_id() -> Result<String, Failure> {
    let id = fs::read_to_string("/proc/sys/kernel/random/boot_id");
    let id = id.map_err(|error| Failure::Failed(format!("read the boot's id: {error}")))?;
    Ok(id.trim().to_owned())
}

/// Seconds since the machine's start.
fn now_s() -> u64 {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let seconds = uptime.split('.').next();
    seconds
        .and_then(|seconds| seconds.parse().ok())
        .unwrap_or(0)
}

fn trial_path() -> PathBuf {
    let network = Path::new(NETWORK_FILE).with_file_name(TRIAL_FILE);
    Path::new(CONFIG_DIRECTORY).join(network)
}

/// What is tried out.
fn read_trial() -> Result<Option<Trial>, Failure> {
    let path = trial_path();
    let unreadable = |error: io::Error| config::unreadable(&path.display().to_string(), &error);
    match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(unreadable(error)),
        Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| unreadable(error.into())),
    }
}

/// Writes what is tried out, or takes it away; the network service hears of it.
fn write_trial(trial: Option<&Trial>) -> Result<(), Failure> {
    let config = Tree::open(Path::new(CONFIG_DIRECTORY))
        .map_err(|error| config::unreadable(CONFIG_DIRECTORY, &error))?;
    let path = Path::new(NETWORK_FILE).with_file_name(TRIAL_FILE);
    let written = match trial {
        Some(trial) => serde_json::to_vec(trial)
            .map_err(io::Error::other)
            .and_then(|json| config.write(&path, &json, Access::root(0o600))),
        None => config.remove(&path),
    };
    written.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => " (use sudo)",
            _ => "",
        };
        Failure::Failed(format!("write {}: {error}{hint}", trial_path().display()))
    })
}

fn status(output: &mut Output<'_>) -> Result<(), Failure> {
    let path = Path::new(DIRECTORY).join(STATUS_FILE);
    let unreadable = |error: io::Error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound => {
                " (is this a Keelson system, and does the network service run?)"
            }
            _ => "",
        };
        Failure::Failed(format!("read {}: {error}{hint}", path.display()))
    };
    let status = fs::read(&path).map_err(unreadable)?;
    let status: Status =
        serde_json::from_slice(&status).map_err(|error| unreadable(error.into()))?;
    if output.json {
        return output.value(&status);
    }
    let resolver = fs::read_to_string(Path::new(DIRECTORY).join("resolv.conf")).unwrap_or_default();
    output.text(&render(&status, &kernels(), now_s(), &resolver))
}

/// The addresses that the kernel has, by link.
fn kernels() -> BTreeMap<String, Vec<Cidr>> {
    let mut all: BTreeMap<String, Vec<Cidr>> = BTreeMap::new();
    for entry in getifaddrs().into_iter().flatten() {
        let address = |storage: &nix::sys::socket::SockaddrStorage| {
            let version_4 = storage
                .as_sockaddr_in()
                .map(|address| IpAddr::from(address.ip()));
            version_4.or_else(|| Some(storage.as_sockaddr_in6()?.ip().into()))
        };
        let Some(found) = entry.address.as_ref().and_then(address) else {
            continue;
        };
        let prefix = match entry.netmask.as_ref().and_then(address) {
            Some(IpAddr::V4(mask)) => u32::from(mask).leading_ones(),
            Some(IpAddr::V6(mask)) => u128::from(mask).leading_ones(),
            None => 0,
        };
        let prefix = u8::try_from(prefix).unwrap_or_default();
        all.entry(entry.interface_name).or_default().push(Cidr {
            address: found,
            prefix,
        });
    }
    all
}

fn render(
    status: &Status,
    kernels: &BTreeMap<String, Vec<Cidr>>,
    now_s: u64,
    resolver: &str,
) -> String {
    let mut rows = Vec::new();
    for link in &status.links {
        let state = match (link.up, link.carrier, &link.part_of) {
            (_, _, Some(other)) => format!("in {other}"),
            (true, true, None) => "up".to_owned(),
            (true, false, None) => "no carrier".to_owned(),
            (false, ..) => "down".to_owned(),
        };
        let kind = match link.kind.as_str() {
            "" if link.name == "lo" => "loopback",
            "" => "card",
            kind => kind,
        };
        let mut first = [link.name.clone(), kind.to_owned(), state];
        let addresses = kernels
            .get(&link.name)
            .map(Vec::as_slice)
            .unwrap_or_default();
        for address in addresses {
            let [name, kind, state] = std::mem::take(&mut first);
            rows.push([
                name,
                kind,
                state,
                address.to_string(),
                origin(link, address, now_s),
            ]);
        }
        if addresses.is_empty() {
            let [name, kind, state] = first;
            let note = if link.dhcp4 { "asks DHCP" } else { "" };
            rows.push([name, kind, state, String::new(), note.to_owned()]);
        }
    }
    let mut text = table(["LINK", "KIND", "STATE", "ADDRESS", "FROM"], &rows);
    let lines = resolver.lines();
    for (word, what) in [
        ("nameserver ", "name servers"),
        ("search ", "search domains"),
    ] {
        let values: Vec<&str> = lines
            .clone()
            .filter_map(|line| line.strip_prefix(word))
            .collect();
        if !values.is_empty() {
            text.push_str(&format!("{what}: {}\n", values.join(" ")));
        }
    }
    text
}

/// Where an address came from.
fn origin(link: &LinkStatus, address: &Cidr, now_s: u64) -> String {
    if let Some(lease) = link
        .lease
        .as_ref()
        .filter(|lease| lease.address.address == address.address)
    {
        let router = lease
            .routers
            .first()
            .map(|router| format!(", router {router}"));
        let left = lease.ends_at_s.map(|end| {
            let left = uptime(end.saturating_sub(now_s).saturating_mul(1_000_000));
            format!(", {left} left")
        });
        let left = left.unwrap_or_else(|| ", for good".to_owned());
        return format!(
            "DHCP from {}{}{left}",
            lease.server,
            router.unwrap_or_default()
        );
    }
    let mut dhcp6 = link.dhcp6.iter();
    if dhcp6.any(|own| address.address == IpAddr::V6(*own)) {
        return "DHCPv6".to_owned();
    }
    if link
        .addresses
        .iter()
        .any(|own| own.address == address.address)
    {
        return "configuration".to_owned();
    }
    match address.address {
        _ if link.name == "lo" => "kernel",
        IpAddr::V6(address) if address.is_unicast_link_local() => "kernel",
        IpAddr::V6(_) if link.managed => "router advertisement",
        _ => "others",
    }
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use keelson_config::network::status::LeaseStatus;

    #[test]
    fn each_address_says_where_it_came_from() {
        let cidr = |text: &str| text.parse::<Cidr>().unwrap();
        let link = |name: &str| LinkStatus {
            name: name.into(),
            up: true,
            carrier: true,
            managed: true,
            ..LinkStatus::default()
        };
        let status = Status {
            links: vec![
                LinkStatus {
                    addresses: vec![cidr("192.0.2.9/24")],
                    lease: Some(LeaseStatus {
                        address: cidr("10.0.2.15/24"),
                        server: "10.0.2.2".parse().unwrap(),
                        routers: vec!["10.0.2.2".parse().unwrap()],
                        ends_at_s: Some(3700),
                    }),
                    ..link("eth0")
                },
                LinkStatus {
                    part_of: Some("bond0".into()),
                    ..link("eth1")
                },
                LinkStatus {
                    dhcp4: true,
                    carrier: false,
                    ..link("eth2")
                },
                LinkStatus {
                    kind: "bridge".into(),
                    managed: false,
                    ..link("docker0")
                },
            ],
        };
        let kernels = BTreeMap::from([
            (
                "eth0".to_owned(),
                [
                    "10.0.2.15/24",
                    "192.0.2.9/24",
                    "fe80::1/64",
                    "2001:db8::1/64",
                ]
                .map(cidr)
                .to_vec(),
            ),
            ("docker0".to_owned(), vec![cidr("172.17.0.1/16")]),
        ]);
        let text = render(
            &status,
            &kernels,
            100,
            "# x\nnameserver 10.0.2.3\nsearch sea.example\n",
        );
        assert_eq!(
            text,
            "LINK     KIND    STATE       ADDRESS         FROM\n\
             eth0     card    up          10.0.2.15/24    DHCP from 10.0.2.2, router 10.0.2.2, 1 h 0 min left\n\
             \x20                            192.0.2.9/24    configuration\n\
             \x20                            fe80::1/64      kernel\n\
             \x20                            2001:db8::1/64  router advertisement\n\
             eth1     card    in bond0\n\
             eth2     card    no carrier                  asks DHCP\n\
             docker0  bridge  up          172.17.0.1/16   others\n\
             name servers: 10.0.2.3\n\
             search domains: sea.example\n"
        );
    }
}
