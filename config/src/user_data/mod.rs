//! User-data and vendor-data: recognises what the bytes are, takes them apart, and puts the settings in them together.
//!
//! - [`format`]: kinds of documents and how they are told apart
//! - [`mime`]: MIME multipart messages
//! - [`archive`]: cloud-config archives
//! - [`reader`]: takes them apart
//! - [`settings`]: settings, and how those of several parts become one
//! - [`addresses`]: RancherOS' variables for the machine's addresses
//! - [`scripts`]: scripts and boothooks
//! - [`template`]: documents with variables of the instance
//! - [`patch`]: JSON patches
//!
//! What one part has wrong costs that part alone, as in cloud-init.

mod addresses;
mod archive;
mod format;
mod mime;
mod patch;
mod reader;
mod scripts;
mod settings;
mod template;

pub use format::Kind;

use reader::{Document, Reader};
use serde_json::Value as Json;

use crate::MAX_DOCUMENT_BYTES;
use crate::diagnostic::Diagnostics;
use crate::yaml::Node;

/// How deeply documents may be inside one another.
const MAX_DEPTH: usize = 8;
/// How many documents there may be in all.
const MAX_DOCUMENTS: usize = 256;
/// How large they may be in all, unpacked, each again in what holds it.
const MAX_BYTES: usize = 16 * MAX_DOCUMENT_BYTES;

/// A document that another one includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Include<'t> {
    /// Its address.
    pub url: &'t str,
    /// It is fetched once for an instance (`#include-once`), not at each boot.
    pub once: bool,
}

/// Why an included document is not there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is still to be fetched; all is read again then.
    Pending,
    /// It cannot be had: a sentence for a person.
    Refused(String),
}

/// Has an included document.
pub type Fetch<'a> = dyn FnMut(Include<'_>) -> Result<Vec<u8>, Missing> + 'a;

/// What reading needs from outside.
pub struct Context<'a> {
    /// Fetches what is included.
    pub fetch: &'a mut Fetch<'a>,
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

#[cfg(test)]
mod tests;
