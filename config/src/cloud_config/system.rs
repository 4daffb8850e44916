//! Settings of the machine itself: `timezone`, `locale`, `ntp`, `ca_certs`, `resolv_conf`, and what RancherOS and
//! Keelson have for the kernel and for Docker.

use serde_json::{Map, Value as Json};

use super::{Proxy, Registries, Upgrade};
use crate::diagnostic::Diagnostics;
use crate::names;
use crate::network::{Dns, values};
use crate::yaml::{self, Fields, Node, Shape, Table, Value};

pub(super) static NTP: Table = Table::new(
    "ntp",
    &[
        ("servers", Shape::TEXTS, "Names or addresses of servers"),
        (
            "pools",
            Shape::TEXTS,
            "Names that stand for several servers",
        ),
        (
            "peers",
            Shape::TEXTS,
            "Machines that set their clocks by each other",
        ),
        ("enabled", Shape::Boolean, "False: the clock is left alone"),
    ],
)
.unsupported(&[
    ("allow", "this machine tells nobody the time"),
    ("ntp_client", "chrony is the client here"),
    ("config", "chrony is configured by the keys beside it"),
]);
pub(super) static CA_CERTS: Table = Table::new(
    "ca_certs",
    &[
        ("trusted", Shape::TEXTS, "Certificates, PEM"),
        (
            "remove_defaults",
            Shape::Boolean,
            "Those that everybody trusts are not",
        ),
    ],
);
pub(super) static RESOLV_CONF: Table = Table::new(
    "resolv_conf",
    &[
        (
            "nameservers",
            Shape::List(&Shape::Text),
            "Addresses of name servers",
        ),
        (
            "searchdomains",
            Shape::List(&Shape::Text),
            "Domains that are searched",
        ),
        ("domain", Shape::Text, "The one domain that is searched"),
    ],
)
.unsupported(&[
    ("options", "programs here have the usual ones"),
    ("sortlist", "programs here do not sort addresses"),
]);
/// What is asked for. What is not there is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct System {
    /// Name of a time zone (`Europe/Berlin`).
    pub timezone: Option<String>,
    /// Language of programs (`LANG`).
    pub locale: Option<String>,
    /// Time servers.
    pub ntp: Option<Ntp>,
    /// Certificates of authorities that are trusted.
    pub ca_certificates: CaCertificates,
    /// Name servers that come before those of the network.
    pub resolver: Option<Dns>,
    /// For the kernel's random number generator.
    pub random_seed: Option<Vec<u8>>,
    /// Kernel parameters (sysctl(8)), in order.
    pub sysctls: Vec<(String, String)>,
    /// Kernel modules with their parameters.
    pub modules: Vec<String>,
    /// Where releases of the operating system come from.
    pub upgrade: Upgrade,
    /// A proxy on the way to the world.
    pub proxy: Proxy,
    /// Where images come from.
    pub registries: Registries,
    /// Keys of Docker's `daemon.json`.
    pub docker: Map<String, Json>,
}

/// Time servers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ntp {
    /// Names or addresses of servers.
    pub servers: Vec<String>,
    /// Names that stand for several servers.
    pub pools: Vec<String>,
    /// Machines that set their clocks by each other.
    pub peers: Vec<String>,
    /// False: leave the clock alone.
    pub enabled: bool,
}

/// Certificates of authorities.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CaCertificates {
    /// Those that everybody trusts are not.
    pub only: bool,
    /// Certificates, PEM.
    pub trusted: Vec<String>,
}

/// Reads all of it from the top of a document, and what stands below `keelson` and `rancher`.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> System {
    let mut system = System {
        timezone: timezone(top, diagnostics),
        locale: locale(top, diagnostics),
        ..System::default()
    };
    if let Some(node) = top.get("ntp") {
        system.ntp = ntp(node, diagnostics);
    }
    if let Some(node) = top.get("ca_certs") {
        system.ca_certificates = ca_certificates(node, diagnostics);
    }
    system.resolver = resolver(top, diagnostics);
    system.upgrade = super::upgrade::parse(top, diagnostics);
    system.proxy = super::proxy::parse(top, diagnostics);
    if let Some(node) = top.get("random_seed") {
        system.random_seed = super::random_seed::parse(node, diagnostics);
    }
    // What stands below `keelson` counts.
    for name in ["rancher", "keelson"] {
        let Some(Value::Mapping(_)) = top.get(name).map(|node| &node.value) else {
            continue;
        };
        let Some(fields) = top
            .get(name)
            .and_then(|node| yaml::mapping(name, node, diagnostics))
        else {
            continue;
        };
        system.read_machine(name, &fields, diagnostics);
    }
    system.registries = super::registries::parse(top, diagnostics);
    for (key, value) in system.registries.for_docker() {
        system.docker.entry(key).or_insert(value);
    }
    if let Some(proxies) = system.proxy.for_docker() {
        system.docker.entry("proxies").or_insert(proxies);
    }
    system
}

impl System {
    fn read_machine(&mut self, within: &str, fields: &Fields<'_>, diagnostics: &mut Diagnostics) {
        if let Some(node) = fields.get("sysctl")
            && let Some(all) = yaml::mapping(&format!("{within}.sysctl"), node, diagnostics)
        {
            for (key, node) in all.iter() {
                let what = format!("{within}.sysctl.{}", key.text);
                let Some(value) = yaml::string(&what, node, diagnostics) else {
                    continue;
                };
                if !is_sysctl(&key.text) || value.contains('\0') {
                    let message = format!(
                        "{what}: no name of a kernel parameter, as vm.swappiness; it is not applied"
                    );
                    diagnostics.error(key.position, message);
                    continue;
                }
                self.sysctls.retain(|(name, _)| *name != key.text);
                self.sysctls.push((key.text.clone(), value));
            }
        }
        if let Some(node) = fields.get("modules") {
            let what = format!("{within}.modules");
            for line in yaml::strings(&what, node, diagnostics) {
                let line = line.trim().to_owned();
                let name = line.split_whitespace().next().unwrap_or_default();
                let is_name = !name.is_empty()
                    && name
                        .chars()
                        .all(|letter| letter.is_ascii_alphanumeric() || "_-".contains(letter))
                    && !name.starts_with('-');
                if !is_name || line.chars().any(char::is_control) {
                    let message =
                        format!("{what}: `{line}` names no kernel module; it is not loaded");
                    diagnostics.error(node.position, message);
                } else if !self.modules.contains(&line) {
                    self.modules.push(line);
                }
            }
        }
        if let Some(node) = fields.get("docker") {
            match within {
                "keelson" => self.read_docker(node, diagnostics),
                _ => super::rancher_docker::read(&mut self.docker, node, diagnostics),
            }
        }
    }

    /// `keelson.docker`: keys of `daemon.json`, as dockerd has them.
    fn read_docker(&mut self, node: &Node, diagnostics: &mut Diagnostics) {
        if yaml::mapping("keelson.docker", node, diagnostics).is_some()
            && let Json::Object(keys) = yaml::to_json(node)
        {
            self.docker.extend(keys);
        }
    }
}

/// Parts of letters, digits, `_`, `-`, with dots or slashes between them, none of them `..`.
fn is_sysctl(name: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "_-:".contains(letter))
    };
    name.split(['.', '/']).all(part) && name.contains(['.', '/'])
}

fn timezone(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<String> {
    let node = top.get("timezone")?;
    let name = yaml::string("timezone", node, diagnostics)?;
    let is_name = name.split('/').all(|part| {
        !part.is_empty()
            && !part.starts_with('.')
            && part
                .chars()
                .all(|letter| letter.is_ascii_alphanumeric() || "_+-.".contains(letter))
    });
    if !is_name {
        let message = format!("timezone: `{name}` is no name of a time zone, as Europe/Berlin");
        diagnostics.error(node.position, message);
    }
    is_name.then_some(name)
}

fn locale(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<String> {
    let node = top.get("locale")?;
    if matches!(&node.value, Value::Scalar(scalar) if scalar.as_bool() == Some(false)) {
        return None;
    }
    let name = yaml::string("locale", node, diagnostics)?;
    let is_name = !name.is_empty()
        && name
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || "_.-@".contains(letter));
    if !is_name {
        diagnostics.error(
            node.position,
            format!("locale: `{name}` is no locale, as C.UTF-8"),
        );
        return None;
    }
    let plain = name.to_ascii_lowercase().replace('-', "");
    if !matches!(
        plain.as_str(),
        "c" | "posix" | "c.utf8" | "en_us.utf8" | "en_us"
    ) {
        let message = format!(
            "locale: `{name}` is not in the console (C.UTF-8 is); LANG is set to it all the same"
        );
        diagnostics.warning(node.position, message);
    }
    Some(name)
}

fn ntp(node: &Node, diagnostics: &mut Diagnostics) -> Option<Ntp> {
    let fields = yaml::mapping("ntp", node, diagnostics)?;
    fields.check(" of ntp", &NTP, diagnostics);
    let mut hosts = |key: &str| {
        let Some(node) = fields.get(key) else {
            return Vec::new();
        };
        let given = yaml::strings(&format!("ntp.{key}"), node, diagnostics);
        let mut hosts: Vec<String> = Vec::new();
        for host in given {
            if hosts.contains(&host) {
                let message = format!("ntp.{key}: `{host}` stands there twice");
                diagnostics.warning(node.position, message);
            } else {
                hosts.push(host);
            }
        }
        hosts.retain(|host| {
            let good = names::is_host(host.trim_end_matches('.'))
                || host.parse::<std::net::IpAddr>().is_ok();
            if !good {
                let message = format!("ntp.{key}: `{host}` is no name or address; it is left out");
                diagnostics.error(node.position, message);
            }
            good
        });
        hosts
    };
    let (servers, pools) = (hosts("servers"), hosts("pools"));
    let peers = hosts("peers");
    let enabled = fields
        .get("enabled")
        .and_then(|node| yaml::boolean("ntp.enabled", node, diagnostics));
    Some(Ntp {
        servers,
        pools,
        peers,
        enabled: enabled.unwrap_or(true),
    })
}

fn ca_certificates(node: &Node, diagnostics: &mut Diagnostics) -> CaCertificates {
    let Some(fields) = yaml::mapping("ca_certs", node, diagnostics) else {
        return CaCertificates::default();
    };
    fields.check(" of ca_certs", &CA_CERTS, diagnostics);
    yaml::warn_of_nothing("ca_certs", node, diagnostics);
    let only = fields
        .get("remove_defaults")
        .and_then(|node| yaml::boolean("ca_certs.remove_defaults", node, diagnostics));
    let trusted = fields.get("trusted");
    let mut trusted = trusted
        .map(|node| yaml::strings("ca_certs.trusted", node, diagnostics))
        .unwrap_or_default();
    trusted.retain(|text| {
        let good = text.contains("-----BEGIN CERTIFICATE-----")
            && text.contains("-----END CERTIFICATE-----");
        if !good {
            let at = fields.get("trusted").map(|node| node.position);
            diagnostics.error(at, "ca_certs.trusted: a certificate stands between BEGIN CERTIFICATE and END CERTIFICATE; one is left out");
        }
        good
    });
    CaCertificates {
        only: only.unwrap_or(false),
        trusted,
    }
}

/// `resolv_conf`, unless `manage_resolv_conf` is false.
fn resolver(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Dns> {
    let managed = top
        .get("manage_resolv_conf")
        .and_then(|node| yaml::boolean("manage_resolv_conf", node, diagnostics));
    if managed == Some(false) {
        return None;
    }
    let node = top.get("resolv_conf")?;
    let fields = yaml::mapping("resolv_conf", node, diagnostics)?;
    fields.check(" of resolv_conf", &RESOLV_CONF, diagnostics);
    for key in ["nameservers", "searchdomains", "domain"] {
        let Some(node) = fields.get(key) else {
            continue;
        };
        let is_list = matches!(node.value, Value::Sequence(_));
        if is_list == (key == "domain") && !node.is_null() {
            let expected = if is_list { "one domain" } else { "a list" };
            let message =
                format!("resolv_conf.{key}: expected {expected}; it is taken all the same");
            diagnostics.warning(node.position, message);
        }
    }
    let mut dns = Dns::default();
    let search = fields.get("searchdomains").or_else(|| fields.get("domain"));
    values::dns(&mut dns, fields.get("nameservers"), search, diagnostics);
    (!dns.is_empty()).then_some(dns)
}

#[cfg(test)]
#[path = "system_tests.rs"]
mod tests;
