//! `groups`.

use crate::diagnostic::{Diagnostics, Position};
use crate::names;
use crate::yaml::{self, Node, Shape, Value};

/// `groups`; lists may stand in lists.
pub(super) const GROUPS: Shape = Shape::AnyOf(&[
    Shape::Text,
    Shape::Map(&Shape::TEXTS),
    Shape::List(&Shape::Again("groups")),
]);

/// A group to make and who shall be in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Its name.
    pub name: String,
    /// Users in it.
    pub members: Vec<String>,
}

/// `groups`: text with commas, a list of names and mappings, or a mapping from names to members.
pub(super) fn parse(node: &Node, diagnostics: &mut Diagnostics) -> Vec<Group> {
    let mut groups = Vec::new();
    collect_groups(node, &mut groups, diagnostics);
    groups
}

fn collect_groups(node: &Node, groups: &mut Vec<Group>, diagnostics: &mut Diagnostics) {
    match &node.value {
        Value::Scalar(scalar) => {
            for name in scalar
                .text
                .split(',')
                .map(str::trim)
                .filter(|name| !name.is_empty())
            {
                add_group(groups, name, Vec::new(), node.position, diagnostics);
            }
        }
        Value::Sequence(items) => items
            .iter()
            .for_each(|item| collect_groups(item, groups, diagnostics)),
        Value::Mapping(entries) => {
            for (key, node) in entries {
                let members = yaml::strings("groups", node, diagnostics);
                if members
                    .iter()
                    .any(|name| !name.is_empty() && name.chars().all(|c| c.is_ascii_digit()))
                {
                    let message = format!("groups.{}: a user is named, not numbered", key.text);
                    diagnostics.warning(node.position, message);
                }
                let members = members
                    .iter()
                    .flat_map(|text| text.split(','))
                    .map(|name| name.trim().to_owned());
                let members = members.filter(|name| names::is_account(name)).collect();
                add_group(groups, &key.text, members, key.position, diagnostics);
            }
        }
    }
}

fn add_group(
    groups: &mut Vec<Group>,
    name: &str,
    members: Vec<String>,
    position: Position,
    diagnostics: &mut Diagnostics,
) {
    if !names::is_account(name) {
        diagnostics.error(
            position,
            format!("groups: `{name}` is no group name; the group is not made"),
        );
        return;
    }
    match groups.iter_mut().find(|group| group.name == name) {
        Some(group) => group.members.extend(members),
        None => groups.push(Group {
            name: name.to_owned(),
            members,
        }),
    }
}
