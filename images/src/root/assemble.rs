//! Puts the root's tree together. Files of the cache are hard-linked, not copied.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use anyhow::{Context, Result};

use super::Parts;
use crate::files;
use crate::image::{self, Tree};
use crate::kernel::{self, ModuleIndex};
use crate::packages;
use crate::workspace::Workspace;

/// Where everything of ours is.
const HOME: &str = "usr/lib/keelson";

/// Where the kernel looks for what it loads into devices.
const FIRMWARE: &str = "usr/lib/firmware";

/// Makes the tree at `root`.
///
/// # Errors
/// When a part is missing or a file cannot be made.
pub(crate) fn assemble(workspace: &Workspace, parts: &Parts<'_>, root: &Path) -> Result<()> {
    let tree = Tree::create(root)?;
    let recipe = &parts.recipe.content;
    image::directories(&tree, &recipe.directories)?;
    for image in parts.images {
        let name = format!("{HOME}/images/{}", image.name);
        tree.directory(&format!("{HOME}/images"), 0o755, 0, 0)?;
        link_tree(&image.tree, &tree.place(&name)?)?;
    }
    for (name, file) in parts.services {
        let mut source = File::open(file).with_context(|| format!("opening {}", file.display()))?;
        tree.file(
            &format!("{HOME}/services/{name}.yml"),
            &mut source,
            0o644,
            0,
            0,
        )?;
    }
    let selection = &parts.kernel_recipe.content;
    let chosen = ModuleIndex::load(parts.kernel)?
        .by_pattern(&selection.modules, &selection.without)
        .context("kernel.yml")?;
    kernel::install(parts.kernel, &chosen, &tree)?;
    super::extract(workspace, parts, &tree)?;
    for package in parts.firmware {
        packages::unpack(&packages::archive_path(workspace, package), &tree, |path| {
            !path.starts_with(FIRMWARE) && !FIRMWARE.starts_with(path)
        })?;
    }
    tree.file(
        "usr/lib/os-release",
        &mut os_release(parts.version, parts.flavour).as_bytes(),
        0o644,
        0,
        0,
    )?;
    if let Some(key) = parts.release_key {
        let path = format!("{HOME}/release-keys/release.pem");
        tree.file(&path, &mut key.as_bytes(), 0o644, 0, 0)?;
    }
    image::files(&tree, &recipe.files, parts.folder)?;
    for program in &recipe.programs {
        image::program(
            &tree,
            program.path.relative(),
            &parts.programs.path(&program.name, program.profile)?,
        )?;
    }
    Ok(())
}

/// The text of `/usr/lib/os-release` (os-release(5)).
pub(crate) fn os_release(version: &str, flavour: &str) -> String {
    format!(
        "NAME=Keelson\nID=keelson\nVERSION_ID={version}\nVARIANT_ID={flavour}\nPRETTY_NAME=\"Keelson {version}\"\nIMAGE_ID=keelson\nIMAGE_VERSION={version}\n"
    )
}

/// Makes a copy of the tree `from` at `to` that shares its files.
fn link_tree(from: &Path, to: &Path) -> Result<()> {
    make_directory_like(from, to)?;
    for entry in files::walk(from)? {
        let (source, copy) = (from.join(&entry.path), to.join(&entry.path));
        let copying = || format!("linking {} to {}", source.display(), copy.display());
        if entry.metadata.is_dir() {
            make_directory_like(&source, &copy)?;
        } else if entry.metadata.is_symlink() {
            let target = fs::read_link(&source).with_context(copying)?;
            symlink(target, &copy).with_context(copying)?;
        } else {
            fs::hard_link(&source, &copy).with_context(copying)?;
        }
    }
    Ok(())
}

fn make_directory_like(from: &Path, to: &Path) -> Result<()> {
    let making = || format!("making directory {}", to.display());
    let metadata = fs::metadata(from).with_context(making)?;
    fs::create_dir(to).with_context(making)?;
    std::os::unix::fs::lchown(to, Some(metadata.uid()), Some(metadata.gid()))
        .with_context(making)?;
    fs::set_permissions(to, metadata.permissions()).with_context(making)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_linked_tree_has_the_same_entries() {
        let scratch = tempfile::tempdir().unwrap();
        let (from, to) = (scratch.path().join("from"), scratch.path().join("to"));
        files::make_directory(&from.join("a/b")).unwrap();
        fs::write(from.join("a/b/file"), "text").unwrap();
        symlink("b/file", from.join("a/link")).unwrap();
        link_tree(&from, &to).unwrap();
        assert_eq!(fs::read(to.join("a/link")).unwrap(), b"text");
        assert_eq!(fs::metadata(to.join("a/b/file")).unwrap().nlink(), 2);
    }
}
