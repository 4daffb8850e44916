//! `#cloud-config-jsonp`: changes to the settings so far (RFC 6902).

use super::Reader;
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
        match json_patch::patch(&mut whole, &patch) {
            Ok(()) if matches!(whole, Json::Object(_)) => {
                self.config = Some(yaml::from_json(&whole, at));
            }
            Ok(()) => self.broken(at, "the patch leaves no mapping; it is not applied"),
            Err(error) => self.broken(at, format!("the patch is not applied: {error}")),
        }
    }
}
