//! Nodes as the types a setting wants. Something else is an error for that setting alone.

use super::{Key, Node, Scalar, Table, Value};
use crate::diagnostic::{Diagnostics, nearest};

fn wrong_type(what: &str, expected: &str, node: &Node, diagnostics: &mut Diagnostics) {
    diagnostics.error(
        node.position,
        format!(
            "{what}: expected {expected}, found {}; it is not applied",
            node.kind()
        ),
    );
}

fn scalar(node: &Node) -> Option<&Scalar> {
    match &node.value {
        Value::Scalar(scalar) if !scalar.is_null() => Some(scalar),
        _ => None,
    }
}

/// Text, as written (a number or a boolean is text here). Nothing gives nothing.
pub fn string(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<String> {
    if node.is_null() {
        return None;
    }
    let found = scalar(node).map(|scalar| scalar.text.clone());
    if found.is_none() {
        wrong_type(what, "text", node, diagnostics);
    }
    found
}

/// A YAML 1.1 boolean. Nothing gives nothing.
pub fn boolean(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<bool> {
    if node.is_null() {
        return None;
    }
    let found = scalar(node).and_then(Scalar::as_bool);
    if found.is_none() {
        wrong_type(what, "true or false", node, diagnostics);
    }
    found
}

/// An integer, quoted or not. Nothing gives nothing.
pub fn integer(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<i64> {
    if node.is_null() {
        return None;
    }
    let found = scalar(node).and_then(|scalar| {
        scalar
            .as_integer()
            .or_else(|| scalar.text.trim().parse().ok())
    });
    if found.is_none() {
        wrong_type(what, "a whole number", node, diagnostics);
    }
    found
}

/// A list's nodes. Nothing gives an empty list.
pub fn list<'a>(what: &str, node: &'a Node, diagnostics: &mut Diagnostics) -> Option<&'a [Node]> {
    match &node.value {
        Value::Sequence(items) => Some(items),
        _ if node.is_null() => Some(&[]),
        _ => {
            wrong_type(what, "a list", node, diagnostics);
            None
        }
    }
}

/// A list's nodes, or the node itself when it is no list. Nothing gives an empty list.
pub fn list_or_single(node: &Node) -> &[Node] {
    match &node.value {
        Value::Sequence(items) => items,
        _ if node.is_null() => &[],
        _ => std::slice::from_ref(node),
    }
}

/// A list of texts, or one text. Items of another type are errors of their own, and left out.
pub fn strings(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Vec<String> {
    list_or_single(node)
        .iter()
        .filter_map(|item| string(what, item, diagnostics))
        .collect()
}

/// A mapping's entries. Nothing gives an empty mapping.
pub fn mapping<'a>(
    what: &str,
    node: &'a Node,
    diagnostics: &mut Diagnostics,
) -> Option<Fields<'a>> {
    match &node.value {
        Value::Mapping(entries) => Some(Fields { entries }),
        _ if node.is_null() => Some(Fields { entries: &[] }),
        _ => {
            wrong_type(what, "a mapping", node, diagnostics);
            None
        }
    }
}

/// Warns of a list or mapping without anything in it: something was meant to be there.
pub fn warn_of_nothing(what: &str, node: &Node, diagnostics: &mut Diagnostics) {
    let is_empty = match &node.value {
        Value::Sequence(items) => items.is_empty(),
        Value::Mapping(entries) => entries.is_empty(),
        Value::Scalar(_) => false,
    };
    if is_empty {
        diagnostics.warning(node.position, format!("{what}: there is nothing in it"));
    }
}

/// The entries of a mapping, by name. Hyphens and underscores are the same, as in older cloud-configs.
#[derive(Clone, Copy)]
pub struct Fields<'a> {
    entries: &'a [(Key, Node)],
}

impl<'a> Fields<'a> {
    /// The value of `name`; `None` when the key is not there.
    pub fn get(&self, name: &str) -> Option<&'a Node> {
        self.entries
            .iter()
            .find(|(key, _)| same(&key.text, name))
            .map(|(_, node)| node)
    }

    /// All entries, in the order of the document.
    pub fn iter(&self) -> impl Iterator<Item = &'a (Key, Node)> {
        self.entries.iter()
    }

    /// Warns of each key that `table` does not have, or has as one that is not applied. `within` tells where the keys stand:
    /// empty for the top level.
    pub fn check(&self, within: &str, table: &Table, diagnostics: &mut Diagnostics) {
        self.check_unless(|_| false, within, table, diagnostics);
    }

    /// The same, but says nothing of a key that is not applied when `is_off` holds of its value.
    pub fn check_unless(
        &self,
        is_off: impl Fn(&Node) -> bool,
        within: &str,
        table: &Table,
        diagnostics: &mut Diagnostics,
    ) {
        for (key, node) in self.entries {
            let name = key.text.as_str();
            if diagnostics.is_full() {
                return;
            }
            if table.all().any(|(known, ..)| same(name, known)) {
                continue;
            }
            let mut unsupported = table.all_unsupported();
            if let Some((_, reason)) = unsupported.find(|(known, _)| same(name, known)) {
                if !is_off(node) {
                    diagnostics.warning(
                        key.position,
                        format!("`{name}`{within} is not applied: {reason}"),
                    );
                }
                continue;
            }
            let known = table.all().map(|(known, ..)| *known);
            let candidates = known.chain(table.all_unsupported().map(|(known, _)| *known));
            let hint = nearest(name, candidates)
                .map(|near| format!("; did you mean `{near}`?"))
                .unwrap_or_default();
            diagnostics.warning(
                key.position,
                format!("unknown key `{name}`{within} is ignored{hint}"),
            );
        }
    }
}

fn same(given: &str, name: &str) -> bool {
    given == name || given.replace('-', "_") == name.replace('-', "_")
}
