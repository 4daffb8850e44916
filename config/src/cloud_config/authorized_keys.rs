//! Lists of SSH public keys.

use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Node, Shape, Value};

/// What [`authorized_keys`] takes.
pub(super) const KEYS: Shape = Shape::AnyOf(&[Shape::TEXTS, Shape::Map(&Shape::TEXTS)]);

/// Lines of an `authorized_keys` file: text (its lines), a list, or a mapping whose values count.
pub(crate) fn authorized_keys(
    what: &str,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Vec<String> {
    let texts = match &node.value {
        Value::Mapping(entries) => entries
            .iter()
            .flat_map(|(_, node)| yaml::strings(what, node, diagnostics))
            .collect(),
        _ => yaml::strings(what, node, diagnostics),
    };
    let mut keys: Vec<String> = Vec::new();
    for line in texts.iter().flat_map(|text| text.lines()).map(str::trim) {
        if line.is_empty() || line.starts_with('#') || keys.iter().any(|key| key == line) {
            continue;
        }
        if line.contains('\0') || !is_key(line) {
            let shown: String = line.chars().filter(|c| !c.is_control()).take(30).collect();
            diagnostics.error(
                node.position,
                format!(
                    "{what}: `{shown}` is no line of a key (`ssh-ed25519`, or another kind, then base64); it is left out"
                ),
            );
            continue;
        }
        keys.push(line.to_owned());
    }
    keys
}

/// Whether it is a line of a key: options, where there are any, its kind, and the key (sshd(8), "AUTHORIZED_KEYS FILE FORMAT").
fn is_key(line: &str) -> bool {
    let (first, rest) = first_word(line);
    if is_kind(first) {
        return !rest.is_empty();
    }
    let (second, rest) = first_word(rest);
    is_kind(second) && !rest.is_empty()
}

/// Whether it is a key without options: its kind, the key, and what else is said of it.
pub(super) fn is_public_key(line: &str) -> bool {
    let (kind, rest) = first_word(line);
    is_kind(kind) && !rest.is_empty()
}

/// The kinds that OpenSSH has, and the names that cloud-init takes for some.
fn is_kind(word: &str) -> bool {
    let starts = ["ssh-", "ecdsa-sha2-", "sk-ssh-", "sk-ecdsa-"];
    starts.iter().any(|start| word.starts_with(start))
        || ["rsa", "ecdsa", "ed25519"].contains(&word)
}

/// The first word and what follows it. Blanks between double quotes part no words.
fn first_word(text: &str) -> (&str, &str) {
    let mut quoted = false;
    let mut before = ' ';
    let end = text.find(|letter: char| {
        quoted ^= letter == '"' && before != '\\';
        before = letter;
        letter.is_whitespace() && !quoted
    });
    let (word, rest) = text.split_at(end.unwrap_or(text.len()));
    (word, rest.trim_start())
}
