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

const MAX_ENVIRONMENT_BYTES: u64 = 1024 * 1024;
/// What the configuration's variables stand between.
const BEGIN: &str = "# from the configuration:";
const END: &str = "# end of what is from the configuration";
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
    environment(state, services, report);
}

/// The configuration's variables stand between two comments, behind people's own, which stay.
fn environment(state: &State, services: &Services, report: &mut Report) {
    let path = Path::new(SERVICES_DIRECTORY).join(SERVICES_ENVIRONMENT);
    let there = match state.config.read(&path, MAX_ENVIRONMENT_BYTES) {
        Ok(there) => there.unwrap_or_default(),
        Err(error) => return report.error(format!("read {}: {error}", path.display())),
    };
    let there = String::from_utf8_lossy(&there);
    let mut text = String::new();
    let mut ours = false;
    for line in there.lines() {
        match line {
            BEGIN => ours = true,
            END => ours = false,
            line if !ours => text.push_str(&format!("{line}\n")),
            _ => {}
        }
    }
    if !services.environment.is_empty() {
        let lines = services.environment.iter();
        let lines: String = lines
            .map(|(name, value)| format!("{name}=\"{value}\"\n"))
            .collect();
        text.push_str(&format!("{BEGIN}\n{lines}{END}\n"));
    }
    let content = (!text.is_empty()).then_some(text.as_bytes());
    replace(state, &path, content, ENVIRONMENT_ACCESS, report);
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
