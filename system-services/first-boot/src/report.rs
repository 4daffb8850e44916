//! What people are told: on the console through the kernel's log, and in the log service through standard error.

use std::fs::{File, OpenOptions};
use std::io::Write;

use keelson_config::{Diagnostics, Position, Severity};

const PROGRAM: &str = "keelson-first-boot";
/// The kernel takes lines of about a thousand bytes.
const MAX_LINE_CHARS: usize = 800;

/// Collects what went wrong, and says it at once.
pub(crate) struct Report {
    kmsg: Option<File>,
    errors: Vec<String>,
    documents: Vec<String>,
}

impl Report {
    /// Says things on the console; only in the log when the kernel's cannot be written to.
    pub(crate) fn new() -> Self {
        Report {
            kmsg: OpenOptions::new().write(true).open("/dev/kmsg").ok(),
            errors: Vec::new(),
            documents: Vec::new(),
        }
    }

    /// Says things in the log only.
    #[cfg(test)]
    pub(crate) fn quiet() -> Self {
        Report {
            kmsg: None,
            errors: Vec::new(),
            documents: Vec::new(),
        }
    }

    /// Something that was asked for was not done.
    pub(crate) fn error(&mut self, message: impl Into<String>) {
        let message = printable(&message.into());
        self.say(3, &message);
        self.errors.push(message);
    }

    /// Something was not done, or not as it was probably meant.
    pub(crate) fn warning(&mut self, message: &str) {
        self.say(4, &printable(message));
    }

    /// What was done.
    pub(crate) fn info(&mut self, message: &str) {
        self.say(6, &printable(message));
    }

    /// The same, about a place in one of the documents that [`diagnostics`](Self::diagnostics) was about.
    pub(crate) fn error_at(&mut self, position: Position, message: &str) {
        let document = self.documents.get(usize::from(position.source));
        let document = document.map_or("user-data", String::as_str);
        let Position { line, column, .. } = position;
        self.error(format!("{document}:{line}:{column}: {message}"));
    }

    /// Messages about documents.
    pub(crate) fn diagnostics(&mut self, diagnostics: Diagnostics) {
        self.documents = diagnostics.sources().to_vec();
        for diagnostic in diagnostics.into_sorted() {
            match diagnostic.severity {
                Severity::Error => self.error(diagnostic.to_string()),
                Severity::Warning => self.warning(&diagnostic.to_string()),
            }
        }
    }

    /// For the person at the console alone, as a new password is: it must not stay in any log.
    pub(crate) fn tell(&mut self, message: &str) {
        let written = OpenOptions::new()
            .write(true)
            .open("/dev/console")
            .and_then(|mut console| {
                console.write_all(format!("\r\n{PROGRAM}: {}\r\n", printable(message)).as_bytes())
            });
        if let Err(error) = written {
            self.error(format!("write to /dev/console: {error}"));
        }
    }

    /// What was not done so far.
    pub(crate) fn errors(&self) -> &[String] {
        &self.errors
    }

    fn say(&mut self, priority: u8, message: &str) {
        eprintln!("<{priority}>{message}");
        // One write is one line of the kernel's log; the log service has the message already if this fails.
        if let Some(kmsg) = self.kmsg.as_mut().filter(|_| priority <= 3) {
            let _ = kmsg.write_all(format!("<{priority}>{PROGRAM}: {message}").as_bytes());
        }
    }
}

/// Without control characters, which could play tricks on a terminal.
fn printable(message: &str) -> String {
    message
        .chars()
        .take(MAX_LINE_CHARS)
        .map(|c| if c.is_control() { '?' } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(printable("a\x1b[2Jb\nc"), "a?[2Jb?c");
        assert_eq!(printable(&"x".repeat(5000)).len(), MAX_LINE_CHARS);
    }
}
