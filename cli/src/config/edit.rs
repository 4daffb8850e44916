//! `set`, `unset` and `merge`: the layer that they write.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use keelson_config::instance::{CONFIG_DIRECTORY, SET_FILE};
use keelson_config::network::Network;
use keelson_config::user_data::Include;
use keelson_config::yaml::merge::overlay;
use keelson_config::yaml::{self, Key, Node, Value};
use keelson_config::{CloudConfig, DataSource, Diagnostics, MAX_DOCUMENT_BYTES, Position, layers};
use keelson_first_boot::stored;
use keelson_sys::durable::{Access, Tree};

use super::{unreadable, validate};
use crate::failure::Failure;
use crate::output::Output;

/// It may hold secrets.
const ACCESS: Access = Access::root(0o600);
const HEADER: &str = "# Written by `keelson config`; it counts more than user-data.\n";

/// The parts of `a.b."c.d"`.
pub(super) fn parts(key: &str) -> Vec<String> {
    let mut parts = vec![String::new()];
    let mut quoted = false;
    for letter in key.chars() {
        match letter {
            '"' => quoted = !quoted,
            '.' if !quoted => parts.push(String::new()),
            letter => {
                if let Some(last) = parts.last_mut() {
                    last.push(letter);
                }
            }
        }
    }
    parts
}

/// Sets a key to a value, which is YAML.
pub(super) fn set(key: &str, value: &str, output: &mut Output<'_>) -> Result<(), Failure> {
    let parts = parts(key);
    if parts.iter().any(String::is_empty) {
        return Err(Failure::Usage(format!("`{key}` is no key, as a.b.c")));
    }
    let value = yaml::parse(value).map_err(|error| {
        Failure::Usage(format!("the value is not valid YAML: {}", error.message))
    })?;
    let node = below(&parts, value.root);
    check(&node, output)?;
    change(|layer| match layer {
        Some(layer) => Some(overlay(layer, node)),
        None => Some(node),
    })
}

/// `value` as that of a key.
fn below(parts: &[String], value: Node) -> Node {
    parts.iter().rev().fold(value, |node, part| {
        let position = Position::new(1, 1);
        let key = Key {
            text: part.clone(),
            position,
        };
        Node {
            position,
            value: Value::Mapping(vec![(key, node)]),
        }
    })
}

/// A layer with `value` as that of a key, and nothing of what it was before.
fn with(layer: Option<Node>, parts: &[String], value: Node) -> Node {
    let node = below(parts, value);
    match layer {
        Some(mut layer) => {
            remove(&mut layer, parts);
            overlay(layer, node)
        }
        None => node,
    }
}

/// Sets a key to a value, in place of what was set before.
pub(crate) fn replace(key: &str, value: Node) -> Result<(), Failure> {
    change(|layer| Some(with(layer, &parts(key), value)))
}

/// The network that would hold with `value` as that of a key.
pub(crate) fn network_with(key: &str, value: Node) -> Result<Option<Network>, Failure> {
    let config = Tree::open(Path::new(CONFIG_DIRECTORY))
        .map_err(|error| unreadable(CONFIG_DIRECTORY, &error))?;
    let source = stored::kept(&config)
        .map_err(|error| unreadable("the data source's last words", &error))?;
    let text = text_of(&with(layer(&config)?, &parts(key), value));
    let command_line = fs::read_to_string("/proc/cmdline").unwrap_or_default();
    let source = source.unwrap_or_default();
    let mut inputs = stored::inputs(&config, source, &command_line, &mut |_| ());
    inputs.set = Some((SET_FILE.to_owned(), text.into_bytes()));
    let mut fetch = |include: Include<'_>| stored::included(&config, include.url);
    // What is wrong with other layers is not about this one.
    let mut others = Diagnostics::new("");
    let assembled = layers::assemble(&inputs, &mut fetch, &mut others);
    let whole = assembled
        .root
        .and_then(|root| CloudConfig::from_node(&root, &mut others));
    Ok(whole.and_then(|whole| whole.network_with(&inputs.source)))
}

/// Takes a key out of the layer.
pub(super) fn unset(key: &str) -> Result<(), Failure> {
    let parts = parts(key);
    let mut found = false;
    change(|layer| {
        let mut layer = layer?;
        found = remove(&mut layer, &parts);
        Some(layer)
    })?;
    match found {
        true => Ok(()),
        false => Err(Failure::Failed(format!(
            "`{key}` was not set by `keelson config set`"
        ))),
    }
}

fn remove(node: &mut Node, parts: &[String]) -> bool {
    let (Some((part, rest)), Value::Mapping(entries)) = (parts.split_first(), &mut node.value)
    else {
        return false;
    };
    let Some(place) = entries.iter().position(|(key, _)| key.text == *part) else {
        return false;
    };
    if rest.is_empty() {
        entries.remove(place);
        return true;
    }
    let Some((_, below)) = entries.get_mut(place) else {
        return false;
    };
    let removed = remove(below, rest);
    if removed && matches!(&below.value, Value::Mapping(entries) if entries.is_empty()) {
        entries.remove(place);
    }
    removed
}

/// Adds a whole document; `-` is standard input.
pub(super) fn merge(file: &Path, output: &mut Output<'_>) -> Result<(), Failure> {
    let bytes = read(file)?;
    let mut diagnostics = Diagnostics::new("");
    let node = layers::parse(&bytes, &file.display().to_string(), &mut diagnostics);
    let Some(node) = node else {
        return validate::report(diagnostics.into_sorted(), output);
    };
    check(&node, output)?;
    change(|layer| match layer {
        Some(layer) => Some(overlay(layer, node)),
        None => Some(node),
    })
}

/// A document; `-` is standard input.
pub(crate) fn read(file: &Path) -> Result<Vec<u8>, Failure> {
    let failed = |error: io::Error| Failure::Failed(format!("read {}: {error}", file.display()));
    if file != Path::new("-") {
        return fs::read(file).map_err(failed);
    }
    let mut bytes = Vec::new();
    let limit = MAX_DOCUMENT_BYTES as u64 + 1;
    io::stdin()
        .lock()
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    Ok(bytes)
}

/// Says what is wrong with what is to be set; an error keeps it from being set.
fn check(node: &Node, output: &mut Output<'_>) -> Result<(), Failure> {
    let mut diagnostics = Diagnostics::new("the new settings");
    let _ = CloudConfig::from_node(node, &mut diagnostics);
    validate::report(diagnostics.into_sorted(), output)
}

/// The layer as it is.
fn layer(config: &Tree) -> Result<Option<Node>, Failure> {
    let found = config
        .read(Path::new(SET_FILE), MAX_DOCUMENT_BYTES as u64)
        .map_err(|error| unreadable(SET_FILE, &error))?;
    let mut diagnostics = Diagnostics::new("");
    let layer = found
        .as_deref()
        .and_then(|bytes| layers::parse(bytes, SET_FILE, &mut diagnostics));
    if diagnostics.has_errors() {
        let first = diagnostics.into_sorted().into_iter().next();
        let message = first.map(|first| first.to_string()).unwrap_or_default();
        return Err(Failure::Failed(format!(
            "{CONFIG_DIRECTORY}/{message}; correct it first"
        )));
    }
    Ok(layer)
}

fn text_of(layer: &Node) -> String {
    format!("{HEADER}{}", yaml::write(layer))
}

/// Changes the layer, durably and as a whole.
fn change(change: impl FnOnce(Option<Node>) -> Option<Node>) -> Result<(), Failure> {
    let config = Tree::open(Path::new(CONFIG_DIRECTORY))
        .map_err(|error| unreadable(CONFIG_DIRECTORY, &error))?;
    let text = match change(layer(&config)?) {
        Some(node) => text_of(&node),
        None => HEADER.to_owned(),
    };
    let written = config.write(Path::new(SET_FILE), text.as_bytes(), ACCESS);
    written.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::PermissionDenied => " (use sudo)",
            _ => "",
        };
        Failure::Failed(format!(
            "write {CONFIG_DIRECTORY}/{SET_FILE}: {error}{hint}"
        ))
    })
}

/// What the user says, in user-data and with `set`.
pub(super) fn user_layers() -> Result<Option<Node>, Failure> {
    let directory = Path::new(CONFIG_DIRECTORY);
    let config = Tree::open(directory).map_err(|error| unreadable(CONFIG_DIRECTORY, &error))?;
    let source = stored::kept(&config)
        .map_err(|error| unreadable("the data source's last words", &error))?;
    let source = source.unwrap_or_else(DataSource::default);
    let source = DataSource {
        vendor_data: Vec::new(),
        ..source
    };
    let mut inputs = stored::inputs(&config, source, "", &mut |_| ());
    inputs
        .files
        .retain(|(name, _)| name.starts_with(CONFIG_DIRECTORY));
    let mut fetch = |include: Include<'_>| stored::included(&config, include.url);
    Ok(layers::assemble(&inputs, &mut fetch, &mut Diagnostics::new("")).root)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dots_part_keys_unless_they_stand_in_quotes() {
        assert_eq!(parts("a.b"), ["a", "b"]);
        assert_eq!(
            parts("keelson.sysctl.\"vm.swappiness\""),
            ["keelson", "sysctl", "vm.swappiness"]
        );
    }

    #[test]
    fn what_is_unset_leaves_no_empty_mapping() {
        let mut root = yaml::parse("a: {b: {c: 1}}\nd: 2\n").unwrap().root;
        assert!(remove(&mut root, &parts("a.b.c")));
        assert!(!remove(&mut root, &parts("x.y")));
        assert_eq!(yaml::write(&root), "d: 2\n");
    }
}
