//! What recipes put into a tree beside packages: directories, files, links, programs.

use std::fs::File;
use std::path::Path;

use anyhow::{Context, Result};

use super::Tree;
use crate::recipe::{Directory, FileContent, FileEntry};

/// Makes the recipe's directories.
///
/// # Errors
/// When one cannot be made.
pub(crate) fn directories(tree: &Tree, directories: &[Directory]) -> Result<()> {
    for directory in directories {
        let owner = directory.owner;
        tree.directory(
            directory.path.relative(),
            directory.mode.0,
            owner.user,
            owner.group,
        )?;
    }
    Ok(())
}

/// Makes the recipe's files; `folder` is where the recipe and its sources lie.
///
/// # Errors
/// When a source is missing or a file cannot be written.
pub(crate) fn files(tree: &Tree, files: &[FileEntry], folder: &Path) -> Result<()> {
    for entry in files {
        let path = entry.path.relative();
        let (mode, owner) = (entry.mode.0, entry.owner);
        match &entry.content {
            FileContent::Link(target) => tree.link(path, target)?,
            FileContent::Text(text) => {
                tree.file(path, &mut text.as_bytes(), mode, owner.user, owner.group)?
            }
            FileContent::Source(source) => {
                let source = folder.join(source);
                let mut file = File::open(&source)
                    .with_context(|| format!("opening {} for /{path}", source.display()))?;
                tree.file(path, &mut file, mode, owner.user, owner.group)?;
            }
        }
    }
    Ok(())
}

/// Copies the program at `binary` to `path` in the tree.
///
/// # Errors
/// When it cannot be read or written.
pub(crate) fn program(tree: &Tree, path: &str, binary: &Path) -> Result<()> {
    let mut file = File::open(binary).with_context(|| format!("opening {}", binary.display()))?;
    tree.file(path, &mut file, 0o755, 0, 0)
}
