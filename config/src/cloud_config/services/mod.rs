//! `keelson.services` and `rancher.services`: services of the machine's own, as Compose files for the system engine, and
//! applications of RancherOS' users, as calls of `docker run`.
//!
//! - [`compose`]: what RancherOS' Compose files have otherwise
//! - [`application`]: a service as a call of `docker run`
//! - [`keys`]: what may stand below `keelson` and `rancher`
//! - [`rancher`]: keys of RancherOS that are no services

mod application;
mod compose;
mod keys;
mod rancher;

use crate::diagnostic::Diagnostics;
use crate::names;
use crate::shell::Command;
use crate::yaml::{self, Fields, Key, Node, Value};

pub(super) use keys::{KEELSON, RANCHER};

/// What a cloud-config says of services.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Services {
    /// Compose files for the system engine.
    pub files: Vec<ServiceFile>,
    /// Variables that stand in them, and in those of the machine.
    pub environment: Vec<(String, String)>,
    /// Has Docker run what RancherOS ran in its user Docker.
    pub applications: Vec<Command>,
    /// Has the engine take another image for the console from the next boot on.
    pub console: Option<Command>,
}

/// A Compose file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceFile {
    /// Its name, without an ending.
    pub name: &'static str,
    /// What stands in it.
    pub text: String,
}

/// Reads both.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Services {
    let mut services = Services::default();
    if let Some(keelson) = fields("keelson", top, diagnostics) {
        keelson.check(" of `keelson`", &KEELSON, diagnostics);
        services.read_environment("keelson.environment", &keelson, diagnostics);
        if let Some(node) = keelson.get("services").filter(|node| !node.is_null())
            && let Some(all) = yaml::mapping("keelson.services", node, diagnostics)
        {
            for (name, service) in all.iter() {
                let what = format!("keelson.services.{}", name.text);
                let _ = yaml::mapping(&what, service, diagnostics);
            }
            services.add_file("user-data-keelson", entries(node).to_vec(), node);
        }
    }
    if let Some(rancher) = fields("rancher", top, diagnostics) {
        let within = " of `rancher`";
        rancher.check_unless(rancher::is_off, within, &RANCHER, diagnostics);
        services.console = rancher::read(&rancher, diagnostics).console;
        services.read_environment("rancher.environment", &rancher, diagnostics);
        services.read_rancher(&rancher, diagnostics);
    }
    services
}

fn fields<'a>(name: &str, top: &Fields<'a>, diagnostics: &mut Diagnostics) -> Option<Fields<'a>> {
    yaml::mapping(name, top.get(name)?, diagnostics)
}

/// The entries of a mapping; of anything else there are none, and the engine says what is wrong with it.
fn entries(node: &Node) -> &[(Key, Node)] {
    match &node.value {
        Value::Mapping(entries) => entries,
        _ => &[],
    }
}

impl Services {
    fn read_environment(&mut self, what: &str, all: &Fields<'_>, diagnostics: &mut Diagnostics) {
        let Some(node) = all.get("environment") else {
            return;
        };
        let Some(variables) = yaml::mapping(what, node, diagnostics) else {
            return;
        };
        for (key, node) in variables.iter() {
            let name = &key.text;
            let Some(value) = yaml::string(&format!("{what}.{name}"), node, diagnostics) else {
                continue;
            };
            if !names::is_variable(name) {
                let message = format!("{what}: `{name}` is no name of a variable");
                diagnostics.error(key.position, message);
            } else if value.contains(['\n', '\r']) {
                let message = format!("{what}.{name}: a value is one line; it is not applied");
                diagnostics.error(node.position, message);
            } else {
                self.environment.retain(|(other, _)| other != name);
                self.environment.push((name.clone(), value));
            }
        }
    }

    fn read_rancher(&mut self, rancher: &Fields<'_>, diagnostics: &mut Diagnostics) {
        let Some(node) = rancher.get("services") else {
            return;
        };
        let Some(all) = yaml::mapping("rancher.services", node, diagnostics) else {
            return;
        };
        let mut system = Vec::new();
        for (name, service) in all.iter() {
            let what = format!("rancher.services.{}", name.text);
            if yaml::mapping(&what, service, diagnostics).is_none() {
                continue;
            }
            if compose::is_of_the_system(service) {
                let service = compose::translate(&what, service, diagnostics);
                system.push((name.clone(), service));
            } else {
                let environment = &self.environment;
                let run = application::run(&what, &name.text, service, environment, diagnostics);
                self.applications.extend(run);
            }
        }
        if !system.is_empty() {
            self.add_file("user-data-rancher", system, node);
        }
    }

    fn add_file(&mut self, name: &'static str, services: Vec<(Key, Node)>, at: &Node) {
        let node = |value| Node {
            position: at.position,
            value,
        };
        let key = Key {
            text: "services".to_owned(),
            position: at.position,
        };
        let document = node(Value::Mapping(vec![(key, node(Value::Mapping(services)))]));
        let text = format!(
            "# From the user-data, line {}; written anew with each of its instances.\n{}",
            at.position.line,
            yaml::write(&document)
        );
        self.files.push(ServiceFile { name, text });
    }
}

#[cfg(test)]
mod tests;
