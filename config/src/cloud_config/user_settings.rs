//! The settings of one user.

use super::authorized_keys::authorized_keys;
use super::passwords::{parse_hash, parse_password};
use super::users::{User, UserPassword};
use super::{Secret, imported_keys};
use crate::diagnostic::Diagnostics;
use crate::names;
use crate::yaml::{self, Fields, Node, Shape, Table, Value};

/// The settings of a user.
pub(super) static USER_SETTINGS: Table = Table::new(
    "user",
    &[
        ("name", Shape::Text, "Login name"),
        ("gecos", Shape::Text, "Full name"),
        ("homedir", Shape::Text, "Home directory"),
        ("home", Shape::Text, "Home directory"),
        ("shell", Shape::Text, "Login shell"),
        ("uid", Shape::Integer(0, u32::MAX as i64 - 2), "Numeric id"),
        (
            "primary_group",
            Shape::Text,
            "Group that the user's files get",
        ),
        ("groups", GROUPS, "Further groups"),
        (
            "no_user_group",
            Shape::Boolean,
            "No group of the user's own name",
        ),
        ("no_create_home", Shape::Boolean, "No home directory"),
        (
            "no_log_init",
            Shape::Hint(&Shape::Boolean),
            "Says nothing here",
        ),
        (
            "create_groups",
            Shape::Hint(&Shape::Boolean),
            "Says nothing here: groups are made",
        ),
        ("system", Shape::Boolean, "A system user"),
        (
            "expiredate",
            Shape::Text,
            "Day on which the account ends, as \"2030-12-31\"",
        ),
        (
            "inactive",
            Shape::Integer(0, u32::MAX as i64 - 2),
            "Days after which an expired password closes the account",
        ),
        (
            "lock_passwd",
            Shape::Boolean,
            "False lets the user log in with a password",
        ),
        ("passwd", Shape::Text, "Hash of the first password"),
        ("hashed_passwd", Shape::Text, "Hash of the password"),
        ("plain_text_passwd", Shape::Text, "Password in the clear"),
        (
            "ssh_authorized_keys",
            super::authorized_keys::KEYS,
            "SSH keys",
        ),
        (
            "ssh_import_id",
            Shape::TEXTS,
            "Whose SSH keys as well, as gh:NAME",
        ),
        (
            "sudo",
            Shape::TEXTS,
            "Rules of sudoers(5), as ALL=(ALL) NOPASSWD:ALL, or false",
        ),
    ],
)
.unsupported(UNSUPPORTED_USER_KEYS);
const GROUPS: Shape = Shape::AnyOf(&[Shape::TEXTS, Shape::Map(&Shape::Any)]);
const UNSUPPORTED_USER_KEYS: &[(&str, &str)] = &[
    ("ssh_redirect_user", "this version does not support it"),
    ("selinux_user", "there is no SELinux"),
    ("doas", "there is no doas; use sudo"),
    ("snapuser", "there are no snaps"),
    ("ssh_pwauth", "it stands at the top level, for all users"),
    ("chpasswd", "it stands at the top level, for all users"),
    (
        "password",
        "for a user it is plain_text_passwd, or passwd for a hash",
    ),
];

pub(super) fn parse_settings(
    name: &str,
    fields: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) -> User {
    let within = format!(" of user `{name}`");
    fields.check(&within, &USER_SETTINGS, diagnostics);
    let mut reader = SettingsReader {
        name,
        fields,
        diagnostics,
    };
    let primary_group = reader
        .field("primary_group")
        .filter(|group| names::is_account(group));
    let mut user = User {
        gecos: reader.field("gecos"),
        home: reader.path("homedir").or_else(|| reader.path("home")),
        shell: reader.path("shell"),
        uid: reader.number("uid"),
        primary_group,
        groups: reader.groups(),
        no_user_group: reader.flag("no_user_group").unwrap_or(false),
        no_create_home: reader.flag("no_create_home").unwrap_or(false),
        system: reader.flag("system").unwrap_or(false),
        expires: reader.date("expiredate"),
        inactive_days: reader.number("inactive"),
        lock_password: reader.flag("lock_passwd"),
        ..User::default()
    };
    user.password = reader.password();
    if user.password.is_some() && user.lock_password != Some(false) {
        let position = ["plain_text_passwd", "hashed_passwd", "passwd"]
            .iter()
            .find_map(|key| fields.get(key));
        diagnostics.warning(
            position.map(|node| node.position),
            format!("user `{name}` has a password but stays locked; add `lock_passwd: false` to let it log in with it"),
        );
    }
    if let Some(node) = fields.get("ssh_authorized_keys") {
        user.ssh_authorized_keys = authorized_keys(
            &format!("ssh_authorized_keys of user `{name}`"),
            node,
            diagnostics,
        );
    }
    if let Some(node) = fields.get("ssh_import_id") {
        let what = format!("ssh_import_id of user `{name}`");
        user.ssh_import_ids = imported_keys::parse(&what, node, diagnostics);
    }
    user.sudo = fields
        .get("sudo")
        .map(|node| sudo_rules(name, node, diagnostics));
    user
}

/// Reads the settings of one user.
struct SettingsReader<'a> {
    name: &'a str,
    fields: &'a Fields<'a>,
    diagnostics: &'a mut Diagnostics,
}

impl SettingsReader<'_> {
    fn what(&self, key: &str) -> String {
        format!("{key} of user `{}`", self.name)
    }

    fn flag(&mut self, key: &str) -> Option<bool> {
        let node = self.fields.get(key)?;
        yaml::boolean(&self.what(key), node, self.diagnostics)
    }

    fn number(&mut self, key: &str) -> Option<u32> {
        let node = self.fields.get(key)?;
        let number = yaml::integer(&self.what(key), node, self.diagnostics)?;
        let found = u32::try_from(number)
            .ok()
            .filter(|number| *number < u32::MAX - 1);
        if found.is_none() {
            self.diagnostics.error(
                node.position,
                format!("{}: {number} is out of range", self.what(key)),
            );
        }
        found
    }

    /// Text that goes into a field of `/etc/passwd`.
    fn field(&mut self, key: &str) -> Option<String> {
        let node = self.fields.get(key)?;
        let text = yaml::string(&self.what(key), node, self.diagnostics)?;
        if names::is_field(&text) {
            return Some(text);
        }
        let message = format!(
            "{}: no colon, no line break may stand in it; it is not applied",
            self.what(key)
        );
        self.diagnostics.error(node.position, message);
        None
    }

    /// A day as useradd(8) takes it, `2030-12-31`; empty text for none.
    fn date(&mut self, key: &str) -> Option<String> {
        let text = self.field(key)?;
        let mut parts = text.split('-');
        let mut part = |digits: usize| {
            let part = parts.next().filter(|part| part.len() == digits)?;
            part.parse::<u16>().ok()
        };
        let (year, month, day) = (part(4), part(2), part(2));
        let is_day = year.is_some()
            && month.is_some_and(|month| (1..=12).contains(&month))
            && day.is_some_and(|day| (1..=31).contains(&day))
            && parts.next().is_none();
        if is_day || text.is_empty() {
            return Some(text);
        }
        let position = self.fields.get(key).map(|node| node.position);
        let message = format!(
            "{}: `{text}` is no day as 2030-12-31; it is not applied",
            self.what(key)
        );
        self.diagnostics.error(position, message);
        None
    }

    fn path(&mut self, key: &str) -> Option<String> {
        let text = self.field(key)?;
        if names::is_absolute_path(&text) {
            return Some(text);
        }
        let position = self.fields.get(key).map(|node| node.position);
        self.diagnostics.error(
            position,
            format!(
                "{}: `{text}` is no absolute path; it is not applied",
                self.what(key)
            ),
        );
        None
    }

    /// `groups`: text with commas, a list, or (deprecated) a mapping whose keys count.
    fn groups(&mut self) -> Option<Vec<String>> {
        let node = self.fields.get("groups")?;
        let what = self.what("groups");
        let texts = match &node.value {
            Value::Mapping(entries) => entries.iter().map(|(key, _)| key.text.clone()).collect(),
            _ => yaml::strings(&what, node, self.diagnostics),
        };
        let mut groups: Vec<String> = Vec::new();
        for name in texts
            .iter()
            .flat_map(|text| text.split(','))
            .map(str::trim)
            .filter(|name| !name.is_empty())
        {
            if !names::is_account(name) {
                self.diagnostics
                    .error(node.position, format!("{what}: `{name}` is no group name"));
            } else if !groups.iter().any(|known| known == name) {
                groups.push(name.to_owned());
            }
        }
        Some(groups)
    }

    fn password(&mut self) -> Option<UserPassword> {
        if let Some(node) = self.fields.get("plain_text_passwd") {
            let what = self.what("plain_text_passwd");
            // It is a password in the clear whatever it looks like.
            parse_password(&what, node, self.diagnostics)?;
            return Some(UserPassword::Replace(Secret::Plain(yaml::string(
                &what,
                node,
                self.diagnostics,
            )?)));
        }
        if let Some(node) = self.fields.get("hashed_passwd") {
            let hash = parse_hash(&self.what("hashed_passwd"), node, self.diagnostics)?;
            return Some(UserPassword::Replace(Secret::Hashed(hash)));
        }
        let node = self.fields.get("passwd")?;
        parse_hash(&self.what("passwd"), node, self.diagnostics).map(UserPassword::Initial)
    }
}

/// `sudo`: a rule, a list of rules, or false and nothing for none.
fn sudo_rules(name: &str, node: &Node, diagnostics: &mut Diagnostics) -> Vec<String> {
    if matches!(&node.value, Value::Scalar(scalar) if scalar.as_bool() == Some(false)) {
        return Vec::new();
    }
    let what = format!("sudo of user `{name}`");
    let mut rules = yaml::strings(&what, node, diagnostics);
    rules.retain(|rule| {
        let fits =
            !rule.trim().is_empty() && !rule.chars().any(char::is_control) && !rule.ends_with('\\');
        if !fits {
            diagnostics.error(
                node.position,
                format!(
                    "{what}: a rule is one line, as `ALL=(ALL) NOPASSWD:ALL`; it is not applied"
                ),
            );
        }
        fits
    });
    rules
}
