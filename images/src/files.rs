//! Small helpers on files and directory trees: digests, walks, durable writes, sparse copies.

use std::fs::{self, File, Metadata};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sha2::{Digest, Sha256};

const BLOCK_BYTES: usize = 64 * 1024;

/// One entry of a tree, as [`walk`] finds it.
#[derive(Debug)]
pub(crate) struct Entry {
    /// Path relative to the tree's root, with `/` between components.
    pub(crate) path: String,
    /// The entry's own metadata (links are not followed).
    pub(crate) metadata: Metadata,
}

/// All entries below `root`, parents before children, sorted by name within each directory.
///
/// # Errors
/// When a directory cannot be read or a name is not UTF-8.
pub(crate) fn walk(root: &Path) -> Result<Vec<Entry>> {
    let mut entries = Vec::new();
    walk_below(root, "", &mut entries)?;
    Ok(entries)
}

fn walk_below(directory: &Path, prefix: &str, entries: &mut Vec<Entry>) -> Result<()> {
    let mut names = Vec::new();
    let reading = || format!("reading directory {}", directory.display());
    for entry in fs::read_dir(directory).with_context(reading)? {
        let name = entry.with_context(reading)?.file_name();
        let name = name.into_string().map_err(|name| {
            anyhow::anyhow!("file name {name:?} in {} is not UTF-8", directory.display())
        })?;
        names.push(name);
    }
    names.sort();
    for name in names {
        let full = directory.join(&name);
        let path = format!("{prefix}{name}");
        let metadata =
            fs::symlink_metadata(&full).with_context(|| format!("examining {}", full.display()))?;
        let below = metadata.is_dir().then(|| format!("{path}/"));
        entries.push(Entry { path, metadata });
        if let Some(below) = below {
            walk_below(&full, &below, entries)?;
        }
    }
    Ok(())
}

/// SHA-256 of a file's content, in hex.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("opening {}", path.display()))?;
    let mut digest = Sha256::new();
    let mut block = vec![0; BLOCK_BYTES];
    loop {
        let size = file
            .read(&mut block)
            .with_context(|| format!("reading {}", path.display()))?;
        if size == 0 {
            return Ok(hex::encode(digest.finalize()));
        }
        digest.update(&block[..size]);
    }
}

/// Reads a whole text file.
///
/// # Errors
/// When it cannot be read or is not UTF-8.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))
}

/// Makes a directory and its parents.
///
/// # Errors
/// When one cannot be made.
pub(crate) fn make_directory(path: &Path) -> Result<()> {
    fs::create_dir_all(path).with_context(|| format!("making directory {}", path.display()))
}

/// Removes a file or a whole directory tree; one that is not there is no error.
///
/// # Errors
/// When something cannot be removed.
pub(crate) fn remove(path: &Path) -> Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Ok(metadata) if metadata.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    removed.with_context(|| format!("removing {}", path.display()))
}

/// Writes a file so that after a crash there is either the old one or the whole new one.
///
/// # Errors
/// When writing, syncing or renaming fails; the temporary file is removed again.
pub(crate) fn write_durably(path: &Path, content: &[u8]) -> Result<()> {
    replace_durably(path, |temporary| {
        fs::write(temporary, content).with_context(|| format!("writing {}", temporary.display()))
    })
}

/// Has `make` write a temporary file beside `path`, syncs it and renames it to `path`.
///
/// # Errors
/// When `make`, the sync or the rename fails; the temporary file is removed again.
pub(crate) fn replace_durably(path: &Path, make: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let mut name = path.file_name().unwrap_or_default().to_os_string();
    name.push(".new");
    let temporary = path.with_file_name(name);
    remove(&temporary)?;
    let made = make(&temporary).and_then(|()| {
        let file =
            File::open(&temporary).with_context(|| format!("opening {}", temporary.display()))?;
        file.sync_all()
            .with_context(|| format!("writing {} to disk", temporary.display()))?;
        fs::rename(&temporary, path)
            .with_context(|| format!("renaming {} to {}", temporary.display(), path.display()))
    });
    if made.is_err() {
        remove(&temporary)?;
    }
    made?;
    sync_directory(path)
}

/// Makes the directory entry of `path` durable.
///
/// # Errors
/// When the directory cannot be opened or synced.
pub(crate) fn sync_directory(path: &Path) -> Result<()> {
    let parent: PathBuf = match path.parent() {
        Some(parent) if parent != Path::new("") => parent.to_owned(),
        _ => PathBuf::from("."),
    };
    let directory = File::open(&parent).with_context(|| format!("opening {}", parent.display()))?;
    directory
        .sync_all()
        .with_context(|| format!("writing directory {} to disk", parent.display()))
}

/// Copies the file `from` into `to` at byte `offset`; blocks of zeros become holes. Gives the bytes copied.
///
/// # Errors
/// When reading or writing fails.
pub(crate) fn copy_sparse(from: &Path, to: &mut File, offset: u64) -> Result<u64> {
    let copying = || format!("copying {}", from.display());
    let mut source = File::open(from).with_context(copying)?;
    let mut block = vec![0; BLOCK_BYTES];
    let mut copied = 0;
    loop {
        let size = fill(&mut source, &mut block).with_context(copying)?;
        if size == 0 {
            break;
        }
        if block[..size].iter().any(|&byte| byte != 0) {
            to.seek(SeekFrom::Start(offset + copied))
                .with_context(copying)?;
            to.write_all(&block[..size]).with_context(copying)?;
        }
        copied += size as u64;
    }
    let end = offset + copied;
    if to.metadata().with_context(copying)?.len() < end {
        to.set_len(end).with_context(copying)?;
    }
    Ok(copied)
}

/// Reads until `block` is full or the file ends.
fn fill(source: &mut File, block: &mut [u8]) -> io::Result<usize> {
    let mut size = 0;
    while size < block.len() {
        match source.read(&mut block[size..])? {
            0 => break,
            more => size += more,
        }
    }
    Ok(size)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_walk_is_sorted_and_gives_parents_first() {
        let scratch = tempfile::tempdir().unwrap();
        for name in ["b", "a/z", "a/b"] {
            make_directory(&scratch.path().join(name)).unwrap();
        }
        let paths: Vec<String> = walk(scratch.path())
            .unwrap()
            .into_iter()
            .map(|entry| entry.path)
            .collect();
        assert_eq!(paths, ["a", "a/b", "a/z", "b"]);
    }

    #[test]
    fn a_failed_write_leaves_the_old_file_and_nothing_else() {
        let scratch = tempfile::tempdir().unwrap();
        let path = scratch.path().join("file");
        write_durably(&path, b"old").unwrap();
        let failed = replace_durably(&path, |temporary| {
            fs::write(temporary, b"half").unwrap();
            anyhow::bail!("no space left")
        });
        assert!(failed.is_err());
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(scratch.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_sparse_copy_has_the_same_bytes_at_the_offset() {
        let scratch = tempfile::tempdir().unwrap();
        let from = scratch.path().join("from");
        let mut content = vec![0_u8; 3 * BLOCK_BYTES + 17];
        content[BLOCK_BYTES + 5] = 7;
        fs::write(&from, &content).unwrap();
        let to = scratch.path().join("to");
        let mut file = File::create(&to).unwrap();
        assert_eq!(
            copy_sparse(&from, &mut file, 4096).unwrap(),
            content.len() as u64
        );
        assert_eq!(fs::read(&to).unwrap()[4096..], content);
    }
}
