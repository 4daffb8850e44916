//! Service images share many libraries: equal files become hard links of one, which erofs stores once.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::files;

/// What must be equal before contents are compared: size, mode, user, group.
type Likeness = (u64, u32, u32, u32);

/// Replaces equal files below `root` (content, mode and owner) by hard links of the first. Gives the bytes saved.
///
/// # Errors
/// When a file cannot be read or replaced.
pub(crate) fn link_equal_files(root: &Path) -> Result<u64> {
    let mut alike: BTreeMap<Likeness, Vec<PathBuf>> = BTreeMap::new();
    for entry in files::walk(root)? {
        let metadata = &entry.metadata;
        if metadata.is_file() && metadata.len() > 0 {
            let likeness = (
                metadata.len(),
                metadata.mode(),
                metadata.uid(),
                metadata.gid(),
            );
            alike
                .entry(likeness)
                .or_default()
                .push(root.join(entry.path));
        }
    }
    let mut saved_bytes = 0;
    for ((size, ..), paths) in alike {
        if paths.len() > 1 {
            saved_bytes += size * link_same_content(&paths)?;
        }
    }
    Ok(saved_bytes)
}

/// Links those of `paths` that have the same content; gives how many files went away.
fn link_same_content(paths: &[PathBuf]) -> Result<u64> {
    let mut linked = 0;
    let mut first: BTreeMap<String, &PathBuf> = BTreeMap::new();
    for path in paths {
        let digest = files::sha256(path)?;
        let Some(&original) = first.get(&digest) else {
            first.insert(digest, path);
            continue;
        };
        let examining = || format!("examining {}", path.display());
        let (one, other) = (
            fs::metadata(original).with_context(examining)?,
            fs::metadata(path).with_context(examining)?,
        );
        if one.ino() != other.ino() {
            let linking = || format!("linking {} to {}", path.display(), original.display());
            fs::remove_file(path).with_context(linking)?;
            fs::hard_link(original, path).with_context(linking)?;
            linked += 1;
        }
    }
    Ok(linked)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn equal_files_are_linked_and_others_are_not() {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        for (name, content, mode) in [
            ("a", "same", 0o644),
            ("b", "same", 0o644),
            ("other-mode", "same", 0o755),
            ("other-content", "sane", 0o644),
        ] {
            fs::write(path(name), content).unwrap();
            fs::set_permissions(path(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        assert_eq!(link_equal_files(scratch.path()).unwrap(), 4);
        let inode = |name: &str| fs::metadata(path(name)).unwrap().ino();
        assert_eq!(inode("a"), inode("b"));
        assert_ne!(inode("a"), inode("other-mode"));
        assert_ne!(inode("a"), inode("other-content"));
    }
}
