//! Reads the files of directories; a file that cannot be used is reported and the others are loaded.

use super::environment::Environment;
use super::interpolate::Interpolated;
use super::lists::{OneOrMany, Ordered, Pairs};
use super::names::Names;
use super::network::{Declared, NetworkMode};
use super::service::Service;
use super::values::Text;
use super::{Definition, Kind, Position, position};
use crate::api::Failure;
use crate::network::{Attachment, DEFAULT};
use serde::Deserialize;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Of the machine's own services: values of variables, in the directory of their files.
pub const ENVIRONMENT: &str = ".env";

/// What directories hold.
#[derive(Debug, Default)]
pub struct Loaded {
    /// Services that can be started, in order of name.
    pub definitions: Vec<Definition>,
    /// Files and services that cannot.
    pub failures: Vec<Failure>,
    /// For a person: what was left out.
    pub warnings: Vec<String>,
}

/// A Compose file: the keys that mean something here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Name of the project: accepted, and without effect.
    #[serde(rename = "name")]
    _name: Option<String>,
    services: Ordered<Service>,
    #[serde(default)]
    #[serde(rename = "networks")]
    _networks: Ordered<Declared>,
}

/// Reads every `*.yml` and `*.yaml` of the OS image's directory and of the machine's own, which need not exist, in
/// order of name; a name belongs to the first who has it.
pub fn load_all(image: &Path, own: &Path) -> Loaded {
    let mut loaded = Loaded::default();
    let environment = loaded.read_environment(own);
    match files_of(image) {
        Ok(files) => loaded.read_files(&files, &environment),
        Err(error) => loaded.failures.push(unreadable(image, &error)),
    }
    let first_own = loaded.definitions.len();
    match files_of(own) {
        Ok(files) => loaded.read_files(&files, &environment),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => loaded.failures.push(unreadable(own, &error)),
    }
    for definition in loaded.definitions.iter_mut().skip(first_own) {
        definition.own = true;
    }
    let missing = environment.missing();
    if !missing.is_empty() {
        let names = missing.into_iter().collect::<Vec<_>>().join(", ");
        let file = own.join(ENVIRONMENT);
        let warning = format!(
            "variables of services that are not set stand for nothing: {names} (set them in {})",
            file.display()
        );
        loaded.warnings.push(warning);
    }
    loaded.definitions.sort_by(|a, b| a.name.cmp(&b.name));
    loaded
}

/// The files of a directory, in order of name.
fn files_of(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let entries = fs::read_dir(directory)?.flatten();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| {
        path.extension()
            .is_some_and(|end| end == "yml" || end == "yaml")
    });
    files.sort();
    Ok(files)
}

fn unreadable(directory: &Path, error: &io::Error) -> Failure {
    let message = format!(
        "cannot read the services in {}: {error}",
        directory.display()
    );
    failure("engine", message, Some(directory), None)
}

impl Loaded {
    fn read_environment(&mut self, own: &Path) -> Environment {
        let file = own.join(ENVIRONMENT);
        match read_environment(&file) {
            Ok(environment) => environment,
            Err(failure) => {
                self.failures.push(failure);
                Environment::default()
            }
        }
    }

    fn read_files(&mut self, files: &[PathBuf], environment: &Environment) {
        for file in files {
            let read = fs::read_to_string(file).map_err(|error| {
                let message = format!("cannot read it: {error}");
                failure(&stem(file), message, Some(file), None)
            });
            match read.and_then(|text| parse(file, &text, environment)) {
                Ok(definitions) => self.add(definitions),
                Err(failure) => self.failures.push(failure),
            }
        }
    }

    fn add(&mut self, definitions: Vec<Definition>) {
        for definition in definitions {
            let known = self
                .definitions
                .iter()
                .find(|other| other.name == definition.name);
            match known.map(|other| other.file.display().to_string()) {
                Some(file) => {
                    let message =
                        format!("service `{}` is already defined in {file}", definition.name);
                    self.failures.push(definition.failure("", message));
                }
                None => self.definitions.push(definition),
            }
        }
    }
}

/// Reads a file of variables, which need not exist.
///
/// # Errors
/// With the line that is wrong.
pub fn read_environment(file: &Path) -> Result<Environment, Failure> {
    let wrong = |message: String, line: Option<u64>| {
        let at = line.map(|line| Position { line, column: 1 });
        failure("engine", message, Some(file), at)
    };
    match fs::read_to_string(file) {
        Ok(text) => Environment::parse(&text).map_err(|(line, why)| wrong(why, Some(line))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Environment::default()),
        Err(error) => Err(wrong(format!("cannot read it: {error}"), None)),
    }
}

/// Reads one file.
///
/// # Errors
/// The first thing that is wrong with it, with its place.
pub fn parse(
    file: &Path,
    text: &str,
    environment: &Environment,
) -> Result<Vec<Definition>, Failure> {
    let document = serde_yaml::Deserializer::from_str(text);
    let parsed = File::deserialize(Interpolated::new(document, environment)).map_err(|error| {
        let place = error.location().map(|place| Position {
            line: place.line() as u64,
            column: place.column() as u64,
        });
        failure(&stem(file), describe(&error), Some(file), place)
    })?;
    let mut definitions = Vec::new();
    for (name, mut service) in parsed.services.0 {
        let positions = position::keys_of(text, &name);
        service.environment = read_environment_files(file, &service, positions.of("env_file"))?;
        let own = service.given_environment.resolve(environment);
        service.environment.0.extend(own.0);
        service.ports = service.given_ports.publish();
        service.names = names(&mut service);
        connect(&mut service);
        let definition = Definition {
            reasons: position::reasons_of(text, &name),
            name,
            kind: Kind::Service,
            own: false,
            file: file.to_owned(),
            positions,
            service,
        };
        definition
            .check()
            .map_err(|(key, message)| definition.failure(key, message))?;
        definitions.push(definition);
    }
    Ok(definitions)
}

/// What is said of names.
fn names(service: &mut Service) -> Names {
    let texts = |list: &mut OneOrMany<Text>| {
        let list = std::mem::take(&mut list.0).into_iter();
        list.map(|text| text.0).collect()
    };
    let servers = service.given_servers.0.iter();
    Names {
        servers: servers.map(|server| server.0.to_string()).collect(),
        hosts: std::mem::take(&mut service.given_hosts.0),
        search: texts(&mut service.given_search),
        options: texts(&mut service.given_options),
    }
}

/// Which networks a service is in: those that it names, or the default one when it publishes ports.
fn connect(service: &mut Service) {
    let mut networks = service.given_networks.attachments();
    let named = match &service.network_mode {
        Some(NetworkMode::Network(name)) => Some(name.clone()),
        None if networks.is_empty() && !service.ports.is_empty() => Some(DEFAULT.to_owned()),
        _ => None,
    };
    if let Some(network) = named.filter(|_| networks.is_empty()) {
        networks.push(Attachment {
            network,
            ..Attachment::default()
        });
    }
    if let (None, Some(first)) = (&service.network_mode, networks.first()) {
        service.network_mode = Some(NetworkMode::Network(first.network.clone()));
    }
    service.networks = networks;
}

/// What stands in the files of `env_file`; of two that say the same the later one counts.
fn read_environment_files(
    file: &Path,
    service: &Service,
    at: Option<Position>,
) -> Result<Pairs, Failure> {
    let mut pairs = Pairs::default();
    for given in &service.env_file.0 {
        let path = file.parent().unwrap_or(file).join(&given.path);
        if given.required && !path.exists() {
            let message = format!("`env_file`: {} does not exist", path.display());
            return Err(failure(&stem(file), message, Some(file), at));
        }
        pairs.0.extend(read_environment(&path)?.into_variables());
    }
    Ok(pairs)
}

/// The message without the place at its end, which is told separately.
fn describe(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    match text.rfind(" at line ") {
        Some(at) if error.location().is_some() => text[..at].to_owned(),
        _ => text,
    }
}

fn stem(file: &Path) -> String {
    file.file_stem()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn failure(source: &str, message: String, file: Option<&Path>, at: Option<Position>) -> Failure {
    Failure {
        source: source.to_owned(),
        message,
        file: file.map(|file| file.display().to_string()),
        line: at.map(|at| at.line),
        column: at.map(|at| at.column),
    }
}

impl Definition {
    /// A failure of this service, at one of its keys.
    pub fn failure(&self, key: &str, message: String) -> Failure {
        failure(
            &self.name,
            message,
            Some(&self.file),
            self.positions.of(key),
        )
    }
}

#[cfg(test)]
#[path = "tests.rs"]
mod tests;
