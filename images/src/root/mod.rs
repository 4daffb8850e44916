//! The read-only root: service images, kernel modules and our programs in one erofs with its dm-verity tree appended.
//!
//! - `assemble.rs`: puts the tree together from hard links into the cache
//! - `duplicates.rs`: stores equal files once
//! - `layers.rs`: what is compressed once and kept, and what is added to it
//! - `erofs.rs`: the compressed file system
//! - `verity.rs`: the hash tree that makes it tamper-evident

mod assemble;
mod duplicates;
mod erofs;
mod layers;
mod verity;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use crate::files;
use crate::glob;
use crate::image::{self, Image};
use crate::kernel::{self, Kernel};
use crate::packages::{self, Package};
use crate::programs::Programs;
use crate::recipe::{self, Erofs, Recipe};
use crate::workspace::Workspace;

pub(crate) use assemble::os_release;

const CODE: &[&str] = &[
    include_str!("mod.rs"),
    include_str!("assemble.rs"),
    include_str!("duplicates.rs"),
    include_str!("erofs.rs"),
    include_str!("layers.rs"),
    include_str!("verity.rs"),
];

/// A root image that has been built.
#[derive(Debug)]
pub(crate) struct Root {
    /// The image as it stands in a slot: erofs, then the verity superblock and hash tree.
    pub(crate) image: PathBuf,
    /// What the kernel command line says about it.
    pub(crate) verity: Verity,
    /// Packages of which single files are on the root.
    pub(crate) packages: Vec<Package>,
}

/// What is needed to open the image through dm-verity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Verity {
    /// Root hash in hex.
    pub(crate) root_hash: String,
    /// Byte offset of the verity superblock, which is the size of the erofs.
    pub(crate) hash_offset_bytes: u64,
    /// Size of the whole image.
    pub(crate) size_bytes: u64,
}

/// What the root is made of.
#[derive(Debug)]
pub(crate) struct Parts<'build> {
    /// `root.yml`.
    pub(crate) recipe: &'build Recipe<recipe::Root>,
    /// How the file system is compressed.
    pub(crate) compression: &'build Erofs,
    /// Folder of the recipe.
    pub(crate) folder: &'build Path,
    /// `kernel.yml`.
    pub(crate) kernel_recipe: &'build Recipe<recipe::Kernel>,
    /// The kernel whose modules are on the root.
    pub(crate) kernel: &'build Kernel,
    /// The service images.
    pub(crate) images: &'build [Image],
    /// Service definitions: name and file.
    pub(crate) services: &'build [(String, PathBuf)],
    /// Our programs.
    pub(crate) programs: &'build Programs,
    /// Packages of which single files are taken.
    pub(crate) packages: Vec<Package>,
    /// Packages of which the firmware is taken.
    pub(crate) firmware: &'build [Package],
    /// The flavour's name.
    pub(crate) flavour: &'build str,
    /// The key that releases are signed with, PEM; in signed builds only.
    pub(crate) release_key: Option<&'build str>,
    /// Version of the operating system.
    pub(crate) version: &'build str,
}

/// Builds the root image.
///
/// # Errors
/// When a part is missing or a tool fails.
pub(crate) fn build(
    workspace: &Workspace,
    recipe: &Recipe<recipe::Root>,
    mut parts: Parts<'_>,
) -> Result<Root> {
    let names: Vec<String> = recipe
        .content
        .extract
        .iter()
        .map(|extract| extract.package.clone())
        .collect();
    parts.packages = packages::exact(workspace, &names)?;
    packages::fetch(workspace, &parts.packages)?;
    let mut step = workspace
        .step("root")
        .code(CODE)
        .code(kernel::CODE)
        .code(image::CODE)
        .input("recipe", &recipe.text)
        .input("modules", &parts.kernel_recipe.text)
        .input("version", parts.version)
        .input("flavour", parts.flavour)
        .input("compression", format!("{:?}", parts.compression))
        .input("epoch", workspace.epoch_seconds.to_string())
        .result_of(&parts.kernel.tree);
    for image in parts.images {
        step = step.result_of(&image.tree);
    }
    for package in parts.packages.iter().chain(parts.firmware) {
        step = step.input("package", &package.sha256);
    }
    for (name, file) in parts.services {
        step = step.input("service", name).file(file)?;
    }
    for source in image::sources(&recipe.content.files, parts.folder) {
        step = step.file(&source)?;
    }
    if let Some(key) = parts.release_key {
        step = step.input("release key", key);
    }
    for program in &recipe.content.programs {
        step = step.file(&parts.programs.path(&program.name, program.profile)?)?;
    }
    let result = step.run(|path, running| {
        files::make_directory(path)?;
        let tree = path.join("tree");
        running.busy_with("putting the tree together");
        assemble::assemble(workspace, &parts, &tree)?;
        duplicates::link_equal_files(&tree)?;
        running.busy_with("compressing");
        let image = path.join("root.img");
        let ours = parts.programs.digests()?;
        layers::make(workspace, parts.compression, &tree, &ours, &image)?;
        files::remove(&tree)?;
        running.busy_with("hashing");
        let verity = verity::append(&image)?;
        let json = serde_json::to_vec_pretty(&verity).context("writing the verity parameters")?;
        files::write_durably(&path.join("verity.json"), &json)
    })?;
    let verity = files::read_text(&result.join("verity.json"))?;
    Ok(Root {
        image: result.join("root.img"),
        verity: serde_json::from_str(&verity).context("reading the verity parameters")?,
        packages: [parts.packages.as_slice(), parts.firmware].concat(),
    })
}

/// Unpacks single files of packages into a tree, as `extract:` of a recipe says.
fn extract(workspace: &Workspace, parts: &Parts<'_>, tree: &image::Tree) -> Result<()> {
    for entry in &parts.recipe.content.extract {
        let package = parts
            .packages
            .iter()
            .find(|package| package.name == entry.package)
            .with_context(|| format!("package {} was not resolved", entry.package))?;
        let scratch = tree.root().with_extension("extract");
        files::remove(&scratch)?;
        let unpacked = image::Tree::create(&scratch)?;
        packages::unpack(
            &packages::archive_path(workspace, package),
            &unpacked,
            |path| !glob::matches(entry.from.relative(), path),
        )?;
        let from = unpacked.place(entry.from.relative())?;
        let mut file = std::fs::File::open(&from).with_context(|| {
            format!(
                "package {} has no file /{}",
                entry.package,
                entry.from.relative()
            )
        })?;
        tree.file(entry.to.relative(), &mut file, entry.mode.0, 0, 0)?;
        files::remove(&scratch)?;
    }
    Ok(())
}
