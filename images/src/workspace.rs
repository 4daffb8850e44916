//! Where a build reads and writes, and what every step of it shares.

use std::env;
use std::fs::{File, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

use anyhow::{Context, Result};
use nix::fcntl::{Flock, FlockArg};

use crate::command;
use crate::files;
use crate::progress::Progress;

/// Time stamp of everything when neither `SOURCE_DATE_EPOCH` nor a git history says one: 1 January 2026.
const FIXED_EPOCH: u64 = 1_767_225_600;

/// The folders of one build.
#[derive(Debug)]
pub(crate) struct Workspace {
    /// The project's top folder.
    pub(crate) top: PathBuf,
    /// Where the finished files go.
    pub(crate) out: PathBuf,
    /// Results of steps, named after what they were made from.
    pub(crate) cache: PathBuf,
    /// apt's lists and downloaded packages, shared by all builds.
    pub(crate) apt: PathBuf,
    /// cargo's target folder for the programs that are shipped.
    pub(crate) target: PathBuf,
    /// The time, in seconds since 1970, that every time stamp in the outputs has.
    pub(crate) epoch_seconds: u64,
    /// What the person at the terminal sees.
    pub(crate) progress: Progress,
    /// Results that this build used: they are kept when the cache is tidied.
    pub(crate) used: Mutex<Vec<PathBuf>>,
}

impl Workspace {
    /// The workspace of the project at `top` with its outputs in `out`; makes the folders.
    ///
    /// # Errors
    /// When a folder cannot be made or `SOURCE_DATE_EPOCH` is not a number.
    pub(crate) fn open(top: &Path, out: &Path) -> Result<Self> {
        let workspace = Self {
            top: top.to_owned(),
            out: out.to_owned(),
            cache: out.join("cache"),
            apt: top.join("out/apt"),
            target: out.join("target"),
            epoch_seconds: epoch_seconds(top)?,
            progress: Progress::new(),
            used: Mutex::new(Vec::new()),
        };
        for directory in [
            &workspace.out,
            &workspace.cache,
            &workspace.apt,
            &workspace.target,
        ] {
            files::make_directory(directory)?;
        }
        Ok(workspace)
    }

    /// Puts the finished files into `folder` instead; everything else is shared with other builds.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub(crate) fn publish_to(&mut self, folder: &Path) -> Result<()> {
        self.out = self.top.join(folder);
        files::make_directory(&self.out)
    }

    /// Waits until no other build works with this cache, for as long as the result lives.
    ///
    /// # Errors
    /// When the lock file cannot be made or locked.
    pub(crate) fn lock(&self) -> Result<Flock<File>> {
        let path = self.cache.with_file_name(".build.lock");
        let open = || {
            OpenOptions::new()
                .create(true)
                .truncate(false)
                .write(true)
                .open(&path)
        };
        let locking = || format!("locking {}", path.display());
        match Flock::lock(
            open().with_context(locking)?,
            FlockArg::LockExclusiveNonblock,
        ) {
            Ok(lock) => Ok(lock),
            Err((file, nix::errno::Errno::EWOULDBLOCK)) => {
                self.progress
                    .note("another build is running: waiting for it to end");
                Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, errno)| errno)
                    .with_context(locking)
            }
            Err((_, errno)) => Err(errno).with_context(locking),
        }
    }

    /// A path as people of this project know it: relative to the top folder.
    pub(crate) fn shown<'path>(&self, path: &'path Path) -> std::path::Display<'path> {
        path.strip_prefix(&self.top).unwrap_or(path).display()
    }
}

/// `SOURCE_DATE_EPOCH`, else the time of the last commit that changed `Cargo.toml`, else a fixed time.
///
/// The version stands in that file. The time of just any last commit would make every commit, be it of a test, another
/// image of the same content.
fn epoch_seconds(top: &Path) -> Result<u64> {
    if let Ok(text) = env::var("SOURCE_DATE_EPOCH") {
        return text.parse().with_context(|| {
            format!("SOURCE_DATE_EPOCH must be seconds since 1970, not {text:?}")
        });
    }
    let mut git = Command::new("git");
    git.arg("-C").arg(top);
    git.args([
        "-c",
        "safe.directory=*",
        "log",
        "-1",
        "--format=%ct",
        "--",
        "Cargo.toml",
    ]);
    let commit = command::run(&mut git)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    Ok(commit.unwrap_or(FIXED_EPOCH))
}
