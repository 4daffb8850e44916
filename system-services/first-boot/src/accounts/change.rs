//! Users, groups and passwords as a cloud-config asks for them.

use keelson_config::cloud_config::{Group, User};

use super::table::Table;
use super::{
    Accounts, EXPIRES, GECOS, GROUP_ID, HOME, ID, INACTIVE, LAST_CHANGE, MEMBERS, PASSWORD, SHELL,
};

const DEFAULT_SHELL: &str = "/bin/bash";
const FIRST_USER_ID: u32 = 1000;
const LAST_USER_ID: u32 = 59_999;
/// System users get the highest free number of this range, as useradd(8) does.
const SYSTEM_IDS: std::ops::RangeInclusive<u32> = 200..=990;
const LOCKED: &str = "!";

/// A day, counted from 1 January 1970.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Day(pub(crate) u64);

impl Day {
    /// The day that is written `YYYY-MM-DD`.
    pub(crate) fn parse(text: &str) -> Option<Day> {
        let mut parts = text.split('-').map(|part| part.parse::<u64>().ok());
        let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
        if parts.next().is_some() || !(1970..=9999).contains(&year) || !(1..=12).contains(&month) {
            return None;
        }
        let leap = |year: u64| {
            (year.is_multiple_of(4) && !year.is_multiple_of(100)) || year.is_multiple_of(400)
        };
        let length = |month: u64| match month {
            2 => 28 + u64::from(leap(year)),
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        };
        if !(1..=length(month)).contains(&day) {
            return None;
        }
        let years: u64 = (1970..year).map(|year| 365 + u64::from(leap(year))).sum();
        let months: u64 = (1..month).map(length).sum();
        Some(Day(years + months + day - 1))
    }
}

impl Accounts {
    /// Makes the group `name` when it is missing, with this number if it is free.
    pub(crate) fn ensure_group(&mut self, name: &str, wanted: Option<u32>, system: bool) {
        if self.group.row(name).is_some() {
            return;
        }
        let free = |number: &u32| !self.group.has(ID, &number.to_string());
        let Some(number) = wanted.filter(free).or_else(|| self.free_id(system)) else {
            return;
        };
        self.group.push(vec![
            name.to_owned(),
            "x".to_owned(),
            number.to_string(),
            String::new(),
        ]);
        self.gshadow.push(vec![
            name.to_owned(),
            LOCKED.to_owned(),
            String::new(),
            String::new(),
        ]);
    }

    /// Makes `group` and puts its members that exist into it; gives the names of those that do not.
    pub(crate) fn apply_group(&mut self, group: &Group) -> Vec<String> {
        self.ensure_group(&group.name, None, false);
        let (there, missing): (Vec<_>, Vec<_>) = group
            .members
            .iter()
            .cloned()
            .partition(|member| self.passwd.row(member).is_some());
        there
            .iter()
            .for_each(|member| self.add_member(&group.name, member));
        missing
    }

    /// Puts the user `member` into the group `name`.
    pub(crate) fn add_member(&mut self, name: &str, member: &str) {
        for table in [&mut self.group, &mut self.gshadow] {
            add_to_list(table, name, member);
        }
    }

    /// Makes `user`, or changes what is said of it when it exists. Passwords are [`set_password`](Self::set_password)'s
    /// business; a new user has none and is locked.
    ///
    /// # Errors
    /// A sentence that says what of it could not be done.
    pub(crate) fn apply_user(&mut self, user: &User, today: Day) -> Result<(), String> {
        let name = user.name.as_str();
        if self.passwd.row(name).is_none() {
            self.add_user(user, today)?;
        } else if let Some(uid) = user.uid
            && self.user_id(name) != Some(uid)
        {
            return Err(format!(
                "user `{name}` exists with another number than {uid}, which is not changed"
            ));
        }
        for (field, value) in [
            (GECOS, &user.gecos),
            (HOME, &user.home),
            (SHELL, &user.shell),
        ] {
            if let Some(value) = value {
                self.passwd.set(name, field, value);
            }
        }
        for group in user.groups.iter().flatten() {
            self.ensure_group(group, None, user.system);
            self.add_member(group, name);
        }
        if let Some(days) = user.inactive_days {
            self.shadow.set(name, INACTIVE, &days.to_string());
        }
        if let Some(text) = user.expires.as_deref().filter(|text| !text.is_empty()) {
            let day = Day::parse(text).ok_or_else(|| {
                format!("expiredate `{text}` of user `{name}` is no day written YYYY-MM-DD; it is not applied")
            })?;
            self.shadow.set(name, EXPIRES, &day.0.to_string());
        }
        Ok(())
    }

    fn add_user(&mut self, user: &User, today: Day) -> Result<(), String> {
        let name = user.name.as_str();
        if let Some(uid) = user.uid.filter(|uid| self.passwd.has(ID, &uid.to_string())) {
            return Err(format!(
                "user `{name}` is not made: number {uid} is another user's"
            ));
        }
        let no_number = || format!("user `{name}` is not made: no free number is left");
        let uid = user
            .uid
            .or_else(|| self.free_id(user.system))
            .ok_or_else(no_number)?;
        let group = match &user.primary_group {
            Some(group) => group.as_str(),
            None if user.no_user_group => "users",
            None => name,
        };
        self.ensure_group(group, (group == name).then_some(uid), user.system);
        let gid = self.group_id(group).ok_or_else(no_number)?;
        self.passwd.push(vec![
            name.to_owned(),
            "x".to_owned(),
            uid.to_string(),
            gid.to_string(),
            String::new(),
            format!("/home/{name}"),
            DEFAULT_SHELL.to_owned(),
        ]);
        self.add_shadow(name, today);
        Ok(())
    }

    fn add_shadow(&mut self, name: &str, today: Day) {
        let row = [
            name,
            LOCKED,
            &today.0.to_string(),
            "0",
            "99999",
            "7",
            "",
            "",
            "",
        ];
        self.shadow
            .push(row.iter().map(|field| (*field).to_owned()).collect());
    }

    /// Whether the user has a password, locked or not.
    pub(crate) fn has_password(&self, name: &str) -> bool {
        let hash = self.shadow.field(name, PASSWORD).unwrap_or_default();
        hash.trim_start_matches(['!', '*']).len() > 1
    }

    /// Gives the user a new password. `expire` makes it one that must be changed at the first login.
    pub(crate) fn set_password(&mut self, name: &str, hash: &str, today: Day, expire: bool) {
        if self.shadow.row(name).is_none() {
            self.add_shadow(name, today);
        }
        self.shadow.set(name, PASSWORD, hash);
        // Day 0 means: to be changed. A clock that was never set must not mean that.
        let day = if expire { 0 } else { today.0.max(1) };
        self.shadow.set(name, LAST_CHANGE, &day.to_string());
    }

    /// Closes or opens the user's password, keeping it. A user without one stays closed.
    pub(crate) fn lock(&mut self, name: &str, locked: bool) {
        let hash = self
            .shadow
            .field(name, PASSWORD)
            .unwrap_or(LOCKED)
            .to_owned();
        let open = hash.trim_start_matches('!');
        match (locked, open.is_empty()) {
            (true, _) => self.shadow.set(name, PASSWORD, &format!("{LOCKED}{open}")),
            (false, false) => self.shadow.set(name, PASSWORD, open),
            (false, true) => {}
        }
    }

    /// A number that is neither a user's nor a group's.
    fn free_id(&self, system: bool) -> Option<u32> {
        let free = |number: &u32| {
            let number = number.to_string();
            !self.passwd.has(ID, &number)
                && !self.passwd.has(GROUP_ID, &number)
                && !self.group.has(ID, &number)
        };
        if system {
            SYSTEM_IDS.rev().find(free)
        } else {
            (FIRST_USER_ID..=LAST_USER_ID).find(free)
        }
    }
}

/// Adds `member` to the list of members of `name`.
fn add_to_list(table: &mut Table, name: &str, member: &str) {
    let Some(members) = table.field(name, MEMBERS) else {
        return;
    };
    if members.split(',').any(|found| found == member) {
        return;
    }
    let members = if members.is_empty() {
        member.to_owned()
    } else {
        format!("{members},{member}")
    };
    table.set(name, MEMBERS, &members);
}
