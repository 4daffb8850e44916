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

/// The profile of an ordinary boot, and that which the boot loader's menu has beside it (UAPI.5, "Multi-profile UKIs"). Both are in one
/// file, and so signed together.
const PROFILES: [&str; 2] = ["ID=main\n", "ID=reset\nTITLE=factory reset\n"];

/// What the second profile adds to the command line: PID 1 makes the state partition anew.
const RESET: &str = "keelson.reset=1";

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
    let [main, reset] = PROFILES;
    let second = to.with_extension("profile");
    let ukify = || {
        let mut ukify = Command::new("ukify");
        ukify
            .env("SOURCE_DATE_EPOCH", workspace.epoch_seconds.to_string())
            .arg("build");
        ukify
    };
    let mut profile = ukify();
    profile.arg(format!("--profile={reset}"));
    profile.arg(format!("--cmdline={command_line} {RESET}"));
    profile.arg(format!("--output={}", second.display()));
    command::run(&mut profile).context("making the profile of the factory reset")?;
    let mut ukify = ukify();
    ukify.arg(format!("--profile={main}"));
    ukify.arg(format!("--join-profile={}", second.display()));
    ukify.arg(format!("--linux={}", parts.kernel.image().display()));
    ukify.arg(format!("--initrd={}", parts.initrd.path.display()));
    ukify.arg(format!("--cmdline=@{}", line.display()));
    ukify.arg(format!("--os-release=@{}", release.display()));
    ukify.arg(format!("--stub={}", boot.join("boot_stub").display()));
    ukify.arg(format!("--uname={}", parts.kernel.version));
    ukify.arg(format!("--output={}", to.display()));
    command::run(&mut ukify).context("making the unified kernel image")?;
    files::remove(&second)
}
