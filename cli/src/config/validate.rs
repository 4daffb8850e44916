//! `keelson config validate`: what is wrong with a document, all of it at once. It works on any machine.

use std::path::Path;

use keelson_config::user_data::{Context, Include};
use keelson_config::yaml::{self, Value};
use keelson_config::{CloudConfig, Diagnostic, Diagnostics, Severity, network, user_data};
use serde_json::json;

use super::edit;
use crate::failure::Failure;
use crate::output::Output;

/// Validates user-data of any kind, or a network-config.
pub(super) fn run(file: &Path, is_network: bool, output: &mut Output<'_>) -> Result<(), Failure> {
    let bytes = edit::read(file)?;
    let name = match file == Path::new("-") {
        true => "standard input".to_owned(),
        false => file.display().to_string(),
    };
    let mut diagnostics = Diagnostics::new("");
    match is_network || looks_like_network(&bytes) {
        true => validate_network(&bytes, &name, &mut diagnostics),
        false => validate_user_data(&bytes, &name, &mut diagnostics),
    }
    let messages = diagnostics.into_sorted();
    if messages.is_empty() && !output.json {
        return output.text(&format!("{name}: nothing is wrong\n"));
    }
    report(messages, output)
}

fn validate_user_data(bytes: &[u8], name: &str, diagnostics: &mut Diagnostics) {
    // What it includes is another document.
    let mut fetch = |_: Include<'_>| Ok(Vec::new());
    let mut context = Context {
        fetch: &mut fetch,
        instance: &serde_json::Value::Null,
    };
    let data = user_data::read(bytes, name, &mut context, diagnostics);
    if let Some(root) = data.config {
        let _ = CloudConfig::from_node(&root, diagnostics);
    }
}

fn validate_network(bytes: &[u8], name: &str, diagnostics: &mut Diagnostics) {
    let source = diagnostics.add_source(name);
    let text = String::from_utf8_lossy(bytes);
    match yaml::parse_source(&text, source) {
        Ok(parsed) => {
            parsed.report(diagnostics);
            let _ = network::parse(&parsed.root, diagnostics);
        }
        Err(error) => {
            diagnostics.error(error.position, format!("not valid YAML: {}", error.message))
        }
    }
}

/// Without a header, and with a version or an outer `network`.
fn looks_like_network(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(bytes);
    if user_data::Kind::of(bytes).is_some() {
        return false;
    }
    let Ok(parsed) = yaml::parse(&text) else {
        return false;
    };
    match &parsed.root.value {
        Value::Mapping(entries) => {
            let has = |name: &str| entries.iter().any(|(key, _)| key.text == name);
            has("network")
                || (has("version")
                    && (has("config")
                        || has("ethernets")
                        || has("bonds")
                        || has("bridges")
                        || has("vlans")))
        }
        _ => false,
    }
}

/// Shows messages; an error among them is a failure.
pub(crate) fn report(messages: Vec<Diagnostic>, output: &mut Output<'_>) -> Result<(), Failure> {
    let is_error = |message: &&Diagnostic| message.severity == Severity::Error;
    let errors = messages.iter().filter(is_error).count();
    if output.json {
        let list: Vec<_> = messages
            .iter()
            .map(|message| {
                let severity = match message.severity {
                    Severity::Error => "error",
                    Severity::Warning => "warning",
                };
                let place = message.position;
                json!({"severity": severity, "document": message.source, "line": place.map(|place| place.line),
                    "column": place.map(|place| place.column), "message": message.message})
            })
            .collect();
        output.value(&list)?;
    } else {
        for message in &messages {
            let word = match message.severity {
                Severity::Error => "error",
                Severity::Warning => "warning",
            };
            let (place, text) = match message.position {
                Some(place) => (
                    format!("{}:{}:{}", message.source, place.line, place.column),
                    &message.message,
                ),
                None => (message.source.clone(), &message.message),
            };
            output.text(&format!("{place}: {word}: {text}\n"))?;
        }
    }
    match errors {
        0 => Ok(()),
        1 => Err(Failure::Failed("there is an error".to_owned())),
        errors => Err(Failure::Failed(format!("there are {errors} errors"))),
    }
}
