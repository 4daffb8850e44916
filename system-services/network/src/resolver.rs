//! resolv.conf, lists of time servers and of addresses, from the leases of all interfaces.

use std::fmt::{Display, Write};
use std::io;
use std::path::Path;

use crate::dhcp4::lease::Lease;
use crate::files::{self, Durability};

const HEADER: &str =
    "# From the network's DHCP servers; written anew when they say something else.\n";

/// resolv.conf(5) for leases in order of preference.
pub fn resolv_conf(leases: &[&Lease]) -> String {
    let mut text = HEADER.to_owned();
    let search = unique(leases.iter().flat_map(|lease| &lease.search));
    if !search.is_empty() {
        text.push_str("search");
        for domain in search {
            let _ = write!(text, " {domain}"); // writing to a string cannot fail
        }
        text.push('\n');
    }
    text + &lines(
        "nameserver ",
        leases.iter().flat_map(|lease| &lease.name_servers),
        "",
    )
}

/// The time servers' addresses, one a line, in order of preference.
pub fn ntp_servers(leases: &[&Lease]) -> String {
    lines("", leases.iter().flat_map(|lease| &lease.time_servers), "")
}

/// The same as sources for chrony (chrony.conf(5), `sourcedir`).
pub fn chrony_sources(leases: &[&Lease]) -> String {
    lines(
        "server ",
        leases.iter().flat_map(|lease| &lease.time_servers),
        " iburst",
    )
}

/// The machine's addresses, one a line, in order of preference: empty as long as the network is not up.
pub fn addresses(leases: &[&Lease]) -> String {
    lines("", leases.iter().map(|lease| &lease.address), "")
}

/// Writes all four below `directory`: resolv.conf, ntp-servers, chrony/dhcp.sources, and at last, when all is in place,
/// addresses.
///
/// # Errors
/// The first file that could not be written; the others were tried all the same.
pub fn write(directory: &Path, leases: &[&Lease]) -> io::Result<()> {
    let chrony = directory.join("chrony");
    let made = std::fs::create_dir_all(&chrony);
    let files = [
        (directory.join("resolv.conf"), resolv_conf(leases)),
        (directory.join("ntp-servers"), ntp_servers(leases)),
        (chrony.join("dhcp.sources"), chrony_sources(leases)),
        (directory.join("addresses"), addresses(leases)),
    ];
    files.iter().fold(made, |result, (path, text)| {
        let written = files::replace(path, text.as_bytes(), Durability::Memory).map_err(|error| {
            io::Error::new(error.kind(), format!("writing {}: {error}", path.display()))
        });
        result.and(written)
    })
}

fn lines<'a, T: Display + PartialEq + 'a>(
    before: &str,
    items: impl Iterator<Item = &'a T>,
    after: &str,
) -> String {
    unique(items)
        .into_iter()
        .fold(String::new(), |mut text, item| {
            let _ = writeln!(text, "{before}{item}{after}"); // writing to a string cannot fail
            text
        })
}

fn unique<'a, T: PartialEq>(items: impl Iterator<Item = &'a T>) -> Vec<&'a T> {
    let mut list = Vec::new();
    for item in items {
        if !list.contains(&item) {
            list.push(item);
        }
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    fn lease(last: u8, search: &[&str]) -> Lease {
        Lease {
            address: Ipv4Addr::new(10, 0, 0, last),
            prefix_len: 24,
            server: Ipv4Addr::new(10, 0, 0, 1),
            lifetime_s: 60,
            renew_s: 30,
            rebind_s: 50,
            routes: Vec::new(),
            name_servers: vec![Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, last)],
            search: search.iter().map(|domain| (*domain).to_owned()).collect(),
            time_servers: vec![Ipv4Addr::new(10, 0, 0, last)],
            mtu: None,
            host_name: None,
        }
    }

    #[test]
    fn what_several_interfaces_say_is_merged_in_order_and_said_once() {
        let (first, second) = (
            lease(2, &["a.example", "b.example"]),
            lease(3, &["b.example"]),
        );
        let leases = [&first, &second];
        let expected = format!(
            "{HEADER}search a.example b.example\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
        );
        assert_eq!(resolv_conf(&leases), expected);
        assert_eq!(ntp_servers(&leases), "10.0.0.2\n10.0.0.3\n");
        assert_eq!(addresses(&leases), "10.0.0.2\n10.0.0.3\n");
        assert_eq!(
            chrony_sources(&leases),
            "server 10.0.0.2 iburst\nserver 10.0.0.3 iburst\n"
        );
    }

    #[test]
    fn without_leases_the_files_exist_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &[]).unwrap();
        assert_eq!(
            std::fs::read_to_string(directory.path().join("resolv.conf")).unwrap(),
            HEADER
        );
        assert_eq!(
            std::fs::read_to_string(directory.path().join("chrony/dhcp.sources")).unwrap(),
            ""
        );
        assert_eq!(
            std::fs::read_to_string(directory.path().join("addresses")).unwrap(),
            ""
        );
    }
}
