//! Messages on standard error, which the log service keeps. `KEELSON_LOG` says how many.

use std::sync::atomic::{AtomicU8, Ordering};

/// How much a message matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Something that was asked for did not work.
    Error,
    /// Something odd that the service copes with.
    Warning,
    /// What an administrator wants to read in a log.
    Info,
    /// Every packet and every change.
    Debug,
}

static MOST: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Sets the level from the value of `KEELSON_LOG`: `error`, `warning`, `info` or `debug`.
///
/// # Errors
/// The value, when it is none of these.
pub fn set_level(value: &str) -> Result<(), String> {
    let level = match value {
        "error" => Level::Error,
        "warning" => Level::Warning,
        "info" => Level::Info,
        "debug" => Level::Debug,
        other => {
            return Err(format!(
                "KEELSON_LOG is {other:?}; it can be error, warning, info or debug"
            ));
        }
    };
    MOST.store(level as u8, Ordering::Relaxed);
    Ok(())
}

/// Prints a message if its level is wanted. Called by the macro [`log!`](crate::log!).
pub fn write(level: Level, message: std::fmt::Arguments<'_>) {
    if level as u8 > MOST.load(Ordering::Relaxed) {
        return;
    }
    match level {
        Level::Error => eprintln!("error: {message}"),
        Level::Warning => eprintln!("warning: {message}"),
        Level::Info | Level::Debug => eprintln!("{message}"),
    }
}

/// `log!(Warning, "format {}", ...)`.
#[macro_export]
macro_rules! log {
    ($level:ident, $($message:tt)*) => {
        $crate::log::write($crate::log::Level::$level, format_args!($($message)*))
    };
}
