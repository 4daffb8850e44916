//! The log service's query protocol: one line of JSON asks, one line of JSON a record answers
//! (`system-services/log/src/query.rs`).

use serde::{Deserialize, Serialize};

/// Where it is spoken, below `/run/keelson`.
pub const SOCKET: &str = "log/query.sock";

/// What is asked.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Query<'a> {
    /// Records of this service only.
    pub service: Option<&'a str>,
    /// So many of the newest; all unless told.
    pub tail: Option<usize>,
    /// Later ones too, until the asking side is closed.
    pub follow: bool,
    /// None before this moment, in microseconds of Unix time.
    pub since_us: Option<u64>,
}

/// One record.
#[derive(Debug, Deserialize)]
pub struct Record {
    /// When it was written, in microseconds of Unix time.
    pub time_us: u64,
    /// Who wrote it.
    pub service: String,
    /// `stdout`, `stderr`, or what else it came by.
    pub stream: String,
    /// Its urgency, as syslog(3) counts.
    pub priority: Option<u8>,
    /// The text, without the end of the line.
    pub message: String,
    /// The line goes on in the next record.
    #[serde(default)]
    pub partial: bool,
}
