//! Standard output; tables, durations, sizes.

use std::io::{self, Write};

use serde::Serialize;

use crate::failure::Failure;

const DEFAULT_WIDTH: usize = 100;

/// Where answers go, and in which form.
pub(crate) struct Output<'a> {
    writer: Box<dyn Write + 'a>,
    /// JSON, for programs.
    pub(crate) json: bool,
}

impl Output<'_> {
    /// Standard output.
    pub(crate) fn stdout(json: bool) -> Self {
        Output {
            writer: Box::new(io::stdout().lock()),
            json,
        }
    }

    /// Nowhere: the answer is only counted.
    pub(crate) fn nowhere() -> Self {
        Output {
            writer: Box::new(io::sink()),
            json: true,
        }
    }

    /// Writes `text` as it is.
    pub(crate) fn text(&mut self, text: &str) -> Result<(), Failure> {
        self.bytes(text.as_bytes())
    }

    /// Writes `bytes` as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        self.writer.write_all(bytes)?;
        self.writer.flush().map_err(Failure::from)
    }

    /// Writes `value` as indented JSON.
    pub(crate) fn value(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let text = serde_json::to_string_pretty(value)
            .map_err(|error| Failure::Failed(format!("write JSON: {error}")))?;
        self.text(&format!("{text}\n"))
    }
}

#[cfg(test)]
impl<'a> Output<'a> {
    /// Another place than standard output.
    pub(crate) fn to(writer: impl Write + 'a, json: bool) -> Self {
        Output {
            writer: Box::new(writer),
            json,
        }
    }
}

/// Columns of the terminal; 100 where there is none.
pub(crate) fn width() -> usize {
    terminal_size::terminal_size().map_or(DEFAULT_WIDTH, |(width, _)| usize::from(width.0))
}

/// Rows with aligned columns under `heads`, two blanks between them. The last column may be of any width.
pub(crate) fn table<const N: usize>(heads: [&str; N], rows: &[[String; N]]) -> String {
    let mut widths = heads.map(|head| head.chars().count());
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut text = String::new();
    let heads = heads.map(str::to_owned);
    for row in std::iter::once(&heads).chain(rows) {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(widths) {
            line.push_str(&format!("{cell:width$}  "));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A short duration, to be compared with others: `0.123 s`.
pub(crate) fn seconds(microseconds: i64) -> String {
    let sign = if microseconds < 0 { "-" } else { "" };
    let milliseconds = microseconds.unsigned_abs().div_ceil(1000);
    format!("{sign}{}.{:03} s", milliseconds / 1000, milliseconds % 1000)
}

/// A long duration in its two largest units: `3 days 4 h`.
pub(crate) fn uptime(microseconds: u64) -> String {
    let seconds = microseconds / 1_000_000;
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, _) => format!("{minutes} min {} s", seconds % 60),
        (0, _, _) => format!("{hours} h {minutes} min"),
        (1, _, _) => format!("1 day {hours} h"),
        _ => format!("{days} days {hours} h"),
    }
}

/// A size in memory: `12.3 MiB`.
pub(crate) fn size(bytes: u64) -> String {
    let tenths = u128::from(bytes) * 10 / (1024 * 1024);
    if tenths >= 10_240 {
        format!("{}.{} GiB", tenths / 10_240, tenths % 10_240 * 10 / 10_240)
    } else {
        format!("{}.{} MiB", tenths / 10, tenths % 10)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let rows = [
            ["a".into(), "long cell".into(), "x".into()],
            ["bbbb".into(), String::new(), String::new()],
        ];
        assert_eq!(
            table(["NAME", "WHAT", "WHY"], &rows),
            "NAME  WHAT       WHY\na     long cell  x\nbbbb\n"
        );
    }

    #[test]
    fn durations_and_sizes_read_well() {
        assert_eq!(seconds(1_234_567), "1.235 s");
        assert_eq!(seconds(-500_000), "-0.500 s");
        for (us, text) in [
            (0, "0 s"),
            (61_000_000, "1 min 1 s"),
            (7_261_000_000, "2 h 1 min"),
            (90_000_000_000, "1 day 1 h"),
        ] {
            assert_eq!(uptime(us), text);
        }
        assert_eq!(size(0), "0.0 MiB");
        assert_eq!(size(12_900_000), "12.3 MiB");
        assert_eq!(size(3 * 1024 * 1024 * 1024 / 2), "1.5 GiB");
    }
}
