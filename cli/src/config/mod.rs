//! `keelson config`: the machine's configuration, layer by layer.
//!
//! - [`validate`]: what is wrong with a document
//! - [`edit`]: `set`, `unset`, `merge`
//! - [`secrets`]: what is left out of what is shown

mod edit;
mod secrets;
mod validate;

use std::fs;
use std::io;
use std::path::Path;

use keelson_config::instance::CONFIG_DIRECTORY;
use keelson_config::layers::{self, Assembled};
use keelson_config::user_data::Include;
use keelson_config::yaml::{self, Node, Value};
use keelson_config::{DataSource, Diagnostic, Diagnostics, schema};
use keelson_first_boot::stored;
use keelson_sys::durable::Tree;

use crate::arguments::{Config, Service};
use crate::failure::Failure;
use crate::output::Output;

pub(crate) use edit::{network_with, read, replace};
pub(crate) use validate::report;

/// The service that applies the configuration.
const APPLIES: &str = "first-boot";

/// Runs one of the commands.
pub(crate) fn run(command: Config, output: &mut Output<'_>) -> Result<(), Failure> {
    match command {
        Config::Get { key } => get(key.as_deref(), output),
        Config::Export { full, secrets } => export(full, secrets, output),
        Config::Validate { file, network } => validate::run(&file, network, output),
        Config::Schema { network } => output.value(&match network {
            true => schema::network_config(),
            false => schema::cloud_config(),
        }),
        Config::Set { key, value, apply } => {
            edit::set(&key, &value, output)?;
            finish(apply, output)
        }
        Config::Unset { key, apply } => {
            edit::unset(&key)?;
            finish(apply, output)
        }
        Config::Merge { file, apply } => {
            edit::merge(&file, output)?;
            finish(apply, output)
        }
        Config::Apply => crate::service::run(
            Service::Restart {
                names: vec![APPLIES.to_owned()],
            },
            output,
        ),
    }
}

fn finish(apply: bool, output: &mut Output<'_>) -> Result<(), Failure> {
    match apply {
        true => run(Config::Apply, output),
        false if output.json => Ok(()),
        false => {
            output.text("Applied at the next start of the machine, or by `keelson config apply`.\n")
        }
    }
}

/// All layers, with what is wrong with them.
fn assemble() -> Result<(Assembled, Vec<Diagnostic>), Failure> {
    let config = Tree::open(Path::new(CONFIG_DIRECTORY))
        .map_err(|error| unreadable(CONFIG_DIRECTORY, &error))?;
    let source = stored::kept(&config)
        .map_err(|error| unreadable("the data source's last words", &error))?;
    let mut diagnostics = Diagnostics::new("");
    let mut problems = Vec::new();
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let inputs = stored::inputs(
        &config,
        source.unwrap_or_else(DataSource::default),
        &command_line,
        &mut |problem| problems.push(problem),
    );
    if let Some(problem) = problems.into_iter().next() {
        return Err(Failure::Failed(problem));
    }
    let mut fetch = |include: Include<'_>| stored::included(&config, include.url);
    let assembled = layers::assemble(&inputs, &mut fetch, &mut diagnostics);
    Ok((assembled, diagnostics.into_sorted()))
}

pub(crate) fn unreadable(what: &str, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        io::ErrorKind::PermissionDenied => " (it may hold secrets: use sudo)",
        io::ErrorKind::NotFound => " (is this a Keelson system?)",
        _ => "",
    };
    Failure::Failed(format!("read {what}: {error}{hint}"))
}

/// The value of a key in all layers; everything without one.
fn get(key: Option<&str>, output: &mut Output<'_>) -> Result<(), Failure> {
    let (assembled, _) = assemble()?;
    let Some(root) = assembled.root else {
        return show(None, output);
    };
    let Some(key) = key else {
        return show(Some(&root), output);
    };
    let found = find(&root, key);
    if found.is_none() {
        let known = match &root.value {
            Value::Mapping(entries) => entries.as_slice(),
            _ => &[],
        };
        let known = known.iter().map(|(key, _)| key.text.as_str());
        return Err(Failure::unknown("key", key, known));
    }
    show(found, output)
}

/// The node at `a.b.c`; parts of a list by their number.
fn find<'n>(root: &'n Node, key: &str) -> Option<&'n Node> {
    let mut node = root;
    for part in edit::parts(key) {
        node = match &node.value {
            Value::Mapping(entries) => {
                let found = entries.iter().find(|(key, _)| key.text == part);
                found.map(|(_, node)| node)?
            }
            Value::Sequence(items) => items.get(part.parse::<usize>().ok()?)?,
            Value::Scalar(_) => return None,
        };
    }
    Some(node)
}

fn show(node: Option<&Node>, output: &mut Output<'_>) -> Result<(), Failure> {
    if output.json {
        let json = node.map_or(serde_json::Value::Null, yaml::to_json);
        return output.value(&json);
    }
    let text = node.map(yaml::write).unwrap_or_default();
    // A text alone stands without quotes.
    match node.map(|node| &node.value) {
        Some(Value::Scalar(scalar)) => output.text(&format!("{}\n", scalar.text)),
        _ => output.text(&text),
    }
}

/// What the user and `set` say; all layers with `full`.
fn export(full: bool, with_secrets: bool, output: &mut Output<'_>) -> Result<(), Failure> {
    let root = match full {
        true => assemble()?.0.root,
        false => edit::user_layers()?,
    };
    let root = root.map(|root| match with_secrets {
        true => root,
        false => secrets::left_out(root),
    });
    if !output.json {
        output.text("#cloud-config\n")?;
    }
    show(root.as_ref(), output)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_schemas_of_both_kinds_of_documents_are_json() {
        for (network, key) in [(false, "hostname"), (true, "network")] {
            let mut written = Vec::new();
            let mut output = Output::to(&mut written, false);
            run(Config::Schema { network }, &mut output).unwrap();
            drop(output);
            let schema: serde_json::Value = serde_json::from_slice(&written).unwrap();
            assert!(schema["properties"][key].is_object(), "{key}");
        }
    }

    #[test]
    fn keys_lead_through_mappings_and_lists() {
        let root = yaml::parse("a: {b: [x, {c: 5}]}\n\"d.e\": 1\n")
            .unwrap()
            .root;
        let text = |key: &str| find(&root, key).map(yaml::to_json);
        assert_eq!(text("a.b.1.c"), Some(5.into()));
        assert_eq!(text("a.b.0"), Some("x".into()));
        assert_eq!(text("\"d.e\""), Some(1.into()));
        assert_eq!(text("a.x"), None);
    }
}
