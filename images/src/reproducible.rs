//! `check-reproducible`: two builds from nothing in folders of different names must give the same bytes.

use std::path::Path;

use anyhow::{Result, bail};

use crate::arguments::CheckReproducible;
use crate::build;
use crate::files;
use crate::workspace::Workspace;

/// The files that are compared.
const COMPARED: [&str; 7] = [
    "cmdline",
    "initrd",
    "keelson.img",
    "keelson.spdx.json",
    "manifest.json",
    "root.img",
    "vmlinuz",
];

/// The files that only some builds make. qemu-img puts the time and chance into some of them.
const SOMETIMES: [&str; 7] = [
    "keelson.iso",
    "keelson.qcow2",
    "keelson.vhdx",
    "keelson.vmdk",
    "netboot-cmdline",
    "netboot-initrd",
    "netboot.efi",
];

/// Builds twice and compares.
///
/// # Errors
/// When a build fails or the outputs differ; those of both builds stay for inspection then.
pub(crate) fn check(top: &Path, options: &CheckReproducible) -> Result<()> {
    let scratch = top.join("out/check");
    files::remove(&scratch)?;
    let names = ["first", "second-with-a-longer-name"];
    let mut workspaces = Vec::new();
    for name in names {
        let mut workspace = Workspace::open(top, &scratch.join(name))?;
        if options.same_programs {
            workspace.target = top.join("out/target");
        }
        workspace
            .progress
            .note(&format!("build in {}", workspace.shown(&workspace.out)));
        let how = build::Options {
            sign: options.sign.clone(),
            ..build::Options::default()
        };
        build::build(&workspace, &how)?;
        workspaces.push(workspace);
    }
    let mut different = Vec::new();
    for name in COMPARED {
        let digests: Vec<String> = workspaces
            .iter()
            .map(|workspace| files::sha256(&workspace.out.join(name)))
            .collect::<Result<_>>()?;
        let same = digests.windows(2).all(|pair| pair[0] == pair[1]);
        println!(
            "{} {} {name}",
            if same { "same     " } else { "DIFFERENT" },
            digests[0]
        );
        if !same {
            different.push(name);
        }
    }
    if !different.is_empty() {
        bail!(
            "two builds of the same sources differ in {} (both are in {})",
            different.join(", "),
            scratch.display()
        );
    }
    files::remove(&scratch)
}

/// Removes what builds and runs left, except the tool root, downloaded packages and crates.
///
/// # Errors
/// When something cannot be removed.
pub(crate) fn clean(top: &Path) -> Result<()> {
    for name in COMPARED.into_iter().chain(SOMETIMES).chain([
        "cache",
        "target",
        "run",
        "check",
        ".published.json",
    ]) {
        files::remove(&top.join("out").join(name))?;
    }
    Ok(())
}
