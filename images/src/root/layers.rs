//! The file system is made in two layers, so that a new build of our own programs does not compress Docker again.
//!
//! The lower layer has the larger files of packages. It is kept under a digest of their list, and compressing it takes
//! most of the time. The upper layer has everything else; mkfs.erofs adds it to a copy of the lower one.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::BufWriter;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use tar::{Builder, EntryType, Header};

use super::erofs;
use crate::files::{self, Entry};
use crate::recipe::Erofs;
use crate::workspace::Workspace;

/// Files from this size on are worth keeping compressed.
const LOWER_FROM_BYTES: u64 = 16 * 1024;

/// Makes the file system `image` from `tree`, with files whose digest is in `changing` in the upper layer.
///
/// # Errors
/// When a file cannot be read or mkfs.erofs fails.
pub(crate) fn make(
    workspace: &Workspace,
    recipe: &Erofs,
    tree: &Path,
    changing: &BTreeSet<String>,
    image: &Path,
) -> Result<()> {
    let entries = files::walk(tree)?;
    let lower = lower_files(tree, &entries, changing)?;
    let base = lower_layer(workspace, recipe, tree, &lower)?;
    fs::copy(&base, image).with_context(|| format!("copying {}", base.display()))?;
    let archive = image.with_extension("tar");
    write_upper(tree, &entries, &lower, workspace.epoch_seconds, &archive)?;
    erofs::extend(recipe, &archive, image, workspace.epoch_seconds)?;
    files::remove(&archive)
}

/// The files of the lower layer: path and what tells one version of it from another.
type Lower = BTreeMap<String, String>;

fn lower_files(tree: &Path, entries: &[Entry], changing: &BTreeSet<String>) -> Result<Lower> {
    let mut digests: BTreeMap<u64, String> = BTreeMap::new();
    let mut lower = Lower::new();
    for entry in entries {
        let metadata = &entry.metadata;
        if !metadata.is_file() || metadata.len() < LOWER_FROM_BYTES {
            continue;
        }
        let digest = match digests.get(&metadata.ino()) {
            Some(known) => known.clone(),
            None => files::sha256(&tree.join(&entry.path))?,
        };
        digests.insert(metadata.ino(), digest.clone());
        if !changing.contains(&digest) {
            let (mode, user, group) = (metadata.mode(), metadata.uid(), metadata.gid());
            let version = format!("{mode:o} {user}:{group} {digest}");
            lower.insert(entry.path.clone(), version);
        }
    }
    Ok(lower)
}

/// The lower layer as a file system of its own, from the cache or new.
fn lower_layer(
    workspace: &Workspace,
    recipe: &Erofs,
    tree: &Path,
    lower: &Lower,
) -> Result<PathBuf> {
    let mut list = String::new();
    for (path, version) in lower {
        let _ = writeln!(list, "{version} {path}");
    }
    workspace
        .step("root-packages")
        .code(&[include_str!("layers.rs"), include_str!("erofs.rs")])
        .input("compression", format!("{recipe:?}"))
        .input("epoch", workspace.epoch_seconds.to_string())
        .input("files", list)
        .run(|path, running| {
            running.busy_with("compressing");
            let files_only = path.with_extension("tree");
            files::remove(&files_only)?;
            for file in lower.keys() {
                let to = files_only.join(file);
                if let Some(parent) = to.parent() {
                    files::make_directory(parent)?;
                }
                fs::hard_link(tree.join(file), &to)
                    .with_context(|| format!("linking {}", to.display()))?;
            }
            let made = erofs::make(recipe, &files_only, path, workspace.epoch_seconds);
            files::remove(&files_only)?;
            made
        })
}

/// Writes everything that is not in the lower layer to the tar file `to`: all directories and links, other files.
fn write_upper(
    tree: &Path,
    entries: &[Entry],
    lower: &Lower,
    epoch_seconds: u64,
    to: &Path,
) -> Result<()> {
    let writing = || format!("writing {}", to.display());
    let mut archive = Builder::new(BufWriter::new(File::create(to).with_context(writing)?));
    let mut names: BTreeMap<u64, &str> = BTreeMap::new();
    let top = fs::metadata(tree).with_context(|| format!("examining {}", tree.display()))?;
    let mut header = header_of(&top, EntryType::Directory, epoch_seconds);
    archive
        .append_data(&mut header, ".", std::io::empty())
        .with_context(writing)?;
    for Entry { path, metadata } in entries {
        let full = tree.join(path);
        if metadata.is_dir() {
            let mut header = header_of(metadata, EntryType::Directory, epoch_seconds);
            archive.append_data(&mut header, path, std::io::empty())
        } else if metadata.is_symlink() {
            let target = fs::read_link(&full).with_context(|| format!("reading link {path}"))?;
            let mut header = header_of(metadata, EntryType::Symlink, epoch_seconds);
            archive.append_link(&mut header, path, target)
        } else if lower.contains_key(path) {
            continue;
        } else if let Some(first) = names.get(&metadata.ino()) {
            let mut header = header_of(metadata, EntryType::Link, epoch_seconds);
            archive.append_link(&mut header, path, first)
        } else {
            names.insert(metadata.ino(), path);
            let mut header = header_of(metadata, EntryType::Regular, epoch_seconds);
            header.set_size(metadata.len());
            let file = File::open(&full).with_context(|| format!("opening {}", full.display()))?;
            archive.append_data(&mut header, path, file)
        }
        .with_context(writing)?;
    }
    let buffered = archive.into_inner().with_context(writing)?;
    buffered
        .into_inner()
        .map_err(std::io::IntoInnerError::into_error)
        .with_context(writing)?;
    Ok(())
}

fn header_of(metadata: &fs::Metadata, kind: EntryType, epoch_seconds: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.mode() & 0o7777);
    header.set_uid(metadata.uid().into());
    header.set_gid(metadata.gid().into());
    header.set_mtime(epoch_seconds);
    header.set_size(0);
    header
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> tempfile::TempDir {
        let scratch = tempfile::tempdir().unwrap();
        let path = |name: &str| scratch.path().join(name);
        fs::create_dir(path("usr")).unwrap();
        let large = |byte: u8| vec![byte; LOWER_FROM_BYTES as usize];
        fs::write(path("usr/package"), large(1)).unwrap();
        fs::hard_link(path("usr/package"), path("usr/package-too")).unwrap();
        fs::write(path("usr/ours"), large(2)).unwrap();
        fs::write(path("usr/small"), "small").unwrap();
        fs::hard_link(path("usr/small"), path("usr/tiny")).unwrap();
        std::os::unix::fs::symlink("usr/small", path("link")).unwrap();
        scratch
    }

    fn lower(tree: &Path) -> Lower {
        let ours = BTreeSet::from([files::sha256(&tree.join("usr/ours")).unwrap()]);
        lower_files(tree, &files::walk(tree).unwrap(), &ours).unwrap()
    }

    #[test]
    fn large_files_of_packages_are_below_and_our_programs_are_not() {
        let tree = tree();
        let lower = lower(tree.path());
        assert_eq!(
            lower.keys().collect::<Vec<_>>(),
            ["usr/package", "usr/package-too"]
        );
    }

    #[test]
    fn the_upper_layer_has_everything_else_and_keeps_hard_links() {
        let tree = tree();
        let to = tree.path().with_extension("tar");
        let entries = files::walk(tree.path()).unwrap();
        write_upper(tree.path(), &entries, &lower(tree.path()), 7, &to).unwrap();
        let mut archive = tar::Archive::new(File::open(&to).unwrap());
        let listed: Vec<(String, EntryType)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                assert_eq!(entry.header().mtime().unwrap(), 7);
                (
                    entry.path().unwrap().display().to_string(),
                    entry.header().entry_type(),
                )
            })
            .collect();
        fs::remove_file(&to).unwrap();
        let expected = [
            (".", EntryType::Directory),
            ("link", EntryType::Symlink),
            ("usr", EntryType::Directory),
            ("usr/ours", EntryType::Regular),
            ("usr/small", EntryType::Regular),
            ("usr/tiny", EntryType::Link),
        ];
        assert_eq!(listed, expected.map(|(path, kind)| (path.to_owned(), kind)));
    }
}
