//! `#cloud-config-archive`: a YAML list of documents.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::format::Kind;
use super::reader::{Document, Reader};
use crate::yaml::{self, Fields, Node, Value};

impl Reader<'_, '_> {
    /// Reads each item: text, or a mapping with `content`, `type`, `filename`, `launch-index`, `merge_how`.
    pub(super) fn read_archive(&mut self, text: &str, depth: usize) {
        let source = self.source;
        let root = match yaml::parse_source(text, source) {
            Ok(parsed) => parsed.root,
            Err(error) => {
                let message = format!(
                    "not valid YAML, nothing of it is applied: {}",
                    error.message
                );
                return self.broken(error.position, message);
            }
        };
        let Some(items) = yaml::list("archive", &root, self.diagnostics) else {
            self.understood = false;
            return;
        };
        for item in items {
            if let Some(document) = self.item(item) {
                self.read(document, depth + 1);
            }
        }
        self.source = source;
    }

    fn item(&mut self, item: &Node) -> Option<Document> {
        let Value::Mapping(_) = item.value else {
            let text = yaml::string("an item of the archive", item, self.diagnostics)?;
            let mut document = Document::unnamed(text.into_bytes());
            document.kind = document.kind.or(Some(Kind::CloudConfig));
            return Some(document);
        };
        let fields = yaml::mapping("archive", item, self.diagnostics)?;
        let content = fields.get("content")?;
        let is_binary = matches!(&content.value, Value::Scalar(scalar) if scalar.binary);
        let bytes = match &content.value {
            Value::Scalar(scalar) if is_binary => {
                let packed: String = scalar.text.split_whitespace().collect();
                match STANDARD.decode(packed) {
                    Ok(bytes) => bytes,
                    Err(error) => {
                        self.broken(content.position, format!("content: not base64: {error}"));
                        return None;
                    }
                }
            }
            _ => yaml::string("content", content, self.diagnostics)?.into_bytes(),
        };
        let mut text = |fields: &Fields<'_>, names: &[&str]| {
            let node = names.iter().find_map(|name| fields.get(name))?;
            yaml::string(
                names.first().copied().unwrap_or_default(),
                node,
                self.diagnostics,
            )
        };
        let content_type = text(&fields, &["type"]);
        let name = text(&fields, &["filename"]);
        let launch_index = text(&fields, &["launch-index"]);
        let merge = text(
            &fields,
            &["Merge-Type", "X-Merge-Type", "merge_type", "merge_how"],
        );
        // What is not said is taken from the content; an archive's items are settings otherwise.
        let kind = match &content_type {
            Some(name) => Kind::of_content_type(name).or_else(|| Kind::of(&bytes)),
            None => Kind::of(&bytes).or((!is_binary).then_some(Kind::CloudConfig)),
        };
        Some(Document {
            kind,
            content_type: content_type.or(is_binary.then(|| "application/octet-stream".to_owned())),
            name,
            merge,
            launch_index,
            content: bytes,
        })
    }
}
