//! Unpacking: `dpkg-deb` gives the tar stream, every entry of it goes through [`Tree`].

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};
use tar::{Archive, Entry, EntryType};

use crate::command;
use crate::image::Tree;

/// Unpacks the package file `deb` into `tree`, except for the paths that `skip` names.
///
/// # Errors
/// When the package cannot be read or a file cannot be made.
pub(crate) fn unpack(deb: &Path, tree: &Tree, skip: impl Fn(&str) -> bool) -> Result<()> {
    let mut dpkg = Command::new("dpkg-deb");
    dpkg.arg("--fsys-tarfile").arg(deb);
    command::run_into(&mut dpkg, |stream| {
        let mut archive = Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = entry.path()?.to_string_lossy().into_owned();
            let path = Tree::normal_path(&path)?;
            if path.is_empty() || skip(&path) {
                continue;
            }
            place(&mut entry, tree, &path, &skip).with_context(|| format!("unpacking /{path}"))?;
        }
        Ok(())
    })
    .with_context(|| format!("unpacking {}", deb.display()))
}

fn place<R: std::io::Read>(
    entry: &mut Entry<'_, R>,
    tree: &Tree,
    path: &str,
    skip: impl Fn(&str) -> bool,
) -> Result<()> {
    let header = entry.header();
    let mode = header.mode()? & 0o7777;
    let (user, group) = (u32::try_from(header.uid()?)?, u32::try_from(header.gid()?)?);
    let kind = header.entry_type();
    let target = entry
        .link_name()?
        .map(|target| target.to_string_lossy().into_owned());
    match (kind, target) {
        (EntryType::Directory, _) => tree.directory(path, mode, user, group),
        (EntryType::Regular | EntryType::Continuous, _) => {
            tree.file(path, entry, mode, user, group)
        }
        (EntryType::Symlink, Some(target)) => tree.link(path, &target),
        (EntryType::Link, Some(target)) => {
            let target = Tree::normal_path(&target)?;
            if skip(&target) {
                bail!(
                    "it is a hard link to /{target}, which the recipe drops: drop both or neither"
                );
            }
            tree.hard_link(path, &target)
        }
        _ => bail!("entries of kind {kind:?} are not expected in a package"),
    }
}
