//! The disk image: boot loader, unified kernel image, OS slots, state partition.
//!
//! - `uki.rs`: kernel, initial RAM disk and command line in one EFI program
//! - `esp.rs`: the EFI system partition
//! - `sign.rs`: signatures for UEFI Secure Boot
//! - `state.rs`: the state partition
//! - `gpt.rs`: the partition table

mod esp;
mod gpt;
mod sign;
mod state;
mod uki;

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use uuid::Uuid;

use crate::files;
use crate::initrd::Initrd;
use crate::kernel::Kernel;
use crate::keys::Keys;
use crate::packages::{self, Package};
use crate::recipe::{self, Recipe};
use crate::root::{Root, Verity};
use crate::workspace::Workspace;

const CODE: &[&str] = &[
    include_str!("mod.rs"),
    include_str!("esp.rs"),
    include_str!("gpt.rs"),
    include_str!("sign.rs"),
    include_str!("state.rs"),
    include_str!("../../../upgrade/src/state_partition.rs"),
    include_str!("uki.rs"),
];

const MIB: u64 = 1024 * 1024;

/// A disk image that has been built.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The image, sparse.
    pub(crate) image: PathBuf,
    /// The kernel command line.
    pub(crate) command_line: String,
    /// The GUID of the slot that the root stands in.
    pub(crate) slot: Uuid,
    /// The package of boot loader and stub.
    pub(crate) packages: Vec<Package>,
}

/// What a disk image is made of.
#[derive(Debug)]
pub(crate) struct Parts<'build> {
    /// The kernel.
    pub(crate) kernel: &'build Kernel,
    /// The initial RAM disk.
    pub(crate) initrd: &'build Initrd,
    /// What stands in slot A.
    pub(crate) root: &'build Root,
    /// What it is signed with, if it is.
    pub(crate) keys: Option<&'build Keys>,
    /// Version of the operating system.
    pub(crate) version: &'build str,
}

/// The slot's partition GUID: the first half of the root hash, as the Discoverable Partitions Specification has it.
///
/// # Errors
/// When the root hash is no SHA-256 in hex.
pub(crate) fn slot_of(verity: &Verity) -> Result<Uuid> {
    let half = verity
        .root_hash
        .get(..32)
        .context("the root hash is too short")?;
    Uuid::parse_str(half).context("reading the root hash")
}

/// The kernel command line for `verity` and this version.
///
/// # Errors
/// As [`slot_of`].
pub(crate) fn command_line(
    recipe: &recipe::Disk,
    verity: &Verity,
    version: &str,
) -> Result<String> {
    let mut words = vec![
        format!("keelson.slot=PARTUUID={}", slot_of(verity)?),
        format!("keelson.roothash={}", verity.root_hash),
        format!("keelson.hashoffset={}", verity.hash_offset_bytes),
        format!("keelson.version={version}"),
    ];
    words.extend(recipe.command_line.iter().cloned());
    Ok(words.join(" "))
}

/// Builds the disk image.
///
/// # Errors
/// When a part does not fit its partition or a tool fails.
pub(crate) fn build(
    workspace: &Workspace,
    recipe: &Recipe<recipe::Disk>,
    parts: &Parts<'_>,
) -> Result<Disk> {
    let content = &recipe.content;
    let slot = slot_of(&parts.root.verity)?;
    let command_line = command_line(content, &parts.root.verity, parts.version)?;
    let packages = packages::exact(workspace, std::slice::from_ref(&content.boot_package))?;
    packages::fetch(workspace, &packages)?;
    let mut step = workspace
        .step("disk")
        .code(CODE)
        .input("recipe", &recipe.text)
        .input("version", parts.version)
        .input("epoch", workspace.epoch_seconds.to_string())
        .input("command line", &command_line)
        .result_of(&parts.kernel.tree)
        .result_of(&parts.initrd.path);
    for package in &packages {
        step = step.input("package", &package.sha256);
    }
    if let Some(keys) = parts.keys {
        step = sign::inputs(step, keys)?;
    }
    let result = step.run(|path, running| {
        files::make_directory(path)?;
        let boot = path.join("boot");
        uki::unpack_boot_files(workspace, content, &packages, &boot)?;
        running.busy_with("unified kernel image");
        let uki = path.join(format!("keelson_{}.efi", parts.version));
        uki::make(workspace, parts, &command_line, &boot, &uki)?;
        if let Some(keys) = parts.keys {
            running.busy_with("signing");
            for program in [&uki, &boot.join(uki::LOADER)] {
                sign::sign(workspace, keys, program)?;
            }
        }
        running.busy_with("EFI system partition");
        let esp = path.join("esp.img");
        esp::make(workspace, content, &boot, &uki, parts.keys, &esp)?;
        running.busy_with("state partition");
        let state = path.join("state.img");
        state::make(content.state_mib * MIB, workspace.epoch_seconds, &state)?;
        running.busy_with("partitions");
        write_disk(
            content,
            &esp,
            &parts.root.image,
            &state,
            slot,
            &path.join("keelson.img"),
        )?;
        for used_up in [boot, esp, state, uki] {
            files::remove(&used_up)?;
        }
        Ok(())
    })?;
    Ok(Disk {
        image: result.join("keelson.img"),
        command_line,
        slot,
        packages,
    })
}

fn write_disk(
    recipe: &recipe::Disk,
    esp: &Path,
    root: &Path,
    state: &Path,
    slot: Uuid,
    to: &Path,
) -> Result<()> {
    let layout = gpt::Layout::new(recipe, slot);
    let size = fs::metadata(root)
        .with_context(|| format!("examining {}", root.display()))?
        .len();
    ensure!(
        size <= recipe.slot_mib * MIB,
        "the root image has {} MiB, more than the {} MiB of a slot: raise slot_mib in disk.yml or put less on the root",
        size.div_ceil(MIB),
        recipe.slot_mib
    );
    let writing = || format!("writing {}", to.display());
    let mut disk = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)
        .with_context(writing)?;
    disk.set_len(layout.size_bytes()).with_context(writing)?;
    layout.write(&mut disk).with_context(writing)?;
    for (part, number) in [(esp, gpt::ESP), (root, gpt::SLOT_A), (state, gpt::STATE)] {
        files::copy_sparse(part, &mut disk, layout.offset_bytes(number))?;
    }
    Ok(())
}
