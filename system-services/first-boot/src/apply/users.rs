//! Users, groups, passwords and keys.

use std::path::{Path, PathBuf};

use keelson_config::cloud_config::{Secret, User, UserEntry, UserPassword};
use keelson_config::instance::{SSH_DIRECTORY, USERS_DIRECTORY};
use keelson_config::{CloudConfig, MetaData};
use keelson_sys::durable::Access;

use super::Context;
use crate::accounts::{Accounts, Login};
use crate::password;
use crate::report::Report;

/// The user that each machine has.
const DEFAULT_USER: &str = "keelson";
const DEFAULT_GROUPS: [&str; 3] = ["sudo", "docker", "system-docker"];
const DEFAULT_SUDO: &str = "ALL=(ALL:ALL) NOPASSWD: ALL";
const SUDOERS_FILE: &str = "sudoers";
const SSHD_SETTINGS: &str = "sshd_config.d/50-cloud-config.conf";
const MAX_KEYS_BYTES: u64 = 1024 * 1024;
/// What root's keys say when root's login is not asked for is left out: root gets no keys then.
const ROOT: &str = "root";

/// Applies all that concerns users, and writes the accounts.
pub(super) fn apply(
    context: &Context<'_>,
    accounts: &mut Accounts,
    config: &CloudConfig,
    meta: &MetaData,
    report: &mut Report,
) {
    for group in &config.groups {
        for missing in accounts.apply_group(group) {
            // A user of the same document is made below; cloud-init has this order too.
            report.warning(&format!(
                "user-data: `{missing}` is not put into the group `{}`: no such user yet",
                group.name
            ));
        }
    }
    let default_name = config
        .default_user
        .name
        .clone()
        .unwrap_or_else(|| DEFAULT_USER.to_owned());
    let default_entries = vec![UserEntry::Default];
    let mut users: Vec<User> = Vec::new();
    for entry in config.users.as_ref().unwrap_or(&default_entries) {
        match entry {
            UserEntry::Default => users.push(default_user(&default_name, config)),
            UserEntry::Named(user) => users.push((**user).clone()),
        }
    }
    for user in &users {
        apply_user(context, accounts, user, report);
    }
    set_passwords(context, accounts, config, &default_name, report);
    write_accounts(context, accounts, report);
    make_homes(context, accounts, report);
    write_sudoers(context, &users, report);
    write_ssh_settings(context, config, report);

    let keys_for = if accounts.login(&default_name).is_some() {
        default_name.as_str()
    } else {
        DEFAULT_USER
    };
    let mut keys = config.ssh_authorized_keys.clone();
    keys.extend(meta.public_keys.iter().cloned());
    add_keys(context, accounts, keys_for, &keys, report);
    if config.root_keys {
        add_keys(context, accounts, ROOT, &keys, report);
    }
    for user in &users {
        add_keys(
            context,
            accounts,
            &user.name,
            &user.ssh_authorized_keys,
            report,
        );
    }
}

/// The default user, with what the top-level key `user` says of it.
fn default_user(name: &str, config: &CloudConfig) -> User {
    let mut user = config.default_user.settings.clone().unwrap_or_default();
    name.clone_into(&mut user.name);
    if user.groups.is_empty() {
        user.groups = DEFAULT_GROUPS
            .iter()
            .map(|group| (*group).to_owned())
            .collect();
    }
    if user.sudo.is_empty() && name != DEFAULT_USER {
        user.sudo = vec![DEFAULT_SUDO.to_owned()];
    }
    user
}

fn apply_user(context: &Context<'_>, accounts: &mut Accounts, user: &User, report: &mut Report) {
    let name = user.name.as_str();
    let is_new = accounts.login(name).is_none();
    if let Err(message) = accounts.apply_user(user, context.today) {
        report.error(format!(
            "user-data:{}:{}: {message}",
            user.position.line, user.position.column
        ));
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
    report: &mut Report,
) {
    let expire = config.expire_passwords;
    if let Some(secret) = &config.password {
        set_password(context, accounts, default_name, secret, expire, report);
    }
    for change in &config.password_changes {
        set_password(
            context,
            accounts,
            &change.name,
            &change.secret,
            expire,
            report,
        );
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
        write_if_changed(context, &path, file.text.as_bytes(), access, report);
    }
}

fn write_if_changed(
    context: &Context<'_>,
    path: &Path,
    content: &[u8],
    access: Access,
    report: &mut Report,
) {
    let tree = &context.state.config;
    if matches!(tree.read(path, super::MAX_ACCOUNT_FILE_BYTES), Ok(Some(found)) if found == content)
    {
        return;
    }
    if let Err(error) = tree.write(path, content, access) {
        report.error(format!("write /state/config/{}: {error}", path.display()));
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
        for rule in &user.sudo {
            text.push_str(&format!("{} {rule}\n", user.name));
        }
    }
    let path = Path::new(USERS_DIRECTORY).join(SUDOERS_FILE);
    write_if_changed(context, &path, text.as_bytes(), Access::root(0o440), report);
}

fn write_ssh_settings(context: &Context<'_>, config: &CloudConfig, report: &mut Report) {
    let Some(passwords) = config.ssh_password_login else {
        return;
    };
    let text = format!(
        "PasswordAuthentication {}\n",
        if passwords { "yes" } else { "no" }
    );
    let path = Path::new(SSH_DIRECTORY).join(SSHD_SETTINGS);
    write_if_changed(context, &path, text.as_bytes(), Access::root(0o644), report);
}

/// Adds `keys` to those that the user may log in with.
fn add_keys(
    context: &Context<'_>,
    accounts: &Accounts,
    name: &str,
    keys: &[String],
    report: &mut Report,
) {
    if keys.is_empty() {
        return;
    }
    let Some(login) = accounts.login(name) else {
        report.error(format!(
            "user-data: the keys of `{name}` are not stored: there is no such user"
        ));
        return;
    };
    if let Err(error) = try_add_keys(context, &login, keys) {
        report.error(format!("write the keys of `{name}`: {error}"));
    }
}

fn try_add_keys(context: &Context<'_>, login: &Login, keys: &[String]) -> std::io::Result<()> {
    let Some(home) = context.state.place(&login.home) else {
        return Err(std::io::Error::other(format!(
            "no file can be kept in {}",
            login.home
        )));
    };
    let own = |mode| Access {
        mode,
        uid: login.uid,
        gid: login.gid,
    };
    home.tree.make_directory(&home.path, own(0o700))?;
    home.tree
        .make_directory(&home.path.join(".ssh"), own(0o700))?;
    let path: PathBuf = home.path.join(".ssh/authorized_keys");
    let found = home.tree.read(&path, MAX_KEYS_BYTES)?.unwrap_or_default();
    let mut text = String::from_utf8_lossy(&found).into_owned();
    for key in keys {
        if text.lines().any(|line| line == key) {
            continue;
        }
        if !text.is_empty() && !text.ends_with('\n') {
            text.push('\n');
        }
        text.push_str(key);
        text.push('\n');
    }
    home.tree.write(&path, text.as_bytes(), own(0o600))
}
