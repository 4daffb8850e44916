//! `users`, `user` and `groups`.

use super::user_settings::{USER_SETTINGS, parse_settings};
use super::{KeyImport, Secret};
use crate::diagnostic::{Diagnostics, Position};
use crate::names;
use crate::yaml::{self, Fields, Node, Scalar, Shape, Value};
use serde_json::{Value as Json, json};

/// `users`; lists may stand in lists.
pub(super) const USERS: Shape = Shape::AnyOf(&[
    Shape::Text,
    Shape::Schema(mapping),
    Shape::List(&Shape::Again("users")),
]);
/// `user`
pub(super) const USER: Shape = Shape::AnyOf(&[Shape::Text, Shape::Table(&USER_SETTINGS)]);

/// A user's settings with its name; or names with settings, none of which is a key of the settings.
fn mapping() -> Json {
    let keys: Vec<&str> = USER_SETTINGS.all().map(|(key, ..)| *key).collect();
    let user = json!({"$ref": "#/definitions/user"});
    let settings = [
        json!({"$ref": "#/definitions/boolean"}),
        json!({"enum": [0, 1, "0", "1"]}),
        user.clone(),
    ];
    json!({"type": "object", "properties": {"name": {}}, "if": {"required": ["name"]}, "then": user,
        "else": {"propertyNames": {"not": {"enum": keys}}, "additionalProperties": {"anyOf": settings}}})
}

/// One entry of `users`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserEntry {
    /// The word `default`: the system's default user.
    Default,
    /// A user by name.
    Named(Box<User>),
}

/// A user to make, or to change when it exists. What is not said is `None` or empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct User {
    /// Where the user stands, for messages about it.
    pub position: Position,
    /// Login name.
    pub name: String,
    /// Full name.
    pub gecos: Option<String>,
    /// Home directory.
    pub home: Option<String>,
    /// Login shell.
    pub shell: Option<String>,
    /// Numeric id.
    pub uid: Option<u32>,
    /// Group that the user's files get; otherwise a group of the user's own name.
    pub primary_group: Option<String>,
    /// Further groups; what the default user has otherwise.
    pub groups: Option<Vec<String>>,
    /// Make no group of the user's own name.
    pub no_user_group: bool,
    /// Make no home directory.
    pub no_create_home: bool,
    /// A system user: low id, no home directory.
    pub system: bool,
    /// Day on which the account ends, `YYYY-MM-DD`.
    pub expires: Option<String>,
    /// Days after which an expired password closes the account.
    pub inactive_days: Option<u32>,
    /// Whether its password is locked; unless said otherwise, it is.
    pub lock_password: Option<bool>,
    /// Its password.
    pub password: Option<UserPassword>,
    /// Keys it may log in with.
    pub ssh_authorized_keys: Vec<String>,
    /// People at services, whose keys may log in as well.
    pub ssh_import_ids: Vec<KeyImport>,
    /// What it may do with sudo: rules as they stand in sudoers after the user's name. An empty list is nothing; `None` is what
    /// the default user may.
    pub sudo: Option<Vec<String>>,
}

/// A user's password and when it is set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserPassword {
    /// `passwd`: a hash, for a user that has no password yet.
    Initial(String),
    /// `hashed_passwd` or `plain_text_passwd`: also replaces a password.
    Replace(Secret),
}

/// What the top-level key `user` changes in the default user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DefaultUser {
    /// Another name: then that user is the default user.
    pub name: Option<String>,
    /// Further settings, with an empty name.
    pub settings: Option<User>,
}

/// `users`: text with commas, a list, or a mapping from names to settings.
pub(super) fn parse_users(node: &Node, diagnostics: &mut Diagnostics) -> Option<Vec<UserEntry>> {
    if node.is_null() {
        return None;
    }
    let mut entries = Vec::new();
    collect_users(node, &mut entries, diagnostics);
    Some(entries)
}

fn collect_users(node: &Node, entries: &mut Vec<UserEntry>, diagnostics: &mut Diagnostics) {
    match &node.value {
        Value::Scalar(scalar) => {
            for name in scalar
                .text
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
            {
                entries.extend(entry_by_name(name, None, node.position, diagnostics));
            }
        }
        Value::Sequence(items) => items
            .iter()
            .for_each(|item| collect_users(item, entries, diagnostics)),
        Value::Mapping(_) => {
            let Some(fields) = yaml::mapping("users", node, diagnostics) else {
                return;
            };
            if let Some(name_node) = fields.get("name") {
                let Some(name) = yaml::string("users.name", name_node, diagnostics) else {
                    return;
                };
                entries.extend(entry_by_name(
                    &name,
                    Some(&fields),
                    name_node.position,
                    diagnostics,
                ));
                return;
            }
            // A mapping without `name` maps names to settings.
            for (key, settings) in fields.iter() {
                if USER_SETTINGS.all().any(|(known, ..)| *known == key.text) {
                    diagnostics.error(
                        node.position,
                        "users: a user needs a `name`; it is not made",
                    );
                    return;
                }
                if let Value::Scalar(scalar) = &settings.value
                    && !scalar.is_null()
                    && !is_wanted(&key.text, settings.position, scalar, diagnostics)
                {
                    continue;
                }
                let settings = match &settings.value {
                    Value::Scalar(_) => None,
                    _ => yaml::mapping("users", settings, diagnostics),
                };
                entries.extend(entry_by_name(
                    &key.text,
                    settings.as_ref(),
                    key.position,
                    diagnostics,
                ));
            }
        }
    }
}

/// `default: no` makes none, as in cloud-init. What is neither true nor false makes none either.
fn is_wanted(name: &str, at: Position, said: &Scalar, diagnostics: &mut Diagnostics) -> bool {
    let truth = match said.text.as_str() {
        "1" => Some(true),
        "0" => Some(false),
        _ => said.as_bool(),
    };
    if truth.is_none() {
        let message = format!(
            "users: `{name}`: expected the settings of a user of that name, true or false, found `{}`; none is made",
            said.text
        );
        diagnostics.warning(at, message);
    }
    truth == Some(true)
}

fn entry_by_name(
    name: &str,
    settings: Option<&Fields<'_>>,
    position: Position,
    diagnostics: &mut Diagnostics,
) -> Option<UserEntry> {
    if name == "default" {
        return Some(UserEntry::Default);
    }
    if !names::is_account(name) {
        diagnostics.error(
            position,
            format!("users: `{name}` is no user name; the user is not made"),
        );
        return None;
    }
    let mut user = settings
        .map(|fields| parse_settings(name, fields, diagnostics))
        .unwrap_or_default();
    name.clone_into(&mut user.name);
    user.position = position;
    Some(UserEntry::Named(Box::new(user)))
}

/// `user`: a name, or settings of the default user.
pub(super) fn parse_default(node: &Node, diagnostics: &mut Diagnostics) -> DefaultUser {
    let valid = |name: String, diagnostics: &mut Diagnostics| {
        if names::is_account(&name) {
            return Some(name);
        }
        diagnostics.error(
            node.position,
            format!("user: `{name}` is no user name; it is not applied"),
        );
        None
    };
    if let Value::Scalar(_) = node.value {
        let name =
            yaml::string("user", node, diagnostics).and_then(|name| valid(name, diagnostics));
        return DefaultUser {
            name,
            settings: None,
        };
    }
    let Some(fields) = yaml::mapping("user", node, diagnostics) else {
        return DefaultUser::default();
    };
    let name = fields
        .get("name")
        .and_then(|node| yaml::string("user.name", node, diagnostics));
    let name = name.and_then(|name| valid(name, diagnostics));
    let mut settings = parse_settings(name.as_deref().unwrap_or("default"), &fields, diagnostics);
    settings.position = node.position;
    DefaultUser {
        name,
        settings: Some(settings),
    }
}
