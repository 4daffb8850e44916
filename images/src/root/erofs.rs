//! The compressed file system, made by mkfs.erofs with everything fixed that would differ from build to build.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::recipe::Erofs;

/// The file system's UUID: the image's identity is its root hash, this one is never looked at.
const UUID: &str = "6b65656c-736f-4e00-8000-000000000001";

/// Makes `image` from the tree at `tree`.
///
/// # Errors
/// When the recipe names an algorithm by a wrong number, or mkfs.erofs fails.
pub(crate) fn make(recipe: &Erofs, tree: &Path, image: &Path, epoch_seconds: u64) -> Result<()> {
    mkfs(recipe, &[], tree, image, epoch_seconds)
}

/// Adds what is in the tar file `archive` to the file system in `image`, and checks the result.
///
/// # Errors
/// As [`make`], and when fsck.erofs finds fault.
pub(crate) fn extend(
    recipe: &Erofs,
    archive: &Path,
    image: &Path,
    epoch_seconds: u64,
) -> Result<()> {
    mkfs(
        recipe,
        &["--incremental=data", "--tar=f"],
        archive,
        image,
        epoch_seconds,
    )?;
    // With --extract it reads the files too, and throws away what it has read.
    command::run(Command::new("fsck.erofs").arg("--extract").arg(image))
        .context("checking the root file system")?;
    Ok(())
}

fn mkfs(
    recipe: &Erofs,
    how: &[&str],
    source: &Path,
    image: &Path,
    epoch_seconds: u64,
) -> Result<()> {
    let hints = image.with_extension("hints");
    fs::write(&hints, hints_text(recipe)?)
        .with_context(|| format!("writing {}", hints.display()))?;
    let mut mkfs = Command::new("mkfs.erofs");
    mkfs.arg("--quiet").arg(format!("-T{epoch_seconds}"));
    mkfs.args(["-U", UUID, "-x-1"]).args(how);
    mkfs.arg(format!("-z{}", recipe.algorithms.join(":")));
    mkfs.arg(format!("-C{}", recipe.cluster_bytes));
    if !recipe.features.is_empty() {
        mkfs.arg(format!("-E{}", recipe.features.join(",")));
    }
    if !recipe.rules.is_empty() {
        mkfs.arg(format!("--compress-hints={}", hints.display()));
    }
    let made = command::run(mkfs.arg(image).arg(source)).context("making the root file system");
    fs::remove_file(&hints).with_context(|| format!("removing {}", hints.display()))?;
    made.map(drop)
}

/// Lines `CLUSTER-BYTES ALGORITHM PATTERN`; the first that matches counts.
fn hints_text(recipe: &Erofs) -> Result<String> {
    let mut text = String::new();
    for rule in &recipe.rules {
        ensure!(
            rule.algorithm < recipe.algorithms.len(),
            "root.yml: the rule for {} names algorithm {}, but there are only {} (counted from 0)",
            rule.paths,
            rule.algorithm,
            recipe.algorithms.len()
        );
        let _ = writeln!(
            text,
            "{} {} {}",
            rule.cluster_bytes, rule.algorithm, rule.paths
        );
    }
    Ok(text)
}
