//! Who may do what at the same time.

use super::{Error, Store, at};
use crate::Digest;
use rustix::fs::{FlockOperation, flock};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;

/// A lock that is held until it is dropped.
#[derive(Debug)]
pub struct Lock {
    _held: File,
}

impl Lock {
    /// Others may hold it too: nothing is removed, and index.json does not change.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn shared(store: &Store) -> Result<Self, Error> {
        Self::take(store.directory().join("lock"), FlockOperation::LockShared)
    }

    /// Nobody else holds it.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn exclusive(store: &Store) -> Result<Self, Error> {
        Self::take(
            store.directory().join("lock"),
            FlockOperation::LockExclusive,
        )
    }

    /// Nobody else works on this blob or layer.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn on(store: &Store, digest: &Digest) -> Result<Self, Error> {
        let path = store.incoming(&format!("{}.lock", digest.hex()));
        Self::take(path, FlockOperation::LockExclusive)
    }

    fn take(path: PathBuf, how: FlockOperation) -> Result<Self, Error> {
        loop {
            let file = File::options().create(true).append(true).open(&path);
            let file = file.map_err(at(&path))?;
            match flock(&file, how) {
                Err(rustix::io::Errno::INTR) => {}
                Err(error) => return Err(at(&path)(error.into())),
                Ok(()) => return Ok(Self { _held: file }),
            }
        }
    }
}

/// What a pull is about to use: whoever cleans up leaves it alone for as long as the pull lives.
#[derive(Debug)]
pub struct Mark {
    path: PathBuf,
    file: File,
}

impl Mark {
    /// Marks digests of blobs and layers.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn set(store: &Store, digests: &[Digest]) -> Result<Self, Error> {
        // Nobody cleans up between this mark and the look at what is there already.
        let _lock = Lock::shared(store)?;
        let path = store.incoming(&format!("{}.mark", std::process::id()));
        let mut file = File::create(&path).map_err(at(&path))?;
        flock(&file, FlockOperation::LockExclusive).map_err(|error| at(&path)(error.into()))?;
        let text: String = digests.iter().map(|digest| format!("{digest}\n")).collect();
        file.write_all(text.as_bytes()).map_err(at(&path))?;
        Ok(Self { path, file })
    }

    /// Marks more.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn add(&mut self, store: &Store, digests: &[Digest]) -> Result<(), Error> {
        let _lock = Lock::shared(store)?;
        let text: String = digests.iter().map(|digest| format!("{digest}\n")).collect();
        self.file.write_all(text.as_bytes()).map_err(at(&self.path))
    }

    /// What pulls that live have marked. Marks of those that do not are removed. The caller holds the lock alone.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn all(store: &Store) -> Result<BTreeSet<Digest>, Error> {
        let mut marked = BTreeSet::new();
        let directory = store.incoming("");
        for entry in fs::read_dir(&directory).map_err(at(&directory))? {
            let path = entry.map_err(at(&directory))?.path();
            if path.extension().is_none_or(|extension| extension != "mark") {
                continue;
            }
            let file = match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                other => other.map_err(at(&path))?,
            };
            if flock(&file, FlockOperation::NonBlockingLockShared).is_ok() {
                fs::remove_file(&path).map_err(at(&path))?;
                continue;
            }
            let text = fs::read_to_string(&path).map_err(at(&path))?;
            marked.extend(text.lines().filter_map(|line| line.parse().ok()));
        }
        Ok(marked)
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        // Without it, it is one that does not live.
        let _ = fs::remove_file(&self.path);
    }
}
