//! Users and groups by name, looked up in the image's own `/etc/passwd` and `/etc/group`.

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use std::fs::File;
use std::io::Read;
use std::path::Path;

/// Who a process runs as.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Further groups.
    pub groups: Vec<u32>,
    /// Home directory, when the image knows the user.
    pub home: Option<String>,
}

/// Resolves `USER[:GROUP]`, each a name or a number, and further groups. `None` is root.
///
/// # Errors
/// Says which name the image does not know.
pub fn resolve(image: &Path, user: Option<&str>, further: &[String]) -> Result<User, String> {
    if user.is_none() && further.is_empty() {
        return Ok(User {
            home: Some("/root".to_owned()),
            ..User::default()
        });
    }
    lookup(
        &read(image, "etc/passwd"),
        &read(image, "etc/group"),
        user.unwrap_or("0"),
        further,
    )
}

/// Far more than such a file has.
const FILE_MAX_BYTES: u64 = 4 << 20;

/// The content of a file of the image; symbolic links cannot lead out of it. What cannot be read is empty.
fn read(image: &Path, name: &str) -> String {
    let mut text = String::new();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let file = rustix::fs::open(image, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
        .and_then(|image| openat2(image, name, flags, Mode::empty(), ResolveFlags::IN_ROOT));
    if let Ok(file) = file {
        let _ = File::from(file)
            .take(FILE_MAX_BYTES)
            .read_to_string(&mut text);
    }
    text
}

fn lookup(passwd: &str, group: &str, user: &str, further: &[String]) -> Result<User, String> {
    let (name, group_name) = match user.split_once(':') {
        Some((name, group)) => (name, Some(group)),
        None => (user, None),
    };
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| {
            fields.len() >= 6
                && (fields[0] == name || (name.parse::<u32>().is_ok() && fields[2] == name))
        });
    let mut found = User::default();
    match &entry {
        Some(fields) => {
            found.uid = number(fields[2])?;
            found.gid = number(fields[3])?;
            found.home = Some(fields[5].to_owned());
        }
        None => {
            found.uid = name
                .parse()
                .map_err(|_| format!("the image has no user `{name}`"))?;
        }
    }
    match group_name {
        Some(group_name) => found.gid = group_id(group, group_name)?,
        // As in Docker: a group named explicitly stands alone, else the user's own groups count.
        None => {
            if let Some(fields) = &entry {
                found.groups = groups_of(group, fields[0], found.gid);
            }
        }
    }
    for name in further {
        let id = group_id(group, name)?;
        if !found.groups.contains(&id) {
            found.groups.push(id);
        }
    }
    Ok(found)
}

fn number(text: &str) -> Result<u32, String> {
    text.parse()
        .map_err(|_| format!("the image's /etc/passwd has `{text}` where a number is due"))
}

fn group_id(group: &str, name: &str) -> Result<u32, String> {
    let line = group
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>());
    match line
        .into_iter()
        .find(|fields| fields.len() >= 3 && fields[0] == name)
    {
        Some(fields) => number(fields[2]),
        None => name
            .parse()
            .map_err(|_| format!("the image has no group `{name}`")),
    }
}

fn groups_of(group: &str, user: &str, own: u32) -> Vec<u32> {
    group
        .lines()
        .filter_map(|line| {
            let fields: Vec<&str> = line.split(':').collect();
            let member = fields.len() >= 4 && fields[3].split(',').any(|member| member == user);
            member.then(|| fields[2].parse().ok()).flatten()
        })
        .filter(|id| *id != own)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0::/root:/bin/sh\n_chrony:x:105:106::/var/lib/chrony:/bin/false\n";
    const GROUP: &str = "root:x:0:\n_chrony:x:106:\nadm:x:4:_chrony,syslog\ntty:x:5:\n";

    #[test]
    fn names_and_numbers_are_looked_up_in_the_image() {
        let user = lookup(PASSWD, GROUP, "_chrony", &["tty".to_owned()]).unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (105, 106, vec![4, 5]));
        let user = lookup(PASSWD, GROUP, "105:tty", &[]).unwrap();
        assert_eq!((user.uid, user.gid, user.groups), (105, 5, vec![]));
        let user = lookup(PASSWD, GROUP, "1234", &[]).unwrap();
        assert_eq!((user.uid, user.gid, user.home), (1234, 0, None));
    }

    #[test]
    fn an_unknown_name_is_an_error() {
        assert_eq!(
            lookup(PASSWD, GROUP, "nobody", &[]).unwrap_err(),
            "the image has no user `nobody`"
        );
        assert_eq!(
            lookup(PASSWD, GROUP, "0:wheel", &[]).unwrap_err(),
            "the image has no group `wheel`"
        );
    }
}
