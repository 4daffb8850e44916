//! A YAML 1.1 tree whose nodes know their position.
//!
//! Cloud-config is YAML 1.1 (`yes` is true, `0644` is octal), and a message without a line helps nobody; so the tree keeps
//! each scalar as it was written and decides what it means only where a type is expected.
//!
//! - [`node`]: the nodes of the tree
//! - [`tree`]: from text to [`Node`]s, within limits
//! - [`scalar`]: what a scalar means in YAML 1.1
//! - [`write`]: and back to text
//! - [`json`]: as JSON values, and back
//! - [`merge`]: one tree over another
//! - [`table`]: what a mapping may hold
//! - [`typed`]: nodes as the types a setting wants, with a diagnostic when they are something else

mod json;
pub mod merge;
mod node;
mod scalar;
mod table;
mod tree;
mod typed;
mod write;

pub use json::{from_json, to_json};
pub use node::{Key, Node, Value};
pub use scalar::Scalar;
pub use table::{Setting, Shape, Table};
pub use tree::{MAX_DEPTH, MAX_NODES, Parsed, SyntaxError, parse, parse_source};
pub use typed::{
    Fields, boolean, integer, list, list_or_single, mapping, string, strings, warn_of_nothing,
};
pub use write::write;
