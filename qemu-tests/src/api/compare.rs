//! Answers of two engines field by field.
//!
//! A field that is missing counts as the zero value of its type: that is what clients in Go make of it.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde_json::Value;

/// One call, and what came of it.
#[derive(Debug, Clone)]
pub struct Answer {
    /// What was asked, a word or two.
    pub call: String,
    /// The body; of a refusal `status` and `message`.
    pub body: Value,
}

/// Where answers may differ.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Differences {
    /// Names of fields whose values are other ones at each call: only their kind is compared.
    volatile: Vec<String>,
    /// Paths of fields (`CALL.FIELD.FIELD`, `*` is any one word or number), each with the reason.
    explained: BTreeMap<String, String>,
}

impl Differences {
    /// The list that the tests go by.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn load() -> Result<Self> {
        serde_yaml::from_str(include_str!("differences.yml")).context("reading differences.yml")
    }

    /// Compares what two engines answered to the same calls.
    ///
    /// # Errors
    /// Lists every difference that is not explained, and every explanation of what is no difference.
    pub fn check(&self, theirs: &[Answer], ours: &[Answer]) -> Result<()> {
        ensure!(
            theirs.len() == ours.len(),
            "{} answers beside {}",
            theirs.len(),
            ours.len()
        );
        let mut found = Vec::new();
        for (theirs, ours) in theirs.iter().zip(ours) {
            ensure!(
                theirs.call == ours.call,
                "{} beside {}",
                theirs.call,
                ours.call
            );
            self.compare(&theirs.call, &theirs.body, &ours.body, &mut found);
        }
        let is_explained = |path: &str| self.explained.keys().any(|pattern| matches(pattern, path));
        let mut lines: Vec<String> = found
            .iter()
            .filter(|(path, _)| !is_explained(path))
            .map(|(path, what)| format!("{path}: {what}"))
            .collect();
        let unused = self
            .explained
            .keys()
            .filter(|pattern| !found.iter().any(|(path, _)| matches(pattern, path)));
        lines.extend(unused.map(|pattern| format!("{pattern}: explained, and no difference")));
        if lines.is_empty() {
            return Ok(());
        }
        bail!("theirs and ours:\n{}", lines.join("\n"))
    }

    fn compare(&self, path: &str, theirs: &Value, ours: &Value, found: &mut Vec<(String, String)>) {
        match (theirs, ours) {
            (Value::Object(left), Value::Object(right)) => {
                let mut names: Vec<&String> = left.keys().chain(right.keys()).collect();
                names.sort();
                names.dedup();
                if names.iter().all(|name| is_id(name)) && left.len() == 1 && right.len() == 1 {
                    let pair = left.values().zip(right.values()).next();
                    if let Some((left, right)) = pair {
                        self.compare(&format!("{path}.ID"), left, right, found);
                    }
                    return;
                }
                for name in names {
                    let (left, right) = (&theirs[name.as_str()], &ours[name.as_str()]);
                    let path = format!("{path}.{name}");
                    if self.volatile.contains(name) {
                        if is_zero(left) != is_zero(right) {
                            found.push((path, format!("{left} | {right}")));
                        }
                    } else {
                        self.compare(&path, left, right, found);
                    }
                }
            }
            (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
                for (index, (left, right)) in left.iter().zip(right).enumerate() {
                    self.compare(&format!("{path}.{index}"), left, right, found);
                }
            }
            (Value::String(left), Value::String(right))
                if without_ids(left) == without_ids(right) => {}
            (left, right) if left == right || is_zero(left) && is_zero(right) => {}
            (left, right) => found.push((path.to_owned(), format!("{left} | {right}"))),
        }
    }
}

fn is_id(text: &str) -> bool {
    text.len() >= 12 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

/// A message with what is called by number in it.
fn without_ids(text: &str) -> String {
    let words = text.split_inclusive(|letter: char| !letter.is_ascii_alphanumeric());
    let plain = |word: &str| {
        word.trim_end_matches(|letter: char| !letter.is_ascii_alphanumeric())
            .to_owned()
    };
    words
        .map(|word| match is_id(&plain(word)) {
            true => word.replace(&plain(word), "ID"),
            false => word.to_owned(),
        })
        .collect()
}

/// What Go's decoder leaves where nothing stands.
fn is_zero(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Bool(value) => !value,
        Value::Number(number) => number.as_f64() == Some(0.0),
        Value::String(text) => text.is_empty() || text == "0001-01-01T00:00:00Z",
        Value::Array(list) => list.is_empty(),
        Value::Object(map) => map.values().all(is_zero),
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    let (mut pattern, mut path) = (pattern.split('.'), path.split('.'));
    loop {
        match (pattern.next(), path.next()) {
            (None, None) => return true,
            (Some("**"), _) => return true,
            (Some(word), Some(other)) if word == "*" || word == other => {}
            _ => return false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn differences(theirs: Value, ours: Value) -> Vec<String> {
        let differences = Differences {
            volatile: vec!["Id".into()],
            explained: BTreeMap::new(),
        };
        let mut found = Vec::new();
        differences.compare("call", &theirs, &ours, &mut found);
        found.into_iter().map(|(path, _)| path).collect()
    }

    #[test]
    fn what_a_client_cannot_tell_apart_is_no_difference() {
        assert!(differences(json!({"a": null, "b": [], "c": {"d": false}}), json!({})).is_empty());
        assert!(differences(json!({"Id": "1"}), json!({"Id": "2"})).is_empty());
        assert_eq!(
            differences(json!({"Id": "1"}), json!({"Id": ""})),
            ["call.Id"]
        );
        assert_eq!(
            differences(json!({"a": [{"b": 1}], "c": 1}), json!({"a": [{"b": 2}]})),
            ["call.a.0.b", "call.c"]
        );
        assert_eq!(
            differences(json!({"a": [1]}), json!({"a": [1, 2]})),
            ["call.a"]
        );
    }

    #[test]
    fn numbers_of_objects_differ_and_what_is_said_of_them_does_not() {
        let of = |id: &str, n: u8| json!({"m": format!("rm {id}."), "c": {id: {"n": n}}});
        assert!(differences(of("0123456789ab", 1), of("ba9876543210", 1)).is_empty());
        assert_eq!(
            differences(of("0123456789ab", 1), of("ba9876543210", 2)),
            ["call.c.ID.n"]
        );
    }

    #[test]
    fn patterns_stand_for_paths() {
        assert!(matches("call.*.b", "call.0.b"));
        assert!(matches("call.**", "call.0.b"));
        assert!(!matches("call.*", "call.0.b"));
        assert!(!matches("call.a.b", "call.a"));
    }

    #[test]
    fn the_list_can_be_read() {
        Differences::load().unwrap();
    }
}
