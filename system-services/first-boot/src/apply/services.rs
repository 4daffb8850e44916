//! `keelson.services` and `rancher.services`: files for the system engine, which reads them when this service has ended.

use std::fs;
use std::io;
use std::path::Path;

use keelson_config::cloud_config::Services;
use keelson_config::instance::{SERVICES_DIRECTORY, SERVICES_ENVIRONMENT, SERVICES_PREFIX};
use keelson_sys::durable::Access;

use crate::report::Report;
use crate::state::State;

/// Variables may be secrets.
const ENVIRONMENT_ACCESS: Access = Access::root(0o600);

/// Writes the files.
pub(super) fn write(state: &State, services: &Services, report: &mut Report) {
    let mut files: Vec<(String, String, Access)> = services
        .files
        .iter()
        .map(|file| {
            (
                format!("{}.yml", file.name),
                file.text.clone(),
                Access::root(0o644),
            )
        })
        .collect();
    if !services.environment.is_empty() {
        let lines = services.environment.iter();
        let text = lines
            .map(|(name, value)| format!("{name}=\"{value}\"\n"))
            .collect();
        files.push((SERVICES_ENVIRONMENT.to_owned(), text, ENVIRONMENT_ACCESS));
    }
    for (name, text, access) in files {
        let path = Path::new(SERVICES_DIRECTORY).join(name);
        if let Err(error) = state.config.write(&path, text.as_bytes(), access) {
            report.error(format!("write /state/config/{}: {error}", path.display()));
        }
    }
}

/// Removes the files of an earlier instance; people's own stay.
pub(super) fn remove(state: &State, report: &mut Report) {
    let directory = state.config.path().join(SERVICES_DIRECTORY);
    let entries = match fs::read_dir(&directory) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return,
        Err(error) => return report.error(format!("read {}: {error}", directory.display())),
    };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let is_ours = name
            .to_str()
            .is_some_and(|name| name.starts_with(SERVICES_PREFIX));
        let path = Path::new(SERVICES_DIRECTORY).join(&name);
        if is_ours && let Err(error) = state.config.remove(&path) {
            report.error(format!("remove {}: {error}", path.display()));
        }
    }
}
