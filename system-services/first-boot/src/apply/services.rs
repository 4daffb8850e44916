//! `keelson.services` and `rancher.services`: files for the system engine, which reads them when this service has ended.

use std::fs;
use std::io;
use std::path::Path;

use keelson_config::cloud_config::Services;
use keelson_config::instance::{SERVICES_DIRECTORY, SERVICES_ENVIRONMENT, SERVICES_PREFIX};
use keelson_sys::durable::Access;

use super::replace;
use crate::report::Report;
use crate::state::State;

/// Variables may be secrets.
const ENVIRONMENT_ACCESS: Access = Access::root(0o600);

/// Writes the files, and removes those that the configuration no longer has; people's own stay.
pub(super) fn apply(state: &State, services: &Services, report: &mut Report) {
    let wanted: Vec<String> = services
        .files
        .iter()
        .map(|file| format!("{}.yml", file.name))
        .collect();
    remove_others(state, &wanted, report);
    let directory = Path::new(SERVICES_DIRECTORY);
    for (name, file) in wanted.iter().zip(&services.files) {
        let text = Some(file.text.as_bytes());
        replace(
            state,
            &directory.join(name),
            text,
            Access::root(0o644),
            report,
        );
    }
    if !services.environment.is_empty() {
        let lines = services.environment.iter();
        let text: String = lines
            .map(|(name, value)| format!("{name}=\"{value}\"\n"))
            .collect();
        let path = directory.join(SERVICES_ENVIRONMENT);
        replace(
            state,
            &path,
            Some(text.as_bytes()),
            ENVIRONMENT_ACCESS,
            report,
        );
    }
}

fn remove_others(state: &State, wanted: &[String], report: &mut Report) {
    let directory = state.config.path().join(SERVICES_DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return report.error(format!("read {}: {error}", directory.display())),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| {
            name.starts_with(SERVICES_PREFIX) && !wanted.iter().any(|wanted| wanted == name)
        });
        if is_ours {
            let path = Path::new(SERVICES_DIRECTORY).join(&name);
            replace(state, &path, None, Access::root(0o644), report);
        }
    }
}
