//! What a document is, by its first line or by its content type.

use crate::diagnostic::nearest;

/// A kind of document.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `#cloud-config`: settings.
    CloudConfig,
    /// `#cloud-config-archive`: a list of documents.
    Archive,
    /// `#cloud-config-jsonp`: changes to the settings so far (RFC 6902).
    Patch,
    /// `#!`: a script for each instance.
    Script,
    /// `text/x-shellscript-per-boot`.
    ScriptPerBoot,
    /// `text/x-shellscript-per-instance`.
    ScriptPerInstance,
    /// `text/x-shellscript-per-once`.
    ScriptPerOnce,
    /// `#cloud-boothook`: runs early at each boot.
    Boothook,
    /// `#include`: addresses of documents.
    Include,
    /// `#include-once`: the same, fetched once an instance.
    IncludeOnce,
    /// `#part-handler`: Python for other kinds.
    PartHandler,
    /// `## template: jinja`: a document once variables are filled in.
    Template,
    /// `#compose`: services (RancherOS).
    Compose,
}

/// First lines, in small letters; of two that fit the longer one counts.
const HEADERS: [(&str, Kind); 11] = [
    ("#cloud-config-archive", Kind::Archive),
    ("#cloud-config-jsonp", Kind::Patch),
    ("#cloud-config", Kind::CloudConfig),
    ("#cloud-boothook", Kind::Boothook),
    ("#include-once", Kind::IncludeOnce),
    ("#include", Kind::Include),
    ("#part-handler", Kind::PartHandler),
    ("## template: jinja", Kind::Template),
    ("## template:jinja", Kind::Template),
    ("#compose", Kind::Compose),
    ("#!", Kind::Script),
];

const CONTENT_TYPES: [(&str, Kind); 12] = [
    ("text/cloud-config", Kind::CloudConfig),
    ("text/cloud-config-archive", Kind::Archive),
    ("text/cloud-config-jsonp", Kind::Patch),
    ("text/x-shellscript", Kind::Script),
    ("text/x-shellscript-per-boot", Kind::ScriptPerBoot),
    ("text/x-shellscript-per-instance", Kind::ScriptPerInstance),
    ("text/x-shellscript-per-once", Kind::ScriptPerOnce),
    ("text/cloud-boothook", Kind::Boothook),
    ("text/x-include-url", Kind::Include),
    ("text/x-include-once-url", Kind::IncludeOnce),
    ("text/part-handler", Kind::PartHandler),
    ("text/jinja2", Kind::Template),
];

impl Kind {
    /// By the first line, after white space and a byte order mark.
    pub fn of(content: &[u8]) -> Option<Kind> {
        let start = start_of(content);
        let longest = HEADERS.map(|(header, _)| header.len()).into_iter().max()?;
        let start = start.get(..longest).unwrap_or(start).to_ascii_lowercase();
        let mut fitting = HEADERS.iter();
        fitting
            .find(|(header, _)| start.starts_with(header.as_bytes()))
            .map(|(_, kind)| *kind)
    }

    /// By the content type of a MIME part or an archive's item.
    pub fn of_content_type(name: &str) -> Option<Kind> {
        let mut known = CONTENT_TYPES.iter();
        known
            .find(|(other, _)| name.eq_ignore_ascii_case(other))
            .map(|(_, kind)| *kind)
    }

    /// The content type it has in cloud-init.
    pub fn content_type(self) -> Option<&'static str> {
        let mut known = CONTENT_TYPES.iter();
        known.find(|(_, kind)| *kind == self).map(|(name, _)| *name)
    }
}

/// Without white space and a byte order mark in front.
pub(super) fn start_of(content: &[u8]) -> &[u8] {
    let content = content.strip_prefix(b"\xef\xbb\xbf").unwrap_or(content);
    content.trim_ascii_start()
}

/// Whether it is a MIME message: it says so within its first 4096 bytes, as in cloud-init.
pub(super) fn is_mime(content: &[u8]) -> bool {
    const WORD: &[u8] = b"mime-version:";
    let start = content.get(..4096).unwrap_or(content);
    start
        .windows(WORD.len())
        .any(|window| window.eq_ignore_ascii_case(WORD))
}

/// Says what an unrecognised document might be.
pub(super) fn unrecognised(text: &str) -> String {
    let first_line = text.lines().next().unwrap_or_default().trim_end();
    let start: String = text
        .chars()
        .take(4096)
        .collect::<String>()
        .to_ascii_lowercase();
    let what = if start.starts_with('{') && start.contains("ignition") {
        "this is an Ignition config, for another system; write a #cloud-config".to_owned()
    } else if start.lines().any(|line| line.starts_with("variant:")) {
        "this is a Butane config, for another system; write a #cloud-config".to_owned()
    } else if text.lines().any(|line| line.trim_end() == "#cloud-config") {
        "`#cloud-config` must be the first line".to_owned()
    } else if first_line.len() <= 40
        && nearest(&first_line.replace(' ', ""), ["#cloud-config"]).is_some()
    {
        format!("the first line must be `#cloud-config`, not `{first_line}`")
    } else if is_base64(text) {
        "this looks like base64; give the text itself".to_owned()
    } else {
        "the first line must be `#cloud-config`, or `#!` and an interpreter".to_owned()
    };
    format!("{what}; nothing of it is applied")
}

fn is_base64(text: &str) -> bool {
    let words: String = text.split_whitespace().collect();
    words.len() >= 16
        && words
            .trim_end_matches('=')
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || matches!(letter, '+' | '/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kind_is_known_by_its_first_line() {
        for (text, kind) in [
            ("#cloud-config\n", Some(Kind::CloudConfig)),
            ("\u{feff}\n #Cloud-Config-Archive\n", Some(Kind::Archive)),
            ("#include-once http://x", Some(Kind::IncludeOnce)),
            ("#!/bin/sh", Some(Kind::Script)),
            ("# cloud-config", None),
            ("", None),
        ] {
            assert_eq!(Kind::of(text.as_bytes()), kind, "{text}");
        }
    }

    #[test]
    fn what_is_not_understood_gets_a_hint() {
        for (text, hint) in [
            ("variant: fcos\n", "Butane"),
            ("{\"ignition\": {}}", "Ignition"),
            ("# cloud-config\nusers:\n", "not `# cloud-config`"),
            ("# mine\n#cloud-config\n", "must be the first line"),
            ("I2Nsb3VkLWNvbmZpZwpob3N0bmFtZTogYQo=\n", "base64"),
        ] {
            assert!(unrecognised(text).contains(hint), "{text}");
        }
    }
}
