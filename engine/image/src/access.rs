//! Where images may be had, and who may have them.

use crate::arguments::Request;
use crate::blob::Cut;
use crate::failure::Failure;
use crate::registry::settings::Settings;
use crate::registry::{Credentials, Remote};
use anyhow::Context;
use keelson_image::{Reference, reference};
use std::path::Path;

/// Where an image may be had, by what is said of its registry; with these credentials rather than those that stand there.
///
/// # Errors
/// When what is said of registries, or a certificate, cannot be read.
pub(crate) fn remotes(
    request: &Request,
    name: &Reference,
    given: Option<Credentials>,
) -> anyhow::Result<Vec<Remote>> {
    let mut settings = Settings::default();
    for path in &request.registries {
        settings.add(Settings::read(path)?);
    }
    let registry = settings.of(&name.registry);
    let own = registry.username.as_ref().map(|username| Credentials {
        username: username.clone(),
        password: registry.password.clone().unwrap_or_default(),
        ..Credentials::default()
    });
    let certificates = certificates(request)?;
    Remote::all(name, &registry, &certificates, given.or(own).as_ref())
}

/// All certificates of authorities, PEM.
///
/// # Errors
/// One of them cannot be read.
pub(crate) fn certificates(request: &Request) -> anyhow::Result<Vec<u8>> {
    let mut certificates = Vec::new();
    for path in &request.certificates {
        let read = certificates_of(path);
        certificates.extend(read.with_context(|| format!("read {}", path.display()))?);
    }
    Ok(certificates)
}

/// A file of certificates, or all of a directory; one that is not there has none.
fn certificates_of(path: &Path) -> std::io::Result<Vec<u8>> {
    if !path.is_dir() {
        return match std::fs::read(path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
            other => other,
        };
    }
    let mut all = Vec::new();
    for entry in std::fs::read_dir(path)? {
        let file = entry?.path();
        if matches!(
            file.extension().and_then(|ending| ending.to_str()),
            Some("crt" | "pem")
        ) {
            all.extend(std::fs::read(file)?);
            all.push(b'\n');
        }
    }
    Ok(all)
}

/// Finds out whether a registry takes the credentials on standard input.
///
/// # Errors
/// When it does not, or cannot be reached.
pub(crate) fn login(request: &Request, registry: &str) -> anyhow::Result<()> {
    let host = registry
        .split_once("://")
        .map_or(registry, |(_, rest)| rest);
    let host = host.split('/').next().unwrap_or_default();
    let host = match host {
        "" | "index.docker.io" => reference::DEFAULT_REGISTRY,
        host => host,
    };
    // Any repository of it will do.
    let name: Reference = format!("{host}/any")
        .parse()
        .map_err(|why: String| Failure::error(400, why))?;
    let given = Credentials::read(std::io::stdin())?;
    let mut last = None;
    // Mirrors are not asked: the credentials are the registry's.
    for remote in remotes(request, &name, given)?
        .iter()
        .filter(|remote| !remote.is_mirror())
    {
        match remote.login() {
            Err(error) if error.downcast_ref::<Cut>().is_some() => last = Some(error),
            outcome => return outcome,
        }
    }
    Err(last.unwrap_or_else(|| Failure::error(400, format!("{registry} is no registry"))))
}
