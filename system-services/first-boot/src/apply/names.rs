//! The host's name.

use std::path::Path;

use keelson_config::CloudConfig;
use keelson_config::cloud_config::host_names;
use keelson_config::instance::{FQDN_FILE, HOSTNAME_FILE};
use keelson_config::sources::Source;
use keelson_sys::durable::Access;

use super::replace;
use crate::report::Report;
use crate::state::State;

/// Keeps the host's name; gives it when there is one. The configuration comes before the data source.
pub(super) fn apply(
    state: &State,
    config: &CloudConfig,
    source: &Source,
    report: &mut Report,
) -> Option<String> {
    if config.preserve_hostname {
        return None;
    }
    let (hostname, fqdn) = match &config.hostname {
        Some(hostname) => (Some(hostname.clone()), config.fqdn.clone()),
        None => host_names(source.hostname.clone(), None),
    };
    let access = Access::root(0o644);
    let Some(hostname) = hostname else {
        // Nobody names it any more: DHCP may.
        for file in [HOSTNAME_FILE, FQDN_FILE] {
            replace(state, Path::new(file), None, access, report);
        }
        return None;
    };
    let line = |name: &str| format!("{name}\n").into_bytes();
    replace(
        state,
        Path::new(HOSTNAME_FILE),
        Some(&line(&hostname)),
        access,
        report,
    );
    let fqdn = fqdn.as_deref().map(line);
    replace(state, Path::new(FQDN_FILE), fqdn.as_deref(), access, report);
    report.info(&format!("hostname is {hostname}"));
    Some(hostname)
}
