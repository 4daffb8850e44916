//! Nodes as JSON values, with the types that YAML 1.1 gives plain scalars, and back.

use serde_json::{Map, Number, Value as Json};

use super::{Key, Node, Scalar, Value};
use crate::diagnostic::Position;

/// The JSON value of a node. Text that was written without quotes becomes what YAML 1.1 takes it for, as PyYAML does.
pub fn to_json(node: &Node) -> Json {
    match &node.value {
        Value::Scalar(scalar) => scalar_to_json(scalar),
        Value::Sequence(items) => Json::Array(items.iter().map(to_json).collect()),
        Value::Mapping(entries) => {
            let entries = entries.iter();
            Json::Object(
                entries
                    .map(|(key, value)| (key.text.clone(), to_json(value)))
                    .collect(),
            )
        }
    }
}

fn scalar_to_json(scalar: &Scalar) -> Json {
    if !scalar.plain {
        return Json::String(scalar.text.clone());
    }
    if scalar.is_null() {
        return Json::Null;
    }
    if let Some(truth) = scalar.as_bool() {
        return Json::Bool(truth);
    }
    if let Some(number) = scalar.as_strict_integer() {
        return Json::Number(number.into());
    }
    let float = scalar.as_float().and_then(Number::from_f64);
    float.map_or_else(|| Json::String(scalar.text.clone()), Json::Number)
}

/// The node of a JSON value; each of its parts stands at `position`.
pub fn from_json(json: &Json, position: Position) -> Node {
    let scalar = |text: String, plain| {
        Value::Scalar(Scalar {
            text,
            plain,
            binary: false,
        })
    };
    let value = match json {
        Json::Null => scalar(String::new(), true),
        Json::Bool(truth) => scalar(truth.to_string(), true),
        Json::Number(number) => scalar(number.to_string(), true),
        Json::String(text) => scalar(text.clone(), false),
        Json::Array(items) => {
            Value::Sequence(items.iter().map(|item| from_json(item, position)).collect())
        }
        Json::Object(entries) => Value::Mapping(entries_of(entries, position)),
    };
    Node { position, value }
}

fn entries_of(entries: &Map<String, Json>, position: Position) -> Vec<(Key, Node)> {
    let entries = entries.iter();
    let entry = |(text, value): (&String, &Json)| {
        let key = Key {
            text: text.clone(),
            position,
        };
        (key, from_json(value, position))
    };
    entries.map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::super::parse;
    use super::*;
    use serde_json::json;

    #[test]
    fn plain_scalars_have_the_types_of_yaml_1_1() {
        let text = "{a: yes, b: 'yes', c: 0644, d: 0o644, e: 1.5, f: 1e3, g: ~, h: 1:30, i: 52:54:00:12:34:56, j: 2012-09-01, k: -7, l: 1_000, m: .5, n: 1.}";
        let json = to_json(&parse(text).unwrap().root);
        assert_eq!(
            json,
            json!({"a": true, "b": "yes", "c": 420, "d": "0o644", "e": 1.5, "f": "1e3", "g": null, "h": 90,
                "i": 41_135_085_296_i64, "j": "2012-09-01", "k": -7, "l": 1000, "m": 0.5, "n": 1.0})
        );
        let back = to_json(&from_json(&json, Position::default()));
        assert_eq!(back, json);
    }
}
