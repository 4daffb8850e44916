//! What is said of registries, in YAML:
//!
//! ```yaml
//! registries:
//!   docker.io:
//!     mirrors: [https://mirror.example.org]
//!   registry.example.org:5000:
//!     ca: /state/config/registry.pem     # a file, or the certificate itself
//!     username: me
//!     password: secret
//!   10.0.0.5:5000:
//!     insecure: true                     # TLS without a look at the certificate, or no TLS at all
//! ```

use anyhow::{Context, bail};
use serde::Deserialize;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// All registries by host.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Settings {
    #[serde(default)]
    registries: BTreeMap<String, Registry>,
}

/// One registry.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Registry {
    /// URLs that are tried before it.
    #[serde(default)]
    pub(crate) mirrors: Vec<String>,
    /// Certificates of authorities: a path, or PEM.
    ca: Option<String>,
    /// Nothing is made of a certificate, and plain HTTP will do.
    #[serde(default)]
    pub(crate) insecure: bool,
    pub(crate) username: Option<String>,
    pub(crate) password: Option<String>,
}

impl Settings {
    /// Reads the file; one that is not there says nothing.
    ///
    /// # Errors
    /// Names file, line and column of what is wrong.
    pub(crate) fn read(path: &Path) -> anyhow::Result<Self> {
        let text = match fs::read_to_string(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                return Ok(Self::default());
            }
            other => other.with_context(|| format!("read {}", path.display()))?,
        };
        Self::parse(&text).with_context(|| path.display().to_string())
    }

    fn parse(text: &str) -> anyhow::Result<Self> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let settings: Self = serde_yaml::from_str(text)?;
        for (host, registry) in &settings.registries {
            for mirror in &registry.mirrors {
                if !mirror.starts_with("https://") && !mirror.starts_with("http://") {
                    bail!(
                        "registries.{host}.mirrors: `{mirror}` is not a URL: it begins with https:// or http://"
                    );
                }
            }
            if registry.username.is_some() != registry.password.is_some() {
                bail!("registries.{host}: username and password need each other");
            }
        }
        Ok(settings)
    }

    /// Adds what another file says; what both say of a host is as that one has it.
    pub(crate) fn add(&mut self, other: Self) {
        self.registries.extend(other.registries);
    }

    /// What is said of a host.
    pub(crate) fn of(&self, host: &str) -> Registry {
        self.registries.get(host).cloned().unwrap_or_default()
    }
}

impl Registry {
    /// Its authorities' certificates, PEM.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(crate) fn certificates(&self) -> anyhow::Result<Option<Vec<u8>>> {
        match &self.ca {
            None => Ok(None),
            Some(pem) if pem.contains("-----BEGIN") => Ok(Some(pem.clone().into_bytes())),
            Some(path) => {
                let pem =
                    fs::read(path).with_context(|| format!("read the certificates in {path}"))?;
                Ok(Some(pem))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registry_is_found_by_its_host() {
        let text = "registries:\n  docker.io: {mirrors: [\"https://m\"]}\n  a:5000: {insecure: true, ca: \"-----BEGIN X\"}\n";
        let settings = Settings::parse(text).unwrap();
        assert_eq!(settings.of("docker.io").mirrors, ["https://m"]);
        assert!(settings.of("a:5000").insecure && !settings.of("a").insecure);
        assert_eq!(
            settings.of("a:5000").certificates().unwrap().unwrap(),
            b"-----BEGIN X"
        );
        assert!(Settings::parse("").unwrap().of("x").mirrors.is_empty());
    }

    #[test]
    fn mistakes_have_a_place() {
        for (text, words) in [
            ("registries:\n  a:\n    mirors: []\n", "at line 3"),
            (
                "registries: {a: {mirrors: [b]}}",
                "registries.a.mirrors: `b` is not a URL",
            ),
            ("registries: {a: {username: b}}", "need each other"),
            ("registry: {}", "unknown field `registry`"),
        ] {
            let error = format!("{:#}", Settings::parse(text).unwrap_err());
            assert!(error.contains(words), "{error}");
        }
    }
}
