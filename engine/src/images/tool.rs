//! Calls of `keelson-image`.

use crate::options::Options;
use serde_json::Value;
use std::io;
use std::process::Stdio;
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::process::{Child, ChildStdout, Command};

/// A failure, with the status that Docker's API answers it with.
#[derive(Debug)]
pub struct Failed {
    /// Status of HTTP.
    pub status: u16,
    /// For a person.
    pub message: String,
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self {
            status: 500,
            message: format!("cannot run the image tool: {error}"),
        }
    }
}

/// A call that runs; it ends with this.
#[derive(Debug)]
pub struct Running {
    child: Child,
    output: BufReader<ChildStdout>,
    first: Option<String>,
    failed: bool,
}

/// A call, not begun yet. Its arguments follow.
pub fn command(options: &Options) -> Command {
    let mut command = Command::new(&options.image_tool);
    command.arg("--store").arg(options.state.join("images"));
    // What the configuration says, and what stands there by hand, which counts.
    for path in [
        options.configuration.join("registries.yml"),
        options.state.join("registries.yml"),
    ] {
        command.arg("--registries").arg(path);
    }
    let proxy = std::fs::read_to_string(options.configuration.join("proxy.env"));
    for line in proxy.unwrap_or_default().lines() {
        if let Some((name, value)) = line.split_once('=') {
            command.env(name, value);
        }
    }
    for path in &options.certificates {
        command.arg("--certificates").arg(path);
    }
    command.stdin(Stdio::null()).kill_on_drop(true);
    command
}

impl Running {
    /// Begins a call; a failure that comes before anything else is an error. With `input` that much is typed to it.
    ///
    /// # Errors
    /// As the tool says.
    pub async fn begin(mut command: Command, input: Option<Vec<u8>>) -> Result<Self, Failed> {
        if input.is_some() {
            command.stdin(Stdio::piped());
        }
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        if let (Some(input), Some(mut stdin)) = (input, child.stdin.take()) {
            // Who does not read it says why.
            let _ = stdin.write_all(&input).await;
        }
        let mut running = Self::of(child)?;
        let mut line = String::new();
        running.output.read_line(&mut line).await?;
        match failure(&line) {
            Some(failed) => Err(failed),
            None => {
                running.first = Some(line);
                Ok(running)
            }
        }
    }

    /// A call that has begun.
    ///
    /// # Errors
    /// When its output is not piped.
    pub fn of(mut child: Child) -> Result<Self, Failed> {
        let stdout = child.stdout.take();
        let stdout = stdout.ok_or_else(|| io::Error::other("it has no output"))?;
        Ok(Self {
            child,
            output: BufReader::new(stdout),
            first: None,
            failed: false,
        })
    }

    /// A piece of what it prints; `None` at its end.
    ///
    /// # Errors
    /// What the system calls report.
    pub async fn next(&mut self) -> io::Result<Option<Vec<u8>>> {
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            return Ok(Some(first.into_bytes()));
        }
        let mut piece = vec![0; 64 * 1024];
        let length = self.output.read(&mut piece).await?;
        if length == 0 {
            self.failed = !self.child.wait().await?.success();
            return Ok(None);
        }
        piece.truncate(length);
        Ok(Some(piece))
    }

    /// Whether it has ended otherwise than well. What it printed says why, unless that is an archive.
    pub fn has_failed(&self) -> bool {
        self.failed
    }

    /// All that it prints; a failure as its last line is an error.
    ///
    /// # Errors
    /// As the tool says.
    pub async fn whole(mut self) -> Result<String, Failed> {
        let mut text = String::new();
        while let Some(piece) = self.next().await? {
            text.push_str(&String::from_utf8_lossy(&piece));
        }
        let last = text.lines().last().unwrap_or_default();
        match failure(last) {
            Some(failed) => Err(failed),
            None => Ok(text),
        }
    }
}

/// What a line says of a failure.
pub fn failure(line: &str) -> Option<Failed> {
    let value: Value = serde_json::from_str(line).ok()?;
    let detail = value.get("errorDetail")?;
    Some(Failed {
        status: detail["code"]
            .as_u64()
            .and_then(|code| u16::try_from(code).ok())
            .unwrap_or(500),
        message: detail["message"].as_str().unwrap_or_default().to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[tokio::test]
    async fn a_failure_at_once_is_an_error_and_one_later_is_the_last_line() {
        let line = r#"{"errorDetail":{"code":404,"message":"none"},"error":"none"}"#;
        let failed = Running::begin(shell(&format!("echo '{line}'")), None)
            .await
            .unwrap_err();
        assert_eq!((failed.status, failed.message.as_str()), (404, "none"));
        let later = shell(&format!("cat; echo; echo '{line}'"));
        let running = Running::begin(later, Some(b"typed".to_vec()))
            .await
            .unwrap();
        assert_eq!(running.whole().await.unwrap_err().status, 404);
        let running = Running::begin(shell("echo one; echo two"), None)
            .await
            .unwrap();
        assert_eq!(running.whole().await.unwrap(), "one\ntwo\n");
    }
}
