//! PID 1's part of the boot's time line: lines of JSON, in microseconds since the kernel started.

use nix::time::{ClockId, clock_gettime};
use std::fmt::Write as _;
use std::io::Write as _;

const PATH: &str = "/run/keelson/boot/init.jsonl";

/// A moment, in microseconds of CLOCK_BOOTTIME.
pub(crate) fn now_us() -> u64 {
    clock_gettime(ClockId::CLOCK_BOOTTIME).map_or(0, |time| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or(0);
        let nanoseconds = u64::try_from(time.tv_nsec()).unwrap_or(0);
        seconds
            .saturating_mul(1_000_000)
            .saturating_add(nanoseconds / 1000)
    })
}

/// Spans that were measured and are not yet written.
#[derive(Debug, Default)]
pub(crate) struct Timeline {
    lines: String,
}

impl Timeline {
    /// Adds the span from `start_us` to now.
    pub(crate) fn add(&mut self, name: &str, start_us: u64) {
        self.add_span(name, start_us, now_us());
    }

    /// Adds a span. The name is ours: it needs no escapes.
    pub(crate) fn add_span(&mut self, name: &str, start_us: u64, end_us: u64) {
        // Writing to a String cannot fail.
        let _ = writeln!(
            self.lines,
            r#"{{"name":"{name}","start_us":{start_us},"end_us":{end_us}}}"#
        );
    }

    /// Runs a step and adds its span.
    pub(crate) fn measure<T>(&mut self, name: &str, step: impl FnOnce() -> T) -> T {
        let start_us = now_us();
        let result = step();
        self.add(name, start_us);
        result
    }

    /// Appends what was measured to /run/keelson/boot/init.jsonl.
    pub(crate) fn write(&mut self) -> std::io::Result<()> {
        std::fs::create_dir_all("/run/keelson/boot")?;
        let mut file = std::fs::OpenOptions::new()
            .append(true)
            .create(true)
            .open(PATH)?;
        file.write_all(std::mem::take(&mut self.lines).as_bytes())
    }
}
