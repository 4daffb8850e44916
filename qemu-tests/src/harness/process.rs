//! Host commands with a deadline.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

/// What a command left behind.
#[derive(Debug)]
pub struct Output {
    /// How it ended.
    pub status: ExitStatus,
    /// Everything it wrote, UTF-8 or made so.
    pub stdout: String,
    /// Its complaints.
    pub stderr: String,
}

impl Output {
    /// Both streams, for messages.
    pub fn text(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// Runs `command` with `input` on its standard input; kills it at the deadline.
///
/// # Errors
/// When it cannot be started, or has not ended in time. A failing exit status is not an error here.
pub fn run(command: &mut Command, input: &[u8], deadline: Duration) -> Result<Output> {
    let name = describe(command);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("starting {name}"))?;
    let until = Instant::now() + deadline;
    if let Some(mut stdin) = child.stdin.take() {
        let input = input.to_vec();
        // A command that does not read its input is no error.
        thread::spawn(move || stdin.write_all(&input));
    }
    let stdout = collect(child.stdout.take());
    let stderr = collect(child.stderr.take());
    let stdout = wait_for_end(&mut child, &stdout, until, &name, deadline)?;
    let stderr = wait_for_end(&mut child, &stderr, until, &name, deadline)?;
    let status = child
        .wait()
        .with_context(|| format!("waiting for {name}"))?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

/// Runs `command` and gives its standard output; a failing exit status is an error that shows what it wrote.
///
/// # Errors
/// As [`run`], and when it fails.
pub fn check(command: &mut Command, deadline: Duration) -> Result<String> {
    let output = run(command, &[], deadline)?;
    ensure!(
        output.status.success(),
        "{} failed ({}): {}",
        describe(command),
        output.status,
        output.text().trim()
    );
    Ok(output.stdout)
}

fn collect(stream: Option<impl Read + Send + 'static>) -> Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut stream) = stream {
            // What was read before an error is still worth showing.
            let _ = stream.read_to_end(&mut bytes);
        }
        let _ = sender.send(bytes);
    });
    receiver
}

fn wait_for_end(
    child: &mut Child,
    stream: &Receiver<Vec<u8>>,
    until: Instant,
    name: &str,
    deadline: Duration,
) -> Result<String> {
    match stream.recv_timeout(until.saturating_duration_since(Instant::now())) {
        Ok(bytes) => Ok(String::from_utf8_lossy(&bytes).into_owned()),
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            child.kill().with_context(|| format!("killing {name}"))?;
            child
                .wait()
                .with_context(|| format!("waiting for {name}"))?;
            bail!("{name} did not end within {deadline:?}")
        }
    }
}

fn describe(command: &Command) -> String {
    let mut words = vec![command.get_program().to_string_lossy().into_owned()];
    words.extend(
        command
            .get_args()
            .map(|arg| arg.to_string_lossy().into_owned()),
    );
    let line = words.join(" ");
    match line.char_indices().nth(300) {
        Some((end, _)) => format!("`{}...`", &line[..end]),
        None => format!("`{line}`"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_status_are_kept() {
        let output = run(
            Command::new("sh").args(["-c", "cat; echo no >&2; exit 3"]),
            b"yes",
            Duration::from_secs(10),
        )
        .unwrap();
        assert_eq!(
            (output.stdout.as_str(), output.stderr.as_str()),
            ("yes", "no\n")
        );
        assert_eq!(output.status.code(), Some(3));
    }

    #[test]
    fn a_command_that_hangs_is_killed_at_its_deadline() {
        let error = run(
            Command::new("sleep").arg("100"),
            b"",
            Duration::from_millis(50),
        )
        .unwrap_err();
        assert_eq!(error.to_string(), "`sleep 100` did not end within 50ms");
    }
}
