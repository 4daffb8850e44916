//! The initial RAM disk: PID 1, the modules that boot disks need, and a zstd-compressed cpio archive around them.
//!
//! - `cpio.rs`: the archive format

pub(crate) mod cpio;

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::command;
use crate::files;
use crate::glob;
use crate::image::{self, Tree};
use crate::kernel::{self, Kernel, ModuleIndex};
use crate::packages::{self, Package};
use crate::programs::Programs;
use crate::recipe::{self, Recipe};
use crate::workspace::Workspace;

const CODE: &[&str] = &[include_str!("mod.rs"), include_str!("cpio.rs")];

/// Indexes that keelson-init does not read.
const UNUSED_INDEXES: [&str; 8] = [
    "modules.alias.bin",
    "modules.builtin.alias.bin",
    "modules.builtin.bin",
    "modules.builtin.modinfo",
    "modules.dep.bin",
    "modules.devname",
    "modules.order",
    "modules.symbols.bin",
];

/// An initial RAM disk that has been built.
#[derive(Debug)]
pub(crate) struct Initrd {
    /// The compressed archive.
    pub(crate) path: PathBuf,
    /// The Debian packages that something in it comes from.
    pub(crate) packages: Vec<Package>,
}

/// Builds the initial RAM disk.
///
/// # Errors
/// When a module, package or program cannot be had, or zstd fails.
pub(crate) fn build(
    workspace: &Workspace,
    recipe: &Recipe<recipe::Initrd>,
    folder: &Path,
    kernel: &Kernel,
    programs: &Programs,
) -> Result<Initrd> {
    let content = &recipe.content;
    ensure!(
        (1..=19).contains(&content.zstd_level),
        "initrd.yml: zstd_level must be 1 to 19"
    );
    let packages = packages::closure(workspace, &content.packages, &content.without)?;
    packages::fetch(workspace, &packages)?;
    let mut step = workspace
        .step("initrd")
        .code(CODE)
        .code(kernel::CODE)
        .code(image::CODE)
        .input("recipe", &recipe.text)
        .input("epoch", workspace.epoch_seconds.to_string())
        .result_of(&kernel.tree);
    for package in &packages {
        step = step.input("package", &package.sha256);
    }
    for source in image::sources(&content.files, folder) {
        step = step.file(&source)?;
    }
    for program in &content.programs {
        step = step.file(&programs.path(&program.name, program.profile)?)?;
    }
    let path = step.run(|path, running| {
        let folder_of_tree = path.with_extension("tree");
        files::remove(&folder_of_tree)?;
        let tree = Tree::create(&folder_of_tree)?;
        let filled = fill(
            workspace, content, folder, kernel, programs, &packages, &tree,
        );
        running.busy_with("compressing");
        let made = filled
            .and_then(|()| compress(&tree, path, content.zstd_level, workspace.epoch_seconds));
        files::remove(&folder_of_tree)?;
        made
    })?;
    Ok(Initrd { path, packages })
}

fn fill(
    workspace: &Workspace,
    recipe: &recipe::Initrd,
    folder: &Path,
    kernel: &Kernel,
    programs: &Programs,
    packages: &[Package],
    tree: &Tree,
) -> Result<()> {
    for package in packages {
        packages::unpack(&packages::archive_path(workspace, package), tree, |path| {
            !glob::any_matches(&recipe.keep, path)
        })?;
    }
    let chosen = ModuleIndex::load(kernel)?
        .by_name(&recipe.modules)
        .context("initrd.yml")?;
    kernel::install(kernel, &chosen, tree)?;
    for index in UNUSED_INDEXES {
        tree.remove(&format!("usr/lib/modules/{}/{index}", kernel.version))?;
    }
    image::directories(tree, &recipe.directories)?;
    image::files(tree, &recipe.files, folder)?;
    for program in &recipe.programs {
        image::program(
            tree,
            program.path.relative(),
            &programs.path(&program.name, program.profile)?,
        )?;
    }
    image::library_cache(tree)
}

fn compress(tree: &Tree, to: &Path, level: u8, epoch_seconds: u64) -> Result<()> {
    let plain = to.with_extension("cpio");
    let writing = || format!("writing {}", plain.display());
    let mut archive = BufWriter::new(File::create(&plain).with_context(writing)?);
    cpio::write_tree(tree.root(), epoch_seconds, &mut archive)?;
    archive.flush().with_context(writing)?;
    let mut zstd = Command::new("zstd");
    zstd.arg("-q")
        .arg(format!("-{level}"))
        .args(["--threads=1", "--no-progress", "--force", "-o"])
        .arg(to)
        .arg(&plain);
    let compressed = command::run(&mut zstd).context("compressing the initial RAM disk");
    fs::remove_file(&plain).with_context(|| format!("removing {}", plain.display()))?;
    compressed.map(drop)
}
