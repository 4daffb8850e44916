//! The kernel: its image and its modules, as Debian built and signed them.
//!
//! - `modules.rs`: which modules, and what they depend on

mod modules;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, anyhow, ensure};

pub(crate) use modules::{ModuleIndex, install};

use crate::command;
use crate::files;
use crate::image::Tree;
use crate::packages::{self, Package};
use crate::recipe;
use crate::workspace::Workspace;

/// Source text of this folder, an input of the steps that use it.
pub(crate) const CODE: &[&str] = &[include_str!("mod.rs"), include_str!("modules.rs")];

/// Modules that one xz process decompresses.
const MODULES_PER_PROCESS: usize = 200;

/// A kernel that has been unpacked.
#[derive(Debug)]
pub(crate) struct Kernel {
    /// The package it came in.
    pub(crate) package: Package,
    /// Its version as `uname -r` gives it.
    pub(crate) version: String,
    /// Tree with the image at `boot/` and all modules, not compressed, at `usr/lib/modules/VERSION`.
    pub(crate) tree: PathBuf,
}

impl Kernel {
    /// The kernel image.
    pub(crate) fn image(&self) -> PathBuf {
        self.tree.join(format!("boot/vmlinuz-{}", self.version))
    }

    /// The folder of all its modules.
    pub(crate) fn modules(&self) -> PathBuf {
        self.tree.join("usr/lib/modules").join(&self.version)
    }
}

/// Unpacks the kernel that the recipe's meta package stands for.
///
/// # Errors
/// When the package cannot be had or does not look like a kernel.
pub(crate) fn build(workspace: &Workspace, recipe: &recipe::Kernel) -> Result<Kernel> {
    let closure = packages::closure(workspace, std::slice::from_ref(&recipe.package), &[])?;
    let package = closure
        .into_iter()
        .find(|package| package.name.starts_with("linux-image-") && package.name != recipe.package)
        .ok_or_else(|| {
            anyhow!(
                "package {} of kernel.yml does not depend on a kernel",
                recipe.package
            )
        })?;
    packages::fetch(workspace, std::slice::from_ref(&package))?;
    let version = package.name.trim_start_matches("linux-image-").to_owned();
    let step = workspace
        .step("kernel")
        .code(CODE)
        .code(packages::CODE)
        .input("package", &package.sha256);
    let tree = step.run(|path, running| {
        let tree = Tree::create(path)?;
        packages::unpack(
            &packages::archive_path(workspace, &package),
            &tree,
            |path| {
                path.starts_with("usr/share/")
                    || path.starts_with("boot/System.map")
                    || path.starts_with("boot/config")
            },
        )?;
        let modules = path.join("usr/lib/modules").join(&version);
        ensure!(
            modules.is_dir(),
            "package {} has no modules for {version}",
            package.name
        );
        running.busy_with("decompressing modules");
        decompress(&modules)?;
        modules::depmod(path, &version)
    })?;
    Ok(Kernel {
        package,
        version,
        tree,
    })
}

/// Decompresses every `.ko.xz` below `folder` in place: the root's own compression does better on plain files.
fn decompress(folder: &Path) -> Result<()> {
    let compressed: Vec<PathBuf> = files::walk(folder)?
        .into_iter()
        .filter(|entry| entry.path.ends_with(".ko.xz"))
        .map(|entry| folder.join(entry.path))
        .collect();
    for batch in compressed.chunks(MODULES_PER_PROCESS) {
        command::run(
            Command::new("xz")
                .args(["--decompress", "--threads=2"])
                .args(batch),
        )
        .context("decompressing kernel modules")?;
    }
    Ok(())
}
