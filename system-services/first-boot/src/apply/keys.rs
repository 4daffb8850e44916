//! SSH keys of users. Those that the configuration gave and no longer gives are taken away; people's own stay.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use keelson_config::CloudConfig;
use keelson_config::cloud_config::User;
use keelson_config::sources::Source;
use keelson_sys::durable::Access;

use super::Context;
use super::imported::Imported;
use super::users::default_name;
use crate::accounts::{Accounts, Login};
use crate::report::Report;

const MAX_KEYS_BYTES: u64 = 1024 * 1024;
const ROOT: &str = "root";

/// Keys by user.
pub(crate) type Keys = BTreeMap<String, Vec<String>>;

/// The keys that each user shall have.
pub(super) fn wanted(
    accounts: &Accounts,
    config: &CloudConfig,
    source: &Source,
    (users, imported): (&[User], &Imported),
) -> Keys {
    let name = default_name(config);
    let for_default = match accounts.login(&name) {
        Some(_) => name,
        None => super::users::DEFAULT_USER.to_owned(),
    };
    let mut all = config.ssh_authorized_keys.clone();
    all.extend(source.public_keys.iter().cloned());
    let mut keys = Keys::new();
    let mut add = |name: &str, more: &[String]| {
        let list = keys.entry(name.to_owned()).or_default();
        for key in more {
            if !list.contains(key) {
                list.push(key.clone());
            }
        }
    };
    if config.root_keys {
        add(ROOT, &all);
    }
    // People who are let in by a name are let in as that user: as in cloud-init, root is not meant.
    all.extend(imported.of(&config.ssh_import_ids));
    add(&for_default, &all);
    for user in users {
        add(&user.name, &user.ssh_authorized_keys);
        add(&user.name, &imported.of(&user.ssh_import_ids));
    }
    keys.retain(|_, list| !list.is_empty());
    keys
}

/// Gives and takes keys; gives what users have from the configuration now.
pub(super) fn apply(
    context: &Context<'_>,
    accounts: &Accounts,
    wanted: Keys,
    given: &Keys,
    report: &mut Report,
) -> Keys {
    let mut result = Keys::new();
    let nothing = Vec::new();
    let names: std::collections::BTreeSet<&String> = wanted.keys().chain(given.keys()).collect();
    for name in names {
        let new = wanted.get(name).unwrap_or(&nothing);
        let old = given.get(name).unwrap_or(&nothing);
        let Some(login) = accounts.login(name) else {
            if !new.is_empty() {
                report.error(format!(
                    "user-data: the keys of `{name}` are not stored: there is no such user"
                ));
            }
            continue;
        };
        match change(context, &login, new, old) {
            Ok(()) if new.is_empty() => {}
            Ok(()) => drop(result.insert(name.clone(), new.clone())),
            Err(error) => {
                report.error(format!("write the keys of `{name}`: {error}"));
                // What is there is not known: all of it may have to be taken away.
                let mut both = old.clone();
                both.extend(new.iter().cloned());
                result.insert(name.clone(), both);
            }
        }
    }
    result
}

fn change(
    context: &Context<'_>,
    login: &Login,
    new: &[String],
    old: &[String],
) -> std::io::Result<()> {
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
    let path: PathBuf = home.path.join(".ssh/authorized_keys");
    let found = match new.is_empty() {
        // Nothing is made for what is to be taken away.
        true => match home.tree.read(&path, MAX_KEYS_BYTES)? {
            Some(found) => found,
            None => return Ok(()),
        },
        false => {
            home.tree.make_directory(&home.path, own(0o700))?;
            home.tree
                .make_directory(&home.path.join(".ssh"), own(0o700))?;
            home.tree.read(&path, MAX_KEYS_BYTES)?.unwrap_or_default()
        }
    };
    let before = String::from_utf8_lossy(&found);
    let text = changed(&before, new, old);
    if text == before && !found.is_empty() {
        return Ok(());
    }
    home.tree
        .write(Path::new(&path), text.as_bytes(), own(0o600))
}

/// The lines of `text` without those of `old` that are not in `new`, and with all of `new`.
fn changed(text: &str, new: &[String], old: &[String]) -> String {
    let mut lines: Vec<&str> = text
        .lines()
        .filter(|line| {
            let is = |list: &[String]| list.iter().any(|key| key == line);
            !is(old) || is(new)
        })
        .collect();
    for key in new {
        if !lines.contains(&key.as_str()) {
            lines.push(key);
        }
    }
    let mut text = lines.join("\n");
    if !text.is_empty() {
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::changed;

    #[test]
    fn keys_that_are_no_longer_given_go_and_peoples_own_stay() {
        let list = |keys: &[&str]| keys.iter().map(|key| (*key).to_owned()).collect::<Vec<_>>();
        let text = changed("a\nmine\nb\n", &list(&["b", "c"]), &list(&["a", "b"]));
        assert_eq!(text, "mine\nb\nc\n");
        assert_eq!(changed("a\n", &[], &list(&["a"])), "");
        assert_eq!(changed("", &list(&["a"]), &[]), "a\n");
    }
}
