//! Users, groups and passwords.

use std::collections::BTreeMap;
use std::path::Path;

use keelson_config::CloudConfig;
use keelson_config::cloud_config::{Secret, User, UserEntry, UserPassword};
use keelson_config::instance::USERS_DIRECTORY;
use keelson_sys::durable::Access;

use super::{Context, Steps, replace};
use crate::accounts::{Accounts, Login};
use crate::password;
use crate::report::Report;

/// The user that each machine has.
pub(super) const DEFAULT_USER: &str = "keelson";
const DEFAULT_GROUPS: [&str; 3] = ["sudo", "docker", "system-docker"];
const DEFAULT_SUDO: &str = "ALL=(ALL:ALL) NOPASSWD: ALL";
const SUDOERS_FILE: &str = "sudoers";

/// The default user's name.
pub(super) fn default_name(config: &CloudConfig) -> String {
    let name = config.default_user.name.clone();
    name.unwrap_or_else(|| DEFAULT_USER.to_owned())
}

/// Applies all that concerns users but their keys, and writes the accounts; gives the users that are declared.
pub(super) fn apply(
    context: &Context<'_>,
    accounts: &mut Accounts,
    config: &CloudConfig,
    steps: &mut Steps,
    report: &mut Report,
) -> Vec<User> {
    for group in &config.groups {
        let (what, asked) = (format!("group {}", group.name), format!("{group:?}"));
        if steps.is_due(&what, asked.as_bytes()) {
            for missing in accounts.apply_group(group) {
                // A user of the same document is made below; cloud-init has this order too.
                report.warning(&format!(
                    "user-data: `{missing}` is not put into the group `{}`: no such user yet",
                    group.name
                ));
            }
        }
        steps.is_done(&what, asked.as_bytes());
    }
    let default_name = default_name(config);
    let default_entries = vec![UserEntry::Default];
    let mut users: Vec<User> = Vec::new();
    for entry in config.users.as_ref().unwrap_or(&default_entries) {
        match entry {
            UserEntry::Default => users.push(default_user(&default_name, config)),
            UserEntry::Named(user) => users.push((**user).clone()),
        }
    }
    for user in &users {
        // Where it stands in the document is not what is asked for; its password is asked for below.
        let mut plain = user.clone();
        plain.position = keelson_config::Position::default();
        plain.ssh_authorized_keys.clear();
        plain.ssh_import_ids.clear();
        let secret = user.password.as_ref().map(secret_of);
        let asked = format!("{plain:?}{}", secret.unwrap_or_default());
        let what = format!("user {}", user.name);
        if steps.is_due(&what, asked.as_bytes()) || accounts.login(&user.name).is_none() {
            apply_user(context, accounts, user, report);
        }
        steps.is_done(&what, asked.as_bytes());
    }
    set_passwords(context, accounts, config, &default_name, steps, report);
    write_accounts(context, accounts, report);
    make_homes(context, accounts, report);
    write_sudoers(context, &users, report);
    users
}

/// What tells one password from another.
fn secret_of(password: &UserPassword) -> String {
    match password {
        UserPassword::Initial(hash) => hash.clone(),
        UserPassword::Replace(secret) => text_of(secret).to_owned(),
    }
}

fn text_of(secret: &Secret) -> &str {
    match secret {
        Secret::Plain(text) | Secret::Hashed(text) => text,
        Secret::Random => "made up",
    }
}

/// The default user, with what the top-level key `user` says of it.
fn default_user(name: &str, config: &CloudConfig) -> User {
    let mut user = config.default_user.settings.clone().unwrap_or_default();
    name.clone_into(&mut user.name);
    user.groups.get_or_insert_with(|| {
        let groups = DEFAULT_GROUPS.iter();
        groups.map(|group| (*group).to_owned()).collect()
    });
    // The image's own rule is for its own default user.
    if name != DEFAULT_USER {
        let sudo = || vec![DEFAULT_SUDO.to_owned()];
        user.sudo.get_or_insert_with(sudo);
    }
    user
}

fn apply_user(context: &Context<'_>, accounts: &mut Accounts, user: &User, report: &mut Report) {
    let name = user.name.as_str();
    let is_new = accounts.login(name).is_none();
    if let Err(message) = accounts.apply_user(user, context.today) {
        report.error_at(user.position, &message);
        if accounts.login(name).is_none() {
            return;
        }
    }
    match &user.password {
        Some(UserPassword::Initial(hash)) if !accounts.has_password(name) => {
            accounts.set_password(name, hash, context.today, false);
        }
        Some(UserPassword::Replace(secret)) => {
            set_password(context, accounts, name, secret, false, report)
        }
        _ => {}
    }
    match user.lock_password {
        Some(locked) => accounts.lock(name, locked),
        None if is_new => accounts.lock(name, true),
        None => {}
    }
}

fn set_passwords(
    context: &Context<'_>,
    accounts: &mut Accounts,
    config: &CloudConfig,
    default_name: &str,
    steps: &mut Steps,
    report: &mut Report,
) {
    let of_default = config.password.iter().map(|secret| (default_name, secret));
    let of_others = config.password_changes.iter();
    let of_others = of_others.map(|change| (change.name.as_str(), &change.secret));
    // Of two for one user the later one counts.
    let passwords: BTreeMap<&str, &Secret> = of_default.chain(of_others).collect();
    for (name, secret) in passwords {
        let errors = report.errors().len();
        let what = format!("password of {name}");
        let asked = text_of(secret).as_bytes();
        if steps.is_due(&what, asked) {
            set_password(
                context,
                accounts,
                name,
                secret,
                config.expire_passwords,
                report,
            );
        }
        if report.errors().len() == errors {
            steps.is_done(&what, asked);
        }
    }
}

fn set_password(
    context: &Context<'_>,
    accounts: &mut Accounts,
    name: &str,
    secret: &Secret,
    expire: bool,
    report: &mut Report,
) {
    if accounts.login(name).is_none() {
        report.error(format!(
            "user-data: the password of `{name}` is not set: there is no such user"
        ));
        return;
    }
    let hash = match secret {
        Secret::Hashed(hash) => Ok(hash.clone()),
        Secret::Plain(text) => password::hash(text),
        Secret::Random => password::random()
            .map_err(|error| format!("make up a password: {error}"))
            .and_then(|text| {
                report.tell(&format!("the password of `{name}` is {text}"));
                password::hash(&text)
            }),
    };
    match hash {
        Ok(hash) => accounts.set_password(name, &hash, context.today, expire),
        Err(error) => report.error(format!(
            "user-data: the password of `{name}` is not set: {error}"
        )),
    }
}

/// Writes the files of accounts that differ from what is there.
pub(super) fn write_accounts(context: &Context<'_>, accounts: &Accounts, report: &mut Report) {
    for file in accounts.files() {
        let path = Path::new(USERS_DIRECTORY).join(file.name);
        let access = match file.secret {
            true => Access {
                mode: 0o640,
                uid: 0,
                gid: accounts.shadow_group_id(),
            },
            false => Access::root(0o644),
        };
        replace(
            context.state,
            &path,
            Some(file.text.as_bytes()),
            access,
            report,
        );
    }
}

/// Gives each person a home directory.
pub(super) fn make_homes(context: &Context<'_>, accounts: &Accounts, report: &mut Report) {
    for name in accounts.people() {
        let Some(login) = accounts.login(&name) else {
            continue;
        };
        if let Err(error) = make_home(context, &login) {
            report.error(format!("write the home directory {}: {error}", login.home));
        }
    }
}

fn make_home(context: &Context<'_>, login: &Login) -> std::io::Result<()> {
    let Some(place) = context.state.place(&login.home) else {
        return Ok(());
    };
    place.tree.make_directory(
        &place.path,
        Access {
            mode: 0o700,
            uid: login.uid,
            gid: login.gid,
        },
    )
}

fn write_sudoers(context: &Context<'_>, users: &[User], report: &mut Report) {
    let mut text = String::new();
    for user in users {
        for rule in user.sudo.iter().flatten() {
            text.push_str(&format!("{} {rule}\n", user.name));
        }
    }
    let path = Path::new(USERS_DIRECTORY).join(SUDOERS_FILE);
    let access = Access::root(0o440);
    replace(context.state, &path, Some(text.as_bytes()), access, report);
}
