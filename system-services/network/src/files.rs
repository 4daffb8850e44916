//! Files that appear whole or not at all.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

/// Whether a written file must outlive a power cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On disk when the call returns.
    Disk,
    /// Gone with the machine anyway.
    Memory,
}

/// Replaces the file at `path` with `content`: a reader sees the old file or the new one. A file that already has this
/// content is left alone, so that those who watch it are not woken.
///
/// # Errors
/// What writing next to `path` or renaming reports; the old file then still stands.
pub fn replace(path: &Path, content: &[u8], durability: Durability) -> io::Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    let directory = path
        .parent()
        .ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".new");
    let written = (|| {
        let mut file = File::create(&temporary)?;
        file.write_all(content)?;
        if durability == Durability::Disk {
            file.sync_all()?;
        }
        fs::rename(&temporary, path)
    })();
    if let Err(error) = written {
        let _ = fs::remove_file(&temporary); // it may not exist; the first error is the one to tell
        return Err(error);
    }
    sync_directory(directory, durability)
}

/// Removes the file at `path`; one that is not there is fine.
///
/// # Errors
/// What unlink(2) or syncing the directory reports.
pub fn remove(path: &Path, durability: Durability) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(()) => path
            .parent()
            .map_or(Ok(()), |directory| sync_directory(directory, durability)),
    }
}

fn sync_directory(directory: &Path, durability: Durability) -> io::Result<()> {
    match durability {
        Durability::Disk => File::open(directory)?.sync_all(),
        Durability::Memory => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replaced_file_is_whole_and_nothing_is_left_beside_it() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("lease");
        for content in ["one", "two, longer", ""] {
            replace(&path, content.as_bytes(), Durability::Disk).unwrap();
            assert_eq!(fs::read_to_string(&path).unwrap(), content);
        }
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        remove(&path, Durability::Disk).unwrap();
        remove(&path, Durability::Disk).unwrap();
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("resolv.conf");
        fs::write(&path, "old").unwrap();
        fs::create_dir(directory.path().join("resolv.conf.new")).unwrap();
        assert!(replace(&path, b"new", Durability::Memory).is_err());
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
