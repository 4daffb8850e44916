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
/// Name of the stub of unified kernel images there.
const STUB: &str = "boot_stub";
/// Name of the stub of add-ons there.
const ADDON_STUB: &str = "addon_stub";

/// Unpacks boot loader and stubs below `to`.
///
/// # Errors
/// When the package does not have them.
pub(crate) fn unpack_boot_files(
    workspace: &Workspace,
    recipe: &recipe::Disk,
    packages: &[Package],
    to: &Path,
) -> Result<()> {
    let wanted = [
        (recipe.boot_loader.relative(), LOADER),
        (recipe.boot_stub.relative(), STUB),
        (recipe.boot_addon_stub.relative(), ADDON_STUB),
    ];
    let tree = Tree::create(to)?;
    for package in packages
        .iter()
        .filter(|package| package.name == recipe.boot_package)
    {
        packages::unpack(&packages::archive_path(workspace, package), &tree, |path| {
            !wanted.iter().any(|(wanted, _)| *wanted == path)
        })?;
    }
    for (path, name) in wanted {
        anyhow::ensure!(
            tree.has(path)?,
            "disk.yml: package {} has no file /{path}",
            recipe.boot_package
        );
        fs::copy(tree.place(path)?, to.join(name)).with_context(|| format!("copying /{path}"))?;
    }
    Ok(())
}

/// Makes the unified kernel image at `to`, not signed, with the stub below `boot`.
///
/// # Errors
/// When ukify fails.
pub(crate) fn make(
    workspace: &Workspace,
    parts: &Parts<'_>,
    (initrd, command_line): (&Path, &str),
    boot: &Path,
    to: &Path,
) -> Result<()> {
    let (line, release) = (
        to.with_extension("cmdline"),
        to.with_extension("os-release"),
    );
    files::write_durably(&line, command_line.as_bytes())?;
    files::write_durably(
        &release,
        os_release(parts.version, parts.flavour).as_bytes(),
    )?;
    let mut ukify = Command::new("ukify");
    ukify
        .env("SOURCE_DATE_EPOCH", workspace.epoch_seconds.to_string())
        .arg("build");
    ukify.arg(format!("--linux={}", parts.kernel.image().display()));
    ukify.arg(format!("--initrd={}", initrd.display()));
    ukify.arg(format!("--cmdline=@{}", line.display()));
    ukify.arg(format!("--os-release=@{}", release.display()));
    ukify.arg(format!("--stub={}", boot.join(STUB).display()));
    ukify.arg(format!("--uname={}", parts.kernel.version));
    ukify.arg(format!("--output={}", to.display()));
    command::run(&mut ukify).context("making the unified kernel image")?;
    files::remove(&line)?;
    files::remove(&release)
}

/// Makes an add-on at `to`, not signed, that appends words to the command line of whatever image the boot loader beside it starts.
///
/// # Errors
/// When ukify fails.
pub(crate) fn make_addon(workspace: &Workspace, words: &str, boot: &Path, to: &Path) -> Result<()> {
    let mut ukify = Command::new("ukify");
    ukify
        .env("SOURCE_DATE_EPOCH", workspace.epoch_seconds.to_string())
        .arg("build");
    ukify.arg(format!("--cmdline={words}"));
    ukify.arg(format!("--stub={}", boot.join(ADDON_STUB).display()));
    ukify.arg(format!("--output={}", to.display()));
    command::run(&mut ukify)
        .context("making an add-on")
        .map(drop)
}
