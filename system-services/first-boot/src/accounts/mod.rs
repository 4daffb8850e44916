//! The console's users and groups, as the files that login, sshd and sudo read.
//!
//! - [`table`]: one such file
//! - [`change`]: users, groups and passwords as a cloud-config asks for them

mod change;
mod table;

use table::Table;

pub(crate) use change::Day;

const NAME: usize = 0;
const PASSWORD: usize = 1;
/// In passwd and group.
const ID: usize = 2;
/// In passwd.
const GROUP_ID: usize = 3;
const GECOS: usize = 4;
const HOME: usize = 5;
const SHELL: usize = 6;
/// In group and gshadow.
const MEMBERS: usize = 3;
/// In shadow.
const LAST_CHANGE: usize = 2;
const INACTIVE: usize = 6;
const EXPIRES: usize = 7;

/// Group that may read password hashes.
const SHADOW_GROUP: &str = "shadow";

/// The four files.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Accounts {
    passwd: Table,
    shadow: Table,
    group: Table,
    gshadow: Table,
}

/// One of the files, to be written.
pub(crate) struct AccountFile {
    /// Its name below `/etc`.
    pub(crate) name: &'static str,
    /// Its text.
    pub(crate) text: String,
    /// Whether it holds hashes that only root and the group `shadow` may read.
    pub(crate) secret: bool,
}

/// A user as far as files need to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Login {
    /// Number of the user.
    pub(crate) uid: u32,
    /// Number of the group.
    pub(crate) gid: u32,
    /// Home directory.
    pub(crate) home: String,
}

impl Accounts {
    /// The accounts in the files that `read` gives by name; a file that is not there is empty.
    pub(crate) fn read<E>(
        mut read: impl FnMut(&str) -> Result<Option<String>, E>,
    ) -> Result<Self, E> {
        let mut table =
            |name: &str, width| Ok(Table::parse(&read(name)?.unwrap_or_default(), width));
        Ok(Accounts {
            passwd: table("passwd", 7)?,
            shadow: table("shadow", 9)?,
            group: table("group", 4)?,
            gshadow: table("gshadow", 4)?,
        })
    }

    /// The files with these accounts.
    pub(crate) fn files(&self) -> [AccountFile; 4] {
        [
            AccountFile {
                name: "group",
                text: self.group.text(),
                secret: false,
            },
            AccountFile {
                name: "gshadow",
                text: self.gshadow.text(),
                secret: true,
            },
            AccountFile {
                name: "shadow",
                text: self.shadow.text(),
                secret: true,
            },
            AccountFile {
                name: "passwd",
                text: self.passwd.text(),
                secret: false,
            },
        ]
    }

    /// Adds the users and groups of `defaults` that are missing here: those that a newer image brought.
    pub(crate) fn add_missing(&mut self, defaults: &Accounts) {
        let tables = [
            (&mut self.passwd, &defaults.passwd),
            (&mut self.shadow, &defaults.shadow),
            (&mut self.group, &defaults.group),
            (&mut self.gshadow, &defaults.gshadow),
        ];
        for (own, default) in tables {
            for row in default.rows() {
                if row.first().is_some_and(|name| own.row(name).is_none()) {
                    own.push(row.to_vec());
                }
            }
        }
    }

    /// The user `name`.
    pub(crate) fn login(&self, name: &str) -> Option<Login> {
        let number = |field| self.passwd.field(name, field)?.parse().ok();
        Some(Login {
            uid: number(ID)?,
            gid: number(GROUP_ID)?,
            home: self.passwd.field(name, HOME)?.to_owned(),
        })
    }

    /// The users whose home directory is below `/home`.
    pub(crate) fn people(&self) -> Vec<String> {
        let people = self
            .passwd
            .rows()
            .filter(|row| row.get(HOME).is_some_and(|home| home.starts_with("/home/")));
        people.filter_map(|row| row.get(NAME).cloned()).collect()
    }

    /// Number of the user `name`, which may be a number itself.
    pub(crate) fn user_id(&self, name: &str) -> Option<u32> {
        self.passwd.field(name, ID).unwrap_or(name).parse().ok()
    }

    /// Number of the group `name`, which may be a number itself.
    pub(crate) fn group_id(&self, name: &str) -> Option<u32> {
        self.group.field(name, ID).unwrap_or(name).parse().ok()
    }

    /// Number of the group that may read the secret files.
    pub(crate) fn shadow_group_id(&self) -> u32 {
        self.group_id(SHADOW_GROUP).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests;
