//! Settings: `#cloud-config`, `#compose`, and how those of several parts become one.

use super::addresses;
use super::reader::{Document, Reader};
use crate::diagnostic::Position;
use crate::yaml::merge::{MERGE_KEYS, Mergers};
use crate::yaml::{self, Key, Node, Value};

impl Reader<'_, '_> {
    pub(super) fn mapping(&mut self, text: &str) -> Option<Node> {
        let parsed = match yaml::parse_source(text, self.source) {
            Ok(parsed) => parsed,
            Err(error) => {
                let message = format!(
                    "not valid YAML, nothing of it is applied: {}",
                    error.message
                );
                self.broken(error.position, message);
                return None;
            }
        };
        parsed.report(self.diagnostics);
        if !matches!(parsed.root.value, Value::Mapping(_)) && !parsed.root.is_null() {
            let message = format!(
                "expected keys and values, found {}; nothing is applied",
                parsed.root.kind()
            );
            self.broken(parsed.root.position, message);
            return None;
        }
        Some(parsed.root)
    }

    pub(super) fn cloud_config(&mut self, text: &str, document: &Document) {
        let Some(mut root) = self.mapping(text) else {
            return;
        };
        // Elsewhere such a variable is a shell's.
        if let Value::Mapping(entries) = &root.value
            && entries.iter().any(|(key, _)| key.text == "rancher")
            && let Some((text, unknown)) = addresses::filled_in(text, self.context.instance)
        {
            for name in unknown {
                let at = Position::start_of(self.source);
                let message = format!(
                    "${name}: the data source does not tell it; nothing stands in its place"
                );
                self.diagnostics.warning(at, message);
            }
            let Some(filled) = self.mapping(&text) else {
                return;
            };
            root = filled;
        }
        let mut mergers = None;
        let mut index = None;
        if let Value::Mapping(entries) = &mut root.value {
            for (key, node) in entries.iter() {
                if MERGE_KEYS.contains(&key.text.as_str()) {
                    mergers = Mergers::from_node(node, self.diagnostics);
                }
                if key.text == "launch-index"
                    && let Value::Scalar(scalar) = &node.value
                {
                    index = Some(scalar.text.clone());
                }
            }
            entries.retain(|(key, _)| !MERGE_KEYS.contains(&key.text.as_str()));
        }
        if !self.is_for_this_instance(index.as_deref()) {
            return;
        }
        if let Some(text) = &document.merge {
            let at = Position::start_of(self.source);
            mergers = mergers.or(Mergers::parse(text, at, self.diagnostics));
        }
        let mergers = mergers.unwrap_or(Mergers::PARTS);
        self.add(root, &mergers);
    }

    pub(super) fn add(&mut self, root: Node, mergers: &Mergers) {
        self.config = Some(match self.config.take() {
            Some(earlier) if !earlier.is_null() && !root.is_null() => mergers.merge(earlier, root),
            Some(earlier) if root.is_null() => earlier,
            _ => root,
        });
    }

    pub(super) fn compose(&mut self, text: &str) {
        let Some(root) = self.mapping(text) else {
            return;
        };
        let position = root.position;
        let services = match root.value {
            Value::Mapping(entries) if entries.iter().any(|(key, _)| key.text == "services") => {
                let mut entries = entries.into_iter();
                let found = entries.find(|(key, _)| key.text == "services");
                found.map(|(_, node)| node.value)
            }
            value => Some(value),
        };
        let mut node = Node {
            position,
            value: services.unwrap_or(Value::Mapping(Vec::new())),
        };
        for name in ["services", "rancher"] {
            let key = Key {
                text: name.to_owned(),
                position,
            };
            node = Node {
                position,
                value: Value::Mapping(vec![(key, node)]),
            };
        }
        self.add(node, &Mergers::PARTS);
    }
}
