//! Scripts and boothooks.

use super::reader::{Document, Reader};
use super::{Script, When, format};

/// Names that other files beside scripts have.
const RESERVED: [&str; 5] = [
    "started",
    "finished",
    "runcmd",
    "rancher-services",
    "zz-final",
];

impl Reader<'_, '_> {
    fn named(&self, document: &Document, when: When, content: Vec<u8>) -> Script {
        let name = document.name.as_deref().map(file_name);
        Script {
            name: name.unwrap_or_else(|| format!("part-{:03}", self.parts)),
            when,
            content,
        }
    }

    pub(super) fn boothook(&mut self, document: &Document) {
        let mut content = document.content.clone();
        // The first line is the format's, unless it is the interpreter's.
        let header = b"#cloud-boothook";
        let start = format::start_of(&content);
        if start.to_ascii_lowercase().starts_with(header) {
            let rest = start.get(header.len()..).unwrap_or_default();
            content = format::start_of(rest).to_vec();
        }
        let script = self.named(document, When::Boot, without_returns(content));
        self.boothooks.push(script);
    }

    pub(super) fn script(&mut self, document: &Document, when: When) {
        let content = without_returns(format::start_of(&document.content).to_vec());
        let mut script = self.named(document, when, content);
        let mut others = self.scripts.iter();
        if others.any(|other| (other.when, &other.name) == (when, &script.name)) {
            script.name = format!("{}-{:03}", script.name, self.parts);
        }
        self.scripts.push(script);
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
