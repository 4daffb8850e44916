//! From text to nodes, within limits: size, depth, and what aliases may multiply.

use std::collections::{HashMap, HashSet};

use saphyr_parser::{Event, Marker, Parser, ScalarStyle, ScanError, Tag};

use super::{Key, Node, Scalar, Value};
use crate::diagnostic::{Diagnostics, Position, Source};

/// How deeply collections may be nested.
pub const MAX_DEPTH: usize = 64;
/// How many nodes a document may have, those that aliases repeat included.
pub const MAX_NODES: usize = 100_000;
/// How much text the scalars may hold, that which aliases repeat included.
const MAX_TEXT_BYTES: usize = 4 * crate::MAX_DOCUMENT_BYTES;

/// Why a text is not YAML, or is more than this reader takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where.
    pub position: Position,
    /// What is wrong.
    pub message: String,
}

/// A document that could be read.
#[derive(Clone, Debug)]
pub struct Parsed {
    /// Its root; null for an empty document.
    pub root: Node,
    /// Keys that stand twice in one mapping: the earlier one, which is overridden.
    pub overridden: Vec<Key>,
    /// Where a second document begins, when there is one; it is not read.
    pub second_document: Option<Position>,
}

impl Parsed {
    /// Warns of what YAML allows and people do not mean.
    pub fn report(&self, diagnostics: &mut Diagnostics) {
        for key in &self.overridden {
            diagnostics.warning(
                key.position,
                format!(
                    "`{}` stands here and again below; only the last one counts",
                    key.text
                ),
            );
        }
        if let Some(position) = self.second_document {
            diagnostics.warning(
                position,
                "a second YAML document begins here; it is ignored",
            );
        }
    }
}

/// Reads the first document of `text`.
///
/// # Errors
/// The first place at which the text is not YAML, or exceeds [`MAX_DEPTH`] or [`MAX_NODES`].
pub fn parse(text: &str) -> Result<Parsed, SyntaxError> {
    parse_source(text, 0)
}

/// The same, for the document with this number.
///
/// # Errors
/// As [`parse`].
pub fn parse_source(text: &str, source: Source) -> Result<Parsed, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut parser = Parser::new_from_str(text);
    let mut builder = Builder::default();
    let mut second_document = None;
    while let Some(next) = parser.next_event() {
        let (event, span) = next.map_err(|error| syntax_error(&error, text, source))?;
        let at = position(&span.start, source);
        match event {
            Event::DocumentStart(_) if builder.root.is_some() => {
                second_document = Some(at);
                break;
            }
            Event::StreamEnd => break,
            event => builder.take(event, at)?,
        }
    }
    let root = builder
        .root
        .unwrap_or_else(|| null(Position::start_of(source)));
    Ok(Parsed {
        root,
        overridden: builder.overridden,
        second_document,
    })
}

fn syntax_error(error: &ScanError, text: &str, source: Source) -> SyntaxError {
    let mut at = position(error.marker(), source);
    if error.info().contains("tab") {
        // The scanner names where the value began that the tab interrupts; the tab itself is what must be changed.
        let indentation = |line: &str| {
            line.find(|c: char| c != ' ' && c != '\t')
                .unwrap_or(line.len())
        };
        let tabs = text.lines().enumerate().skip(at.line - 1);
        let mut tabs = tabs
            .filter_map(|(index, line)| Some((index, line.get(..indentation(line))?.find('\t')?)));
        if let Some((index, column)) = tabs.next() {
            at = Position {
                source,
                line: index + 1,
                column: column + 1,
            };
        }
    }
    SyntaxError {
        position: at,
        message: error.info().to_owned(),
    }
}

fn position(marker: &Marker, source: Source) -> Position {
    Position {
        source,
        line: marker.line().max(1),
        column: marker.col() + 1,
    }
}

fn null(position: Position) -> Node {
    Node {
        position,
        value: Value::Scalar(Scalar {
            text: String::new(),
            plain: true,
            binary: false,
        }),
    }
}

/// A collection that is not closed yet.
struct Open {
    position: Position,
    anchor: usize,
    kind: OpenKind,
    cost: Cost,
}

enum OpenKind {
    Sequence(Vec<Node>),
    Mapping {
        entries: Vec<(Key, Node)>,
        merges: Vec<Node>,
        key: Option<(Key, bool)>,
    },
}

/// What a node weighs, with all below it.
#[derive(Clone, Copy, Default)]
struct Cost {
    nodes: usize,
    bytes: usize,
}

/// Builds the tree from events without recursion, so that no input can exhaust the stack.
#[derive(Default)]
struct Builder {
    open: Vec<Open>,
    anchors: HashMap<usize, (Node, Cost)>,
    spent: Cost,
    root: Option<Node>,
    overridden: Vec<Key>,
}

impl Builder {
    fn take(&mut self, event: Event<'_>, at: Position) -> Result<(), SyntaxError> {
        match event {
            Event::Scalar(text, style, anchor, tag) => {
                let cost = Cost {
                    nodes: 1,
                    bytes: text.len(),
                };
                let forced_text = tag.as_deref().is_some_and(|tag| is_tag(tag, "str"));
                let scalar = Scalar {
                    plain: style == ScalarStyle::Plain && !forced_text,
                    binary: tag.as_deref().is_some_and(|tag| is_tag(tag, "binary")),
                    text: text.into_owned(),
                };
                self.spend(cost, at)?;
                self.place(
                    Node {
                        position: at,
                        value: Value::Scalar(scalar),
                    },
                    anchor,
                    cost,
                )
            }
            Event::SequenceStart(anchor, _) => {
                self.open(at, anchor, OpenKind::Sequence(Vec::new()))
            }
            Event::MappingStart(anchor, _) => self.open(
                at,
                anchor,
                OpenKind::Mapping {
                    entries: Vec::new(),
                    merges: Vec::new(),
                    key: None,
                },
            ),
            Event::SequenceEnd | Event::MappingEnd => self.close(),
            Event::Alias(anchor) => {
                let Some((node, cost)) = self.anchors.get(&anchor).cloned() else {
                    return Err(SyntaxError {
                        position: at,
                        message: "an alias to something that contains it".to_owned(),
                    });
                };
                self.spend(cost, at)?;
                self.place(
                    Node {
                        position: at,
                        ..node
                    },
                    0,
                    cost,
                )
            }
            _ => Ok(()),
        }
    }

    fn spend(&mut self, cost: Cost, at: Position) -> Result<(), SyntaxError> {
        self.spent.nodes = self.spent.nodes.saturating_add(cost.nodes);
        self.spent.bytes = self.spent.bytes.saturating_add(cost.bytes);
        if self.spent.nodes > MAX_NODES || self.spent.bytes > MAX_TEXT_BYTES {
            let message =
                format!("too large: more than {MAX_NODES} values, or aliases that repeat too much");
            return Err(SyntaxError {
                position: at,
                message,
            });
        }
        Ok(())
    }

    fn open(
        &mut self,
        position: Position,
        anchor: usize,
        kind: OpenKind,
    ) -> Result<(), SyntaxError> {
        if self.open.len() >= MAX_DEPTH {
            return Err(SyntaxError {
                position,
                message: format!("nested more than {MAX_DEPTH} levels deep"),
            });
        }
        let cost = Cost { nodes: 1, bytes: 0 };
        self.spend(cost, position)?;
        self.open.push(Open {
            position,
            anchor,
            kind,
            cost,
        });
        Ok(())
    }

    fn close(&mut self) -> Result<(), SyntaxError> {
        let Some(Open {
            position,
            anchor,
            kind,
            cost,
        }) = self.open.pop()
        else {
            return Ok(());
        };
        let value = match kind {
            OpenKind::Sequence(items) => Value::Sequence(items),
            OpenKind::Mapping {
                entries, merges, ..
            } => {
                let mut entries = self.last_of_each(entries);
                if !merges.is_empty() {
                    let mut names: HashSet<String> =
                        entries.iter().map(|(key, _)| key.text.clone()).collect();
                    merges
                        .into_iter()
                        .for_each(|node| merge(&mut entries, &mut names, node));
                }
                Value::Mapping(entries)
            }
        };
        self.place(Node { position, value }, anchor, cost)
    }

    /// Of keys that stand more than once, only the last; the others are noted.
    fn last_of_each(&mut self, mut entries: Vec<(Key, Node)>) -> Vec<(Key, Node)> {
        let mut seen = HashSet::new();
        let mut kept = Vec::with_capacity(entries.len());
        while let Some((key, node)) = entries.pop() {
            if seen.insert(key.text.clone()) {
                kept.push((key, node));
            } else {
                self.overridden.push(key);
            }
        }
        kept.reverse();
        kept
    }

    /// Puts a finished node where it belongs: into the innermost open collection, or at the root.
    fn place(&mut self, node: Node, anchor: usize, cost: Cost) -> Result<(), SyntaxError> {
        if anchor > 0 {
            self.anchors.insert(anchor, (node.clone(), cost));
        }
        let Some(parent) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        parent.cost.nodes = parent.cost.nodes.saturating_add(cost.nodes);
        parent.cost.bytes = parent.cost.bytes.saturating_add(cost.bytes);
        match &mut parent.kind {
            OpenKind::Sequence(items) => items.push(node),
            OpenKind::Mapping {
                entries,
                merges,
                key,
            } => match key.take() {
                None => *key = Some(as_key(node)?),
                Some((_, true)) => merges.push(node),
                Some((key, false)) => entries.push((key, node)),
            },
        }
        Ok(())
    }
}

/// A node as a key, and whether it is the merge key `<<`.
fn as_key(node: Node) -> Result<(Key, bool), SyntaxError> {
    match node.value {
        Value::Scalar(scalar) => {
            let is_merge = scalar.plain && scalar.text == "<<";
            Ok((
                Key {
                    text: scalar.text,
                    position: node.position,
                },
                is_merge,
            ))
        }
        _ => Err(SyntaxError {
            position: node.position,
            message: format!(
                "{} cannot be a key (text with braces or brackets needs quotes)",
                node.kind()
            ),
        }),
    }
}

/// Adds what `node` (a mapping or a list of mappings) has and `entries` lacks (<https://yaml.org/type/merge.html>).
fn merge(entries: &mut Vec<(Key, Node)>, names: &mut HashSet<String>, node: Node) {
    match node.value {
        Value::Mapping(others) => {
            for (key, value) in others {
                if names.insert(key.text.clone()) {
                    entries.push((key, value));
                }
            }
        }
        Value::Sequence(nodes) => nodes
            .into_iter()
            .for_each(|node| merge(entries, names, node)),
        Value::Scalar(_) => {}
    }
}

fn is_tag(tag: &Tag, name: &str) -> bool {
    tag.is_yaml_core_schema() && tag.suffix == name
}

#[cfg(test)]
mod tests;
