//! The host's name.

use std::path::Path;

use keelson_config::cloud_config::host_names;
use keelson_config::instance::{FQDN_FILE, HOSTNAME_FILE};
use keelson_config::{CloudConfig, MetaData};
use keelson_sys::durable::Access;

use crate::report::Report;
use crate::state::State;

/// Keeps the host's name; gives it when there is one. User-data comes before meta-data.
pub(super) fn apply(
    state: &State,
    config: &CloudConfig,
    meta: &MetaData,
    report: &mut Report,
) -> Option<String> {
    let (hostname, fqdn) = match &config.hostname {
        Some(hostname) => (Some(hostname.clone()), config.fqdn.clone()),
        None => host_names(meta.local_hostname.clone(), None),
    };
    let hostname = hostname?;
    let access = Access::root(0o644);
    if let Err(error) = state.config.write(
        Path::new(HOSTNAME_FILE),
        format!("{hostname}\n").as_bytes(),
        access,
    ) {
        report.error(format!("write /state/config/{HOSTNAME_FILE}: {error}"));
    }
    let written = match fqdn {
        Some(fqdn) => {
            state
                .config
                .write(Path::new(FQDN_FILE), format!("{fqdn}\n").as_bytes(), access)
        }
        None => state.config.remove(Path::new(FQDN_FILE)),
    };
    if let Err(error) = written {
        report.error(format!("write /state/config/{FQDN_FILE}: {error}"));
    }
    report.info(&format!("hostname is {hostname}"));
    Some(hostname)
}
