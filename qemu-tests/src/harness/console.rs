//! A person at the serial console.

use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::serial::Serial;

/// How long the console may take to answer what was typed.
const ANSWER_DEADLINE: Duration = Duration::from_secs(60);
/// Marks the end of a command's output; typed in two halves, so that the echo does not show it.
const END: &str = "@@end-of-output ";

/// Logs in at a `login:` prompt that has appeared, and waits for the shell's own.
///
/// # Errors
/// When the console refuses or does not answer.
pub fn log_in(serial: &Serial, user: &str, password: &str) -> Result<()> {
    serial.send(&format!("{user}\r"))?;
    serial.wait_for("Password:", ANSWER_DEADLINE)?;
    serial.send(&format!("{password}\r"))?;
    serial
        .wait_for("$ ", ANSWER_DEADLINE)
        .context("logging in on the serial console")
}

/// Types a command line and gives what it wrote.
///
/// # Errors
/// When the console does not answer.
pub fn run(serial: &Serial, line: &str, deadline: Duration) -> Result<String> {
    let (left, right) = END.split_at(5);
    let before = serial.text().len();
    serial.send(&format!("{line}; echo \"{left}\"\"{right}\"\r"))?;
    serial
        .wait_for(END, deadline)
        .with_context(|| format!("typing `{line}`"))?;
    let text = serial.text();
    let answer = text.get(before..).unwrap_or_default();
    let answer = answer.split(END).next().unwrap_or_default();
    // The first line is the echo of what was typed.
    Ok(answer
        .split_once('\n')
        .map_or("", |(_, rest)| rest)
        .trim()
        .to_owned())
}
