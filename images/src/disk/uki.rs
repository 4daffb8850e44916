//! The unified kernel image (UAPI.5): one EFI program that holds kernel, initial RAM disk and command line.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use super::Parts;
use crate::command;
use crate::files;
use crate::image::Tree;
use crate::packages::{self, Package};
use crate::recipe;
use crate::root::os_release;
use crate::workspace::Workspace;

/// Name of the boot loader in the folder of [`unpack_boot_files`].
pub(super) const LOADER: &str = "boot_loader";

/// Unpacks boot loader and stub below `to`.
///
/// # Errors
/// When the package does not have them.
pub(crate) fn unpack_boot_files(
    workspace: &Workspace,
    recipe: &recipe::Disk,
    packages: &[Package],
    to: &Path,
) -> Result<()> {
    let wanted = [recipe.boot_loader.relative(), recipe.boot_stub.relative()];
    let tree = Tree::create(to)?;
    for package in packages {
        packages::unpack(&packages::archive_path(workspace, package), &tree, |path| {
            !wanted.contains(&path)
        })?;
    }
    for path in wanted {
        anyhow::ensure!(
            tree.has(path)?,
            "disk.yml: package {} has no file /{path}",
            recipe.boot_package
        );
    }
    fs::copy(
        tree.place(recipe.boot_stub.relative())?,
        to.join("boot_stub"),
    )
    .context("copying the stub")?;
    fs::copy(tree.place(recipe.boot_loader.relative())?, to.join(LOADER))
        .context("copying the boot loader")?;
    Ok(())
}

/// Makes the unified kernel image at `to`, not signed, with the stub below `boot`.
///
/// # Errors
/// When ukify fails.
pub(crate) fn make(
    workspace: &Workspace,
    parts: &Parts<'_>,
    command_line: &str,
    boot: &Path,
    to: &Path,
) -> Result<()> {
    let (line, release) = (boot.join("cmdline"), boot.join("os-release"));
    files::write_durably(&line, command_line.as_bytes())?;
    files::write_durably(&release, os_release(parts.version).as_bytes())?;
    let mut ukify = Command::new("ukify");
    ukify
        .env("SOURCE_DATE_EPOCH", workspace.epoch_seconds.to_string())
        .arg("build");
    ukify.arg(format!("--linux={}", parts.kernel.image().display()));
    ukify.arg(format!("--initrd={}", parts.initrd.path.display()));
    ukify.arg(format!("--cmdline=@{}", line.display()));
    ukify.arg(format!("--os-release=@{}", release.display()));
    ukify.arg(format!("--stub={}", boot.join("boot_stub").display()));
    ukify.arg(format!("--uname={}", parts.kernel.version));
    ukify.arg(format!("--output={}", to.display()));
    command::run(&mut ukify).context("making the unified kernel image")?;
    Ok(())
}
