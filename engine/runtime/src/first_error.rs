//! Turns libcontainer's trace events into one line that names the cause.
//!
//! libcontainer's errors say which step failed; what it was doing to what (the path, the errno) it only
//! traces, partly in the container's own process. All processes of one command write their first error
//! event to one anonymous file.

use std::fmt::{self, Write as _};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::fd::OwnedFd;

use rustix::fs::{MemfdFlags, memfd_create};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Level, Metadata, Subscriber};

/// Reads what was written through the subscriber.
pub(crate) struct FirstError {
    file: OwnedFd,
}

struct Collector {
    file: OwnedFd,
}

impl FirstError {
    /// Starts collecting. To be called once, at the start of a command.
    ///
    /// # Errors
    /// When the kernel gives no memory file.
    pub(crate) fn collect() -> anyhow::Result<Self> {
        let file = memfd_create(c"first-error", MemfdFlags::CLOEXEC)?;
        let collector = Collector {
            file: file.try_clone()?,
        };
        tracing::subscriber::set_global_default(collector)?;
        Ok(Self { file })
    }

    /// The deepest error: the first that was traced.
    pub(crate) fn take(self) -> Option<String> {
        let mut file = std::fs::File::from(self.file);
        let mut text = String::new();
        file.seek(SeekFrom::Start(0)).ok()?;
        file.read_to_string(&mut text).ok()?;
        text.lines().next().map(str::to_owned)
    }

    /// Puts the deepest error below `error`.
    pub(crate) fn explain(self, error: anyhow::Error) -> anyhow::Error {
        match self.take() {
            Some(cause) => anyhow::anyhow!("{cause}").context(error.to_string()),
            None => error,
        }
    }
}

impl Subscriber for Collector {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        *metadata.level() == Level::ERROR
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        let mut line = Line::default();
        event.record(&mut line);
        let mut text = line.finish();
        text.push('\n');
        // The file's position is shared by all processes of the command: lines come one after the other.
        // Nothing can be done when memory is exhausted; the error itself is still reported.
        let _ = rustix::io::write(&self.file, text.as_bytes());
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// One event: its message, then its fields.
#[derive(Default)]
struct Line {
    message: String,
    fields: String,
}

impl Line {
    fn finish(self) -> String {
        format!("{}{}", self.message, self.fields).replace('\n', " ")
    }
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        // Writing to a string cannot fail.
        let _ = if field.name() == "message" {
            write!(self.message, "{value:?}")
        } else {
            write!(self.fields, ", {} {value:?}", field.name())
        };
    }
}
