//! Takes documents apart, down to those that hold no others.

use super::format::{self, Kind};
use super::{Context, Include, MAX_BYTES, MAX_DEPTH, MAX_DOCUMENTS, Missing, Script, When, mime};
use crate::MAX_DOCUMENT_BYTES;
use crate::cloud_config::unpack_gzip;
use crate::diagnostic::{Diagnostics, Position, Source};
use crate::yaml::Node;

/// A document that is to be read.
pub(super) struct Document {
    /// What it is, when that was said.
    pub(super) kind: Option<Kind>,
    /// What it was said to be.
    pub(super) content_type: Option<String>,
    /// Its name.
    pub(super) name: Option<String>,
    /// How it is merged.
    pub(super) merge: Option<String>,
    /// For which of the instances that were started together it is.
    pub(super) launch_index: Option<String>,
    pub(super) content: Vec<u8>,
}

impl Document {
    pub(super) fn unnamed(content: Vec<u8>) -> Self {
        Document {
            kind: Kind::of(&content),
            content_type: None,
            name: None,
            merge: None,
            launch_index: None,
            content,
        }
    }
}

/// What was read so far, and where reading is.
pub(super) struct Reader<'r, 'c> {
    pub(super) name: &'r str,
    /// The document that is read now.
    pub(super) source: Source,
    pub(super) context: &'r mut Context<'c>,
    pub(super) diagnostics: &'r mut Diagnostics,
    pub(super) parts: usize,
    /// How many were looked at, those that only hold others included, and how large they were.
    pub(super) documents: usize,
    pub(super) bytes: usize,
    pub(super) config: Option<Node>,
    pub(super) scripts: Vec<Script>,
    pub(super) boothooks: Vec<Script>,
    pub(super) understood: bool,
}

impl Reader<'_, '_> {
    pub(super) fn broken(&mut self, at: impl Into<Option<Position>>, message: impl Into<String>) {
        self.diagnostics.error(at, message);
        self.understood = false;
    }

    fn is_too_much(&self) -> bool {
        self.documents > MAX_DOCUMENTS || self.bytes > MAX_BYTES
    }

    pub(super) fn read(&mut self, mut document: Document, depth: usize) {
        if document.content.starts_with(&[0x1f, 0x8b]) {
            match unpack_gzip(&document.content, MAX_DOCUMENT_BYTES as u64) {
                Ok(unpacked) => document.content = unpacked,
                Err(error) => {
                    let message =
                        format!("cannot be unpacked as gzip: {error}; nothing of it is applied");
                    return self.broken(None, message);
                }
            }
        }
        if document.content.len() > MAX_DOCUMENT_BYTES {
            let message =
                format!("larger than {MAX_DOCUMENT_BYTES} bytes; nothing of it is applied");
            return self.broken(None, message);
        }
        if depth > MAX_DEPTH {
            let message = format!("more than {MAX_DEPTH} documents inside one another");
            return self.broken(None, message);
        }
        let was_too_much = self.is_too_much();
        self.documents += 1;
        self.bytes += document.content.len();
        if self.is_too_much() {
            // Said once.
            if !was_too_much {
                let message = format!(
                    "more than {MAX_DOCUMENTS} documents, or more than {MAX_BYTES} bytes in all; the rest is not applied"
                );
                self.broken(None, message);
            }
            return;
        }
        if !self.is_for_this_instance(document.launch_index.as_deref()) {
            return;
        }
        if document.kind.is_none() && format::is_mime(&document.content) {
            return self.read_message(&document.content, depth);
        }
        let start = format::start_of(&document.content);
        let sniffed = Kind::of(start);
        let kind = match (document.kind, sniffed) {
            // A template is one whatever it was said to become.
            (_, Some(Kind::Template)) => Some(Kind::Template),
            (kind, sniffed) => kind.or(sniffed),
        };
        let is_container = matches!(
            kind,
            Some(Kind::Archive | Kind::Include | Kind::IncludeOnce)
        );
        if !is_container && kind != Some(Kind::Template) {
            self.parts += 1;
        }
        self.enter(depth, &document);
        let Some(kind) = kind else {
            return self.unrecognised(&document, start);
        };
        self.read_kind(kind, &document, depth);
    }

    fn enter(&mut self, depth: usize, document: &Document) {
        if depth > 0 {
            let part = document.name.clone();
            let part = part.unwrap_or_else(|| format!("part-{:03}", self.parts));
            let name = format!("{} {part}", self.name);
            self.source = self.diagnostics.add_source(&name);
        }
    }

    fn read_kind(&mut self, kind: Kind, document: &Document, depth: usize) {
        match kind {
            Kind::Script => self.script(document, When::Instance),
            Kind::ScriptPerInstance => self.script(document, When::Instance),
            Kind::ScriptPerBoot => self.script(document, When::Boot),
            Kind::ScriptPerOnce => self.script(document, When::Once),
            Kind::Boothook => self.boothook(document),
            Kind::PartHandler => self.diagnostics.warning(
                Position::start_of(self.source),
                "part handlers are not run: they are programs in Python; use a script",
            ),
            _ => {
                let Some(text) = self.text(&document.content) else {
                    return;
                };
                match kind {
                    Kind::CloudConfig => self.cloud_config(&text, document),
                    Kind::Compose => self.compose(&text),
                    Kind::Patch => self.patch(&text),
                    Kind::Archive => self.read_archive(&text, depth),
                    Kind::Include | Kind::IncludeOnce => self.include(&text, depth),
                    _ => self.template(&text, document, depth),
                }
            }
        }
    }

    pub(super) fn is_for_this_instance(&self, wanted: Option<&str>) -> bool {
        let own = &self.context.instance["ds"]["meta_data"]["launch_index"];
        match (
            wanted.and_then(|text| text.trim().parse::<i64>().ok()),
            own.as_i64(),
        ) {
            (Some(wanted), Some(own)) => wanted == own,
            _ => true,
        }
    }

    pub(super) fn text(&mut self, content: &[u8]) -> Option<String> {
        match std::str::from_utf8(content) {
            Ok(text) => Some(text.trim_start_matches('\u{feff}').to_owned()),
            Err(error) => {
                let before = content.get(..error.valid_up_to()).unwrap_or_default();
                let at = place_after(before, self.source);
                self.broken(at, "not UTF-8 text here; nothing of it is applied");
                None
            }
        }
    }

    pub(super) fn unrecognised(&mut self, document: &Document, start: &[u8]) {
        if start.is_empty() {
            return;
        }
        if let Some(content_type) = document
            .content_type
            .as_ref()
            .filter(|name| !name.starts_with("text/plain"))
        {
            let message = format!("parts of the type `{content_type}` are not read");
            self.diagnostics
                .warning(Position::start_of(self.source), message);
            return;
        }
        if let Some(text) = self.text(&document.content) {
            let message = format::unrecognised(text.trim_start());
            self.broken(Position::start_of(self.source), message);
        }
    }

    pub(super) fn read_message(&mut self, content: &[u8], depth: usize) {
        let parts = mime::parts(content).unwrap_or_default();
        if parts
            .iter()
            .all(|part| part.content.trim_ascii().is_empty())
        {
            return self.broken(
                Position::start_of(self.source),
                "a MIME message without parts; nothing of it is applied",
            );
        }
        for part in parts {
            let is_plain = matches!(
                part.content_type.as_str(),
                "text/plain" | "text/x-not-multipart" | "application/octet-stream"
            );
            let sniffed = Kind::of(&part.content);
            let kind = match Kind::of_content_type(&part.content_type) {
                // Tools call everything a script.
                Some(Kind::Script) => sniffed.or(Some(Kind::Script)),
                Some(kind) => Some(kind),
                None if is_plain => sniffed,
                None => None,
            };
            let document = Document {
                kind,
                content_type: (!is_plain).then_some(part.content_type),
                name: part.name,
                merge: part.merge,
                launch_index: part.launch_index,
                content: part.content,
            };
            self.read(document, depth + 1);
        }
    }

    pub(super) fn include(&mut self, text: &str, depth: usize) {
        let source = self.source;
        let mut once = false;
        for (index, line) in text.lines().enumerate() {
            let mut line = line.trim();
            let lower = line.to_ascii_lowercase();
            for (header, is_once) in [("#include-once", true), ("#include", false)] {
                if lower.starts_with(header) {
                    line = line.get(header.len()..).unwrap_or_default().trim();
                    // As in cloud-init, for all lines that follow.
                    once = is_once;
                    break;
                }
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let at = Position {
                source,
                line: index + 1,
                column: 1,
            };
            match (self.context.fetch)(Include { url: line, once }) {
                Ok(content) => {
                    let mut document = Document::unnamed(content);
                    document.name = Some(format!("({line})"));
                    self.read(document, depth + 1);
                }
                Err(Missing::Refused(error)) => {
                    self.broken(at, format!("#include: {error}; nothing of it is applied"));
                }
                Err(Missing::Pending) => {
                    self.understood = false;
                    let message =
                        format!("#include: {line} is still to be fetched; it is applied then");
                    self.diagnostics.warning(at, message);
                }
            }
            self.source = source;
        }
    }
}

fn place_after(before: &[u8], source: Source) -> Position {
    let text = String::from_utf8_lossy(before);
    Position {
        source,
        line: text.matches('\n').count() + 1,
        column: text.rsplit('\n').next().unwrap_or_default().chars().count() + 1,
    }
}
