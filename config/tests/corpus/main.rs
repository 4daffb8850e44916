//! A corpus of public configurations, when `KEELSON_CORPUS` names one: no file of it makes the reader panic, and what
//! cloud-init was seen to make of them is what we make of them, but for the cases that each test lists with a reason.
//!
//! - [`cloud_config`]: files and what cloud-init did with them
//! - [`keys`]: users, SSH keys, commands, files: the shapes that their values take
//! - [`network`]: network configurations
//! - [`sources`]: data sources
//! - [`user_data`]: kinds of documents, messages, merging, templates

mod cloud_config;
mod keys;
mod network;
mod sources;
mod user_data;

use std::path::{Path, PathBuf};

use keelson_config::user_data::{Context, Missing};
use keelson_config::{Diagnostics, UserData};
use serde_json::Value;

/// The corpus; `None`, with a line that says so, when there is none.
fn corpus() -> Option<PathBuf> {
    let path = std::env::var_os("KEELSON_CORPUS").map(PathBuf::from);
    if path.is_none() {
        eprintln!("skipped: KEELSON_CORPUS is not set");
    }
    path
}

/// Cases of one of cloud-init's functions: its input, its result.
fn pairs(corpus: &Path, name: &str) -> Vec<Value> {
    let path = corpus.join("expected/pairs").join(name);
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

/// Bytes as the corpus writes them: text, `{__bytes_utf8__: text}` or `{__bytes_b64__: base64}`.
fn bytes(value: &Value) -> Vec<u8> {
    use base64::Engine as _;
    if let Some(text) = value.as_str().or_else(|| value["__bytes_utf8__"].as_str()) {
        return text.as_bytes().to_vec();
    }
    let packed = value["__bytes_b64__"].as_str().unwrap_or_default();
    base64::engine::general_purpose::STANDARD
        .decode(packed)
        .unwrap()
}

/// Reads user-data with nothing to be fetched and nothing known of the instance.
fn read(bytes: &[u8], diagnostics: &mut Diagnostics) -> UserData {
    let mut context = Context {
        fetch: &mut |_| Err(Missing::Refused("nothing is fetched".to_owned())),
        instance: &Value::Null,
    };
    keelson_config::user_data::read(bytes, "user-data", &mut context, diagnostics)
}

/// Fails with what differs, unless it is known with a reason.
fn check(what: &str, compared: usize, differing: &[(String, String)], known: &[(&str, &str)]) {
    println!("{what}: {compared} compared, {} differ", differing.len());
    let is_known = |name: &str| known.iter().any(|(known, _)| name.contains(known));
    let news: Vec<_> = differing
        .iter()
        .filter(|(name, _)| !is_known(name))
        .map(|(name, text)| format!("{}: {text}", name.chars().take(150).collect::<String>()))
        .collect();
    assert!(news.is_empty(), "{what}:\n{}", news.join("\n"));
    for (name, reason) in known {
        let seen = differing.iter().any(|(other, _)| other.contains(name));
        // It may stand in a part of the corpus that is not here.
        println!("{what}: {name}: {}", if seen { reason } else { &"not met" });
    }
}
