//! The typed settings of a `#cloud-config` document.
//!
//! A key that is wrong costs that key and nothing else.
//!
//! - [`users`] for `users` and `user`, [`user_settings`] for what stands below a user's name
//! - [`groups`] for `groups`, [`authorized_keys`] for keys wherever they stand, [`imported_keys`] for those of `ssh_import_id`
//! - [`passwords`] for `password`, `chpasswd` and `ssh_pwauth`
//! - [`files`] for `write_files`
//! - [`commands`] for `runcmd` and `bootcmd`
//! - [`random_seed`] for `random_seed`
//! - [`system`] for the machine's own settings, [`ssh`] for sshd's, [`rancher_docker`] for RancherOS' Docker
//! - [`proxy`] for a proxy on the way to the world
//! - [`registries`] for where images come from, [`upgrade`] for where the operating system does
//! - [`rsyslog`] for servers that the log is sent to, as a service
//! - [`kernel`] for kernel modules and parameters, as services
//! - [`storage`] for disks, file systems, swap and mounts, as a service
//! - [`install`] for installation on a disk, as a service
//! - [`finish`] for what happens at the end
//! - [`services`] for `keelson` and `rancher`
//! - [`keys`] says which top-level keys are applied

mod authorized_keys;
mod commands;
mod files;
mod finish;
mod groups;
mod imported_keys;
pub mod install;
mod kernel;
mod keys;
mod passwords;
mod proxy;
mod rancher_docker;
mod random_seed;
mod registries;
mod rsyslog;
mod services;
mod ssh;
pub mod storage;
mod system;
mod upgrade;
mod user_settings;
mod users;

pub(crate) use authorized_keys::authorized_keys;
pub(crate) use files::unpack_gzip;
pub use files::{FileSource, Owner, WriteFile};
pub use finish::{Finish, PhoneHome, Power};
pub use groups::Group;
pub use imported_keys::{KeyImport, KeyService};
pub(crate) use keys::TOP;
pub use passwords::{PasswordChange, Secret};
pub use proxy::Proxy;
pub use registries::{Registries, Registry};
pub use services::{ServiceFile, Services};
pub use ssh::{HostKey, KINDS as HOST_KEY_KINDS, Ssh};
pub use system::{CaCertificates, Ntp, System};
pub use upgrade::{
    Check as UpgradeCheck, Upgrade, What as UpgradeCheckKind, Window as UpgradeWindow,
};
pub use users::{DefaultUser, User, UserEntry, UserPassword};

use crate::diagnostic::Diagnostics;
use crate::names;
use crate::network::{self, Firewall, Network};
use crate::shell::Command;
use crate::sources;
use crate::yaml::{self, Fields, Node, Value};

/// What a `#cloud-config` asks for. Keys that are not there are `None` or empty.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct CloudConfig {
    /// Name of the host, without domain.
    pub hostname: Option<String>,
    /// Name of the host, with domain.
    pub fqdn: Option<String>,
    /// The host's name is left as it is.
    pub preserve_hostname: bool,
    /// Users in the order of the document; `None` when `users` is not there, which means the default user alone.
    pub users: Option<Vec<UserEntry>>,
    /// What `user` changes in the default user.
    pub default_user: DefaultUser,
    /// Groups to make.
    pub groups: Vec<Group>,
    /// Keys for the default user.
    pub ssh_authorized_keys: Vec<String>,
    /// People at services, whose keys the default user gets as well.
    pub ssh_import_ids: Vec<KeyImport>,
    /// `disable_root: false`: root gets the default user's keys too.
    pub root_keys: bool,
    /// Password of the default user.
    pub password: Option<Secret>,
    /// Passwords of users that exist.
    pub password_changes: Vec<PasswordChange>,
    /// Whether the passwords above must be changed at the first login.
    pub expire_passwords: bool,
    /// Whether sshd accepts passwords; `None` leaves it as it is.
    pub ssh_password_login: Option<bool>,
    /// Files to write.
    pub write_files: Vec<WriteFile>,
    /// Commands to run once an instance.
    pub commands: Vec<Command>,
    /// Commands to run at each boot.
    pub boot_commands: Vec<Command>,
    /// The machine's own settings.
    pub system: System,
    /// sshd's.
    pub ssh: Ssh,
    /// Disks, file systems, swap and mounts.
    pub storage: storage::Plan,
    /// `keelson.install`.
    pub install: Option<install::Install>,
    /// `keelson.network` or `rancher.network`.
    pub network: Option<Network>,
    /// `keelson.firewall`.
    pub firewall: Option<Firewall>,
    /// What happens when all is applied.
    pub finish: Finish,
    /// Services of the machine's own.
    pub services: Services,
}

impl CloudConfig {
    /// The network: as the configuration says, or else as the data source does; name servers of `resolv_conf` come first. `None`
    /// when nobody says anything.
    pub fn network_with(&self, source: &crate::DataSource) -> Option<Network> {
        let network = self.network.as_ref().or(source.network.as_ref());
        let resolver = self.system.resolver.as_ref();
        if network.is_none() && resolver.is_none() && self.firewall.is_none() {
            return None;
        }
        let untold = || Network {
            untold: true,
            ..Network::default()
        };
        let mut network = network.cloned().unwrap_or_else(untold);
        if let Some(resolver) = resolver {
            let later = std::mem::replace(&mut network.global_dns, resolver.clone());
            network.global_dns.servers.extend(later.servers);
            network.global_dns.search.extend(later.search);
        }
        network.firewall.clone_from(&self.firewall);
        Some(network)
    }

    /// All people whose keys services tell, whoever they are for.
    pub fn key_imports(&self) -> impl Iterator<Item = &KeyImport> {
        let named = self.users.iter().flatten().filter_map(|entry| match entry {
            UserEntry::Named(user) => Some(&**user),
            UserEntry::Default => None,
        });
        let users = named.chain(&self.default_user.settings);
        let of_users = users.flat_map(|user| &user.ssh_import_ids);
        self.ssh_import_ids.iter().chain(of_users)
    }

    /// What holds when nothing is asked for.
    pub fn nothing() -> Self {
        CloudConfig {
            expire_passwords: true,
            ..CloudConfig::default()
        }
    }

    /// Reads the text of a cloud-config.
    ///
    /// `None` when it is not YAML or no mapping: then nothing of it applies, and an error says so.
    pub fn parse(text: &str, diagnostics: &mut Diagnostics) -> Option<CloudConfig> {
        let parsed = match yaml::parse(text) {
            Ok(parsed) => parsed,
            Err(error) => {
                diagnostics.error(
                    error.position,
                    format!(
                        "not valid YAML, nothing of it is applied: {}",
                        error.message
                    ),
                );
                return None;
            }
        };
        parsed.report(diagnostics);
        Self::from_node(&parsed.root, diagnostics)
    }

    /// Reads the settings of a merged configuration.
    pub fn from_node(root: &Node, diagnostics: &mut Diagnostics) -> Option<CloudConfig> {
        if !matches!(root.value, Value::Mapping(_)) && !root.is_null() {
            let message = format!(
                "expected keys and values, found {}; nothing is applied",
                root.kind()
            );
            diagnostics.error(root.position, message);
            return None;
        }
        let top = yaml::mapping("cloud-config", root, diagnostics)?;
        top.check("", &keys::TOP, diagnostics);
        name_packages(&top, diagnostics);
        check_vendor_data(&top, diagnostics);
        let mut config = CloudConfig::nothing();
        config.read_host_names(&top, diagnostics);
        let preserve = top
            .get("preserve_hostname")
            .and_then(|node| yaml::boolean("preserve_hostname", node, diagnostics));
        config.preserve_hostname = preserve.unwrap_or(false);
        config.users = top
            .get("users")
            .and_then(|node| users::parse_users(node, diagnostics));
        config.default_user = top
            .get("user")
            .map(|node| users::parse_default(node, diagnostics))
            .unwrap_or_default();
        // Who names the default user wants it, as in cloud-init.
        if config.default_user.name.is_some()
            && let Some(users) = &mut config.users
            && !users.contains(&users::UserEntry::Default)
        {
            users.insert(0, users::UserEntry::Default);
        }
        config.groups = top
            .get("groups")
            .map(|node| groups::parse(node, diagnostics))
            .unwrap_or_default();
        if let Some(node) = top.get("ssh_authorized_keys") {
            config.ssh_authorized_keys = authorized_keys("ssh_authorized_keys", node, diagnostics);
        }
        if let Some(node) = top.get("ssh_import_id") {
            config.ssh_import_ids = imported_keys::parse("ssh_import_id", node, diagnostics);
        }
        let disable_root = top
            .get("disable_root")
            .and_then(|node| yaml::boolean("disable_root", node, diagnostics));
        config.root_keys = disable_root == Some(false);
        config.password = top
            .get("password")
            .and_then(|node| passwords::parse_password("password", node, diagnostics));
        if config.password.is_none() {
            config.password = passwords::of_rancher(&top, diagnostics);
            config.expire_passwords = config.password.is_none();
        }
        if let Some(node) = top.get("chpasswd") {
            passwords::parse_chpasswd(node, &mut config, diagnostics);
        }
        config.ssh_password_login = top
            .get("ssh_pwauth")
            .and_then(|node| passwords::parse_ssh_pwauth(node, diagnostics));
        config.write_files = top
            .get("write_files")
            .map(|node| files::parse(node, diagnostics))
            .unwrap_or_default();
        config.commands = top
            .get("runcmd")
            .map(|node| commands::parse("runcmd", node, diagnostics))
            .unwrap_or_default();
        config.boot_commands = top
            .get("bootcmd")
            .map(|node| commands::parse("bootcmd", node, diagnostics))
            .unwrap_or_default();
        config.services = services::parse(&top, diagnostics);
        config.commands.extend(config.services.console.clone());
        config.system = system::parse(&top, diagnostics);
        config
            .services
            .files
            .extend(kernel::services(&config.system));
        config.storage = storage::parse(&top, diagnostics);
        let log_remotes = rsyslog::parse(&top, diagnostics);
        let own = [config.storage.service(), rsyslog::service(&log_remotes)];
        config.services.files.extend(own.into_iter().flatten());
        config.install = install::parse(&top, diagnostics);
        let install = config.install.as_ref().map(install::Install::service);
        config.services.files.extend(install);
        config.ssh = ssh::parse(&top, diagnostics);
        config.finish = finish::parse(&top, diagnostics);
        // Which data sources are asked was decided before; what is wrong with the lists is said here.
        sources::choice::read(root, diagnostics);
        config.network = read_network(&top, diagnostics);
        config.read_firewall(&top, diagnostics);
        config.take_hooks(diagnostics);
        Some(config)
    }

    fn read_firewall(&mut self, top: &Fields<'_>, diagnostics: &mut Diagnostics) {
        let Some(node) = below(top, "keelson", "firewall") else {
            return;
        };
        self.firewall = network::firewall::parse("keelson.firewall", node, diagnostics);
        let ports = match self.ssh.ports.is_empty() {
            true => vec![22],
            false => self.ssh.ports.clone(),
        };
        if let Some(firewall) = &self.firewall
            && self.ssh.enabled
            && !ports.iter().any(|port| firewall.lets_in(*port))
        {
            let message = "keelson.firewall: nothing lets SSH in: add its port to `allow`, or keep a console at hand";
            diagnostics.warning(node.position, message);
        }
    }

    /// RancherOS' commands around the network's start are run with `bootcmd`: the network is made by a service without a shell.
    fn take_hooks(&mut self, diagnostics: &mut Diagnostics) {
        let Some(network) = &mut self.network else {
            return;
        };
        let mut lines = std::mem::take(&mut network.pre_commands);
        for interface in &mut network.interfaces {
            lines.append(&mut interface.pre_up);
        }
        for interface in &mut network.interfaces {
            lines.append(&mut interface.post_up);
        }
        lines.append(&mut network.post_commands);
        if !lines.is_empty() {
            let message = "rancher.network: its commands (pre_cmds, pre_up, post_up, post_cmds) are run in the console at each boot, in this order, while the network comes up";
            diagnostics.warning(None, message);
        }
        let lines = lines.into_iter().map(Command::Line);
        self.boot_commands.extend(lines);
    }

    fn read_host_names(&mut self, top: &Fields<'_>, diagnostics: &mut Diagnostics) {
        let mut name = |key: &str| {
            let node = top.get(key)?;
            let name = yaml::string(key, node, diagnostics)?;
            if names::is_host(&name) {
                return Some(name);
            }
            let message = format!(
                "{key}: `{name}` is no host name (letters, digits, hyphens; dots between labels)"
            );
            diagnostics.error(node.position, message);
            None
        };
        let (hostname, fqdn) = (name("hostname"), name("fqdn"));
        let prefer_fqdn = top
            .get("prefer_fqdn_over_hostname")
            .and_then(|node| yaml::boolean("prefer_fqdn_over_hostname", node, diagnostics))
            .unwrap_or(false);
        if let Some(node) = top.get("manage_etc_hosts")
            && !matches!(&node.value, Value::Scalar(scalar)
                if scalar.as_bool().is_some() || ["localhost", "template"].contains(&scalar.text.as_str()))
        {
            let message = "manage_etc_hosts: expected true, false or `localhost`; /etc/hosts names this machine";
            diagnostics.warning(node.position, message);
        }
        (self.hostname, self.fqdn) = host_names(hostname, fqdn);
        if prefer_fqdn && self.fqdn.is_some() {
            self.hostname.clone_from(&self.fqdn);
        }
    }
}

/// `keelson.network`, as a network-config of either version; or else `rancher.network`.
fn read_network(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Network> {
    match below(top, "keelson", "network") {
        Some(node) if !node.is_null() => network::parse(node, diagnostics),
        _ => network::parse_rancher(below(top, "rancher", "network")?, diagnostics),
    }
}

/// What stands under `key` below `name`. Whether that is a mapping at all is said elsewhere.
fn below<'a>(top: &Fields<'a>, name: &str, key: &str) -> Option<&'a Node> {
    yaml::mapping(name, top.get(name)?, &mut Diagnostics::new(""))?.get(key)
}

/// Whether vendor-data is wanted (`vendor_data: {enabled: false}`).
pub fn wants_vendor_data(root: &Node) -> bool {
    let get = |node: &Node, name: &str| match &node.value {
        Value::Mapping(entries) => {
            let found = entries.iter().find(|(key, _)| key.text == name);
            found.map(|(_, node)| node.clone())
        }
        _ => None,
    };
    let enabled = get(root, "vendor_data").and_then(|node| get(&node, "enabled"));
    !enabled.is_some_and(
        |node| matches!(&node.value, Value::Scalar(scalar) if scalar.as_bool() == Some(false)),
    )
}

/// What is wrong with `vendor_data`; what it says was heeded when the layers were put together.
fn check_vendor_data(top: &Fields<'_>, diagnostics: &mut Diagnostics) {
    let node = top.get("vendor_data");
    if let Some(fields) = node.and_then(|node| yaml::mapping("vendor_data", node, diagnostics)) {
        fields.check(" of vendor_data", &keys::VENDOR_DATA, diagnostics);
        let enabled = fields.get("enabled");
        let _ = enabled.and_then(|node| yaml::boolean("vendor_data.enabled", node, diagnostics));
    }
}

/// Host name and fully qualified name from what was given of them: each may stand in for the other.
pub fn host_names(
    hostname: Option<String>,
    fqdn: Option<String>,
) -> (Option<String>, Option<String>) {
    let short = |name: &str| name.split('.').next().unwrap_or(name).to_owned();
    match (hostname, fqdn) {
        (Some(hostname), None) if hostname.contains('.') => {
            (Some(short(&hostname)), Some(hostname))
        }
        (None, Some(fqdn)) => (Some(short(&fqdn)), Some(fqdn)),
        (Some(hostname), fqdn) => (Some(short(&hostname)), fqdn),
        (None, None) => (None, None),
    }
}

/// Says which packages will be missing: half of all cloud-configs ask for some.
fn name_packages(top: &Fields<'_>, diagnostics: &mut Diagnostics) {
    let Some(node) = top.get("packages") else {
        return;
    };
    let names: Vec<&str> = yaml::list_or_single(node)
        .iter()
        .filter_map(|item| match &item.value {
            Value::Scalar(scalar) => Some(scalar.text.as_str()),
            _ => None,
        })
        .take(20)
        .collect();
    if !names.is_empty() {
        diagnostics.warning(
            node.position,
            format!("packages that will be missing: {}", names.join(", ")),
        );
    }
}
