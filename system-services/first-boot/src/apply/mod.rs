//! Applies a seed to the state partition.
//!
//! Everything is written before the record of the instance, so that a power cut in between has the whole applied again at
//! the next boot; each step may therefore be repeated.
//!
//! - [`users`]: users, groups, passwords, keys
//! - [`files`]: files that a cloud-config writes
//! - [`scripts`]: `runcmd` and user-data that is a script
//! - [`services`]: services of the machine's own
//! - [`names`]: the host's name

mod files;
mod names;
mod scripts;
mod services;
mod users;

use std::io;
use std::path::Path;

use keelson_config::instance::{
    APPEND_DIRECTORY, FILES_DIRECTORY, INSTANCE_FILE, Instance, SCRIPTS_DIRECTORY, SSH_DIRECTORY,
    USERS_DIRECTORY,
};
use keelson_config::{CloudConfig, Diagnostics, MetaData, UserData, meta_data, user_data};
use keelson_sys::durable::Access;
use sha2::{Digest, Sha256};

use crate::accounts::{Accounts, Day};
use crate::report::Report;
use crate::seed::Seed;
use crate::state::State;

/// The console's files of accounts are small.
const MAX_ACCOUNT_FILE_BYTES: u64 = 4 * 1024 * 1024;
const MAX_RECORD_BYTES: u64 = 64 * 1024;
const HOST_KEYS: [&str; 3] = ["rsa", "ecdsa", "ed25519"];

/// What applying needs to know beside the seed.
pub(crate) struct Context<'a> {
    /// Where to write.
    pub(crate) state: &'a State,
    /// The accounts that the console's image has.
    pub(crate) image_accounts: &'a Accounts,
    /// Today.
    pub(crate) today: Day,
}

/// What was done about a seed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// This instance is configured already.
    Known,
    /// Applied; the host has this name now, when one was given.
    Applied { hostname: Option<String> },
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

/// Brings the accounts on the state partition up to the image's, and gives each person a home directory. Done at each boot.
pub(crate) fn prepare(context: &Context<'_>, report: &mut Report) {
    match accounts(context) {
        Ok(accounts) => {
            users::write_accounts(context, &accounts, report);
            users::make_homes(context, &accounts, report);
        }
        Err(error) => report.error(format!("read the accounts in /state/config/users: {error}")),
    }
}

/// Applies `seed` unless its instance is configured already.
pub(crate) fn apply(context: &Context<'_>, seed: &Seed, report: &mut Report) -> Outcome {
    if seed.meta_data.is_none() {
        report.warning(&format!(
            "{} has no meta-data; the instance-id is taken to be `nocloud`",
            seed.device
        ));
    }
    let mut diagnostics = Diagnostics::new("meta-data");
    let meta = meta_data::parse(
        seed.meta_data.as_deref().unwrap_or_default(),
        &mut diagnostics,
    );
    report.diagnostics(diagnostics.into_sorted());
    let bytes = seed.user_data.as_deref().unwrap_or_default();
    let user_data_sha256 = hex::encode(Sha256::digest(bytes));
    let previous = known_instance(context.state, report);
    if let Some(previous) = previous
        .as_ref()
        .filter(|previous| previous.instance_id == meta.instance_id)
    {
        if previous.user_data_sha256 != user_data_sha256 {
            report.warning(&format!(
                "user-data has changed but instance-id is still `{}`, so it is not applied; give the seed a new instance-id",
                meta.instance_id
            ));
        }
        return Outcome::Known;
    }
    for other in &seed.others {
        report.warning(&format!(
            "{other} is not applied: this version does not support it"
        ));
    }
    let mut diagnostics = Diagnostics::new("user-data");
    let user_data = user_data::parse(bytes, &mut diagnostics);
    report.diagnostics(diagnostics.into_sorted());
    start_afresh(context.state, previous.is_some(), report);
    let scripts = apply_all(context, &meta, &user_data, report);
    let hostname = scripts.hostname;
    // User-data that is not understood is read again at the next boot: it may be corrected by then.
    if user_data != UserData::Broken && !scripts.failed {
        let instance = Instance {
            instance_id: meta.instance_id,
            user_data_sha256,
            scripts: scripts.name,
        };
        if let Err(error) = context.state.config.write(
            Path::new(INSTANCE_FILE),
            &instance.to_json(),
            Access::root(0o644),
        ) {
            report.error(format!("write /state/config/{INSTANCE_FILE}: {error}"));
        }
    }
    Outcome::Applied { hostname }
}

/// What the steps leave for the record.
struct Applied {
    hostname: Option<String>,
    name: Option<String>,
    failed: bool,
}

fn apply_all(
    context: &Context<'_>,
    meta: &MetaData,
    user_data: &UserData,
    report: &mut Report,
) -> Applied {
    let nothing = CloudConfig {
        expire_passwords: true,
        ..CloudConfig::default()
    };
    let config = match user_data {
        UserData::CloudConfig(config) => config,
        _ => &nothing,
    };
    let before = report.errors().len();
    let hostname = names::apply(context.state, config, meta, report);
    let mut failed = false;
    match accounts(context) {
        Ok(mut accounts) => {
            users::apply(context, &mut accounts, config, meta, report);
            files::apply(context, &accounts, &config.write_files, report);
        }
        Err(error) => {
            report.error(format!("read the accounts in /state/config/users: {error}"));
            failed = true;
        }
    }
    services::write(context.state, &config.services, report);
    let name = scripts::write(context.state, &meta.instance_id, config, user_data, report);
    // Whatever could not be written now may be writable at the next boot.
    failed |= report
        .errors()
        .iter()
        .skip(before)
        .any(|error| error.starts_with("write "));
    Applied {
        hostname,
        name,
        failed,
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
                    "read /state/config/{INSTANCE_FILE}: {error}; the seed is applied again"
                ))
            })
            .ok(),
        Err(error) => {
            report.error(format!(
                "read /state/config/{INSTANCE_FILE}: {error}; the seed is applied again"
            ));
            None
        }
    }
}

/// Takes away what an earlier instance, or an interrupted first boot of this one, has left.
fn start_afresh(state: &State, other_instance: bool, report: &mut Report) {
    for directory in [FILES_DIRECTORY, APPEND_DIRECTORY, SCRIPTS_DIRECTORY] {
        let path = state.config.path().join(directory);
        match std::fs::remove_dir_all(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => report.error(format!("remove {}: {error}", path.display())),
        }
    }
    services::remove(state, report);
    if !other_instance {
        return;
    }
    // A copy of a machine must not have the first one's identity.
    for kind in HOST_KEYS {
        for suffix in ["", ".pub"] {
            let path = Path::new(SSH_DIRECTORY).join(format!("ssh_host_{kind}_key{suffix}"));
            if let Err(error) = state.config.remove(&path) {
                report.error(format!("remove the host key {}: {error}", path.display()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
