//! The `filters` parameter: `{"name": ["log"]}`, or the older `{"name": {"log": true}}`.

use super::error::invalid;
use crate::server::Refused;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Values by key; between keys it is "and", between the values of one "or".
#[derive(Debug, Default)]
pub(super) struct Filters(BTreeMap<String, Vec<String>>);

#[derive(Deserialize)]
#[serde(untagged)]
enum Values {
    List(Vec<String>),
    Map(BTreeMap<String, bool>),
}

impl Filters {
    /// Reads the parameter; every key has to be one of `known`.
    pub(super) fn parse(text: Option<&str>, known: &[&str]) -> Result<Self, Refused> {
        let Some(text) = text.filter(|text| !text.is_empty()) else {
            return Ok(Self::default());
        };
        let parsed: BTreeMap<String, Values> = serde_json::from_str(text)
            .map_err(|error| invalid(format!("invalid filter: {error}")))?;
        if let Some(key) = parsed.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(invalid(format!("invalid filter '{key}'")));
        }
        let values = |values| match values {
            Values::List(list) => list,
            Values::Map(map) => map
                .into_iter()
                .filter(|(_, on)| *on)
                .map(|(key, _)| key)
                .collect(),
        };
        Ok(Self(
            parsed
                .into_iter()
                .map(|(key, entry)| (key, values(entry)))
                .collect(),
        ))
    }

    /// Whether there is no such key, or one of its values passes.
    pub(super) fn pass(&self, key: &str, test: impl Fn(&str) -> bool) -> bool {
        self.0
            .get(key)
            .is_none_or(|values| values.iter().any(|value| test(value)))
    }

    /// The values of a key.
    pub(super) fn values(&self, key: &str) -> &[String] {
        self.0.get(key).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_forms_are_read_and_unknown_keys_refused() {
        for text in [
            r#"{"name":["a","b"]}"#,
            r#"{"name":{"a":true,"b":true,"c":false}}"#,
        ] {
            let filters = Filters::parse(Some(text), &["name"]).unwrap();
            assert!(filters.pass("name", |value| value == "b"), "{text}");
            assert!(!filters.pass("name", |value| value == "c"), "{text}");
            assert!(filters.pass("label", |_| false), "{text}");
        }
        assert!(Filters::parse(None, &[]).unwrap().values("name").is_empty());
        for wrong in ["{", "[]", r#"{"nane":["a"]}"#] {
            assert!(Filters::parse(Some(wrong), &["name"]).is_err(), "{wrong}");
        }
    }
}
