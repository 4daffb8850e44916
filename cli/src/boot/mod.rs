//! `keelson boot`: where the time of this boot went.
//!
//! - [`bars`]: as bars of text
//! - [`picture`]: as an SVG picture

mod bars;
mod picture;

use std::fs;
use std::path::{Path, PathBuf};

use keelson_engine::api::{Boot, BootEntry, BootKind};

use crate::client;
use crate::failure::Failure;
use crate::output::{self, Output};

/// Shows the time line; with `svg`, draws it to that file (`-` is standard output).
pub(crate) fn run(svg: Option<PathBuf>, output: &mut Output<'_>) -> Result<(), Failure> {
    let boot: Boot = client::get("/keelson/v1/boot")?;
    match svg {
        None if output.json => output.value(&boot),
        None => output.text(&bars::render(&boot, output::width())),
        Some(path) if path == Path::new("-") => output.text(&picture::render(&boot)),
        Some(path) => fs::write(&path, picture::render(&boot))
            .map_err(|error| Failure::Failed(format!("write {}: {error}", path.display()))),
    }
}

/// An entry as it is drawn. Times are microseconds since the kernel started; firmware and loader come before zero.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Span<'a> {
    name: &'a str,
    kind: BootKind,
    /// When it began.
    start: i64,
    /// Where the second part of a service begins: its container is made, its process runs.
    middle: i64,
    /// When it was ready or had ended; of something that is neither yet, the last moment that is known.
    end: i64,
    /// It is neither ready nor at its end.
    unfinished: bool,
}

/// The spans of a time line, and its first and last moment.
fn spans(boot: &Boot) -> (Vec<Span<'_>>, i64, i64) {
    let known_end = |entry: &BootEntry| entry.ready_us.or(entry.end_us);
    let first = boot
        .entries
        .iter()
        .map(|entry| entry.start_us)
        .min()
        .unwrap_or(0);
    let last = boot
        .entries
        .iter()
        .map(|entry| known_end(entry).unwrap_or(entry.start_us))
        .max()
        .unwrap_or(0)
        .max(first);
    let spans = boot.entries.iter().map(|entry| {
        let end = known_end(entry).unwrap_or(last).max(entry.start_us);
        let middle = entry
            .started_us
            .unwrap_or(entry.start_us)
            .clamp(entry.start_us, end);
        Span {
            name: &entry.name,
            kind: entry.kind,
            start: entry.start_us,
            middle,
            end,
            unfinished: known_end(entry).is_none(),
        }
    });
    (spans.collect(), first, last)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A small boot: kernel, a step of PID 1, a ready service, one that is not ready.
    pub(super) fn example() -> Boot {
        let entry = |name: &str, kind, start_us, started_us, ready_us, end_us| BootEntry {
            name: name.to_owned(),
            kind,
            start_us,
            started_us,
            ready_us,
            end_us,
        };
        Boot {
            entries: vec![
                entry(
                    "firmware",
                    BootKind::Firmware,
                    -1_000_000,
                    None,
                    None,
                    Some(0),
                ),
                entry("kernel", BootKind::Kernel, 0, None, None, Some(2_000_000)),
                entry(
                    "initrd",
                    BootKind::Init,
                    2_000_000,
                    None,
                    None,
                    Some(2_500_000),
                ),
                entry(
                    "log <1>",
                    BootKind::Service,
                    2_500_000,
                    Some(2_750_000),
                    Some(3_000_000),
                    None,
                ),
                entry(
                    "time",
                    BootKind::Service,
                    2_500_000,
                    Some(2_600_000),
                    None,
                    None,
                ),
            ],
        }
    }

    #[test]
    fn an_entry_without_an_end_lasts_until_the_last_known_moment() {
        let boot = example();
        let (spans, first, last) = spans(&boot);
        assert_eq!((first, last), (-1_000_000, 3_000_000));
        let time = spans.last().unwrap();
        assert_eq!(
            (time.start, time.middle, time.end, time.unfinished),
            (2_500_000, 2_600_000, 3_000_000, true)
        );
    }

    #[test]
    fn an_empty_time_line_is_no_trouble() {
        assert_eq!(spans(&Boot::default()), (Vec::new(), 0, 0));
    }
}
