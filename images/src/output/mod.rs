//! What a build gives: the files in `out/`, their manifest and their bill of materials.
//!
//! - `formats.rs`: the disk image in the formats of hypervisors
//! - `manifest.rs`: `manifest.json`
//! - `sbom.rs`: `keelson.spdx.json`

mod formats;
mod manifest;
mod sbom;

pub(crate) use formats::formats;

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::disk::Disk;
use crate::files;
use crate::image::Image;
use crate::initrd::Initrd;
use crate::kernel::Kernel;
use crate::keys::Keys;
use crate::progress::megabytes;
use crate::root::Root;
use crate::workspace::Workspace;

/// Everything that a build made.
#[derive(Debug)]
pub(crate) struct Built<'build> {
    /// Version of the operating system.
    pub(crate) version: &'build str,
    /// The kernel.
    pub(crate) kernel: &'build Kernel,
    /// The service images.
    pub(crate) images: &'build [Image],
    /// The initial RAM disk.
    pub(crate) initrd: &'build Initrd,
    /// The root image.
    pub(crate) root: &'build Root,
    /// The disk image.
    pub(crate) disk: &'build Disk,
    /// What it was signed with, if it was.
    pub(crate) keys: Option<&'build Keys>,
    /// The flavour's name.
    pub(crate) flavour: &'build str,
    /// Further outputs: their names, and the files.
    pub(crate) more: &'build [(String, PathBuf)],
}

/// One file of the outputs.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Output {
    /// Its name in the output folder.
    pub(crate) name: String,
    /// Its size.
    pub(crate) size_bytes: u64,
    /// SHA-256 of its content in hex.
    pub(crate) sha256: String,
}

/// What tells whether a published file is still the one that was written: size and time of change.
type Stamp = (u64, i64, i64);

/// What is published, from `.published.json`: for each file what it was made from and its stamp.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Published(BTreeMap<String, (String, Stamp)>);

/// Puts the files of `built` into the output folder; those that are there already stay untouched.
///
/// # Errors
/// When a file cannot be written; each is either the old or the new one then.
pub(crate) fn publish(workspace: &Workspace, built: &Built<'_>) -> Result<()> {
    let line = workspace
        .step("cmdline")
        .input("text", &built.disk.command_line)
        .run(|path, _| {
            let text = format!("{}\n", built.disk.command_line);
            fs::write(path, text).with_context(|| format!("writing {}", path.display()))
        })?;
    let always = [
        ("cmdline", line),
        ("initrd", built.initrd.path.clone()),
        ("keelson.img", built.disk.image.clone()),
        ("root.img", built.root.image.clone()),
        ("vmlinuz", built.kernel.image()),
    ];
    let mut sources: Vec<(String, PathBuf)> = always
        .into_iter()
        .map(|(name, source)| (name.to_owned(), source))
        .chain(built.more.iter().cloned())
        .collect();
    sources.sort();
    let mut published = load_record(workspace);
    remove_others(workspace, &mut published, &sources)?;
    for (name, source) in &sources {
        publish_file(workspace, &mut published, name, source)?;
    }
    let outputs: Vec<Output> = sources
        .iter()
        .map(|(name, source)| describe(workspace, name, source))
        .collect::<Result<_>>()?;
    let manifest = manifest::text(workspace, built, &outputs)?;
    write_if_other(&workspace.out.join("manifest.json"), &manifest)?;
    let sbom = sbom::text(workspace, built, &outputs)?;
    write_if_other(&workspace.out.join("keelson.spdx.json"), &sbom)?;
    let size = |name: &str| {
        outputs
            .iter()
            .find(|output| output.name == name)
            .map_or(0, |output| output.size_bytes)
    };
    let (root, kernel, initrd) = (size("root.img"), size("vmlinuz"), size("initrd"));
    workspace.progress.note(&format!(
        "{} is ready: root {} + kernel {} + initrd {} = {}",
        workspace.shown(&workspace.out.join("keelson.img")),
        megabytes(root),
        megabytes(kernel),
        megabytes(initrd),
        megabytes(root + kernel + initrd)
    ));
    Ok(())
}

/// What an earlier build has put there and this one does not make would be of another version.
fn remove_others(
    workspace: &Workspace,
    published: &mut Published,
    sources: &[(String, PathBuf)],
) -> Result<()> {
    let is_made = |name: &String| sources.iter().any(|(made, _)| made == name);
    let others: Vec<String> = published
        .0
        .keys()
        .filter(|name| !is_made(name))
        .cloned()
        .collect();
    for name in others {
        files::remove(&workspace.out.join(&name))?;
        published.0.remove(&name);
    }
    Ok(())
}

fn publish_file(
    workspace: &Workspace,
    published: &mut Published,
    name: &str,
    source: &Path,
) -> Result<()> {
    let path = workspace.out.join(name);
    let origin = source
        .strip_prefix(&workspace.cache)
        .unwrap_or(source)
        .display()
        .to_string();
    let unchanged = |(from, stamp): &(String, Stamp)| {
        from == &origin && stamp_of(&path).is_some_and(|now| now == *stamp)
    };
    if published.0.get(name).is_some_and(unchanged) {
        return Ok(());
    }
    files::replace_durably(&path, |temporary| {
        let mut file =
            File::create(temporary).with_context(|| format!("making {}", temporary.display()))?;
        files::copy_sparse(source, &mut file, 0).map(drop)
    })
    .with_context(|| format!("putting {name} into {}", workspace.shown(&workspace.out)))?;
    if let Some(stamp) = stamp_of(&path) {
        published.0.insert(name.to_owned(), (origin, stamp));
        let json = serde_json::to_vec_pretty(published)
            .context("writing the record of what is published")?;
        files::write_durably(&record_path(workspace), &json)?;
    }
    Ok(())
}

fn record_path(workspace: &Workspace) -> PathBuf {
    workspace.out.join(".published.json")
}

/// The record, or an empty one: then everything is published anew.
fn load_record(workspace: &Workspace) -> Published {
    let text = fs::read(record_path(workspace)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

fn stamp_of(path: &Path) -> Option<Stamp> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.len(), metadata.mtime(), metadata.mtime_nsec()))
}

/// Size and digest of an output; the digest is kept as long as its origin is the same.
fn describe(workspace: &Workspace, name: &str, source: &Path) -> Result<Output> {
    let origin = source
        .strip_prefix(&workspace.cache)
        .unwrap_or(source)
        .display()
        .to_string();
    let digest = workspace
        .step(&format!("digest-{name}"))
        .input("origin", origin)
        .run(|path, _| {
            let digest = files::sha256(source)?;
            fs::write(path, digest).with_context(|| format!("writing {}", path.display()))
        })?;
    let metadata =
        fs::metadata(source).with_context(|| format!("examining {}", source.display()))?;
    Ok(Output {
        name: name.to_owned(),
        size_bytes: metadata.len(),
        sha256: files::read_text(&digest)?,
    })
}

fn write_if_other(path: &Path, content: &[u8]) -> Result<()> {
    if fs::read(path).is_ok_and(|old| old == content) {
        return Ok(());
    }
    files::write_durably(path, content)
}
