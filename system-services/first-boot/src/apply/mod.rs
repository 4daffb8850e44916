//! Applies a configuration to the state partition, at each boot.
//!
//! What a configuration declares (names, keys, servers, services ...) is made so at each boot, and what it no longer declares is
//! undone. What is done once for an instance (passwords, files, scripts) is done again only for a new instance, or where it
//! was changed. All of it is written before the record of the instance, so that a power cut in between has the whole applied
//! again at the next boot; each step may therefore be repeated.
//!
//! - [`users`]: users, groups, passwords
//! - [`keys`]: SSH keys of users, [`imported`]: those that services tell
//! - [`files`]: files that a cloud-config writes
//! - [`scripts`]: `bootcmd`, `runcmd` and user-data that is a script
//! - [`services`]: services of the machine's own
//! - [`settings`]: time zone, time servers, certificates, kernel parameters, Docker, network
//! - [`ssh`]: host keys and settings of sshd
//! - [`steps`]: what is done once for an instance
//! - [`names`]: the host's name

mod files;
mod imported;
mod keys;
mod names;
mod scripts;
mod services;
mod settings;
mod ssh;
mod steps;
mod users;

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use keelson_config::CloudConfig;
use keelson_config::instance::{
    APPEND_DIRECTORY, CONFIG_DIRECTORY, CONFIGURED_FILE, FILES_DIRECTORY, INSTANCE_FILE, Instance,
    NETWORK_FILE, ONCE_SCRIPTS, SCRIPTS_DIRECTORY, SERVICES_DIRECTORY, USERS_DIRECTORY,
};
use keelson_config::network::Network;
use keelson_config::sources::machine::{Machine, Platform};
use keelson_config::sources::{NO_INSTANCE, Source};
use keelson_config::user_data::Script;
use keelson_sys::durable::Access;

use crate::accounts::{Accounts, Day};
use crate::metadata;
use crate::report::Report;
use crate::state::State;
use steps::{Steps, digest};

/// The console's files of accounts are small.
const MAX_ACCOUNT_FILE_BYTES: u64 = 4 * 1024 * 1024;
const MAX_RECORD_BYTES: u64 = 1024 * 1024;

/// What applying needs to know beside the configuration.
pub(crate) struct Context<'a> {
    /// Where to write.
    pub(crate) state: &'a State,
    /// The accounts that the console's image has.
    pub(crate) image_accounts: &'a Accounts,
    /// `/etc` and `/usr/share/zoneinfo` of the console's image.
    pub(crate) image: &'a Path,
    /// Today.
    pub(crate) today: Day,
    /// This boot's id.
    pub(crate) boot_id: &'a str,
}

/// What the machine shall be.
pub(crate) struct Wanted {
    /// What the data source says of it.
    pub(crate) source: Source,
    /// The settings of all layers.
    pub(crate) config: CloudConfig,
    /// Scripts of the user's and of vendors'.
    pub(crate) scripts: Vec<Script>,
    /// Scripts that run early at each boot.
    pub(crate) boothooks: Vec<Script>,
    /// Whether any of it could be read. If not, it is read again at the next boot: it may be corrected by then.
    pub(crate) understood: bool,
}

/// What was done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// Whether the machine was not this instance before.
    pub(crate) is_new: bool,
    /// The host has this name now, when one was given.
    pub(crate) hostname: Option<String>,
}

/// The accounts on the state partition, with those of the image that are missing there.
///
/// # Errors
/// They cannot be read.
pub(crate) fn accounts(context: &Context<'_>) -> io::Result<Accounts> {
    let directory = Path::new(USERS_DIRECTORY);
    let mut accounts = Accounts::read(|name| -> io::Result<Option<String>> {
        let content = context
            .state
            .config
            .read(&directory.join(name), MAX_ACCOUNT_FILE_BYTES)?;
        Ok(content.map(|content| String::from_utf8_lossy(&content).into_owned()))
    })?;
    accounts.add_missing(context.image_accounts);
    Ok(accounts)
}

/// Applies what is wanted.
pub(crate) fn apply(context: &Context<'_>, wanted: &Wanted, report: &mut Report) -> Outcome {
    let previous = known_instance(context.state, report);
    let id = &wanted.source.instance_id;
    let is_new = previous
        .as_ref()
        .is_none_or(|previous| previous.instance_id != *id);
    let user_data = wanted.source.user_data.as_deref().unwrap_or_default();
    let user_data_sha256 = digest(user_data);
    if let Some(previous) = previous.as_ref().filter(|_| !is_new)
        && previous.user_data_sha256 != user_data_sha256
    {
        report.warning(&format!(
            "user-data has changed but instance-id is still `{id}`: its settings are applied, its scripts are not run; give the seed a new instance-id to have all of it done"
        ));
    }
    let done = previous.as_ref().filter(|_| !is_new);
    let mut steps = Steps::after(done.map(|previous| previous.done.clone()));
    let mut failed = false;
    if is_new {
        // What cannot be read may be corrected, or the earlier instance come back: nothing is taken away for it.
        if wanted.understood {
            match forget(context, previous.as_ref()) {
                Ok(()) => {
                    let other = previous.as_ref().is_some_and(|it| !was_nobody(context, it));
                    start_afresh(context.state, wanted, other, report);
                }
                Err(error) => {
                    report.error(format!("write /state/config/{INSTANCE_FILE}: {error}"));
                    failed = true;
                }
            }
        }
    }
    let old_keys = previous.as_ref().map(|previous| previous.keys.clone());
    let before = report.errors().len();
    // Some of them are for root alone, and others where their directory is.
    for directory in [FILES_DIRECTORY, APPEND_DIRECTORY] {
        let path = Path::new(directory);
        if let Err(error) = context
            .state
            .config
            .make_directory(path, Access::root(0o700))
        {
            report.error(format!("write /state/config/{directory}: {error}"));
        }
    }
    let hostname = names::apply(context.state, &wanted.config, &wanted.source, report);
    let mut keys = old_keys.clone().unwrap_or_default();
    match accounts(context) {
        Ok(mut accounts) => {
            let users = users::apply(context, &mut accounts, &wanted.config, &mut steps, report);
            let imported = imported::read(context.state, wanted, report);
            let wanted_keys = keys::wanted(
                &accounts,
                &wanted.config,
                &wanted.source,
                (&users, &imported),
            );
            keys = keys::apply(context, &accounts, wanted_keys, &keys, report);
            let written = files::apply(
                context,
                &accounts,
                &wanted.config.write_files,
                &mut steps,
                report,
            );
            if written && let Err(error) = context.state.sync() {
                report.error(format!("write_files: make the files durable: {error}"));
                failed = true;
            }
        }
        Err(error) => {
            report.error(format!("read the accounts in /state/config/users: {error}"));
            failed = true;
        }
    }
    services::apply(context.state, &wanted.config.services, report);
    settings::apply(context, wanted, is_new, report);
    ssh::apply(context.state, &wanted.config, report);
    // Those of an instance that is not whole yet would run again when it is; an earlier instance's are not its own.
    scripts::write_each_boot(context, wanted, !is_new || wanted.understood, report);
    let scripts = match is_new {
        true => scripts::write_instance(context.state, wanted, report),
        false => previous
            .as_ref()
            .and_then(|previous| previous.scripts.clone()),
    };
    // These cannot be done again by themselves, as a file can; they may be writable at the next boot.
    let whole = [USERS_DIRECTORY, SCRIPTS_DIRECTORY];
    let whole = whole.map(|directory| format!("write {CONFIG_DIRECTORY}/{directory}"));
    failed |= report
        .errors()
        .iter()
        .skip(before)
        .any(|error| whole.iter().any(|start| error.starts_with(start)));
    let outcome = Outcome { is_new, hostname };
    if failed || (is_new && !wanted.understood) {
        is_configured(context, report);
        return outcome;
    }
    let since_boot = match &previous {
        Some(previous) if !is_new => previous.since_boot.clone(),
        _ => context.boot_id.to_owned(),
    };
    let instance = Instance {
        instance_id: id.clone(),
        since_boot,
        // The one whose scripts were run.
        user_data_sha256: match previous.filter(|_| !is_new) {
            Some(previous) => previous.user_data_sha256,
            None => user_data_sha256,
        },
        scripts,
        done: steps.into_done(),
        keys,
    };
    let path = Path::new(INSTANCE_FILE);
    let record = instance.to_json();
    let there = context.state.config.read(path, MAX_RECORD_BYTES);
    if !matches!(there, Ok(Some(found)) if found == record)
        && let Err(error) = context
            .state
            .config
            .write(path, &record, Access::root(0o600))
    {
        report.error(format!("write /state/config/{INSTANCE_FILE}: {error}"));
    }
    is_configured(context, report);
    outcome
}

/// Leaves all as it is until the data source is asked, which any network will do for.
pub(crate) fn wait_for_source(
    state: &State,
    machine: &Machine,
    platform: &Platform,
    report: &mut Report,
) {
    let network = settings::last_network(state).and_then(|last| {
        let firewall = last.firewall?;
        let network = Network {
            untold: true,
            firewall: Some(firewall),
            ..Network::default()
        };
        serde_json::to_vec_pretty(&network).ok()
    });
    replace(
        state,
        Path::new(NETWORK_FILE),
        network.as_deref(),
        Access::root(0o600),
        report,
    );
    let file = metadata::service::file(Some(platform), &machine.choice, [].iter());
    let path = Path::new(SERVICES_DIRECTORY).join(format!("{}.yml", file.name));
    let text = Some(file.text.as_bytes());
    replace(state, &path, text, Access::root(0o644), report);
}

/// Tells the console that all is there: the file is written whatever it holds, so that the console hears of it each time.
fn is_configured(context: &Context<'_>, report: &mut Report) {
    let content = format!("{}\n", context.boot_id);
    let path = Path::new(CONFIGURED_FILE);
    let config = &context.state.config;
    if let Err(error) = config.write(path, content.as_bytes(), Access::root(0o644)) {
        report.error(format!("write /state/config/{CONFIGURED_FILE}: {error}"));
    }
}

/// Replaces a file of the configuration unless it is the same already; `None` removes it.
pub(crate) fn replace(
    state: &State,
    path: &Path,
    content: Option<&[u8]>,
    access: Access,
    report: &mut Report,
) {
    let tree = &state.config;
    let written = match content {
        Some(content) => match tree.read(path, MAX_ACCOUNT_FILE_BYTES) {
            Ok(Some(found)) if found == content => Ok(()),
            _ => tree.write(path, content, access),
        },
        None => tree.remove(path),
    };
    if let Err(error) = written {
        report.error(format!("write /state/config/{}: {error}", path.display()));
    }
}

/// The instance that the machine is configured as.
fn known_instance(state: &State, report: &mut Report) -> Option<Instance> {
    match state
        .config
        .read(Path::new(INSTANCE_FILE), MAX_RECORD_BYTES)
    {
        Ok(content) => Instance::from_json(&content?)
            .map_err(|error| {
                report.error(format!(
                    "read /state/config/{INSTANCE_FILE}: {error}; everything is applied again"
                ))
            })
            .ok(),
        Err(error) => {
            report.error(format!(
                "read /state/config/{INSTANCE_FILE}: {error}; everything is applied again"
            ));
            None
        }
    }
}

/// From here on the machine is no instance, until the new one is whole: an earlier one that came back would miss what is taken
/// away now. Its users' keys are still to be taken away.
fn forget(context: &Context<'_>, previous: Option<&Instance>) -> io::Result<()> {
    let Some(previous) = previous else {
        return Ok(());
    };
    let none = Instance {
        instance_id: String::new(),
        since_boot: match was_nobody(context, previous) {
            true => previous.since_boot.clone(),
            false => String::new(),
        },
        user_data_sha256: String::new(),
        scripts: None,
        done: BTreeMap::new(),
        keys: previous.keys.clone(),
    };
    let path = Path::new(INSTANCE_FILE);
    context
        .state
        .config
        .write(path, &none.to_json(), Access::root(0o600))
}

/// Whether nobody knew so far, since this very boot, which instance it is: the metadata service answers some time after the
/// console is there. What was made meanwhile is the instance's own.
fn was_nobody(context: &Context<'_>, previous: &Instance) -> bool {
    let is_nobody = [NO_INSTANCE, ""].contains(&previous.instance_id.as_str());
    is_nobody && previous.since_boot == context.boot_id
}

/// Takes away what an earlier instance, or an interrupted first boot of this one, has left.
fn start_afresh(state: &State, wanted: &Wanted, other_instance: bool, report: &mut Report) {
    let root = state.config.path();
    let mut paths = vec![root.join(FILES_DIRECTORY), root.join(APPEND_DIRECTORY)];
    // What ran once on the machine stays known.
    let scripts = std::fs::read_dir(root.join(SCRIPTS_DIRECTORY));
    let scripts = scripts.into_iter().flatten().flatten();
    let scripts = scripts.filter(|entry| entry.file_name() != ONCE_SCRIPTS);
    paths.extend(scripts.map(|entry| entry.path()));
    for path in paths {
        match std::fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => report.error(format!("remove {}: {error}", path.display())),
        }
    }
    // A copy of a machine must not have the first one's identity.
    if other_instance && wanted.config.ssh.delete_host_keys {
        ssh::remove_host_keys(state, report);
    }
}

#[cfg(test)]
mod tests;
