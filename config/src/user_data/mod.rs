//! User-data and vendor-data: recognises what the bytes are, takes them apart, and puts the settings in them together.
//!
//! - [`format`]: kinds of documents and how they are told apart
//! - [`mime`]: MIME multipart messages
//! - [`archive`]: cloud-config archives
//! - [`template`]: documents with variables of the instance
//! - [`patch`]: JSON patches
//!
//! What one part has wrong costs that part alone, as in cloud-init.

mod archive;
mod format;
mod mime;
mod patch;
mod template;

pub use format::Kind;

use serde_json::Value as Json;

use crate::MAX_DOCUMENT_BYTES;
use crate::cloud_config::unpack_gzip;
use crate::diagnostic::{Diagnostics, Position, Source};
use crate::yaml::merge::{MERGE_KEYS, Mergers};
use crate::yaml::{self, Key, Node, Value};

/// How deeply documents may be inside one another.
const MAX_DEPTH: usize = 8;
/// How many documents there may be in all.
const MAX_DOCUMENTS: usize = 256;
/// How large they may be in all, unpacked, each again in what holds it.
const MAX_BYTES: usize = 16 * MAX_DOCUMENT_BYTES;
/// Names that other files beside scripts have.
const RESERVED: [&str; 5] = [
    "started",
    "finished",
    "runcmd",
    "rancher-services",
    "zz-final",
];

/// What reading needs from outside.
pub struct Context<'a> {
    /// Fetches what an `#include` names.
    ///
    /// # Errors
    /// A sentence for a person.
    pub fetch: &'a mut dyn FnMut(&str) -> Result<Vec<u8>, String>,
    /// The instance's data, for templates: `v1`, `ds` and the rest.
    pub instance: &'a Json,
}

/// When a script is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum When {
    /// Once on this machine, whatever instance it is.
    Once,
    /// At each boot.
    Boot,
    /// Once for each instance.
    Instance,
}

/// A script.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Script {
    /// Its name: `part-001`, or that of its part.
    pub name: String,
    /// When it is run.
    pub when: When,
    /// Its text; the first line names the interpreter.
    pub content: Vec<u8>,
}

/// What user-data asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserData {
    /// The settings of all its parts, merged; `None` when it has none.
    pub config: Option<Node>,
    /// Scripts, in order.
    pub scripts: Vec<Script>,
    /// Boothooks, in order.
    pub boothooks: Vec<Script>,
    /// Whether anything of it could be read, or there was nothing to read. If not, an error says why; correcting it and starting
    /// again applies it.
    pub understood: bool,
}

/// Reads user-data, which the user knows as `name`, of whatever kind.
pub fn read(
    bytes: &[u8],
    name: &str,
    context: &mut Context<'_>,
    diagnostics: &mut Diagnostics,
) -> UserData {
    let source = diagnostics.add_source(name);
    let mut reader = Reader {
        name,
        source,
        context,
        diagnostics,
        parts: 0,
        documents: 0,
        bytes: 0,
        config: None,
        scripts: Vec::new(),
        boothooks: Vec::new(),
        understood: true,
    };
    let mut document = Document::unnamed(bytes.to_vec());
    document.kind = None;
    reader.read(document, 0);
    UserData {
        // One part may be broken: the others are applied, and a correction has to be a new instance then.
        understood: reader.understood
            || reader.config.is_some()
            || !reader.scripts.is_empty()
            || !reader.boothooks.is_empty(),
        config: reader.config,
        scripts: reader.scripts,
        boothooks: reader.boothooks,
    }
}

/// A document that is to be read.
struct Document {
    /// What it is, when that was said.
    kind: Option<Kind>,
    /// What it was said to be.
    content_type: Option<String>,
    /// Its name.
    name: Option<String>,
    /// How it is merged.
    merge: Option<String>,
    /// For which of the instances that were started together it is.
    launch_index: Option<String>,
    content: Vec<u8>,
}

impl Document {
    fn unnamed(content: Vec<u8>) -> Self {
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

struct Reader<'r, 'c> {
    name: &'r str,
    /// The document that is read now.
    source: Source,
    context: &'r mut Context<'c>,
    diagnostics: &'r mut Diagnostics,
    parts: usize,
    /// How many were looked at, those that only hold others included, and how large they were.
    documents: usize,
    bytes: usize,
    config: Option<Node>,
    scripts: Vec<Script>,
    boothooks: Vec<Script>,
    understood: bool,
}

impl Reader<'_, '_> {
    fn broken(&mut self, at: impl Into<Option<Position>>, message: impl Into<String>) {
        self.diagnostics.error(at, message);
        self.understood = false;
    }

    fn is_too_much(&self) -> bool {
        self.documents > MAX_DOCUMENTS || self.bytes > MAX_BYTES
    }

    fn read(&mut self, mut document: Document, depth: usize) {
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

    /// Messages are about this part from now on.
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
            Kind::Boothook => {
                let mut content = document.content.clone();
                // The first line is the format's, unless it is the interpreter's.
                let start = format::start_of(&content);
                let header = b"#cloud-boothook";
                if start.to_ascii_lowercase().starts_with(header) {
                    let rest = start.get(header.len()..).unwrap_or_default();
                    content = format::start_of(rest).to_vec();
                }
                let script = self.named(document, When::Boot, without_returns(content));
                self.boothooks.push(script);
            }
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

    fn is_for_this_instance(&self, wanted: Option<&str>) -> bool {
        let own = &self.context.instance["ds"]["meta_data"]["launch_index"];
        match (
            wanted.and_then(|text| text.trim().parse::<i64>().ok()),
            own.as_i64(),
        ) {
            (Some(wanted), Some(own)) => wanted == own,
            _ => true,
        }
    }

    fn text(&mut self, content: &[u8]) -> Option<String> {
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

    fn unrecognised(&mut self, document: &Document, start: &[u8]) {
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

    fn read_message(&mut self, content: &[u8], depth: usize) {
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

    fn include(&mut self, text: &str, depth: usize) {
        let source = self.source;
        for (index, line) in text.lines().enumerate() {
            let mut line = line.trim();
            let lower = line.to_ascii_lowercase();
            for header in ["#include-once", "#include"] {
                if lower.starts_with(header) {
                    line = line.get(header.len()..).unwrap_or_default().trim();
                    break;
                }
            }
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            match (self.context.fetch)(line) {
                Ok(content) => {
                    let mut document = Document::unnamed(content);
                    document.name = Some(format!("({line})"));
                    self.read(document, depth + 1);
                }
                Err(error) => {
                    let at = Position {
                        source,
                        line: index + 1,
                        column: 1,
                    };
                    self.broken(at, format!("#include: {error}; nothing of it is applied"));
                }
            }
            self.source = source;
        }
    }

    fn template(&mut self, text: &str, document: &Document, depth: usize) {
        let (_, body) = text.trim_start().split_once('\n').unwrap_or((text, ""));
        let skipped = text.matches('\n').count() - body.matches('\n').count();
        match template::render(body, self.context.instance) {
            Ok(rendered) => {
                for name in rendered.missing {
                    self.diagnostics.warning(
                        Position::start_of(self.source),
                        format!("the template's variable `{name}` is not known"),
                    );
                }
                let content = rendered.text.into_bytes();
                let kind = Kind::of(&content).filter(|kind| {
                    let allowed = [Kind::CloudConfig, Kind::Script, Kind::Boothook];
                    allowed.contains(kind)
                });
                let Some(kind) = kind else {
                    return self.broken(
                        Position::start_of(self.source),
                        "a template must become a #cloud-config, a script or a boothook; nothing of it is applied",
                    );
                };
                let document = Document {
                    kind: Some(kind),
                    content_type: None,
                    name: document.name.clone(),
                    merge: document.merge.clone(),
                    launch_index: None,
                    content,
                };
                self.read(document, depth);
            }
            Err(failure) => {
                let at = Position {
                    source: self.source,
                    line: failure.line + skipped,
                    column: 1,
                };
                let message = format!(
                    "not a template: {}; nothing of it is applied",
                    failure.message
                );
                self.broken(at, message);
            }
        }
    }

    fn named(&self, document: &Document, when: When, content: Vec<u8>) -> Script {
        let name = document.name.as_deref().map(file_name);
        Script {
            name: name.unwrap_or_else(|| format!("part-{:03}", self.parts)),
            when,
            content,
        }
    }

    fn script(&mut self, document: &Document, when: When) {
        let content = without_returns(format::start_of(&document.content).to_vec());
        let mut script = self.named(document, when, content);
        let mut others = self.scripts.iter();
        if others.any(|other| (other.when, &other.name) == (when, &script.name)) {
            script.name = format!("{}-{:03}", script.name, self.parts);
        }
        self.scripts.push(script);
    }

    /// Reads YAML; `None`, and an error, when it is none or no mapping.
    fn mapping(&mut self, text: &str) -> Option<Node> {
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

    fn cloud_config(&mut self, text: &str, document: &Document) {
        let Some(mut root) = self.mapping(text) else {
            return;
        };
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

    fn add(&mut self, root: Node, mergers: &Mergers) {
        self.config = Some(match self.config.take() {
            Some(earlier) if !earlier.is_null() && !root.is_null() => mergers.merge(earlier, root),
            Some(earlier) if root.is_null() => earlier,
            _ => root,
        });
    }

    /// Services of RancherOS: the file is what stands below `rancher.services`.
    fn compose(&mut self, text: &str) {
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

/// A script with lines as they are on Unix: a carriage return would become part of the interpreter's name.
fn without_returns(mut content: Vec<u8>) -> Vec<u8> {
    let first = content.split(|byte| *byte == b'\n').next();
    if first.is_some_and(|line| line.ends_with(b"\r")) {
        content.retain(|byte| *byte != b'\r');
    }
    content
}

/// A name of a file without directories.
fn file_name(name: &str) -> String {
    let plain: String = name
        .chars()
        .map(|letter| match letter {
            letter if letter.is_ascii_alphanumeric() || "._-".contains(letter) => letter,
            _ => '_',
        })
        .take(100)
        .collect();
    match plain.trim_start_matches('.') {
        "" => "part".to_owned(),
        plain if RESERVED.contains(&plain) => format!("{plain}_"),
        plain => plain.to_owned(),
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

#[cfg(test)]
mod tests;
