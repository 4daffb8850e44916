//! The serial console: everything the guest writes, and what we type.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;
use std::process::{ChildStdin, ChildStdout};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// Lines of the console that a failure shows.
const TAIL_LINES: usize = 40;

/// A serial console. Reading goes on in a thread of its own, into memory and into a log with times.
pub struct Serial {
    shared: Arc<Shared>,
    input: Mutex<ChildStdin>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    text: String,
    /// Up to where waits have consumed.
    cursor: usize,
    closed: bool,
}

impl Serial {
    /// Takes over the pipes of a QEMU started with `-serial stdio`.
    ///
    /// # Errors
    /// When the log cannot be made.
    pub fn new(output: ChildStdout, input: ChildStdin, log: &Path) -> Result<Self> {
        let log = File::create(log).with_context(|| format!("making {}", log.display()))?;
        let shared = Arc::new(Shared {
            state: Mutex::new(State::default()),
            changed: Condvar::new(),
        });
        let writer = Arc::clone(&shared);
        thread::spawn(move || writer.collect(output, log));
        Ok(Serial {
            shared,
            input: Mutex::new(input),
        })
    }

    /// Waits until `needle` appears after what earlier waits consumed, and consumes up to its end.
    ///
    /// # Errors
    /// At the deadline, or when the machine ends; both show the last lines.
    pub fn wait_for(&self, needle: &str, deadline: Duration) -> Result<()> {
        self.wait_for_any(&[needle], deadline).map(|_| ())
    }

    /// As [`Serial::wait_for`], for the first of several; gives the index of the one that came.
    ///
    /// # Errors
    /// As [`Serial::wait_for`].
    pub fn wait_for_any(&self, needles: &[&str], deadline: Duration) -> Result<usize> {
        let until = Instant::now() + deadline;
        let mut state = self.shared.lock();
        loop {
            if let Some((index, end)) = first_of(&state.text[state.cursor..], needles) {
                state.cursor += end;
                return Ok(index);
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                let why = if state.closed {
                    "the machine ended".into()
                } else {
                    format!("after {deadline:?}")
                };
                bail!(
                    "waiting for {needles:?} on the console: {why}; its last lines:\n{}",
                    tail(&state.text)
                );
            }
            state = self.shared.wait(state, left);
        }
    }

    /// Waits for any new output, for at most `limit`; true when the machine is still there.
    pub fn wait_for_change(&self, limit: Duration) -> bool {
        let until = Instant::now() + limit;
        let mut state = self.shared.lock();
        let before = state.text.len();
        while !state.closed && state.text.len() == before {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            state = self.shared.wait(state, left);
        }
        !state.closed
    }

    /// Lets the machine go on for `time`, or until it ends.
    pub fn let_run(&self, time: Duration) {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || !self.wait_for_change(left) {
                return;
            }
        }
    }

    /// Types `text`; lines end with `\r`, as a keyboard's do.
    ///
    /// # Errors
    /// When the machine is gone.
    pub fn send(&self, text: &str) -> Result<()> {
        let mut input = self.input.lock().unwrap_or_else(PoisonError::into_inner);
        input
            .write_all(text.as_bytes())
            .and_then(|()| input.flush())
            .context("typing on the serial console")
    }

    /// Waits until every one of `needles` has been written, in whatever order, at any time since the start.
    ///
    /// # Errors
    /// At the deadline, naming those that are missing.
    pub fn wait_for_all(&self, needles: &[&str], deadline: Duration) -> Result<()> {
        let until = Instant::now() + deadline;
        let mut state = self.shared.lock();
        loop {
            let missing: Vec<&str> = needles
                .iter()
                .copied()
                .filter(|needle| !state.text.contains(needle))
                .collect();
            if missing.is_empty() {
                return Ok(());
            }
            let left = until.saturating_duration_since(Instant::now());
            if state.closed || left.is_zero() {
                bail!(
                    "the console never said {missing:?}; its last lines:\n{}",
                    tail(&state.text)
                );
            }
            state = self.shared.wait(state, left);
        }
    }

    /// Everything written so far, without escape sequences.
    pub fn text(&self) -> String {
        self.shared.lock().text.clone()
    }

    /// The last lines, for messages.
    pub fn tail(&self) -> String {
        tail(&self.shared.lock().text)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait<'a>(&self, guard: MutexGuard<'a, State>, limit: Duration) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout(guard, limit)
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    fn collect(&self, mut output: impl Read, mut log: impl Write) {
        let start = Instant::now();
        let mut cleaner = Cleaner::default();
        let mut at_line_start = true;
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = output.read(&mut buffer) {
            let text = cleaner.clean(&buffer[..count]);
            for part in text.split_inclusive('\n') {
                // The log is a convenience: a full disk must not stop the test.
                if at_line_start {
                    let _ = write!(log, "[{:8.3}] ", start.elapsed().as_secs_f64());
                }
                let _ = log.write_all(part.as_bytes());
                at_line_start = part.ends_with('\n');
            }
            self.lock().text.push_str(&text);
            self.changed.notify_all();
        }
        self.lock().closed = true;
        self.changed.notify_all();
    }
}

/// Takes carriage returns and terminal escape sequences (ECMA-48 CSI and OSC) out of a stream.
#[derive(Default)]
struct Cleaner {
    escape: Escape,
    pending: Vec<u8>,
}

#[derive(Default, Clone, Copy, PartialEq)]
enum Escape {
    #[default]
    None,
    Started,
    Control,
    Command,
}

impl Cleaner {
    fn clean(&mut self, bytes: &[u8]) -> String {
        for &byte in bytes {
            self.escape = match (self.escape, byte) {
                (Escape::None, 0x1b) => Escape::Started,
                (Escape::None, b'\n' | b'\t' | 0x20..) => {
                    self.pending.push(byte);
                    Escape::None
                }
                (Escape::None, _) => Escape::None,
                (Escape::Started, b'[') => Escape::Control,
                (Escape::Started, b']') => Escape::Command,
                (Escape::Started, b'(' | b')') => Escape::Started,
                (Escape::Control, 0x40..=0x7e) | (Escape::Command, 0x07) => Escape::None,
                (Escape::Command, 0x1b) => Escape::Started,
                (Escape::Started, _) => Escape::None,
                (inside, _) => inside,
            };
        }
        // A character may be cut in two by the end of the buffer.
        let complete = match std::str::from_utf8(&self.pending) {
            Err(error) if error.error_len().is_none() => error.valid_up_to(),
            _ => self.pending.len(),
        };
        let rest = self.pending.split_off(complete);
        String::from_utf8_lossy(&std::mem::replace(&mut self.pending, rest)).into_owned()
    }
}

fn first_of(text: &str, needles: &[&str]) -> Option<(usize, usize)> {
    needles
        .iter()
        .enumerate()
        .filter_map(|(index, needle)| text.find(needle).map(|at| (at, index, at + needle.len())))
        .min()
        .map(|(_, index, end)| (index, end))
}

fn tail(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let start = lines.len().saturating_sub(TAIL_LINES);
    format!("    | {}", lines[start..].join("\n    | "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escape_sequences_and_carriage_returns_are_dropped_even_when_cut() {
        let mut cleaner = Cleaner::default();
        let text: String = [
            &b"a\x1b["[..],
            b"1;32mb\r\n\x1b]0;title\x07c\xc3",
            b"\xa9\x1b(Bd",
        ]
        .into_iter()
        .map(|part| cleaner.clean(part))
        .collect();
        assert_eq!(text, "ab\nc\u{e9}d");
    }

    #[test]
    fn the_first_needle_in_the_text_wins() {
        assert_eq!(
            first_of("one two three", &["three", "two", "four"]),
            Some((1, 7))
        );
        assert_eq!(first_of("one", &["two"]), None);
    }
}
