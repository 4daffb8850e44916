//! Versions of the operating system that tests move between: 1.0.0, which they boot; 2.0.0, with one service more; 3.0.0, one of whose
//! services does not come up.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::Result;

use crate::harness::artifacts::Artifacts;
use crate::harness::process;

/// The version that machines are booted with.
pub const FIRST: &str = "1.0.0";
/// A good one.
pub const SECOND: &str = "2.0.0";
/// One that is not.
pub const THIRD: &str = "3.0.0";
const DEADLINE: Duration = Duration::from_secs(15 * 60);

/// The folder of one of the versions.
pub fn folder(out: &Path, version: &str) -> PathBuf {
    out.join("releases").join(version)
}

/// The keys that they are signed with.
pub fn keys(out: &Path) -> PathBuf {
    out.join("releases/keys")
}

/// The image of one of the versions.
///
/// # Errors
/// When it has not been built.
pub fn image(out: &Path, version: &str) -> Result<Artifacts> {
    Artifacts::open(&folder(out, version))
}

/// Builds all of them.
///
/// # Errors
/// When a build fails.
pub fn build(out: &Path) -> Result<()> {
    let keys = keys(out);
    if !keys.is_dir() {
        builder(&["keys", "--output", &text(&keys)])?;
    }
    for (version, services) in [
        (FIRST, None),
        (SECOND, Some("qemu-tests/releases/second")),
        (THIRD, Some("qemu-tests/releases/third")),
    ] {
        let (keys, folder) = (text(&keys), text(&folder(out, version)));
        let mut words = vec!["build", "--quick", "--version", version, "--sign", &keys];
        words.extend(["--output", &folder]);
        if let Some(services) = services {
            words.extend(["--services", services]);
        }
        builder(&words)?;
    }
    Ok(())
}

/// Makes a signed release of one of the versions and pushes it to a registry without TLS; `keys` is where the release key is.
///
/// # Errors
/// When it cannot be made or pushed.
pub fn push(out: &Path, version: &str, keys: &Path, repository: &str, layout: &Path) -> Result<()> {
    let (from, keys, layout) = (text(&folder(out, version)), text(keys), text(layout));
    builder(&[
        "release",
        "--from",
        &from,
        "--sign",
        &keys,
        "--output",
        &layout,
        "--push",
        repository,
        "--insecure",
    ])
}

fn builder(words: &[&str]) -> Result<()> {
    let mut command = Command::new("cargo");
    command.args([
        "run",
        "--quiet",
        "--locked",
        "--profile",
        "tool",
        "-p",
        "keelson-images",
        "--",
    ]);
    process::check(command.args(words), DEADLINE).map(drop)
}

fn text(path: &Path) -> String {
    path.display().to_string()
}
