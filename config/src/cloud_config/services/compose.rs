//! From the Compose files of RancherOS (version 1 of the format) to those of the Compose specification.

use crate::diagnostic::Diagnostics;
use crate::yaml::{Key, Node, Value};

const SCOPE: &str = "io.rancher.os.scope";

/// Keys that are called otherwise by now.
const RENAMED: [(&str, &str); 1] = [("net", "network_mode")];
/// Keys that are left out, and why.
const LEFT_OUT: [(&str, &str); 8] = [
    ("log_driver", "all output goes to the log service"),
    ("log_opt", "all output goes to the log service"),
    ("volumes_from", "name the directories under `volumes`"),
    (
        "links",
        "the engine's services do not find each other by name",
    ),
    (
        "external_links",
        "the engine's services do not find each other by name",
    ),
    ("build", "images are built elsewhere"),
    ("extends", "files do not refer to each other"),
    (
        "container_name",
        "a service's container has the name of the service",
    ),
];

/// Whether it belongs to RancherOS' system-docker.
pub(super) fn is_of_the_system(service: &Node) -> bool {
    let labels = super::entries(service)
        .iter()
        .find(|(key, _)| key.text == "labels");
    let scope = labels.and_then(|(_, labels)| label(labels, SCOPE));
    scope == Some("system")
}

/// The value of a label, from a list or a mapping.
fn label<'n>(labels: &'n Node, name: &str) -> Option<&'n str> {
    let text = |node: &'n Node| match &node.value {
        Value::Scalar(scalar) => Some(scalar.text.as_str()),
        _ => None,
    };
    match &labels.value {
        Value::Mapping(entries) => {
            let found = entries.iter().find(|(key, _)| key.text == name);
            found.and_then(|(_, value)| text(value))
        }
        Value::Sequence(items) => items.iter().filter_map(text).find_map(|item| {
            let (key, value) = item.split_once('=')?;
            (key == name).then_some(value)
        }),
        Value::Scalar(_) => None,
    }
}

/// The service with the keys that the engine knows. Others stay as they are: the engine says what is wrong with them.
pub(super) fn translate(what: &str, service: &Node, diagnostics: &mut Diagnostics) -> Node {
    let mut kept = Vec::new();
    for (key, value) in super::entries(service) {
        if let Some((_, why)) = LEFT_OUT.iter().find(|(name, _)| *name == key.text) {
            diagnostics.warning(
                key.position,
                format!("{what}.{}: left out: {why}", key.text),
            );
            continue;
        }
        let renamed = RENAMED.iter().find(|(old, _)| *old == key.text);
        let text = renamed.map_or(key.text.as_str(), |(_, new)| new).to_owned();
        kept.push((
            Key {
                text,
                ..key.clone()
            },
            value.clone(),
        ));
    }
    Node {
        value: Value::Mapping(kept),
        ..service.clone()
    }
}
