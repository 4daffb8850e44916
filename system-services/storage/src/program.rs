//! Programs of Debian's that do the work.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use anyhow::{Context, Result, bail};

/// Runs `program` with `arguments`, with `input` at its standard input; gives what it printed.
///
/// # Errors
/// It cannot be started, or does not succeed: with what it said.
pub(crate) fn run(program: &str, arguments: &[&str], input: Option<&str>) -> Result<String> {
    let output = output(program, arguments, input)?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said: Vec<&str> = said
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty())
            .collect();
        bail!(
            "{program}: {}",
            match said.is_empty() {
                true => output.status.to_string(),
                false => said.join("; "),
            }
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// As [`run`], whatever its exit status.
pub(crate) fn output(program: &str, arguments: &[&str], input: Option<&str>) -> Result<Output> {
    let starting = || format!("start {program}");
    let mut child = Command::new(program)
        .args(arguments)
        .stdin(match input {
            Some(_) => Stdio::piped(),
            None => Stdio::null(),
        })
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(starting)?;
    if let (Some(mut pipe), Some(input)) = (child.stdin.take(), input) {
        pipe.write_all(input.as_bytes()).with_context(starting)?;
    }
    child.wait_with_output().with_context(starting)
}
