//! `keelson.registries`, and RancherOS' `rancher.registry_auths`: where images come from, and who may have them.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use serde_json::{Map, Value as Json, json};

use super::below;
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node, Shape, Table};

/// `keelson.registries`
pub(super) const REGISTRIES: Shape = Shape::Map(&Shape::Table(&REGISTRY));
static REGISTRY: Table = Table::new(
    "registry",
    &[
        (
            "mirrors",
            Shape::TEXTS,
            "Addresses that are tried before it",
        ),
        (
            "ca",
            Shape::Text,
            "Certificates of its authority: a path, or PEM",
        ),
        (
            "insecure",
            Shape::Boolean,
            "Its certificate is not checked, and plain HTTP will do",
        ),
        ("username", Shape::Text, "Who asks"),
        ("password", Shape::Text, "With which password"),
    ],
);
/// `rancher.registry_auths`
pub(super) const AUTHENTICATIONS: Shape = Shape::Map(&Shape::Table(&AUTHENTICATION));
static AUTHENTICATION: Table = Table::new(
    "registry_auths",
    &[
        ("username", Shape::Text, "Who asks"),
        ("password", Shape::Text, "With which password"),
        (
            "auth",
            Shape::Text,
            "Both, as Docker writes them: user:password in base64",
        ),
    ],
)
.unsupported(&[
    ("email", "no registry asks for it"),
    ("serveraddress", "the key says it"),
]);

/// Docker Hub, and what Docker's own files call it.
const HUB: &str = "docker.io";
const HUB_NAMES: [&str; 3] = ["index.docker.io", "registry-1.docker.io", "hub.docker.com"];

/// What is said of a registry, by the names that the system engine's `registries.yml` has.
#[derive(Clone, Default, PartialEq, Eq, Serialize)]
pub struct Registry {
    /// Addresses that are tried before it.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub mirrors: Vec<String>,
    /// Certificates of its authority: a path, or PEM.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
    /// Nothing is made of its certificate, and plain HTTP will do.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// Who asks.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub username: Option<String>,
    /// A secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub password: Option<String>,
}

impl std::fmt::Debug for Registry {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = formatter.debug_struct("Registry");
        shown.field("mirrors", &self.mirrors);
        shown.finish_non_exhaustive()
    }
}

/// Registries by host, with a port where they have one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registries(pub BTreeMap<String, Registry>);

/// Reads both; what stands below `keelson` counts.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Registries {
    let mut all = Registries::default();
    if let Some(node) = below(top, "rancher", "registry_auths") {
        let what = "rancher.registry_auths";
        let entries = yaml::mapping(what, node, diagnostics);
        for (key, node) in entries.iter().flat_map(Fields::iter) {
            let what = format!("{what}.{}", key.text);
            if let Some(registry) = authentication(&what, node, diagnostics) {
                all.0.insert(host(&key.text), registry);
            }
        }
    }
    if let Some(node) = below(top, "keelson", "registries") {
        let what = "keelson.registries";
        let entries = yaml::mapping(what, node, diagnostics);
        for (key, node) in entries.iter().flat_map(Fields::iter) {
            let what = format!("{what}.{}", key.text);
            if let Some(registry) = registry(&what, node, diagnostics) {
                all.0.insert(host(&key.text), registry);
            }
        }
    }
    all
}

/// `https://index.docker.io/v1/` is Docker Hub.
fn host(name: &str) -> String {
    let plain = name
        .strip_prefix("https://")
        .or_else(|| name.strip_prefix("http://"))
        .unwrap_or(name);
    let host = plain.split('/').next().unwrap_or(plain);
    match HUB_NAMES.contains(&host) {
        true => HUB.to_owned(),
        false => host.to_owned(),
    }
}

/// `username` and `password`, or both in `auth` as Docker writes them.
fn authentication(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<Registry> {
    let fields = yaml::mapping(what, node, diagnostics)?;
    fields.check(&format!(" of {what}"), &AUTHENTICATION, diagnostics);
    let mut text = |key: &str| {
        let node = fields.get(key).filter(|node| !node.is_null())?;
        yaml::string(&format!("{what}.{key}"), node, diagnostics)
    };
    let (mut username, mut password) = (text("username"), text("password"));
    let packed = text("auth").filter(|packed| !packed.is_empty());
    if let Some(packed) = packed {
        let both = STANDARD.decode(packed.trim()).ok();
        let both = both.and_then(|both| String::from_utf8(both).ok());
        let Some((user, secret)) = both.as_deref().and_then(|both| both.split_once(':')) else {
            let message =
                format!("{what}.auth: expected `user:password` in base64; it is left out");
            diagnostics.error(node.position, message);
            return None;
        };
        (username, password) = (Some(user.to_owned()), Some(secret.to_owned()));
    }
    let registry = Registry {
        username: username.filter(|text| !text.is_empty()),
        password: password.filter(|text| !text.is_empty()),
        ..Registry::default()
    };
    complete(what, node, registry, diagnostics)
}

fn registry(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<Registry> {
    let fields = yaml::mapping(what, node, diagnostics)?;
    fields.check(&format!(" of {what}"), &REGISTRY, diagnostics);
    let mirrors = fields.get("mirrors");
    let mut mirrors = mirrors
        .map(|node| yaml::strings(&format!("{what}.mirrors"), node, diagnostics))
        .unwrap_or_default();
    mirrors.retain(|mirror| {
        let is_address = mirror.starts_with("https://") || mirror.starts_with("http://");
        if !is_address {
            let shown = mirror.rsplit_once('@').map_or(mirror.as_str(), |(_, host)| host);
            let message = format!(
                "{what}.mirrors: `{shown}` is no address that begins with https:// or http://; it is left out"
            );
            diagnostics.error(node.position, message);
        }
        is_address
    });
    let insecure = fields.get("insecure");
    let insecure =
        insecure.and_then(|node| yaml::boolean(&format!("{what}.insecure"), node, diagnostics));
    let mut text = |key: &str| {
        let node = fields.get(key).filter(|node| !node.is_null())?;
        yaml::string(&format!("{what}.{key}"), node, diagnostics)
    };
    let registry = Registry {
        ca: text("ca"),
        username: text("username"),
        password: text("password"),
        mirrors,
        insecure: insecure.unwrap_or(false),
    };
    complete(what, node, registry, diagnostics)
}

/// A name without a password, or the other way round, is nothing.
fn complete(
    what: &str,
    node: &Node,
    mut registry: Registry,
    diagnostics: &mut Diagnostics,
) -> Option<Registry> {
    if registry.username.is_some() != registry.password.is_some() {
        let message =
            format!("{what}: `username` and `password` need each other; both are left out");
        diagnostics.error(node.position, message);
        (registry.username, registry.password) = (None, None);
    }
    (registry != Registry::default()).then_some(registry)
}

impl Registries {
    /// The system engine's file; `None` when nothing is said. JSON, which is YAML.
    pub fn for_engine(&self) -> Option<String> {
        let all = json!({"registries": self.0});
        (!self.0.is_empty()).then(|| format!("{all:#}\n"))
    }

    /// Keys of Docker's `daemon.json`: mirrors of Docker Hub, and those that are insecure.
    pub fn for_docker(&self) -> Map<String, Json> {
        let mut keys = Map::new();
        // Docker takes nothing but a host, and does not start with anything else.
        let is_host = |mirror: &String| {
            let rest = mirror.split_once("://").map_or("", |(_, rest)| rest);
            !rest.trim_end_matches('/').contains(['/', '?', '#', '@'])
        };
        let mirrors = self.0.get(HUB).map(|hub| {
            let mirrors = hub.mirrors.iter().filter(|mirror| is_host(mirror));
            mirrors.cloned().collect::<Vec<String>>()
        });
        let insecure = self.0.iter().filter(|(_, registry)| registry.insecure);
        let insecure: Vec<&String> = insecure.map(|(host, _)| host).collect();
        if let Some(mirrors) = mirrors.filter(|mirrors| !mirrors.is_empty()) {
            keys.insert("registry-mirrors".to_owned(), json!(mirrors));
        }
        if !insecure.is_empty() {
            keys.insert("insecure-registries".to_owned(), json!(insecure));
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_read_from_both_places() {
        let mut diagnostics = Diagnostics::new("user-data");
        let text = "rancher: {registry_auths: {'https://index.docker.io/v1/': {auth: bWU6czpl}, a.example: {username: u}, b.example: {auth: '?'}}}\n\
                    keelson: {registries: {docker.io: {mirrors: ['https://m.example', m, 'https://h.example/proxy']}, 'r.example:5000': {insecure: yes, username: me, password: secret}}}\n";
        let root = yaml::parse(text).unwrap().root;
        let top = yaml::mapping("top", &root, &mut diagnostics).unwrap();
        let all = parse(&top, &mut diagnostics);
        assert_eq!(diagnostics.into_sorted().len(), 3);
        let hosts: Vec<&String> = all.0.keys().collect();
        assert_eq!(hosts, ["docker.io", "r.example:5000"]);
        assert_eq!(
            Json::Object(all.for_docker()),
            json!({"registry-mirrors": ["https://m.example"], "insecure-registries": ["r.example:5000"]})
        );
        let file: Json = serde_json::from_str(&all.for_engine().unwrap()).unwrap();
        assert_eq!(file["registries"]["r.example:5000"]["password"], "secret");
        assert!(!format!("{all:?}").contains("secret"));
    }

    #[test]
    fn rancheros_authentication_is_dockers() {
        let mut diagnostics = Diagnostics::new("user-data");
        let text =
            "rancher: {registry_auths: {'https://index.docker.io/v1/': {auth: 'bWU6czpl'}}}\n";
        let root = yaml::parse(text).unwrap().root;
        let top = yaml::mapping("top", &root, &mut diagnostics).unwrap();
        let all = parse(&top, &mut diagnostics);
        let hub = &all.0["docker.io"];
        assert_eq!(
            (hub.username.as_deref(), hub.password.as_deref()),
            (Some("me"), Some("s:e"))
        );
        assert_eq!(Registries::default().for_engine(), None);
    }
}
