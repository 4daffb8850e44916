//! What the network is.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::net::IpAddr;
use std::path::Path;

use keelson_config::network::Cidr;
use keelson_config::network::status::{LinkStatus, STATUS_FILE, Status};
use nix::ifaddrs::getifaddrs;

use super::{DIRECTORY, now_s};
use crate::failure::Failure;
use crate::output::{Output, table, uptime};

/// Shows what the network service has written down, beside what the kernel has.
pub(super) fn status(output: &mut Output<'_>) -> Result<(), Failure> {
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
    text.push_str(&prefixes(status, now_s));
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

/// Prefixes that are delegated, a line each.
fn prefixes(status: &Status, now_s: u64) -> String {
    let all = status.links.iter();
    let all = all.flat_map(|link| link.prefixes.iter().map(move |prefix| (link, prefix)));
    let lines = all.map(|(link, delegated)| {
        let left = time_left(delegated.ends_at_s, now_s);
        format!("prefix: {} by {}, {left}\n", delegated.prefix, link.name)
    });
    lines.collect()
}

/// How long something still holds.
fn time_left(ends_at_s: Option<u64>, now_s: u64) -> String {
    let left = |end: u64| uptime(end.saturating_sub(now_s).saturating_mul(1_000_000));
    ends_at_s.map_or_else(
        || "for good".to_owned(),
        |end| format!("{} left", left(end)),
    )
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
        let left = time_left(lease.ends_at_s, now_s);
        return format!(
            "DHCP from {}{}, {left}",
            lease.server,
            router.unwrap_or_default()
        );
    }
    let mut dhcp6 = link.dhcp6.iter();
    if dhcp6.any(|own| address.address == IpAddr::V6(*own)) {
        return "DHCPv6".to_owned();
    }
    let mut delegated = link.delegated.iter();
    if let Some(part) = delegated.find(|part| part.address.address == address.address) {
        return format!("prefix of {}", part.from);
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
    use keelson_config::network::status::{DelegatedStatus, LeaseStatus, PrefixStatus};

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
                    prefixes: vec![PrefixStatus {
                        prefix: cidr("2001:db8:f00::/56"),
                        ends_at_s: Some(3700),
                    }],
                    ..link("eth0")
                },
                LinkStatus {
                    part_of: Some("bond0".into()),
                    ..link("eth1")
                },
                LinkStatus {
                    delegated: vec![DelegatedStatus {
                        address: cidr("2001:db8:f00::1/64"),
                        from: "eth0".into(),
                    }],
                    ..link("lan0")
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
            ("lan0".to_owned(), vec![cidr("2001:db8:f00::1/64")]),
        ]);
        let text = render(
            &status,
            &kernels,
            100,
            "# x\nnameserver 10.0.2.3\nsearch sea.example\n",
        );
        assert_eq!(
            text,
            "LINK     KIND    STATE       ADDRESS             FROM\n\
             eth0     card    up          10.0.2.15/24        DHCP from 10.0.2.2, router 10.0.2.2, 1 h 0 min left\n\
             \x20                            192.0.2.9/24        configuration\n\
             \x20                            fe80::1/64          kernel\n\
             \x20                            2001:db8::1/64      router advertisement\n\
             eth1     card    in bond0\n\
             lan0     card    up          2001:db8:f00::1/64  prefix of eth0\n\
             eth2     card    no carrier                      asks DHCP\n\
             docker0  bridge  up          172.17.0.1/16       others\n\
             prefix: 2001:db8:f00::/56 by eth0, 1 h 0 min left\n\
             name servers: 10.0.2.3\n\
             search domains: sea.example\n"
        );
    }
}
