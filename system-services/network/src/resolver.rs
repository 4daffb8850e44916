//! resolv.conf, lists of time servers and of addresses, from the configuration and the leases of all interfaces.

use std::fmt::{Display, Write};
use std::io;
use std::net::IpAddr;
use std::path::Path;

use keelson_config::network::Dns;

use crate::config::DhcpSettings;
use crate::dhcp4::lease::Lease;
use crate::files::{self, Durability};
use crate::ipv6::Told;

const HEADER: &str = "# The network's name servers; written anew when they are others.\n";

/// What is known, in order of preference and each thing once.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings {
    name_servers: Vec<IpAddr>,
    search: Vec<String>,
    time_servers: Vec<IpAddr>,
    addresses: Vec<IpAddr>,
}

impl Findings {
    /// Adds what the configuration says of name servers.
    pub fn add_dns(&mut self, dns: &Dns) {
        dns.servers
            .iter()
            .for_each(|server| add(&mut self.name_servers, *server));
        dns.search
            .iter()
            .for_each(|domain| add(&mut self.search, domain.clone()));
    }

    /// Adds an address that an interface has.
    pub fn add_address(&mut self, address: IpAddr) {
        add(&mut self.addresses, address);
    }

    /// Adds what a DHCP server says, as far as it is wanted.
    pub fn add_lease(&mut self, settings: &DhcpSettings, lease: &Lease) {
        self.add_address(lease.address.into());
        if settings.use_dns {
            for server in &lease.name_servers {
                add(&mut self.name_servers, (*server).into());
            }
        }
        if settings.use_domains {
            for domain in &lease.search {
                add(&mut self.search, domain.clone());
            }
        }
        if settings.use_ntp {
            for server in &lease.time_servers {
                add(&mut self.time_servers, (*server).into());
            }
        }
    }

    /// Adds what routers and DHCPv6 servers say, as far as it is wanted.
    pub fn add_told(&mut self, settings: &DhcpSettings, told: &Told) {
        for address in told.addresses.iter().flatten() {
            self.add_address(address.what.into());
        }
        if settings.use_dns {
            for server in &told.name_servers {
                add(&mut self.name_servers, (*server).into());
            }
        }
        if settings.use_domains {
            for domain in &told.search {
                add(&mut self.search, domain.clone());
            }
        }
        if settings.use_ntp {
            for server in &told.time_servers {
                add(&mut self.time_servers, (*server).into());
            }
        }
    }

    /// resolv.conf(5).
    pub fn resolv_conf(&self) -> String {
        let mut text = HEADER.to_owned();
        if !self.search.is_empty() {
            let _ = writeln!(text, "search {}", self.search.join(" ")); // writing to a string cannot fail
        }
        text + &lines("nameserver ", &self.name_servers, "")
    }

    /// The time servers' addresses, one a line.
    pub fn ntp_servers(&self) -> String {
        lines("", &self.time_servers, "")
    }

    /// The same as sources for chrony (chrony.conf(5), `sourcedir`).
    pub fn chrony_sources(&self) -> String {
        lines("server ", &self.time_servers, " iburst")
    }

    /// The machine's addresses, one a line: empty as long as the network is not up.
    pub fn addresses(&self) -> String {
        lines("", &self.addresses, "")
    }

    /// Writes all four below `directory`: resolv.conf, ntp-servers, chrony/dhcp.sources, and at last, when all is in place,
    /// addresses.
    ///
    /// # Errors
    /// The first file that could not be written; the others were tried all the same.
    pub fn write(&self, directory: &Path) -> io::Result<()> {
        let chrony = directory.join("chrony");
        let made = std::fs::create_dir_all(&chrony);
        let files = [
            (directory.join("resolv.conf"), self.resolv_conf()),
            (directory.join("ntp-servers"), self.ntp_servers()),
            (chrony.join("dhcp.sources"), self.chrony_sources()),
            (directory.join("addresses"), self.addresses()),
        ];
        files.iter().fold(made, |result, (path, text)| {
            let written = files::replace(path, text.as_bytes(), Durability::Memory);
            let written = written.map_err(|error| {
                io::Error::new(error.kind(), format!("writing {}: {error}", path.display()))
            });
            result.and(written)
        })
    }
}

fn add<T: PartialEq>(list: &mut Vec<T>, item: T) {
    if !list.contains(&item) {
        list.push(item);
    }
}

fn lines<T: Display>(before: &str, items: &[T], after: &str) -> String {
    items.iter().fold(String::new(), |mut text, item| {
        let _ = writeln!(text, "{before}{item}{after}"); // writing to a string cannot fail
        text
    })
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
        let mut findings = Findings::default();
        findings.add_dns(&Dns {
            servers: vec!["2001:db8::53".parse().unwrap()],
            search: vec!["own.example".into()],
        });
        let settings = DhcpSettings::default();
        findings.add_lease(&settings, &lease(2, &["a.example", "b.example"]));
        findings.add_lease(&settings, &lease(3, &["b.example"]));
        let deaf = DhcpSettings {
            use_dns: false,
            use_domains: false,
            use_ntp: false,
            ..settings
        };
        findings.add_lease(&deaf, &lease(4, &["c.example"]));
        let expected = format!(
            "{HEADER}search own.example a.example b.example\nnameserver 2001:db8::53\nnameserver 10.0.0.1\nnameserver 10.0.0.2\nnameserver 10.0.0.3\n"
        );
        assert_eq!(findings.resolv_conf(), expected);
        assert_eq!(findings.ntp_servers(), "10.0.0.2\n10.0.0.3\n");
        assert_eq!(findings.addresses(), "10.0.0.2\n10.0.0.3\n10.0.0.4\n");
        assert_eq!(
            findings.chrony_sources(),
            "server 10.0.0.2 iburst\nserver 10.0.0.3 iburst\n"
        );
    }

    #[test]
    fn without_anything_the_files_exist_all_the_same() {
        let directory = tempfile::tempdir().unwrap();
        Findings::default().write(directory.path()).unwrap();
        let read = |name: &str| std::fs::read_to_string(directory.path().join(name)).unwrap();
        assert_eq!(read("resolv.conf"), HEADER);
        assert_eq!(read("chrony/dhcp.sources"), "");
        assert_eq!(read("addresses"), "");
    }
}
