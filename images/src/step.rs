//! Steps whose result is kept under a name made of everything that it depends on.
//!
//! A result is a file or a directory `out/cache/<step>-<digest of its inputs>`. Unchanged inputs give the same name, so
//! a second build only looks the names up. A result appears under its name when it is whole and on disk, never before.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

use crate::files;
use crate::progress::Running;
use crate::workspace::Workspace;

/// Results of each step that are kept: the last one and those of a few earlier states of the sources.
const KEPT_RESULTS: usize = 3;

/// A step being described: its name and inputs.
#[derive(Debug)]
pub(crate) struct Step<'build> {
    workspace: &'build Workspace,
    name: String,
    digest: Sha256,
}

impl Workspace {
    /// Begins the description of the step `name`.
    pub(crate) fn step(&self, name: &str) -> Step<'_> {
        Step {
            workspace: self,
            name: name.to_owned(),
            digest: Sha256::new(),
        }
    }
}

impl Step<'_> {
    /// Adds an input: a label and its bytes.
    pub(crate) fn input(mut self, label: &str, value: impl AsRef<[u8]>) -> Self {
        let value = value.as_ref();
        for part in [label.as_bytes(), value] {
            self.digest.update((part.len() as u64).to_le_bytes());
            self.digest.update(part);
        }
        self
    }

    /// Adds the builder's own source text that makes the result: other code, other result.
    pub(crate) fn code(mut self, sources: &[&str]) -> Self {
        for source in sources {
            self = self.input("code", source);
        }
        self
    }

    /// Adds the result of an earlier step: its name says what it was made from.
    pub(crate) fn result_of(self, earlier: &Path) -> Self {
        let name = earlier
            .file_name()
            .unwrap_or_default()
            .as_encoded_bytes()
            .to_vec();
        self.input("result", name)
    }

    /// Adds a file's content.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(crate) fn file(self, path: &Path) -> Result<Self> {
        let digest = files::sha256(path)?;
        Ok(self.input("file", digest))
    }

    /// The result: the one in the cache, or a new one that `make` writes to the path it is given.
    ///
    /// # Errors
    /// What `make` returns, or a failure to keep the result; nothing half-made stays behind.
    pub(crate) fn run(self, make: impl FnOnce(&Path, &Running) -> Result<()>) -> Result<PathBuf> {
        let digest = hex::encode(self.digest.finalize());
        let name = format!("{}-{}", self.name, &digest[..16]);
        let result = self.workspace.cache.join(&name);
        if result.exists() {
            touch(&result)?;
        } else {
            let running = self.workspace.progress.begin(&self.name);
            let making = self.workspace.cache.join(format!(".{name}.new"));
            files::remove(&making)?;
            let made = make(&making, &running).and_then(|()| keep(&making, &result));
            if made.is_err() {
                files::remove(&making)?;
            }
            made.with_context(|| format!("step {}", self.name))?;
            running.done("");
        }
        if let Ok(mut used) = self.workspace.used.lock() {
            used.push(result.clone());
        }
        Ok(result)
    }
}

/// Writes a finished result to disk and gives it its name.
fn keep(making: &Path, result: &Path) -> Result<()> {
    let file = File::open(making).with_context(|| format!("opening {}", making.display()))?;
    let synced = if file.metadata().is_ok_and(|metadata| metadata.is_dir()) {
        nix::unistd::syncfs(&file).map_err(std::io::Error::from)
    } else {
        file.sync_all()
    };
    synced.with_context(|| format!("writing {} to disk", making.display()))?;
    fs::rename(making, result)
        .with_context(|| format!("renaming {} to {}", making.display(), result.display()))?;
    files::sync_directory(result)
}

/// Notes the time of use, which [`tidy`] goes by.
fn touch(result: &Path) -> Result<()> {
    let file = File::open(result).with_context(|| format!("opening {}", result.display()))?;
    file.set_modified(SystemTime::now())
        .with_context(|| format!("touching {}", result.display()))
}

/// Removes leftovers of interrupted builds and all but the last few results of each step.
///
/// # Errors
/// When the cache cannot be read or an entry cannot be removed.
pub(crate) fn tidy(workspace: &Workspace) -> Result<()> {
    let used: BTreeSet<PathBuf> = workspace
        .used
        .lock()
        .map(|used| used.iter().cloned().collect())
        .unwrap_or_default();
    let reading = || format!("reading {}", workspace.cache.display());
    let mut results: BTreeMap<String, Vec<(SystemTime, PathBuf)>> = BTreeMap::new();
    for entry in fs::read_dir(&workspace.cache).with_context(reading)? {
        let entry = entry.with_context(reading)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            files::remove(&entry.path())?;
            continue;
        }
        let step = name
            .rsplit_once('-')
            .map_or(name.as_str(), |(step, _)| step)
            .to_owned();
        let modified = entry
            .metadata()
            .and_then(|metadata| metadata.modified())
            .with_context(reading)?;
        results
            .entry(step)
            .or_default()
            .push((modified, entry.path()));
    }
    for mut entries in results.into_values() {
        entries.sort_by(|left, right| right.cmp(left));
        for (_, path) in entries.into_iter().skip(KEPT_RESULTS) {
            if !used.contains(&path) {
                files::remove(&path)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::bail;

    fn workspace(scratch: &Path) -> Workspace {
        Workspace::open(scratch, &scratch.join("out")).unwrap()
    }

    #[test]
    fn the_same_inputs_are_made_once_and_other_inputs_again() {
        let scratch = tempfile::tempdir().unwrap();
        let workspace = workspace(scratch.path());
        let mut made = 0;
        let mut build = |input: &str| {
            workspace
                .step("demo")
                .input("text", input)
                .run(|path, _| {
                    made += 1;
                    Ok(fs::write(path, input)?)
                })
                .unwrap()
        };
        let first = build("one");
        assert_eq!(build("one"), first);
        assert_ne!(build("two"), first);
        assert_eq!(made, 2);
    }

    #[test]
    fn a_failed_step_leaves_nothing_behind_and_names_itself() {
        let scratch = tempfile::tempdir().unwrap();
        let workspace = workspace(scratch.path());
        let failed = workspace.step("demo").run(|path, _| {
            fs::create_dir(path)?;
            bail!("download failed")
        });
        assert!(format!("{:#}", failed.unwrap_err()).contains("step demo: download failed"));
        assert_eq!(fs::read_dir(&workspace.cache).unwrap().count(), 0);
    }

    #[test]
    fn tidying_keeps_the_results_in_use_and_a_few_others() {
        let scratch = tempfile::tempdir().unwrap();
        let workspace = workspace(scratch.path());
        for number in 0..8 {
            fs::write(workspace.cache.join(format!("demo-{number}")), "").unwrap();
        }
        fs::create_dir(workspace.cache.join(".demo-9.new")).unwrap();
        let used = workspace
            .step("demo")
            .run(|path, _| Ok(fs::write(path, "")?))
            .unwrap();
        tidy(&workspace).unwrap();
        assert!(used.exists());
        assert_eq!(
            fs::read_dir(&workspace.cache).unwrap().count(),
            KEPT_RESULTS
        );
    }
}
