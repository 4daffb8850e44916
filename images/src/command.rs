//! Running the tool root's programs, with errors that say what failed and what it printed.

use std::fmt::Write as _;
use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// How many of the last lines of a failed program's output are shown.
const SHOWN_LINES: usize = 25;

/// Runs `command` to its end and gives what it wrote to standard output.
///
/// # Errors
/// When it cannot be started or fails; the message holds the command line and the end of its error output.
pub(crate) fn run(command: &mut Command) -> Result<String> {
    let shown = command_line(command);
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("starting `{shown}`"))?;
    check(&shown, &output)?;
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Runs `command` and hands each line of its error output to `each_line` while it runs.
///
/// # Errors
/// As [`run`].
pub(crate) fn run_watched(command: &mut Command, mut each_line: impl FnMut(&str)) -> Result<()> {
    let shown = command_line(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{shown}`"))?;
    let mut seen = String::new();
    if let Some(errors) = child.stderr.take() {
        for line in BufReader::new(errors).lines() {
            let line = line.with_context(|| format!("reading the output of `{shown}`"))?;
            each_line(&line);
            let _ = writeln!(seen, "{line}");
        }
    }
    let status = child
        .wait()
        .with_context(|| format!("waiting for `{shown}`"))?;
    if !status.success() {
        bail!("`{shown}` failed ({status}):\n{}", last_lines(&seen));
    }
    Ok(())
}

/// Runs `command` and hands its standard output to `consume` as a stream.
///
/// # Errors
/// As [`run`], and whatever `consume` returns.
pub(crate) fn run_into<T>(
    command: &mut Command,
    consume: impl FnOnce(&mut dyn Read) -> Result<T>,
) -> Result<T> {
    let shown = command_line(command);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting `{shown}`"))?;
    let consumed = match child.stdout.take() {
        Some(mut stdout) => consume(&mut stdout).and_then(|value| {
            std::io::copy(&mut stdout, &mut std::io::sink())
                .with_context(|| format!("reading the output of `{shown}`"))?;
            Ok(value)
        }),
        None => bail!("`{shown}` has no standard output"),
    };
    if consumed.is_err() {
        // The error that matters is the consumer's; a program still writing would wait for ever.
        drop(child.kill());
    }
    let output = child
        .wait_with_output()
        .with_context(|| format!("waiting for `{shown}`"))?;
    let value = consumed?;
    check(&shown, &output)?;
    Ok(value)
}

fn check(shown: &str, output: &Output) -> Result<()> {
    if output.status.success() {
        return Ok(());
    }
    let mut text = String::from_utf8_lossy(&output.stderr).into_owned();
    if text.trim().is_empty() {
        text = String::from_utf8_lossy(&output.stdout).into_owned();
    }
    bail!(
        "`{shown}` failed ({}):\n{}",
        output.status,
        last_lines(&text)
    );
}

/// The command as a person would type it, shortened when its arguments are very long.
fn command_line(command: &Command) -> String {
    let mut line = command.get_program().to_string_lossy().into_owned();
    for argument in command.get_args() {
        line.push(' ');
        line.push_str(&argument.to_string_lossy());
        if line.len() > 240 {
            line.push_str(" ...");
            break;
        }
    }
    line
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.trim_end().lines().collect();
    let from = lines.len().saturating_sub(SHOWN_LINES);
    lines[from..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_program_is_reported_with_its_output() {
        let error = run(Command::new("sh").args(["-c", "echo broken >&2; exit 3"])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("broken") && text.contains("exit status: 3"),
            "{text}"
        );
    }

    #[test]
    fn a_stream_is_read_to_its_end() {
        let size = run_into(Command::new("printf").arg("12345"), |stream| {
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Ok(text.len())
        });
        assert_eq!(size.unwrap(), 5);
    }
}
