//! `/etc/passwd`, `/etc/shadow` and `/etc/group` of an image.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Result, ensure};

use super::Tree;
use crate::recipe::{Group, User};

/// Group of `/etc/shadow` where the image has a group of that name, as Debian has it.
const SHADOW_GROUP: &str = "shadow";

/// Writes the account files for `users` and `groups`. All passwords are locked.
///
/// # Errors
/// When a name or number stands twice, a group is unknown, or a file cannot be written.
pub(crate) fn write(tree: &Tree, users: &[User], groups: &[Group]) -> Result<()> {
    check(users, groups)?;
    let shadow_gid = groups
        .iter()
        .find(|group| group.name == SHADOW_GROUP)
        .map(|group| group.gid);
    let shadow_mode = if shadow_gid.is_some() { 0o640 } else { 0o600 };
    tree.file("etc/passwd", &mut passwd(users).as_bytes(), 0o644, 0, 0)?;
    tree.file(
        "etc/shadow",
        &mut shadow(users).as_bytes(),
        shadow_mode,
        0,
        shadow_gid.unwrap_or(0),
    )?;
    tree.file(
        "etc/group",
        &mut group(users, groups).as_bytes(),
        0o644,
        0,
        0,
    )
}

fn check(users: &[User], groups: &[Group]) -> Result<()> {
    let mut user_names = BTreeMap::new();
    for user in users {
        let before = user_names.insert(&user.name, user.uid);
        ensure!(
            before.is_none(),
            "user {} stands twice in the recipe",
            user.name
        );
        for name in &user.groups {
            let known = groups.iter().any(|group| &group.name == name);
            ensure!(
                known,
                "user {} is to be in group {name}, which the recipe does not list",
                user.name
            );
        }
    }
    let mut group_names = BTreeMap::new();
    for group in groups {
        let before = group_names.insert(&group.name, group.gid);
        ensure!(
            before.is_none(),
            "group {} stands twice in the recipe",
            group.name
        );
    }
    Ok(())
}

fn passwd(users: &[User]) -> String {
    let mut text = String::new();
    for user in users {
        let User {
            name,
            uid,
            gid,
            gecos,
            home,
            shell,
            ..
        } = user;
        let _ = writeln!(text, "{name}:x:{uid}:{gid}:{gecos}:{home}:{shell}");
    }
    text
}

fn shadow(users: &[User]) -> String {
    users
        .iter()
        .map(|user| format!("{}:*:20000:0:99999:7:::\n", user.name))
        .collect()
}

/// The recipe's groups, with `root` first when it is not among them.
fn group(users: &[User], groups: &[Group]) -> String {
    let mut text = String::new();
    if !groups.iter().any(|group| group.gid == 0) {
        text.push_str("root:x:0:\n");
    }
    for group in groups {
        let mut members: Vec<&str> = group.members.iter().map(String::as_str).collect();
        members.extend(
            users
                .iter()
                .filter(|user| user.groups.contains(&group.name))
                .map(|user| user.name.as_str()),
        );
        let _ = writeln!(text, "{}:x:{}:{}", group.name, group.gid, members.join(","));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, groups: &[&str]) -> User {
        User {
            name: name.into(),
            uid: 1000,
            gid: 1000,
            home: "/home/x".into(),
            shell: "/bin/bash".into(),
            gecos: String::new(),
            groups: groups.iter().map(|&group| group.into()).collect(),
        }
    }

    fn group_of(name: &str, gid: u32) -> Group {
        Group {
            name: name.into(),
            gid,
            members: vec![],
        }
    }

    #[test]
    fn users_are_members_of_the_groups_they_name() {
        let text = group(&[user("keelson", &["docker"])], &[group_of("docker", 998)]);
        assert_eq!(text, "root:x:0:\ndocker:x:998:keelson\n");
    }

    #[test]
    fn passwords_are_locked() {
        assert!(shadow(&[user("keelson", &[])]).starts_with("keelson:*:"));
    }

    #[test]
    fn an_unknown_group_and_a_double_name_are_errors() {
        assert!(check(&[user("keelson", &["wheel"])], &[]).is_err());
        assert!(check(&[user("a", &[]), user("a", &[])], &[]).is_err());
        assert!(check(&[], &[group_of("a", 1), group_of("a", 2)]).is_err());
    }
}
