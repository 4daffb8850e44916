//! What is printed: the JSON lines of Docker's `/images/create` (its package `jsonmessage`).

use crate::failure::Failure;
use serde_json::{Value, json};
use std::io::{self, Write};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// A layer tells how far it is no more often than this.
const EVERY: Duration = Duration::from_millis(100);

/// Prints, for whichever thread has something to say.
#[derive(Debug, Default)]
pub(crate) struct Progress {
    one_at_a_time: Mutex<()>,
    silent: bool,
}

impl Progress {
    /// Prints nothing.
    pub(crate) fn silent() -> Self {
        Self {
            silent: true,
            ..Self::default()
        }
    }

    /// Prints a line.
    pub(crate) fn line(&self, value: &Value) {
        if self.silent {
            return;
        }
        let _one_at_a_time = self.one_at_a_time.lock();
        let mut out = io::stdout().lock();
        // Who reads no more does not want to know.
        let _ = writeln!(out, "{value}").and_then(|()| out.flush());
    }

    /// What becomes of a layer, by the beginning of its number; without a number, of the whole.
    pub(crate) fn status(&self, id: &str, status: &str) {
        self.line(&match id {
            "" => json!({ "status": status }),
            id => json!({ "status": status, "progressDetail": {}, "id": id }),
        });
    }

    /// Why it came to nothing.
    pub(crate) fn failed(&self, error: &anyhow::Error) {
        let message = format!("{error:#}");
        let detail = json!({ "code": Failure::status_of(error), "message": message });
        self.line(&json!({ "errorDetail": detail, "error": message }));
    }

    /// Tells how far a layer is.
    pub(crate) fn meter<'p>(&'p self, id: &'p str, status: &'p str, total: u64) -> Meter<'p> {
        Meter {
            progress: self,
            id,
            status,
            total,
            current: 0,
            told: None,
        }
    }
}

/// How far a layer is.
#[derive(Debug)]
pub(crate) struct Meter<'p> {
    progress: &'p Progress,
    id: &'p str,
    status: &'p str,
    total: u64,
    current: u64,
    told: Option<Instant>,
}

impl Meter<'_> {
    /// So many more bytes are done.
    pub(crate) fn add(&mut self, bytes: usize) {
        self.current += bytes as u64;
        if self.told.is_none_or(|told| told.elapsed() >= EVERY) {
            self.told = Some(Instant::now());
            self.progress.line(&json!({
                "status": self.status,
                "progressDetail": { "current": self.current, "total": self.total },
                "progress": bar(self.current, self.total),
                "id": self.id,
            }));
        }
    }

    /// Starts from so many bytes.
    pub(crate) fn set(&mut self, bytes: u64) {
        self.current = bytes;
    }
}

/// `[=====>      ]  1.5MB/3MB`, as Docker draws it for clients that do not draw.
fn bar(current: u64, total: u64) -> String {
    const WIDTH: usize = 50;
    let share = (current.min(total) as f64 / total.max(1) as f64 * WIDTH as f64) as usize;
    let rest = WIDTH.saturating_sub(share + 1);
    let arrow = if share < WIDTH { ">" } else { "" };
    let size = |bytes: u64| match bytes {
        0..1_000 => format!("{bytes}B"),
        1_000..1_000_000 => format!("{:.1}kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1}MB", bytes as f64 / 1e6),
        _ => format!("{:.1}GB", bytes as f64 / 1e9),
    };
    let (bar, pad) = ("=".repeat(share), " ".repeat(rest));
    format!("[{bar}{arrow}{pad}]  {}/{}", size(current), size(total))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_fills_and_never_overflows() {
        assert_eq!(bar(0, 10), format!("[>{}]  0B/10B", " ".repeat(49)));
        assert_eq!(
            bar(5_000_000, 10_000_000),
            format!("[{}>{}]  5.0MB/10.0MB", "=".repeat(25), " ".repeat(24))
        );
        for (current, total) in [(10, 10), (20, 10), (1, 0), (u64::MAX, 1)] {
            let bar = bar(current, total);
            assert_eq!(bar.find(']'), Some(51), "{bar}");
        }
    }
}
