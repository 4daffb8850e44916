//! What the person at the terminal sees: a spinner on a terminal, plain lines elsewhere.

use std::io::{IsTerminal, stderr};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

/// Shows steps as they run.
#[derive(Debug)]
pub(crate) struct Progress {
    terminal: bool,
}

/// One step on show, from [`Progress::begin`] to [`Running::done`].
#[derive(Debug)]
pub(crate) struct Running {
    name: String,
    begun: Instant,
    bar: Option<ProgressBar>,
}

impl Progress {
    /// A display that suits standard error: spinner on a terminal, lines otherwise.
    pub(crate) fn new() -> Self {
        Self {
            terminal: stderr().is_terminal(),
        }
    }

    /// Shows that the step `name` has begun.
    pub(crate) fn begin(&self, name: &str) -> Running {
        let bar = self.terminal.then(|| {
            let bar = ProgressBar::new_spinner();
            if let Ok(style) =
                ProgressStyle::with_template("{spinner} {prefix} {elapsed} {wide_msg}")
            {
                bar.set_style(style);
            }
            bar.set_prefix(name.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Running {
            name: name.to_owned(),
            begun: Instant::now(),
            bar,
        }
    }

    /// Shows one line of information.
    pub(crate) fn note(&self, text: &str) {
        eprintln!("mkimage: {text}");
    }
}

impl Running {
    /// Shows what the step is busy with; seen on terminals only.
    pub(crate) fn busy_with(&self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(detail.trim().to_owned());
        }
    }

    /// Ends the display with the step's name and duration.
    pub(crate) fn done(self, detail: &str) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
        let seconds = self.begun.elapsed().as_secs_f64();
        let detail = if detail.is_empty() {
            String::new()
        } else {
            format!("  {detail}")
        };
        eprintln!("mkimage: {:<24} {seconds:6.1} s{detail}", self.name);
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A size as people read it: `12.3 MB` (powers of ten).
pub(crate) fn megabytes(bytes: u64) -> String {
    let tenths = (bytes + 50_000) / 100_000;
    format!("{}.{} MB", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_to_a_tenth() {
        assert_eq!(megabytes(12_345_678), "12.3 MB");
        assert_eq!(megabytes(0), "0.0 MB");
        assert_eq!(megabytes(99_960_000), "100.0 MB");
    }
}
