//! What may stand in a cloud-config or a network-config, as a JSON Schema: editors propose keys from it, and say what is wrong
//! before a machine does. It is made from the tables that the reader itself goes by.
//!
//! Draft 7 of JSON Schema: there is no editor for YAML that does not know it, and nothing here needs a later one. Two of the
//! keywords are of editors alone, and no others heed them: `deprecationMessage` and `patternErrorMessage`.

use serde_json::{Map, Value as Json, json};

use crate::yaml::merge::MERGE_KEYS;
use crate::yaml::{Setting, Shape, Table};
use crate::{cloud_config, network};

/// The schema of a `#cloud-config` document.
pub fn cloud_config() -> Json {
    let mut writer = Writer::default();
    let mut schema = writer.table(&cloud_config::TOP, "#");
    // Those are read, and taken out, when documents are put together.
    let merge = json!({"type": ["string", "array"],
        "description": "How the document is merged: list(append)+dict(recurse_list)+str()"});
    if let Some(properties) = schema.get_mut("properties").and_then(Json::as_object_mut) {
        properties.extend(MERGE_KEYS.map(|key| (key.to_owned(), merge.clone())));
    }
    writer.finish("cloud-config as Keelson reads it", schema)
}

/// The schema of a network-config document, of version 1 or 2.
pub fn network_config() -> Json {
    let mut writer = Writer::default();
    let schema = writer.shape(&network::NETWORK);
    writer.finish("network-config as Keelson reads it", schema)
}

/// Writes shapes, and keeps the tables that they refer to.
#[derive(Default)]
struct Writer {
    definitions: Map<String, Json>,
}

impl Writer {
    fn finish(mut self, title: &str, mut schema: Json) -> Json {
        for (name, shape) in [("boolean", boolean()), ("text", text())] {
            self.definitions.insert(name.to_owned(), shape);
        }
        schema["$schema"] = "http://json-schema.org/draft-07/schema#".into();
        schema["title"] = title.into();
        schema["definitions"] = self.definitions.into();
        schema
    }

    fn shape(&mut self, shape: &Shape) -> Json {
        match shape {
            Shape::Boolean => json!({"$ref": "#/definitions/boolean"}),
            Shape::Text => json!({"$ref": "#/definitions/text"}),
            Shape::Integer(least, most) => integer(*least, *most),
            Shape::Words(words) => {
                let words = words.iter().map(|word| Json::from(*word));
                json!({"enum": words.chain([Json::Null]).collect::<Vec<_>>()})
            }
            Shape::List(item) => json!({"type": ["array", "null"], "items": self.shape(item)}),
            Shape::OneOrMore(item) => {
                let item = self.shape(item);
                json!({"anyOf": [item, {"type": "array", "items": item}]})
            }
            Shape::Map(value) => {
                json!({"type": ["object", "null"], "additionalProperties": self.shape(value)})
            }
            Shape::Table(table) => self.reference(table),
            Shape::By(key, tables) => self.by(key, tables),
            Shape::Has(key, with, without) => {
                let names = proposed(shape).into_iter();
                let names: Map<_, _> = names.map(|name| (name.to_owned(), json!({}))).collect();
                let (with, without) = (self.shape(with), self.shape(without));
                json!({"type": ["object", "null"], "properties": names, "if": {"required": [key]}, "then": with,
                    "else": {"if": {"minProperties": 1}, "then": without}})
            }
            Shape::AnyOf(shapes) => {
                let shapes: Vec<Json> = shapes.iter().map(|shape| self.shape(shape)).collect();
                json!({"anyOf": shapes})
            }
            Shape::Again(key) => json!({"$ref": format!("#/properties/{key}")}),
            Shape::Any => json!({}),
            Shape::Hint(shape) => json!({"anyOf": [self.shape(shape), {}]}),
            Shape::Schema(write) => write(),
        }
    }

    /// A reference to the table, which is defined if it is not yet.
    fn reference(&mut self, table: &'static Table) -> Json {
        let at = format!("#/definitions/{}", table.name);
        if !self.definitions.contains_key(table.name) {
            // A table may lead to itself.
            self.definitions.insert(table.name.to_owned(), Json::Null);
            let written = self.table(table, &at);
            self.definitions.insert(table.name.to_owned(), written);
        }
        json!({"$ref": at})
    }

    /// A mapping with a table's keys; `at` is where it stands.
    fn table(&mut self, table: &Table, at: &str) -> Json {
        let mut properties = Map::new();
        let mut spellings = Map::new();
        for setting @ (name, ..) in table.all() {
            properties.insert((*name).to_owned(), self.setting(setting));
            if name.contains(['-', '_']) {
                let property = json!({"$ref": format!("{at}/properties/{name}")});
                spellings.insert(other_spellings(name), property);
            }
        }
        for (name, reason) in table.all_unsupported() {
            let said = format!("not applied: {reason}");
            let property =
                json!({"deprecated": true, "description": said, "deprecationMessage": said});
            properties.insert((*name).to_owned(), property);
        }
        let mut schema = json!({"type": ["object", "null"], "properties": properties, "additionalProperties": false});
        if !spellings.is_empty() {
            schema["patternProperties"] = spellings.into();
        }
        if !table.required.is_empty() {
            schema["required"] = table.required.into();
        }
        schema
    }

    fn setting(&mut self, (_, shape, about): &Setting) -> Json {
        let mut property = self.shape(shape);
        property["description"] = (*about).into();
        property
    }

    /// A mapping that is told by one of its keys which table is its own.
    fn by(&mut self, key: &str, tables: &'static [(&[&str], &Table)]) -> Json {
        let mut all: Vec<&str> = Vec::new();
        let mut cases = Vec::new();
        for (words, table) in tables {
            all.extend(*words);
            let condition = json!({"properties": {key: {"enum": words}}, "required": [key]});
            cases.push(json!({"if": condition, "then": self.reference(table)}));
        }
        json!({"type": "object", "properties": {key: {"enum": all}}, "required": [key], "allOf": cases})
    }
}

/// Keys to begin with, where it is they that tell which table it will be.
fn proposed(shape: &Shape) -> Vec<&'static str> {
    match shape {
        Shape::Has(key, _, without) => {
            let mut names = proposed(without);
            names.push(key);
            names
        }
        Shape::Table(table) => table.required.to_vec(),
        _ => Vec::new(),
    }
}

/// The name with a hyphen for an underscore, or the other way round, at any place: the reader takes those as well.
fn other_spellings(name: &str) -> String {
    let any = name.replace(['-', '_'], "[-_]");
    format!("^(?!{name}$){any}$")
}

/// Any scalar.
fn text() -> Json {
    json!({"type": ["string", "number", "boolean", "null"]})
}

/// A boolean of YAML 1.1, which is text to an editor that reads YAML 1.2.
fn boolean() -> Json {
    let words = ["true", "false", "yes", "no", "on", "off"];
    let either = |letter: char| format!("[{}{letter}]", letter.to_ascii_uppercase());
    let words = words.map(|word| word.chars().map(either).collect::<String>());
    json!({"type": ["boolean", "string", "null"], "pattern": format!("^({})$", words.join("|")),
        "patternErrorMessage": "true or false"})
}

/// A whole number, in quotes or not, in any of the ways that YAML has to write one.
fn integer(least: i64, most: i64) -> Json {
    let mut schema = json!({"type": ["integer", "string", "null"], "patternErrorMessage": "a whole number",
        "pattern": "^\\s*[-+]?(0[xX][0-9A-Fa-f_]+|0o[0-7_]+|0b[01_]+|[0-9][0-9_]*)\\s*$"});
    if (least, most) != (i64::MIN, i64::MAX) {
        schema["minimum"] = least.into();
        schema["maximum"] = most.into();
    }
    schema
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The tables that a shape leads to.
    fn tables(shape: &Shape, found: &mut Vec<&'static Table>) {
        match shape {
            Shape::List(shape)
            | Shape::OneOrMore(shape)
            | Shape::Map(shape)
            | Shape::Hint(shape) => {
                tables(shape, found);
            }
            Shape::AnyOf(shapes) => shapes.iter().for_each(|shape| tables(shape, found)),
            Shape::Has(_, with, without) => [with, without]
                .iter()
                .for_each(|shape| tables(shape, found)),
            Shape::By(_, all) => all.iter().for_each(|(_, table)| below(table, found)),
            Shape::Table(table) => below(table, found),
            _ => {}
        }
    }

    fn below(table: &'static Table, found: &mut Vec<&'static Table>) {
        if !found.iter().any(|known| std::ptr::eq(*known, table)) {
            found.push(table);
            table.all().for_each(|(_, shape, _)| tables(shape, found));
        }
    }

    #[test]
    fn each_key_that_the_reader_knows_is_in_the_schema_and_no_other_is() {
        let mut found = Vec::new();
        below(&cloud_config::TOP, &mut found);
        assert!(found.len() > 40);
        let schema = cloud_config();
        let definitions = schema["definitions"].as_object().unwrap();
        // Boolean and text are no tables, and the top is no definition.
        assert_eq!(definitions.len(), found.len() + 1);
        for table in found {
            let written = definitions.get(table.name).unwrap_or(&schema);
            let names = written["properties"].as_object().unwrap().keys();
            let mut names: Vec<&str> = names.map(String::as_str).collect();
            if table.name == cloud_config::TOP.name {
                names.retain(|name| !MERGE_KEYS.contains(name));
            }
            let applied = table.all().map(|(name, ..)| *name);
            let mut known: Vec<&str> = applied
                .chain(table.all_unsupported().map(|(name, _)| *name))
                .collect();
            known.retain(|name| names.len() < 90 || !MERGE_KEYS.contains(name));
            known.sort_unstable();
            assert_eq!(names, known, "{}", table.name);
            assert!(!table.required.iter().any(|name| name.contains(['-', '_'])));
        }
    }

    #[test]
    fn a_key_has_the_spellings_that_the_reader_takes_and_its_own_once() {
        assert_eq!(other_spellings("ca_certs"), "^(?!ca_certs$)ca[-_]certs$");
    }
}
