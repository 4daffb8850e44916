//! Root file systems of the service images.
//!
//! - `tree.rs`: a root file system in a directory
//! - `content.rs`: files and directories of a recipe
//! - `accounts.rs`: users and groups
//! - `elf.rs`: programs as bytes that are changed in place
//! - `prelink.rs`: a fixed address for position-independent programs
//! - `unexport.rs`: programs without the list of their own symbols
//! - `finish.rs`: library cache and certificates, as maintainer scripts would make them

mod accounts;
mod content;
mod elf;
mod finish;
mod prelink;
mod tree;
mod unexport;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

pub(crate) use content::{directories, files, program};
pub(crate) use finish::library_cache;
pub(crate) use tree::Tree;

use crate::glob;
use crate::packages::{self, Package};
use crate::programs::Programs;
use crate::recipe::{EveryImage, FileContent, FileEntry, Profile, Recipe, ServiceImage};
use crate::workspace::Workspace;

/// Source text of this folder, an input of the steps that use it.
pub(crate) const CODE: &[&str] = &[
    include_str!("mod.rs"),
    include_str!("accounts.rs"),
    include_str!("content.rs"),
    include_str!("elf.rs"),
    include_str!("finish.rs"),
    include_str!("prelink.rs"),
    include_str!("tree.rs"),
    include_str!("unexport.rs"),
    include_str!("../glob.rs"),
];

/// A service image that has been built.
#[derive(Debug)]
pub(crate) struct Image {
    /// Its name.
    pub(crate) name: String,
    /// Its tree, in the cache.
    pub(crate) tree: PathBuf,
    /// The packages in it.
    pub(crate) packages: Vec<Package>,
}

/// Builds the image of a recipe that lies in `folder`.
///
/// # Errors
/// When packages cannot be had, or the recipe asks for something impossible.
pub(crate) fn build(
    workspace: &Workspace,
    recipe: &Recipe<ServiceImage>,
    folder: &Path,
    every: &EveryImage,
    programs: &Programs,
) -> Result<Image> {
    let content = &recipe.content;
    let packages = packages::closure(workspace, &content.packages, &content.without)?;
    packages::fetch(workspace, &packages)?;
    let mut step = workspace
        .step(&format!("image-{}", content.image))
        .code(CODE)
        .code(packages::CODE)
        .input("recipe", &recipe.text)
        .input("every image", format!("{every:?}"));
    for package in &packages {
        step = step.input("package", &package.sha256);
    }
    for source in sources(&content.files, folder) {
        step = step.file(&source)?;
    }
    for name in &content.programs {
        step = step.file(&programs.path(name, Profile::Release)?)?;
    }
    let tree = step.run(|path, running| {
        let tree = Tree::create(path)?;
        for package in &packages {
            running.busy_with(&package.name);
            packages::unpack(&packages::archive_path(workspace, package), &tree, |path| {
                let is_kept = content.keep.is_empty() || glob::any_matches(&content.keep, path);
                !is_kept
                    || glob::any_matches(&every.drop, path)
                    || glob::any_matches(&content.drop, path)
            })?;
        }
        fill(&tree, content, folder, every, programs)
    })?;
    Ok(Image {
        name: content.image.clone(),
        tree,
        packages,
    })
}

/// Everything after the packages; the recipe comes after what every image has, and so has the last word.
fn fill(
    tree: &Tree,
    recipe: &ServiceImage,
    folder: &Path,
    every: &EveryImage,
    programs: &Programs,
) -> Result<()> {
    directories(tree, &every.directories)?;
    // Certificates and libraries first: a recipe may replace or link what is made here.
    finish::certificate_bundle(tree)?;
    files(tree, &every.files, folder)?;
    accounts::write(tree, &recipe.users, &recipe.groups).context("writing users and groups")?;
    directories(tree, &recipe.directories)?;
    files(tree, &recipe.files, folder)?;
    for name in &recipe.programs {
        program(
            tree,
            &format!("usr/bin/{name}"),
            &programs.path(name, Profile::Release)?,
        )?;
    }
    for (paths, change, what) in [
        (&recipe.prelink, prelink::prelink as Change, "prelinking"),
        (
            &recipe.unexport,
            unexport::unexport,
            "taking exports out of",
        ),
    ] {
        for path in paths {
            let path = path.relative();
            let place = tree.place(path)?;
            let mut bytes = fs::read(&place).with_context(|| format!("reading /{path}"))?;
            change(&mut bytes).with_context(|| format!("{what} /{path}"))?;
            fs::write(&place, bytes).with_context(|| format!("writing /{path}"))?;
        }
    }
    finish::library_cache(tree)
}

/// A change to the bytes of a program.
type Change = fn(&mut [u8]) -> Result<()>;

/// The files beside a recipe that it names as sources.
pub(crate) fn sources(files: &[FileEntry], folder: &Path) -> Vec<PathBuf> {
    let source = |entry: &FileEntry| match &entry.content {
        FileContent::Source(source) => Some(folder.join(source)),
        FileContent::Text(_) | FileContent::Link(_) => None,
    };
    files.iter().filter_map(source).collect()
}
