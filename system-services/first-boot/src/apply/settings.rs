//! Settings that other services read: written where each looks.

use std::fs;
use std::path::Path;

use keelson_config::cloud_config::{Ntp, install::Install};
use keelson_config::instance::{
    CERTIFICATES_DIRECTORY, FILES_DIRECTORY, INSTALL_FILE, NETWORK_FILE, PROXY_FILE,
    REGISTRIES_FILE, TIME_DIRECTORY, UPGRADE_FILE,
};
use keelson_config::network::Network;
use keelson_sys::durable::Access;
use serde_json::{Map, Value as Json};

use super::{Context, Wanted, replace};
use crate::report::Report;
use crate::state::State;

/// Certificates of everybody's authorities, in the console's image.
const BUNDLE: &str = "etc/ssl/certs/ca-certificates.crt";
const DOCKER_SETTINGS: &str = "docker/daemon.json";
/// Keys of daemon.json that the configuration set last, so that they can be taken away.
const DOCKER_GIVEN: &str = "docker/.from-configuration.json";
const MAX_DOCKER_BYTES: u64 = 1024 * 1024;
const MAX_NETWORK_BYTES: u64 = 4 * 1024 * 1024;
const READABLE: Access = Access::root(0o644);

/// Writes all of them.
pub(super) fn apply(context: &Context<'_>, wanted: &Wanted, is_new: bool, report: &mut Report) {
    let system = &wanted.config.system;
    timezone(context, wanted, report);
    let locale = system.locale.as_ref();
    let locale = locale.map(|locale| format!("LANG={locale}\n"));
    let laid = |path: &str, content: Option<&[u8]>, report: &mut Report| {
        laid(context, wanted, path, content, report)
    };
    laid(
        "etc/default/locale",
        locale.as_deref().map(str::as_bytes),
        report,
    );
    let variables = system.proxy.variables.iter();
    let variables: String = variables
        .map(|(name, value)| format!("{name}={value}\n"))
        .collect();
    for (path, content) in [
        (PROXY_FILE, Some(variables).filter(|text| !text.is_empty())),
        (REGISTRIES_FILE, system.registries.for_engine()),
        (UPGRADE_FILE, system.upgrade.for_service()),
        (
            INSTALL_FILE,
            wanted.config.install.as_ref().map(Install::settings),
        ),
    ] {
        let content = content.as_deref().map(str::as_bytes);
        replace(
            context.state,
            Path::new(path),
            content,
            Access::root(0o600),
            report,
        );
    }
    let proxy = system.proxy.for_shells();
    laid(
        "etc/profile.d/proxy.sh",
        proxy.as_deref().map(str::as_bytes),
        report,
    );
    // In place of the image's own of that name: with no server named, that one stays.
    let names_servers = |ntp: &&Ntp| {
        let lists = [&ntp.servers, &ntp.pools, &ntp.peers];
        !ntp.enabled || lists.iter().any(|list| !list.is_empty())
    };
    let sources = system.ntp.as_ref().filter(names_servers).map(time_sources);
    let path = Path::new(TIME_DIRECTORY).join("default.sources");
    let text = sources.as_deref().map(str::as_bytes);
    replace(context.state, &path, text, READABLE, report);
    certificates(context, wanted, report);
    docker(context, &system.docker, report);
    network(context, wanted, report);
    if is_new {
        let seeds = [&wanted.source.random_seed, &system.random_seed];
        for seed in seeds.into_iter().flatten() {
            if let Err(error) = fs::write("/dev/urandom", seed) {
                report.warning(&format!("random_seed: write to /dev/urandom: {error}"));
            }
        }
    }
}

fn lines(lines: impl Iterator<Item = String>) -> String {
    lines.flat_map(|line| [line, "\n".to_owned()]).collect()
}

/// A file of the console's root. One that `write_files` has is not taken away.
fn laid(
    context: &Context<'_>,
    wanted: &Wanted,
    path: &str,
    content: Option<&[u8]>,
    report: &mut Report,
) {
    let mut files = wanted.config.write_files.iter();
    if content.is_none() && files.any(|file| file.path.strip_prefix('/') == Some(path)) {
        return;
    }
    let path = Path::new(FILES_DIRECTORY).join(path);
    replace(context.state, &path, content, READABLE, report);
}

/// The time zone's own file, from the console's image.
fn timezone(context: &Context<'_>, wanted: &Wanted, report: &mut Report) {
    let name = wanted.config.system.timezone.as_deref();
    let zone = name.and_then(|name| {
        let path = context.image.join("usr/share/zoneinfo").join(name);
        fs::read(&path)
            .map_err(|error| {
                report.error(format!(
                    "timezone: there is no `{name}`: {}: {error}; the clock shows UTC",
                    path.display()
                ));
            })
            .ok()
    });
    laid(context, wanted, "etc/localtime", zone.as_deref(), report);
    let name = name
        .filter(|_| zone.is_some())
        .map(|name| format!("{name}\n"));
    laid(
        context,
        wanted,
        "etc/timezone",
        name.as_deref().map(str::as_bytes),
        report,
    );
}

/// Sources of chrony (chrony.conf(5), `sourcedir`).
fn time_sources(ntp: &Ntp) -> String {
    if !ntp.enabled {
        return String::new();
    }
    let mut text = String::new();
    for (word, list) in [
        ("server", &ntp.servers),
        ("pool", &ntp.pools),
        ("peer", &ntp.peers),
    ] {
        for host in list {
            text.push_str(&format!("{word} {host} iburst\n"));
        }
    }
    text
}

/// The user's authorities, for the engines; and with everybody's, for the console.
fn certificates(context: &Context<'_>, wanted: &Wanted, report: &mut Report) {
    let certificates = &wanted.config.system.ca_certificates;
    let own = lines(
        certificates
            .trusted
            .iter()
            .map(|text| text.trim().to_owned()),
    );
    let path = Path::new(CERTIFICATES_DIRECTORY).join("configuration.crt");
    let content = (!own.is_empty()).then_some(own.as_bytes());
    replace(context.state, &path, content, READABLE, report);
    if own.is_empty() && !certificates.only {
        return laid(context, wanted, BUNDLE, None, report);
    }
    let everybody = match certificates.only {
        true => String::new(),
        false => fs::read_to_string(context.image.join(BUNDLE)).unwrap_or_else(|error| {
            report.error(format!("read {BUNDLE} of the console: {error}"));
            String::new()
        }),
    };
    let all = everybody + &own;
    laid(context, wanted, BUNDLE, Some(all.as_bytes()), report);
}

/// Docker's settings: those of the configuration over what stands in the file by other hands.
fn docker(context: &Context<'_>, wanted: &Map<String, Json>, report: &mut Report) {
    let read = |path: &str| {
        let content = context.state.config.read(Path::new(path), MAX_DOCKER_BYTES);
        let keys = content.ok().flatten();
        keys.map(|bytes| serde_json::from_slice::<Map<String, Json>>(&bytes))
    };
    let given = match read(DOCKER_GIVEN) {
        Some(Ok(given)) => given,
        _ => Map::new(),
    };
    if given.is_empty() && wanted.is_empty() {
        return;
    }
    let mut keys = match read(DOCKER_SETTINGS) {
        Some(Ok(keys)) => keys,
        None => Map::new(),
        Some(Err(error)) => {
            return report.error(format!(
                "/state/config/{DOCKER_SETTINGS}: {error}; the settings of the configuration are not added"
            ));
        }
    };
    keys.retain(|name, value| given.get(name) != Some(value));
    keys.extend(wanted.clone());
    let text = |keys: &Map<String, Json>| {
        let json = serde_json::to_string_pretty(keys).unwrap_or_default();
        (!keys.is_empty()).then_some(json + "\n")
    };
    // The file itself stays as it is written when it says the same.
    let is_there = matches!(read(DOCKER_SETTINGS), Some(Ok(there)) if there == keys);
    let files = [(DOCKER_SETTINGS, &keys), (DOCKER_GIVEN, wanted)];
    for (path, keys) in files {
        if path == DOCKER_SETTINGS && is_there {
            continue;
        }
        let content = text(keys);
        let content = content.as_deref().map(str::as_bytes);
        replace(context.state, Path::new(path), content, READABLE, report);
    }
}

/// What the network service was told last.
pub(super) fn last_network(state: &State) -> Option<Network> {
    let json = state
        .config
        .read(Path::new(NETWORK_FILE), MAX_NETWORK_BYTES);
    serde_json::from_slice(&json.ok()??).ok()
}

/// What the network service reads.
fn network(context: &Context<'_>, wanted: &Wanted, report: &mut Report) {
    let mut network = wanted.config.network_with(&wanted.source);
    // What cannot be read may be what says who is let in, and where the machine is: what it last was counts.
    if !wanted.understood
        && let Some(last) = last_network(context.state)
    {
        match &mut network {
            None => return,
            Some(network) if network.firewall.is_none() => network.firewall = last.firewall,
            Some(_) => {}
        }
    }
    let json = network.and_then(|network| serde_json::to_vec_pretty(&network).ok());
    let access = Access::root(0o600);
    replace(
        context.state,
        Path::new(NETWORK_FILE),
        json.as_deref(),
        access,
        report,
    );
}
