//! `keelson.services` and `rancher.services`: services of the machine's own, as Compose files for the system engine, and
//! applications of RancherOS' users, as calls of `docker run`.
//!
//! - [`compose`]: what RancherOS' Compose files have otherwise
//! - [`application`]: a service as a call of `docker run`
//! - [`rancher`]: keys of RancherOS that are no services

mod application;
mod compose;
mod rancher;

use crate::diagnostic::Diagnostics;
use crate::names;
use crate::shell::Command;
use crate::yaml::{self, Fields, Key, Node, Value};

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

const KEELSON: &[&str] = &[
    "datasources",
    "services",
    "environment",
    "sysctl",
    "modules",
    "docker",
    "firewall",
    "network",
    "proxy",
    "registries",
    "ssh",
    "upgrade",
];
/// Keys of RancherOS 1.5 that are read beside [`KEELSON`]'s.
const RANCHER_APPLIED: &[&str] = &[
    "cloud_init",
    "console",
    "defaults",
    "disable",
    "mounts",
    "password",
    "registry_auths",
    "services_include",
    "state",
    "system_docker",
];
/// Keys of RancherOS 1.5 below `rancher` that are not applied.
const RANCHER: &[(&str, &str)] = &[
    (
        "autoformat",
        "the image has a state partition; name other disks under `fs_setup`",
    ),
    (
        "autologin",
        "nobody is logged in without a password or a key: set `password`",
    ),
    (
        "bootstrap",
        "the system starts without services of a user's before it",
    ),
    (
        "bootstrap_docker",
        "there is no second Docker to start with",
    ),
    (
        "debug",
        "each service says what it does in the log: `keelson service logs NAME`; the kernel's messages are `dmesg`",
    ),
    (
        "cloud_init_services",
        "the system starts without services of a user's before it",
    ),
    ("force_console_rebuild", "the console is fresh at each boot"),
    (
        "formatzero",
        "the image has a state partition; name other disks under `fs_setup`",
    ),
    (
        "http_load_retries",
        "what is fetched is tried until it is there",
    ),
    (
        "hypervisor_service",
        "programs of hypervisors are run as services: `keelson.services`",
    ),
    ("log", "all output goes to the log: `keelson service logs`"),
    (
        "no_sharedroot",
        "below /mnt, /media, /srv and /data, mounts are shared always, and nowhere else",
    ),
    (
        "preload_wait",
        "load images with `docker load`: nothing waits for it",
    ),
    (
        "recovery",
        "write `keelson.rescue` on the kernel command line",
    ),
    (
        "repositories",
        "there is no catalogue: use `keelson service enable URL`",
    ),
    ("resize_device", "the state partition grows by itself"),
    (
        "restart_services",
        "services hear of changed files by themselves",
    ),
    ("rm_usr", "the system is one read-only image"),
    ("runcmd", "it stands at the top level: `runcmd`"),
    (
        "shutdown_timeout",
        "each service says its own: `stop_grace_period`",
    ),
    (
        "upgrade",
        "the system is upgraded from a signed image, not from a list of addresses",
    ),
];

/// Reads both.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Services {
    let mut services = Services::default();
    if let Some(keelson) = fields("keelson", top, diagnostics) {
        let known = [KEELSON, &["log"]].concat();
        keelson.check(" of `keelson`", &known, &[], diagnostics);
        services.read_environment("keelson.environment", &keelson, diagnostics);
        if let Some(node) = keelson.get("services").filter(|node| !node.is_null()) {
            services.add_file("user-data-keelson", entries(node).to_vec(), node);
        }
    }
    if let Some(rancher) = fields("rancher", top, diagnostics) {
        let off = rancher.iter().filter(|(_, node)| rancher::is_off(node));
        let off: Vec<&str> = off.map(|(key, _)| key.text.as_str()).collect();
        let known = [KEELSON, RANCHER_APPLIED].concat();
        let is_off = |key: &str| RANCHER.iter().any(|(name, _)| *name == key) && off.contains(&key);
        let off = off.iter().copied().filter(|key| is_off(key));
        let known: Vec<&str> = known.into_iter().chain(off).collect();
        rancher.check(" of `rancher`", &known, RANCHER, diagnostics);
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
