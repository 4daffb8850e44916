//! cloud-init's mergers: how a document changes one that was read before it.
//!
//! A merger for each kind of value, `list(append)+dict(recurse_list)+str(append)`, under `merge_how` or `merge_type` in the
//! later document or in the header of its part.

use super::{Node, Value};
use crate::diagnostic::{Diagnostics, Position, nearest};

/// What stands in a document that says how it is to be merged.
pub const MERGE_KEYS: [&str; 2] = ["merge_how", "merge_type"];

/// What mergers may be told.
const OPTIONS: [&str; 9] = [
    "allow_delete",
    "no_replace",
    "replace",
    "append",
    "prepend",
    "recurse_dict",
    "recurse_list",
    "recurse_array",
    "recurse_str",
];

/// How lists are merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Lists {
    /// Item by item, the later one's.
    #[default]
    Replace,
    /// Item by item, the earlier one's.
    NoReplace,
    /// The later one's behind the earlier one's.
    Append,
    /// And before them.
    Prepend,
}

/// Into which values a merger looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Recurse {
    mappings: bool,
    lists: bool,
    text: bool,
}

/// Mergers of each kind of value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mergers {
    list: Option<(Lists, Recurse)>,
    mapping: Option<(bool, bool, Recurse)>,
    append_text: Option<bool>,
}

impl Mergers {
    /// Between parts of one user-data: `dict(replace)+list()+str()`. Of a key in both, the later one's value counts.
    pub const PARTS: Mergers = Mergers {
        list: Some((
            Lists::Replace,
            Recurse {
                mappings: false,
                lists: false,
                text: false,
            },
        )),
        mapping: Some((
            true,
            false,
            Recurse {
                mappings: true,
                lists: false,
                text: false,
            },
        )),
        append_text: Some(false),
    };

    /// From the value of `merge_how`: one line, or a list of `{name: list, settings: [append]}`.
    pub fn from_node(node: &Node, diagnostics: &mut Diagnostics) -> Option<Mergers> {
        let text = match &node.value {
            Value::Scalar(scalar) if !node.is_null() => scalar.text.clone(),
            Value::Sequence(items) => {
                let words: Option<Vec<String>> = items.iter().map(word).collect();
                words.unwrap_or_default().join("+")
            }
            _ => String::new(),
        };
        if text.is_empty() {
            let message = "merge_how: expected text as `list(append)+dict()`, or a list of {name: list, settings: [append]}; it is left out";
            diagnostics.warning(node.position, message);
            return None;
        }
        Self::parse(&text, node.position, diagnostics)
    }

    /// From one line, `list(append)+dict(recurse_list)`. A merger that is unknown is an error, and left out.
    pub fn parse(text: &str, at: Position, diagnostics: &mut Diagnostics) -> Option<Mergers> {
        let mut mergers = Mergers {
            list: None,
            mapping: None,
            append_text: None,
        };
        let words = text
            .split('+')
            .map(str::trim)
            .filter(|word| !word.is_empty());
        for word in words {
            let (name, rest) = word.split_once('(').unwrap_or((word, ")"));
            let options: Vec<&str> = rest
                .trim_end_matches(')')
                .split(',')
                .map(str::trim)
                .collect();
            for option in options.iter().filter(|option| !option.is_empty()) {
                if !OPTIONS.contains(option) {
                    let hint = nearest(option, OPTIONS)
                        .map(|near| format!("; did you mean `{near}`?"))
                        .unwrap_or_default();
                    let message = format!("merge_how: no merger has the setting `{option}`{hint}");
                    diagnostics.warning(at, message);
                }
            }
            let has = |option: &str| options.contains(&option);
            let recurse = Recurse {
                mappings: has("recurse_dict"),
                lists: has("recurse_array") || has("recurse_list"),
                text: has("recurse_str"),
            };
            match name.trim().to_ascii_lowercase().as_str() {
                "list" => {
                    let how = [
                        ("append", Lists::Append),
                        ("prepend", Lists::Prepend),
                        ("no_replace", Lists::NoReplace),
                    ];
                    let how = how.iter().find(|(option, _)| has(option));
                    mergers.list = Some((how.map_or(Lists::Replace, |(_, how)| *how), recurse));
                }
                "dict" => {
                    let recurse = Recurse {
                        mappings: true,
                        ..recurse
                    };
                    mergers.mapping = Some((has("replace"), has("allow_delete"), recurse));
                }
                "str" => mergers.append_text = Some(has("append")),
                other => {
                    let hint = nearest(other, ["list", "dict", "str"])
                        .map(|near| format!("; did you mean `{near}`?"))
                        .unwrap_or_default();
                    diagnostics.error(at, format!("merge_how: there is no merger `{other}`{hint}"));
                }
            }
        }
        let some = mergers.list.is_some() || mergers.mapping.is_some();
        (some || mergers.append_text.is_some()).then_some(mergers)
    }

    /// `earlier`, changed by `later`.
    pub fn merge(&self, earlier: Node, later: Node) -> Node {
        let position = earlier.position;
        match earlier.value {
            Value::Mapping(_) => self.merge_mapping(earlier, later),
            Value::Sequence(_) => self.merge_list(earlier, later),
            Value::Scalar(scalar) => {
                let is_text = scalar_is_text(&scalar);
                let Some(append) = self.append_text.filter(|_| is_text) else {
                    return Node {
                        position,
                        value: Value::Scalar(scalar),
                    };
                };
                match later.value {
                    Value::Scalar(other) if append && scalar_is_text(&other) => {
                        let text = format!("{}{}", scalar.text, other.text);
                        Node {
                            position,
                            value: Value::Scalar(super::Scalar { text, ..scalar }),
                        }
                    }
                    value => Node { value, ..later },
                }
            }
        }
    }

    fn merge_mapping(&self, earlier: Node, later: Node) -> Node {
        let Some((replace, allow_delete, recurse)) = self.mapping else {
            return earlier;
        };
        let Value::Mapping(others) = later.value else {
            return earlier;
        };
        let Value::Mapping(mut entries) = earlier.value else {
            return earlier;
        };
        for (key, value) in others {
            let Some(found) = entries.iter().position(|(other, _)| other.text == key.text) else {
                entries.push((key, value));
                continue;
            };
            if allow_delete && value.is_null() {
                entries.remove(found);
                continue;
            }
            let Some((_, old)) = entries.get_mut(found) else {
                continue;
            };
            if replace {
                *old = value;
            } else if recurse.covers(&value) {
                let earlier = std::mem::replace(old, empty(value.position));
                *old = self.merge(earlier, value);
            }
        }
        Node {
            position: earlier.position,
            value: Value::Mapping(entries),
        }
    }

    fn merge_list(&self, earlier: Node, later: Node) -> Node {
        let Some((how, recurse)) = self.list else {
            return earlier;
        };
        let Value::Sequence(mut items) = earlier.value else {
            return earlier;
        };
        let others = match later.value {
            Value::Sequence(others) => others,
            _ if how == Lists::Replace => return later,
            _ => {
                return Node {
                    position: earlier.position,
                    value: Value::Sequence(items),
                };
            }
        };
        match how {
            Lists::Append => items.extend(others),
            Lists::Prepend => items = others.into_iter().chain(items).collect(),
            Lists::NoReplace => {}
            Lists::Replace => {
                for (old, new) in items.iter_mut().zip(others) {
                    if recurse.covers(&new) {
                        let earlier = std::mem::replace(old, empty(new.position));
                        *old = self.merge(earlier, new);
                    } else {
                        *old = new;
                    }
                }
            }
        }
        Node {
            position: earlier.position,
            value: Value::Sequence(items),
        }
    }
}

impl Recurse {
    fn covers(self, node: &Node) -> bool {
        match &node.value {
            Value::Mapping(_) => self.mappings,
            Value::Sequence(_) => self.lists,
            Value::Scalar(scalar) => self.text && scalar_is_text(scalar),
        }
    }
}

/// Between layers of a configuration: mappings are merged key by key, of all else the later one counts.
pub fn overlay(earlier: Node, later: Node) -> Node {
    match (earlier.value, later.value) {
        (Value::Mapping(mut entries), Value::Mapping(others)) => {
            for (key, value) in others {
                let found = entries.iter_mut().find(|(other, _)| other.text == key.text);
                match found {
                    Some((_, old)) => {
                        let before = std::mem::replace(old, empty(value.position));
                        *old = overlay(before, value);
                    }
                    None => entries.push((key, value)),
                }
            }
            Node {
                position: earlier.position,
                value: Value::Mapping(entries),
            }
        }
        (_, value) => Node {
            position: later.position,
            value,
        },
    }
}

/// `list(append)` of an item of a list of mergers.
fn word(item: &Node) -> Option<String> {
    match &item.value {
        Value::Scalar(scalar) => Some(scalar.text.clone()),
        Value::Mapping(entries) => {
            let get = |name: &str| {
                let found = entries.iter().find(|(key, _)| key.text == name);
                found.map(|(_, node)| node)
            };
            let text = |node: &Node| match &node.value {
                Value::Scalar(scalar) => Some(scalar.text.clone()),
                _ => None,
            };
            let settings: Vec<String> = match get("settings").map(|node| &node.value) {
                Some(Value::Sequence(items)) => items.iter().filter_map(text).collect(),
                Some(_) => return None,
                None => Vec::new(),
            };
            let settings = settings.join(",");
            Some(format!("{}({settings})", text(get("name")?)?))
        }
        Value::Sequence(_) => None,
    }
}

/// Whether it is text in YAML 1.1, rather than a number, a boolean or nothing.
fn scalar_is_text(scalar: &super::Scalar) -> bool {
    let other = scalar.is_null()
        || scalar.as_bool().is_some()
        || scalar.as_strict_integer().is_some()
        || scalar.as_float().is_some();
    !scalar.plain || !other
}

fn empty(position: Position) -> Node {
    Node {
        position,
        value: Value::Sequence(Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{parse, to_json};
    use super::*;
    use serde_json::{Value as Json, json};

    fn merged(how: &str, earlier: &str, later: &str) -> Json {
        let mut diagnostics = Diagnostics::new("user-data");
        let mergers = match how {
            "" => Mergers::PARTS,
            how => Mergers::parse(how, Position::new(1, 1), &mut diagnostics).unwrap(),
        };
        let node = |text| parse(text).unwrap().root;
        to_json(&mergers.merge(node(earlier), node(later)))
    }

    #[test]
    fn of_two_parts_the_later_one_counts_key_by_key() {
        let result = merged(
            "",
            "{a: 1, run: [x], ntp: {s: [1], z: 1}}",
            "{a: 2, ntp: {s: [2]}}",
        );
        assert_eq!(result, json!({"a": 2, "run": ["x"], "ntp": {"s": [2]}}));
    }

    #[test]
    fn lists_are_appended_and_mappings_entered_when_asked() {
        let how = "list(append)+dict(recurse_array)+str()";
        let result = merged(
            how,
            "{run: [a], h: one, d: {l: [1]}}",
            "{run: [b], h: two, d: {l: [2], m: 3}}",
        );
        assert_eq!(
            result,
            json!({"run": ["a", "b"], "h": "one", "d": {"l": [1, 2], "m": 3}})
        );
        let how = "dict(recurse_array,recurse_str)+list(prepend)+str(append)";
        let result = merged(how, "{run: [a], h: one}", "{run: [b], h: two}");
        assert_eq!(result, json!({"run": ["b", "a"], "h": "onetwo"}));
        let result = merged("dict(allow_delete)+list()", "{a: {b: 1}}", "{a: {b: null}}");
        assert_eq!(result, json!({"a": {}}));
    }

    #[test]
    fn unknown_mergers_are_named() {
        let mut diagnostics = Diagnostics::new("user-data");
        let mergers = Mergers::parse("lists(append)", Position::new(2, 3), &mut diagnostics);
        assert_eq!(mergers, None);
        let messages = diagnostics.into_sorted();
        assert_eq!(
            messages[0].to_string(),
            "user-data:2:3: merge_how: there is no merger `lists`; did you mean `list`?"
        );
    }

    #[test]
    fn layers_replace_lists_and_enter_mappings() {
        let node = |text| parse(text).unwrap().root;
        let result = overlay(
            node("{a: {b: [1], c: 2}, d: 1}"),
            node("{a: {b: [3]}, d: {e: 1}}"),
        );
        assert_eq!(
            to_json(&result),
            json!({"a": {"b": [3], "c": 2}, "d": {"e": 1}})
        );
    }
}
