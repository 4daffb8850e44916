//! Messages: one record of the kernel's log each, so they reach every console and the log service.

use std::fmt::Display;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::sync::OnceLock;

/// What is left of a record of 1024 bytes when the kernel has put its own prefix before it, in bytes.
const RECORD_MAX_BYTES: usize = 900;

static KMSG: OnceLock<Option<File>> = OnceLock::new();

/// Says something that a person at the machine should know: it shows on the consoles.
pub(crate) fn error(message: impl Display) {
    say(3, &message.to_string());
}

/// Says something worth keeping in the log only.
pub(crate) fn info(message: impl Display) {
    say(6, &message.to_string());
}

/// Reports a step that failed without keeping the machine from going on.
pub(crate) fn tolerate<T, E: Display>(step: impl Display, result: Result<T, E>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(failure) => {
            error(format_args!("{step}: {failure:#}"));
            None
        }
    }
}

/// One write for each line: several small writes would become several records.
fn say(priority: u8, message: &str) {
    let kmsg = KMSG.get_or_init(|| OpenOptions::new().write(true).open("/dev/kmsg").ok());
    for line in message.lines() {
        let mut end = line.len().min(RECORD_MAX_BYTES);
        while !line.is_char_boundary(end) {
            end = end.saturating_sub(1);
        }
        let record = format!(
            "<{priority}>keelson-init: {}\n",
            line.get(..end).unwrap_or_default()
        );
        let written = match kmsg.as_ref() {
            Some(mut file) => file.write_all(record.as_bytes()),
            None => std::io::stderr().write_all(record.as_bytes()),
        };
        if written.is_err() {
            // The log itself is out of order: standard error is all that is left, and when that fails too there
            // is nobody to tell.
            let _ = std::io::stderr().write_all(record.as_bytes());
        }
    }
}

/// Makes a panic one record of the kernel's log instead of text on standard error.
pub(crate) fn report_panics() {
    std::panic::set_hook(Box::new(|panic| {
        error(
            format_args!("internal error, going on: {panic}")
                .to_string()
                .replace('\n', " "),
        )
    }));
}
