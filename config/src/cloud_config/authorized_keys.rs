//! Lists of SSH public keys.

use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Node, Value};

/// Lines of an `authorized_keys` file: text (its lines), a list, or a mapping whose values count.
pub(crate) fn authorized_keys(
    what: &str,
    node: &Node,
    diagnostics: &mut Diagnostics,
) -> Vec<String> {
    let texts = match &node.value {
        Value::Mapping(entries) => entries
            .iter()
            .flat_map(|(_, node)| yaml::strings(what, node, diagnostics))
            .collect(),
        _ => yaml::strings(what, node, diagnostics),
    };
    let mut keys: Vec<String> = Vec::new();
    for line in texts.iter().flat_map(|text| text.lines()).map(str::trim) {
        if line.is_empty() || line.starts_with('#') || keys.iter().any(|key| key == line) {
            continue;
        }
        if line.contains('\0') || !line.contains(char::is_whitespace) {
            let shown: String = line.chars().filter(|c| !c.is_control()).take(30).collect();
            diagnostics.error(
                node.position,
                format!(
                    "{what}: `{shown}` is no line of a key (type, then base64); it is left out"
                ),
            );
            continue;
        }
        keys.push(line.to_owned());
    }
    keys
}
