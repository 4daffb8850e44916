//! The schema for editors, against the reader that it is made for.
//!
//! - [`values`]: a value of each kind at each place of the schema
//! - [`documents`]: whole documents, right and wrong

mod documents;
mod values;

use jsonschema::Validator;
use keelson_config::yaml::{self, Node, Scalar, Value};
use keelson_config::{CloudConfig, Diagnostic, Diagnostics, network, schema};
use serde_json::{Map, Number, Value as Json};

/// The two kinds of documents.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Kind {
    CloudConfig,
    Network,
}

const KINDS: [Kind; 2] = [Kind::CloudConfig, Kind::Network];

impl Kind {
    fn schema(self) -> Json {
        match self {
            Kind::CloudConfig => schema::cloud_config(),
            Kind::Network => schema::network_config(),
        }
    }

    fn validator(self) -> Validator {
        jsonschema::draft7::new(&self.schema()).unwrap()
    }

    /// What the reader says of a document.
    fn read(self, text: &str) -> Vec<Diagnostic> {
        let mut diagnostics = Diagnostics::new("");
        match (self, yaml::parse(text)) {
            (Kind::CloudConfig, _) => {
                let _ = CloudConfig::parse(text, &mut diagnostics);
            }
            (Kind::Network, Ok(parsed)) => {
                parsed.report(&mut diagnostics);
                let _ = network::parse(&parsed.root, &mut diagnostics);
            }
            (Kind::Network, Err(error)) => diagnostics.error(error.position, error.message),
        }
        diagnostics.into_sorted()
    }
}

/// The document as YAML 1.1 has it, and as an editor that reads YAML 1.2's core schema does.
fn both_versions(text: &str) -> Option<[Json; 2]> {
    let root = yaml::parse(text).ok()?.root;
    Some([yaml::to_json(&root), core_schema(&root)])
}

fn core_schema(node: &Node) -> Json {
    match &node.value {
        Value::Scalar(scalar) => core_scalar(scalar),
        Value::Sequence(items) => items.iter().map(core_schema).collect(),
        Value::Mapping(entries) => {
            let entries = entries.iter();
            let all: Map<_, _> = entries
                .map(|(key, node)| (key.text.clone(), core_schema(node)))
                .collect();
            Json::Object(all)
        }
    }
}

/// YAML 1.2.2, section 10.3.2.
fn core_scalar(scalar: &Scalar) -> Json {
    let text = scalar.text.as_str();
    if !scalar.plain || scalar.binary {
        return text.into();
    }
    if scalar.is_null() {
        return Json::Null;
    }
    if let "true" | "True" | "TRUE" | "false" | "False" | "FALSE" = text {
        return text.to_ascii_lowercase().parse::<bool>().unwrap().into();
    }
    let octal = text
        .strip_prefix("0o")
        .and_then(|digits| i64::from_str_radix(digits, 8).ok());
    let hex = text
        .strip_prefix("0x")
        .and_then(|digits| i64::from_str_radix(digits, 16).ok());
    if let Some(number) = text.parse::<i64>().ok().or(octal).or(hex) {
        return number.into();
    }
    let is_float = text.contains(|letter: char| letter.is_ascii_digit())
        && text
            .chars()
            .all(|letter| letter.is_ascii_digit() || "+-.eE".contains(letter));
    let float = text
        .parse()
        .ok()
        .filter(|_| is_float)
        .and_then(Number::from_f64);
    float.map_or_else(|| text.into(), Json::Number)
}

#[test]
fn each_schema_is_valid_itself_and_leads_nowhere_else() {
    for kind in KINDS {
        let schema = kind.schema();
        assert_eq!(schema["$schema"], "http://json-schema.org/draft-07/schema#");
        jsonschema::draft7::meta::validate(&schema).unwrap();
        let mut references = Vec::new();
        collect("$ref", &schema, &mut references);
        assert!(references.len() > 20);
        for reference in references {
            let place = reference.as_str().unwrap().strip_prefix('#').unwrap();
            let found = schema.pointer(place);
            assert!(found.is_some_and(|found| !found.is_null()), "{place}");
        }
    }
}

/// All values of a key, wherever it stands.
fn collect<'j>(key: &str, json: &'j Json, found: &mut Vec<&'j Json>) {
    match json {
        Json::Object(entries) => {
            found.extend(entries.get(key).filter(|value| value.is_string()));
            entries
                .values()
                .for_each(|value| collect(key, value, found));
        }
        Json::Array(items) => items.iter().for_each(|item| collect(key, item, found)),
        _ => {}
    }
}
