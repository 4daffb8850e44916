//! `keelson.proxy`, and RancherOS' `network.http_proxy`: a proxy on the way to the world.

use super::below;
use crate::diagnostic::Diagnostics;
use crate::shell::quote;
use crate::yaml::{self, Fields, Node, Shape, Table, Value};

/// `keelson.proxy`
pub(super) static PROXY: Table = Table::new(
    "proxy",
    &[
        (
            "http_proxy",
            Shape::Text,
            "Proxy for http:, as http://host:port",
        ),
        ("https_proxy", Shape::Text, "Proxy for https:"),
        (
            "no_proxy",
            Shape::Text,
            "Hosts that are reached without, with commas",
        ),
    ],
);

/// Their names below `keelson.proxy` and `rancher.network`, and as keys of Docker's `proxies`.
const KEYS: [(&str, &str); 3] = [
    ("http_proxy", "http-proxy"),
    ("https_proxy", "https-proxy"),
    ("no_proxy", "no-proxy"),
];

/// A proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxy {
    /// What is set, by the environment variable's name.
    pub variables: Vec<(&'static str, String)>,
}

/// Reads both; what stands below `keelson` counts.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Proxy {
    let mut proxy = Proxy::default();
    if let Some(node) = below(top, "rancher", "network") {
        // What else is there belongs to the network, and so do complaints about the whole.
        if let Value::Mapping(_) = &node.value {
            proxy.read("rancher.network", node, diagnostics);
        }
    }
    if let Some(node) = below(top, "keelson", "proxy") {
        proxy.read("keelson.proxy", node, diagnostics);
        if let Some(fields) = yaml::mapping("keelson.proxy", node, &mut Diagnostics::new("")) {
            fields.check(" of keelson.proxy", &PROXY, diagnostics);
        }
    }
    proxy
}

impl Proxy {
    fn read(&mut self, what: &str, node: &Node, diagnostics: &mut Diagnostics) {
        let Some(fields) = yaml::mapping(what, node, diagnostics) else {
            return;
        };
        for (name, _) in KEYS {
            let Some(node) = fields.get(name) else {
                continue;
            };
            let Some(value) = yaml::string(&format!("{what}.{name}"), node, diagnostics) else {
                continue;
            };
            let value = value.trim().to_owned();
            let is_address = ["http://", "https://", "socks5://"]
                .iter()
                .any(|scheme| value.starts_with(scheme));
            let is_one = !value
                .chars()
                .any(|it| it.is_control() || it.is_whitespace());
            if !is_one || (name != "no_proxy" && !is_address) {
                // What stands before the host may be a secret.
                let shown = value
                    .rsplit_once('@')
                    .map_or(value.as_str(), |(_, host)| host);
                let message = format!(
                    "{what}.{name}: `{shown}` is no address of a proxy (http://host:port); it is not used"
                );
                diagnostics.error(node.position, message);
                continue;
            }
            self.variables.retain(|(other, _)| *other != name);
            self.variables.push((name, value));
        }
    }

    /// Docker's `proxies` (daemon.json); `None` without a proxy.
    pub fn for_docker(&self) -> Option<serde_json::Value> {
        let key = |name: &str| {
            KEYS.iter()
                .find(|(ours, _)| *ours == name)
                .map(|(_, key)| *key)
        };
        let entries = self.variables.iter();
        let entries =
            entries.filter_map(|(name, value)| Some((key(name)?.to_owned(), value.clone().into())));
        let entries: serde_json::Map<String, serde_json::Value> = entries.collect();
        (!entries.is_empty()).then_some(entries.into())
    }

    /// Lines for a shell that have programs use it; `None` without a proxy.
    pub fn for_shells(&self) -> Option<String> {
        let lines = self.variables.iter().map(|(name, value)| {
            let (large, value) = (name.to_ascii_uppercase(), quote(value));
            format!("export {name}={value} {large}={value}\n")
        });
        let text: String = lines.collect();
        (!text.is_empty()).then_some(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_is_for_docker_and_for_shells() {
        let mut diagnostics = Diagnostics::new("user-data");
        let text = "rancher: {network: {http_proxy: 'http://old:1', no_proxy: 'a,b'}}\nkeelson: {proxy: {http_proxy: 'http://p:3128', https_proxy: nonsense}}\n";
        let root = yaml::parse(text).unwrap().root;
        let top = yaml::mapping("top", &root, &mut diagnostics).unwrap();
        let proxy = parse(&top, &mut diagnostics);
        assert_eq!(diagnostics.into_sorted().len(), 1);
        assert_eq!(
            proxy.for_docker().unwrap(),
            serde_json::json!({"http-proxy": "http://p:3128", "no-proxy": "a,b"})
        );
        assert!(
            proxy
                .for_shells()
                .unwrap()
                .contains("export http_proxy='http://p:3128' HTTP_PROXY='http://p:3128'\n")
        );
        assert_eq!(
            (Proxy::default().for_docker(), Proxy::default().for_shells()),
            (None, None)
        );
    }
}
