//! `runcmd`: a list of shell lines and argument lists.

use crate::diagnostic::Diagnostics;
use crate::shell::Command;
use crate::yaml::{self, Node, Scalar, Shape, Value};
use serde_json::{Value as Json, json};

/// `runcmd`, `bootcmd`
pub(super) const COMMANDS: Shape = Shape::List(&Shape::AnyOf(&[
    Shape::Schema(line),
    Shape::List(&Shape::Text),
]));

/// A line for a shell; a number is none.
fn line() -> Json {
    json!({"type": ["string", "number", "boolean", "null"], "not": {"type": "integer"}})
}

/// The commands in `node`. One that cannot be understood costs all of them, as in cloud-init: the lines after it may rely on it.
pub(super) fn parse(what: &str, node: &Node, diagnostics: &mut Diagnostics) -> Vec<Command> {
    let Some(items) = yaml::list(what, node, diagnostics) else {
        return Vec::new();
    };
    yaml::warn_of_nothing(what, node, diagnostics);
    let mut commands = Vec::new();
    let mut understood = true;
    for item in items {
        match &item.value {
            Value::Scalar(scalar) if scalar.is_null() => {}
            Value::Scalar(scalar) if is_text(scalar) => {
                commands.push(Command::Line(scalar.text.clone()))
            }
            Value::Sequence(arguments) => match arguments.iter().map(argument).collect() {
                Some(arguments) => commands.push(Command::Arguments(arguments)),
                None => {
                    let message =
                        format!("{what}: arguments must be text; no command of the list is run");
                    diagnostics.error(item.position, message);
                    understood = false;
                }
            },
            _ => {
                let hint = match item.value {
                    Value::Mapping(_) => " (a line with `: ` in it needs quotes)",
                    _ => "",
                };
                let message = format!(
                    "{what}: expected a line or a list of arguments, found {}{hint}; no command of the list is run",
                    item.kind()
                );
                diagnostics.error(item.position, message);
                understood = false;
            }
        }
    }
    if understood { commands } else { Vec::new() }
}

fn is_text(scalar: &Scalar) -> bool {
    scalar.as_integer().is_none()
}

fn argument(node: &Node) -> Option<String> {
    match &node.value {
        Value::Scalar(scalar) => Some(scalar.text.clone()),
        _ => None,
    }
}
