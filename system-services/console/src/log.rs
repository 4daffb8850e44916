//! Messages: to standard error, which the log service keeps; the number is syslog's priority.

/// Something does not work.
pub(crate) fn error(message: &str) {
    eprintln!("<3>{message}");
}

/// Something that a person may want to know.
pub(crate) fn warning(message: &str) {
    eprintln!("<4>{message}");
}

/// What was done.
pub(crate) fn info(message: &str) {
    eprintln!("<6>{message}");
}
