//! Recognises what user-data is, and reads it.

use crate::MAX_DOCUMENT_BYTES;
use crate::cloud_config::{CloudConfig, unpack_gzip};
use crate::diagnostic::{Diagnostics, Position, nearest};

/// What user-data asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UserData {
    /// Nothing: there is none, or it is empty.
    Nothing,
    /// Settings.
    CloudConfig(Box<CloudConfig>),
    /// A script to run once; its first line names the interpreter.
    Script(Vec<u8>),
    /// It could not be understood: an error says why. Correcting it and starting again applies it.
    Broken,
}

/// Formats of cloud-init that begin with a header line.
const OTHER_FORMATS: &[(&str, &str)] = &[
    ("#include-once", "lists of URLs"),
    ("#include", "lists of URLs"),
    ("#cloud-boothook", "boothooks"),
    ("#part-handler", "part handlers"),
    ("#cloud-config-archive", "cloud-config archives"),
    ("#cloud-config-jsonp", "JSON patches"),
    ("## template:", "templates"),
];

/// Reads user-data: gzip or not, a `#cloud-config` or a `#!` script.
pub fn parse(bytes: &[u8], diagnostics: &mut Diagnostics) -> UserData {
    if bytes.len() > MAX_DOCUMENT_BYTES {
        diagnostics.error(
            None,
            format!("larger than {MAX_DOCUMENT_BYTES} bytes; nothing of it is applied"),
        );
        return UserData::Broken;
    }
    if !bytes.starts_with(&[0x1f, 0x8b]) {
        return parse_plain(bytes, diagnostics);
    }
    match unpack_gzip(bytes, MAX_DOCUMENT_BYTES as u64) {
        Ok(unpacked) => parse_plain(&unpacked, diagnostics),
        Err(error) => {
            diagnostics.error(
                None,
                format!("cannot be unpacked as gzip: {error}; nothing of it is applied"),
            );
            UserData::Broken
        }
    }
}

fn parse_plain(bytes: &[u8], diagnostics: &mut Diagnostics) -> UserData {
    let trimmed = bytes.trim_ascii_start();
    if trimmed.starts_with(b"#!") {
        // A carriage return would become part of the interpreter's name.
        let mut script = trimmed.to_vec();
        if trimmed
            .split(|byte| *byte == b'\n')
            .next()
            .is_some_and(|line| line.ends_with(b"\r"))
        {
            script.retain(|byte| *byte != b'\r');
        }
        return UserData::Script(script);
    }
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) => {
            let before = bytes.get(..error.valid_up_to()).unwrap_or_default();
            diagnostics.error(
                place_after(before),
                "not UTF-8 text here; nothing of it is applied",
            );
            return UserData::Broken;
        }
    };
    let header = text.trim_start_matches('\u{feff}').trim_start();
    if header.is_empty() {
        return UserData::Nothing;
    }
    let first_line = header.lines().next().unwrap_or_default().trim_end();
    let lower = first_line.to_ascii_lowercase();
    if let Some((_, what)) = OTHER_FORMATS
        .iter()
        .find(|(start, _)| lower.starts_with(start))
    {
        diagnostics.error(
            Position { line: 1, column: 1 },
            format!("this version does not read {what} (`{first_line}`)"),
        );
        return UserData::Broken;
    }
    if lower.starts_with("#cloud-config") {
        return match CloudConfig::parse(text, diagnostics) {
            Some(config) => UserData::CloudConfig(Box::new(config)),
            None => UserData::Broken,
        };
    }
    diagnostics.error(
        Position { line: 1, column: 1 },
        unrecognised(header, first_line),
    );
    UserData::Broken
}

/// Says what unrecognised user-data might be.
fn unrecognised(text: &str, first_line: &str) -> String {
    let start: String = text
        .chars()
        .take(4096)
        .collect::<String>()
        .to_ascii_lowercase();
    let what = if start.contains("mime-version:") {
        "this version does not read MIME multipart".to_owned()
    } else if start.starts_with('{') && start.contains("ignition") {
        "this is an Ignition config, for another system; write a #cloud-config".to_owned()
    } else if start.lines().any(|line| line.starts_with("variant:")) {
        "this is a Butane config, for another system; write a #cloud-config".to_owned()
    } else if text.lines().any(|line| line.trim_end() == "#cloud-config") {
        "`#cloud-config` must be the first line".to_owned()
    } else if first_line.len() <= 40
        && nearest(&first_line.replace(' ', ""), ["#cloud-config"]).is_some()
    {
        format!("the first line must be `#cloud-config`, not `{first_line}`")
    } else {
        "the first line must be `#cloud-config`, or `#!` and an interpreter".to_owned()
    };
    format!("{what}; nothing of it is applied")
}

fn place_after(before: &[u8]) -> Position {
    let text = String::from_utf8_lossy(before);
    let line = text.matches('\n').count() + 1;
    let column = text.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    Position { line, column }
}
