//! Messages about a document, each with its place.

use std::fmt;

/// Which of the documents that are read together: its place in the list of [`Diagnostics::add_source`], from 0.
pub type Source = u16;

/// A place in a document. Lines and columns count from 1; columns are characters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The document.
    pub source: Source,
    /// Line, from 1.
    pub line: usize,
    /// Column, from 1.
    pub column: usize,
}

impl Position {
    /// A place in the first document.
    pub const fn new(line: usize, column: usize) -> Self {
        Position {
            source: 0,
            line,
            column,
        }
    }

    /// The beginning of a document.
    pub const fn start_of(source: Source) -> Self {
        Position {
            source,
            line: 1,
            column: 1,
        }
    }
}

/// How many messages there are at most.
const MAX_DIAGNOSTICS: usize = 100;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something is not applied, or not as it was probably meant; everything else is.
    Warning,
    /// Something that was asked for could not be understood.
    Error,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// The document, as the user knows it: `user-data`, `meta-data`.
    pub source: String,
    /// Where, when the message is about one place.
    pub position: Option<Position>,
    /// What is wrong, and what to do about it.
    pub message: String,
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.source)?;
        if let Some(Position { line, column, .. }) = self.position {
            write!(f, ":{line}:{column}")?;
        }
        write!(f, ": {}", self.message)
    }
}

/// The messages about documents, in the order in which they were found.
#[derive(Clone, Debug)]
pub struct Diagnostics {
    sources: Vec<String>,
    list: Vec<(Source, Diagnostic)>,
}

impl Diagnostics {
    /// None yet, about the document that the user knows as `source`.
    pub fn new(source: &str) -> Self {
        Diagnostics {
            sources: vec![source.to_owned()],
            list: Vec::new(),
        }
    }

    /// Another document, by the name that the user knows it by. Messages without a position are about the one that was
    /// added last.
    pub fn add_source(&mut self, name: &str) -> Source {
        self.sources.push(name.to_owned());
        Source::try_from(self.sources.len() - 1).unwrap_or(Source::MAX)
    }

    /// Adds an error.
    pub fn error(&mut self, position: impl Into<Option<Position>>, message: impl Into<String>) {
        self.add(Severity::Error, position.into(), message.into());
    }

    /// Adds a warning.
    pub fn warning(&mut self, position: impl Into<Option<Position>>, message: impl Into<String>) {
        self.add(Severity::Warning, position.into(), message.into());
    }

    /// Whether there are so many that a reader is helped by no further one.
    pub fn is_full(&self) -> bool {
        self.list.len() >= MAX_DIAGNOSTICS
    }

    fn add(&mut self, severity: Severity, position: Option<Position>, message: String) {
        if self.is_full() {
            return;
        }
        let last = Source::try_from(self.sources.len().saturating_sub(1)).unwrap_or(Source::MAX);
        let source = position.map_or(last, |position| position.source);
        let name = self.sources.get(usize::from(source));
        let diagnostic = Diagnostic {
            severity,
            source: name.cloned().unwrap_or_default(),
            position,
            message,
        };
        self.list.push((source, diagnostic));
    }

    /// The names of the documents so far, by [`Position::source`].
    pub fn sources(&self) -> &[String] {
        &self.sources
    }

    /// Whether there is an error among them.
    pub fn has_errors(&self) -> bool {
        let mut all = self.list.iter();
        all.any(|(_, diagnostic)| diagnostic.severity == Severity::Error)
    }

    /// All messages, by their place in the documents.
    pub fn into_sorted(mut self) -> Vec<Diagnostic> {
        self.list
            .sort_by_key(|(source, diagnostic)| (*source, diagnostic.position));
        let list = self.list.into_iter();
        list.map(|(_, diagnostic)| diagnostic).collect()
    }
}

/// The name in `known` that `given` was probably meant to be, when there is one close enough.
///
/// Capitals, and hyphens for underscores, cost nothing.
pub fn nearest<'a>(given: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let plain = |text: &str| text.to_ascii_lowercase().replace('-', "_");
    let given = plain(given);
    let (distance, name) = known
        .into_iter()
        .map(|name| (strsim::osa_distance(&given, &plain(name)), name))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 1 + name.chars().count() / 5 && distance < name.chars().count()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_diagnostic_reads_as_file_line_column_message() {
        let mut diagnostics = Diagnostics::new("user-data");
        diagnostics.error(Position::new(3, 5), "expected text");
        diagnostics.warning(None, "empty");
        let shown: Vec<_> = diagnostics
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(shown, ["user-data: empty", "user-data:3:5: expected text"]);
    }

    #[test]
    fn a_position_knows_its_document() {
        let mut diagnostics = Diagnostics::new("user-data");
        let vendor = diagnostics.add_source("vendor-data");
        diagnostics.warning(Position::start_of(vendor), "odd");
        diagnostics.error(None, "broken");
        diagnostics.error(Position::new(1, 1), "wrong");
        assert!(diagnostics.has_errors());
        let shown: Vec<_> = diagnostics
            .into_sorted()
            .iter()
            .map(ToString::to_string)
            .collect();
        assert_eq!(
            shown,
            [
                "user-data:1:1: wrong",
                "vendor-data: broken",
                "vendor-data:1:1: odd"
            ]
        );
    }

    #[test]
    fn the_nearest_name_forgives_a_slip_and_nothing_more() {
        let known = ["hostname", "users", "write_files", "runcmd"];
        assert_eq!(nearest("hostnme", known), Some("hostname"));
        assert_eq!(nearest("user", known), Some("users"));
        assert_eq!(nearest("write-file", known), Some("write_files"));
        assert_eq!(nearest("RunCmd", known), Some("runcmd"));
        assert_eq!(nearest("kubernetes", known), None);
        assert_eq!(nearest("", known), None);
    }
}
