//! `password`, `chpasswd` and `ssh_pwauth`.

use std::fmt;

use super::{CloudConfig, below};
use crate::diagnostic::Diagnostics;
use crate::names;
use crate::yaml::{self, Fields, Node, Shape, Table, Value};

pub(super) static CHPASSWD: Table = Table::new(
    "chpasswd",
    &[
        (
            "expire",
            Shape::Boolean,
            "False: they need not be changed at the first login",
        ),
        (
            "users",
            Shape::List(&Shape::Table(&CHPASSWD_USER)),
            "Users and their passwords",
        ),
        ("list", Shape::TEXTS, "Lines of name:password"),
    ],
);
static CHPASSWD_USER: Table = Table::new(
    "chpasswd.users",
    &[
        ("name", Shape::Text, "A user that exists"),
        ("password", Shape::Text, "Its password"),
        (
            "type",
            Shape::Words(&["hash", "text", "RANDOM"]),
            "What `password` is: a hash unless said otherwise",
        ),
    ],
)
.required(&["name"]);
pub(super) const SSH_PWAUTH: Shape = Shape::AnyOf(&[Shape::Boolean, Shape::Words(&["unchanged"])]);

/// A password, in the clear or hashed. Its `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub enum Secret {
    /// As typed; to be hashed before it is stored.
    Plain(String),
    /// As `crypt(5)` stores it.
    Hashed(String),
    /// To be made up, and told on the console.
    Random,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Secret::Plain(_) => "Plain(..)",
            Secret::Hashed(_) => "Hashed(..)",
            Secret::Random => "Random",
        })
    }
}

/// A new password for a user that exists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PasswordChange {
    /// The user.
    pub name: String,
    /// Its password.
    pub secret: Secret,
}

/// Whether `text` is a hash that `crypt(5)` knows: `$id$...`, or yescrypt's `$y$...`.
fn is_hash(text: &str) -> bool {
    let Some(rest) = text.strip_prefix('$') else {
        return false;
    };
    let Some((id, rest)) = rest.split_once('$') else {
        return false;
    };
    matches!(id, "1" | "2a" | "2b" | "2y" | "5" | "6" | "y" | "gy" | "7")
        && rest.contains('$')
        && names::is_field(text)
}

fn secret(text: String) -> Secret {
    match text.as_str() {
        "R" | "RANDOM" => Secret::Random,
        _ if is_hash(&text) => Secret::Hashed(text),
        _ => Secret::Plain(text),
    }
}

/// A hash, checked to fit in `/etc/shadow`.
pub(super) fn parse_hash(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    let text = yaml::string(what, node, diagnostics)?;
    if text.is_empty() || !names::is_field(&text) {
        diagnostics.error(
            node.position,
            format!("{what}: not a password hash; it is not applied"),
        );
        return None;
    }
    if !is_hash(&text) && !text.starts_with(['*', '!']) {
        let message = format!(
            "{what}: does not look like a hash ($6$...), so nobody can log in with it; for text use plain_text_passwd"
        );
        diagnostics.warning(node.position, message);
    }
    Some(text)
}

/// A password in the clear or hashed.
pub(super) fn parse_password(
    what: &str,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<Secret> {
    let text = yaml::string(what, node, diagnostics)?;
    if text.is_empty() || text.contains(['\n', '\0']) {
        diagnostics.error(
            node.position,
            format!("{what}: a password is one line of text; it is not applied"),
        );
        return None;
    }
    Some(secret(text))
}

/// `rancher.password`, which RancherOS has on the kernel command line, unless `rancher.disable` has `password`.
pub(super) fn of_rancher(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Secret> {
    let node = below(top, "rancher", "password")?;
    let disabled = below(top, "rancher", "disable").is_some_and(|node| {
        let names = yaml::strings("rancher.disable", node, &mut Diagnostics::new(""));
        names.iter().any(|name| name == "password")
    });
    match disabled {
        true => None,
        false => parse_password("rancher.password", node, diagnostics),
    }
}

/// `chpasswd`: `list` (text or list of `name:password`), `users`, `expire`.
pub(super) fn parse_chpasswd(node: &Node, config: &mut CloudConfig, diagnostics: &mut Diagnostics) {
    let Some(fields) = yaml::mapping("chpasswd", node, diagnostics) else {
        return;
    };
    fields.check(" in chpasswd", &CHPASSWD, diagnostics);
    if let Some(expire) = fields
        .get("expire")
        .and_then(|node| yaml::boolean("chpasswd.expire", node, diagnostics))
    {
        config.expire_passwords = expire;
    }
    if let Some(node) = fields.get("list") {
        let lines = yaml::strings("chpasswd.list", node, diagnostics);
        for line in lines
            .iter()
            .flat_map(|text| text.lines())
            .map(str::trim)
            .filter(|line| !line.is_empty())
        {
            match line.split_once(':') {
                Some((name, password)) if names::is_account(name) && !password.is_empty() => {
                    config.password_changes.push(PasswordChange {
                        name: name.to_owned(),
                        secret: secret(password.to_owned()),
                    })
                }
                _ => diagnostics.warning(
                    node.position,
                    "chpasswd.list: expected lines of name:password; one is left out",
                ),
            }
        }
    }
    if let Some(items) = fields
        .get("users")
        .and_then(|node| yaml::list("chpasswd.users", node, diagnostics))
    {
        let changes = items.iter().filter_map(|item| {
            let fields = yaml::mapping("chpasswd.users", item, diagnostics)?;
            fields.check(" in chpasswd.users", &CHPASSWD_USER, diagnostics);
            parse_change(&fields, item, diagnostics)
        });
        config.password_changes.extend(changes);
    }
}

fn parse_change(
    fields: &Fields<'_>,
    item: &Node,
    diagnostics: &mut Diagnostics,
) -> Option<PasswordChange> {
    let name = fields
        .get("name")
        .and_then(|node| yaml::string("chpasswd.users.name", node, diagnostics));
    let Some(name) = name.filter(|name| names::is_account(name)) else {
        diagnostics.error(item.position, "chpasswd.users: a user needs a valid `name`");
        return None;
    };
    let kind = fields
        .get("type")
        .and_then(|node| yaml::string("chpasswd.users.type", node, diagnostics));
    let kind = kind.as_deref().unwrap_or("hash");
    if kind == "RANDOM" {
        if let Some(node) = fields.get("password") {
            let message = format!(
                "chpasswd.users: user `{name}` gets a password that is made up (`type: RANDOM`), not this one"
            );
            diagnostics.warning(node.position, message);
        }
        return Some(PasswordChange {
            name,
            secret: Secret::Random,
        });
    }
    let Some(node) = fields.get("password") else {
        diagnostics.error(
            item.position,
            format!("chpasswd.users: user `{name}` has no `password`"),
        );
        return None;
    };
    let secret = match kind {
        "text" => match parse_password("chpasswd.users.password", node, diagnostics)? {
            // `type` says what it is, whatever it looks like.
            Secret::Random | Secret::Hashed(_) => {
                Secret::Plain(yaml::string("password", node, diagnostics)?)
            }
            plain => plain,
        },
        "hash" => Secret::Hashed(parse_hash("chpasswd.users.password", node, diagnostics)?),
        other => {
            diagnostics.error(
                item.position,
                format!("chpasswd.users: type `{other}` is none of hash, text, RANDOM"),
            );
            return None;
        }
    };
    Some(PasswordChange { name, secret })
}

/// `ssh_pwauth`: a boolean, or the text `unchanged`.
pub(super) fn parse_ssh_pwauth(node: &Node, diagnostics: &mut Diagnostics) -> Option<bool> {
    match &node.value {
        Value::Scalar(scalar) if scalar.text == "unchanged" => None,
        _ => yaml::boolean("ssh_pwauth", node, diagnostics),
    }
}
