//! `write_files`.

use std::io::Read;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use flate2::read::MultiGzDecoder;
use serde_json::{Value as Json, json};

use crate::MAX_DOCUMENT_BYTES;
use crate::diagnostic::{Diagnostics, Position};
use crate::names;
use crate::yaml::{self, Fields, Node, Shape, Table, Value};

/// How large all files together may be, unpacked.
const MAX_FILE_BYTES: u64 = 16 * MAX_DOCUMENT_BYTES as u64;
const DEFAULT_MODE: u32 = 0o644;

/// An item of `write_files`.
pub(super) static FILE: Table = Table::new(
    "write_files",
    &[
        ("path", Shape::Text, "Absolute path"),
        ("content", Shape::Text, "What the file contains"),
        ("encoding", ENCODING, "How the content is packed"),
        (
            "permissions",
            Shape::Schema(mode),
            "Mode, as \"0644\" in quotes",
        ),
        ("owner", Shape::Text, "user:group, by name or number"),
        ("append", Shape::Boolean, "Adds to what is there"),
        (
            "defer",
            Shape::Boolean,
            "Written after all that is not deferred",
        ),
        (
            "source",
            Shape::Table(&SOURCE),
            "Where the content is fetched from",
        ),
        ("container", Shape::Any, "Of RancherOS; says nothing here"),
    ],
)
.required(&["path"]);
static SOURCE: Table = Table::new(
    "write_files.source",
    &[
        ("uri", Shape::Text, "http: or https:"),
        (
            "headers",
            Shape::Map(&Shape::Text),
            "Headers of the request",
        ),
    ],
);
const ENCODING: Shape = Shape::AnyOf(&[
    Shape::Words(&[
        "text/plain",
        "b64",
        "base64",
        "gz",
        "gzip",
        "gz+b64",
        "gzip+base64",
    ]),
    Shape::Text,
]);

/// What [`parse_mode`] takes.
fn mode() -> Json {
    json!({"type": ["string", "integer", "null"], "minimum": 0, "maximum": 7777,
        "pattern": "^\\s*(0o)?0*[0-7]{1,4}\\s*$", "patternErrorMessage": "an octal mode, as \"0644\""})
}

/// A file to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteFile {
    /// Where the user wrote it, for messages about it.
    pub position: Position,
    /// Absolute path, without `.` and `..`.
    pub path: String,
    /// What the file shall contain, decoded.
    pub content: Vec<u8>,
    /// Permission bits.
    pub mode: u32,
    /// Whose file it is.
    pub owner: Owner,
    /// Add to what is there instead of replacing it.
    pub append: bool,
    /// Write it after all that is not deferred.
    pub defer: bool,
    /// Where its content is fetched from; what it contains otherwise is for when that fails.
    pub source: Option<FileSource>,
}

/// Where a file's content is fetched from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSource {
    /// `http:` or `https:`.
    pub uri: String,
    /// Headers of the request.
    pub headers: Vec<(String, String)>,
}

/// Owner and group, as names or numbers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The user.
    pub user: String,
    /// The group.
    pub group: String,
}

/// The files in `node`. A wrong one is an error of its own.
pub(super) fn parse(node: &Node, diagnostics: &mut Diagnostics) -> Vec<WriteFile> {
    let Some(items) = yaml::list("write_files", node, diagnostics) else {
        return Vec::new();
    };
    yaml::warn_of_nothing("write_files", node, diagnostics);
    let mut left = MAX_FILE_BYTES;
    let mut files = Vec::new();
    for item in items {
        let Some(file) = parse_file(item, left, diagnostics) else {
            continue;
        };
        let Some(rest) = left.checked_sub(file.content.len() as u64) else {
            let message = format!(
                "write_files: the files have more than {MAX_FILE_BYTES} bytes in all; {} is not written",
                file.path
            );
            diagnostics.error(item.position, message);
            continue;
        };
        left = rest;
        files.push(file);
    }
    files
}

/// `left` is how large its content may be.
fn parse_file(item: &Node, left: u64, diagnostics: &mut Diagnostics) -> Option<WriteFile> {
    let fields = yaml::mapping("write_files", item, diagnostics)?;
    fields.check(" in write_files", &FILE, diagnostics);
    let Some(path_node) = fields.get("path") else {
        diagnostics.error(
            item.position,
            "write_files: a file needs a `path`; it is not written",
        );
        return None;
    };
    let path = yaml::string("path", path_node, diagnostics)?;
    if !names::is_absolute_path(&path) {
        let message =
            format!("write_files: `{path}` is no absolute path of a file; it is not written");
        diagnostics.error(path_node.position, message);
        return None;
    }
    let packing = packing(&path, &fields, diagnostics);
    let content = parse_content(&path, &fields, (packing, left), diagnostics)?;
    let mut flag = |name: &str| {
        fields
            .get(name)
            .and_then(|node| yaml::boolean(name, node, diagnostics))
            .unwrap_or(false)
    };
    let (append, defer) = (flag("append"), flag("defer"));
    let mode = fields
        .get("permissions")
        .map_or(DEFAULT_MODE, |node| parse_mode(&path, node, diagnostics));
    let owner = fields
        .get("owner")
        .and_then(|node| parse_owner(&path, node, diagnostics));
    let owner = owner.unwrap_or_else(|| Owner {
        user: "root".to_owned(),
        group: "root".to_owned(),
    });
    Some(WriteFile {
        position: item.position,
        path,
        content,
        mode,
        owner,
        append,
        defer,
        source: fields
            .get("source")
            .and_then(|node| parse_source(node, diagnostics)),
    })
}

fn parse_source(node: &Node, diagnostics: &mut Diagnostics) -> Option<FileSource> {
    let fields = yaml::mapping("write_files.source", node, diagnostics)?;
    fields.check(" in write_files.source", &SOURCE, diagnostics);
    let uri = fields.get("uri")?;
    let text = yaml::string("write_files.source.uri", uri, diagnostics)?;
    if !text.starts_with("http://") && !text.starts_with("https://") {
        let message = format!(
            "write_files.source.uri: `{text}` is not fetched (http: and https: are); the content beside it is written"
        );
        diagnostics.error(uri.position, message);
        return None;
    }
    let headers = fields
        .get("headers")
        .and_then(|node| yaml::mapping("write_files.source.headers", node, diagnostics));
    let headers = headers.iter().flat_map(Fields::iter);
    let mut pairs = Vec::new();
    for (key, node) in headers {
        let value = yaml::string("write_files.source.headers", node, diagnostics)?;
        pairs.push((key.text.clone(), value));
    }
    Some(FileSource {
        uri: text,
        headers: pairs,
    })
}

/// How the content is packed.
#[derive(Clone, Copy, Default)]
struct Packing {
    base64: bool,
    gzip: bool,
}

fn packing(path: &str, fields: &Fields<'_>, diagnostics: &mut Diagnostics) -> Packing {
    let packed = |base64, gzip| Packing { base64, gzip };
    let Some(node) = fields.get("encoding") else {
        return Packing::default();
    };
    let encoding = yaml::string("encoding", node, diagnostics).unwrap_or_default();
    match encoding.trim().to_ascii_lowercase().as_str() {
        "text/plain" | "" => Packing::default(),
        "b64" | "base64" => packed(true, false),
        "gz" | "gzip" => packed(false, true),
        "gz+b64" | "gz+base64" | "gzip+b64" | "gzip+base64" | "b64+gz" | "base64+gzip" => {
            packed(true, true)
        }
        other => {
            let message = format!(
                "write_files: encoding `{other}` of {path} is unknown; the content is written as it stands"
            );
            diagnostics.warning(node.position, message);
            Packing::default()
        }
    }
}

fn parse_content(
    path: &str,
    fields: &Fields<'_>,
    (Packing { base64, gzip }, left): (Packing, u64),
    diagnostics: &mut Diagnostics,
) -> Option<Vec<u8>> {
    let Some(node) = fields.get("content") else {
        return Some(Vec::new());
    };
    let text =
        yaml::string("content", node, diagnostics).or_else(|| node.is_null().then(String::new))?;
    let mut bytes = text.into_bytes();
    let mut failed = |what: &str, why: String| {
        diagnostics.error(
            node.position,
            format!("write_files: content of {path} is not {what}: {why}; it is not written"),
        );
    };
    if matches!(&node.value, Value::Scalar(scalar) if scalar.binary) {
        bytes = unpack_base64(&bytes)
            .map_err(|error| failed("base64", error))
            .ok()?;
    }
    if base64 {
        bytes = unpack_base64(&bytes)
            .map_err(|error| failed("base64", error))
            .ok()?;
    }
    if gzip {
        bytes = unpack_gzip(&bytes, left)
            .map_err(|error| failed("gzip", error))
            .ok()?;
    }
    Some(bytes)
}

fn unpack_base64(bytes: &[u8]) -> Result<Vec<u8>, String> {
    let config =
        GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
    let text: Vec<u8> = bytes
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    GeneralPurpose::new(&alphabet::STANDARD, config)
        .decode(text)
        .map_err(|error| error.to_string().to_lowercase())
}

/// Unpacks gzip, to at most `limit` bytes.
pub(crate) fn unpack_gzip(bytes: &[u8], limit: u64) -> Result<Vec<u8>, String> {
    let mut unpacked = Vec::new();
    MultiGzDecoder::new(bytes)
        .take(limit + 1)
        .read_to_end(&mut unpacked)
        .map_err(|error| error.to_string())?;
    if unpacked.len() as u64 > limit {
        return Err(format!("unpacks to more than {limit} bytes"));
    }
    Ok(unpacked)
}

/// Permissions: text is octal, a bare number is what YAML 1.1 makes of it (`0644` octal, `420` decimal).
fn parse_mode(path: &str, node: &Node, diagnostics: &mut Diagnostics) -> u32 {
    let Value::Scalar(scalar) = &node.value else {
        diagnostics.error(
            node.position,
            format!(
                "write_files: permissions of {path}: expected octal text as \"0644\"; 0644 is taken"
            ),
        );
        return DEFAULT_MODE;
    };
    if scalar.is_null() {
        return DEFAULT_MODE;
    }
    let text = scalar.text.trim();
    let mode = match scalar.as_integer() {
        Some(number) => {
            if !text.starts_with('0') && text.len() <= 4 && u32::from_str_radix(text, 8).is_ok() {
                let message = format!(
                    "write_files: permissions of {path}: {text} without quotes is a decimal number, mode {number:04o}; write \"0{text}\" for mode 0{text}"
                );
                diagnostics.warning(node.position, message);
            }
            u32::try_from(number).ok()
        }
        None => u32::from_str_radix(text.trim_start_matches("0o"), 8).ok(),
    };
    mode.filter(|mode| *mode <= 0o7777).unwrap_or_else(|| {
        diagnostics.error(
            node.position,
            format!("write_files: permissions of {path}: `{text}` is no octal mode; 0644 is taken"),
        );
        DEFAULT_MODE
    })
}

fn parse_owner(path: &str, node: &Node, diagnostics: &mut Diagnostics) -> Option<Owner> {
    let text = yaml::string("owner", node, diagnostics)?;
    let (user, group) = text.split_once(':').unwrap_or((&text, ""));
    let named = |name: &str| match name.trim() {
        "" | "-1" => "root".to_owned(),
        name => name.to_owned(),
    };
    let owner = Owner {
        user: named(user),
        group: named(group),
    };
    let valid = |name: &str| names::is_account(name) || name.parse::<u32>().is_ok();
    if valid(&owner.user) && valid(&owner.group) {
        return Some(owner);
    }
    diagnostics.error(
        node.position,
        format!("write_files: owner of {path}: `{text}` is no user:group; root is taken"),
    );
    None
}
