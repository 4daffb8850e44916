//! `#cloud-config-jsonp`: changes to the settings so far (RFC 6902).

use super::reader::Reader;
use crate::MAX_DOCUMENT_BYTES;
use crate::diagnostic::Position;
use crate::yaml;
use serde_json::{Value as Json, json};

impl Reader<'_, '_> {
    /// Applies the patch to what was read before it.
    pub(super) fn patch(&mut self, text: &str) {
        let at = Position::start_of(self.source);
        // The first line is a comment to cloud-init, and would be an error to JSON.
        let (_, body) = text.trim_start().split_once('\n').unwrap_or((text, ""));
        let patch: json_patch::Patch = match serde_json::from_str(body) {
            Ok(patch) => patch,
            Err(error) => {
                let at = Position {
                    line: error.line() + 1,
                    column: error.column().max(1),
                    ..at
                };
                let message = format!("not a JSON patch, nothing of it is applied: {error}");
                return self.broken(at, message);
            }
        };
        let mut whole = self
            .config
            .as_ref()
            .map_or_else(|| json!({}), yaml::to_json);
        // One by one: each may double what is there.
        for operation in patch.0 {
            if let Err(error) = json_patch::patch(&mut whole, &[operation]) {
                return self.broken(at, format!("the patch is not applied: {error}"));
            }
            if weight(&whole, yaml::MAX_DEPTH).is_none_or(|weight| weight > MAX_DOCUMENT_BYTES) {
                return self.broken(at, "the patch makes too much of it; it is not applied");
            }
        }
        match whole {
            Json::Object(_) => self.config = Some(yaml::from_json(&whole, at)),
            _ => self.broken(at, "the patch leaves no mapping; it is not applied"),
        }
    }
}

/// How large a value is, about: its text and ten bytes a value; `None` when it is more than `depth` deep.
fn weight(json: &Json, depth: usize) -> Option<usize> {
    let depth = depth.checked_sub(1)?;
    let below = match json {
        Json::String(text) => text.len(),
        Json::Array(items) => {
            let mut items = items.iter();
            items.try_fold(0, |sum, item| Some(sum + weight(item, depth)?))?
        }
        Json::Object(entries) => {
            let mut entries = entries.iter();
            entries.try_fold(0, |sum, (key, item)| {
                Some(sum + key.len() + weight(item, depth)?)
            })?
        }
        _ => 0,
    };
    Some(below + 10)
}
