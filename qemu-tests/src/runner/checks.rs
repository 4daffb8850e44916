//! What is checked before any machine is booted.

use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

/// A check: its name and the command that makes it.
pub struct Check {
    /// What it shows.
    pub name: &'static str,
    words: Vec<String>,
}

impl Check {
    fn new(name: &'static str, line: &str) -> Self {
        Check {
            name,
            words: line.split_whitespace().map(String::from).collect(),
        }
    }

    /// Makes it; its output goes to ours.
    ///
    /// # Errors
    /// When it fails.
    pub fn run(&self) -> Result<()> {
        let (program, arguments) = self.words.split_first().context("an empty check")?;
        let status = Command::new(program)
            .args(arguments)
            .stdin(Stdio::null())
            .status();
        let status = status.with_context(|| format!("starting {program}"))?;
        ensure!(
            status.success(),
            "`{}` ended with {status}",
            self.words.join(" ")
        );
        Ok(())
    }
}

/// Checks of the sources.
pub fn sources() -> Vec<Check> {
    vec![
        Check::new("the sources are formatted", "cargo fmt --check"),
        Check::new(
            "the sources have no lints",
            "cargo clippy --locked --profile tool --workspace --all-targets -- -D warnings",
        ),
        Check::new(
            "the tests of every crate pass",
            "cargo test --quiet --locked --profile tool --workspace",
        ),
        Check::new(
            "the shell scripts can be parsed",
            "sh -n mkimage.sh qemu-tests/run .ci/run",
        ),
    ]
}

/// The image as it is shipped, and with the tests' own services.
pub fn images() -> Vec<Check> {
    vec![
        Check::new(
            "the image can be built",
            "cargo run --locked --profile tool -p keelson-images -- build",
        ),
        Check::new(
            "the test image can be built",
            "cargo run --locked --profile tool -p keelson-images -- build --services qemu-tests/services --output out/test",
        ),
    ]
}
