//! The disk image: boot loader, unified kernel image, OS slots, state partition.
//!
//! - `uki.rs`: kernel, initial RAM disk and command line in one EFI program
//! - `bios.rs`: what starts machines without UEFI
//! - `esp.rs`: the EFI system partition
//! - `sign.rs`: signatures for UEFI Secure Boot
//! - `state.rs`: the state partition
//! - `gpt.rs`: the partition table

pub(crate) mod bios;
pub(crate) mod esp;
pub(crate) mod gpt;
pub(crate) mod sign;
mod state;
pub(crate) mod uki;

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

/// Source text of this folder, an input of the steps that use it.
pub(crate) const CODE: &[&str] = &[
    include_str!("mod.rs"),
    include_str!("bios.rs"),
    include_str!("esp.rs"),
    include_str!("../../../upgrade/uki/src/lib.rs"),
    include_str!("../../../upgrade/uki/src/grub.rs"),
    include_str!("gpt.rs"),
    include_str!("sign.rs"),
    include_str!("state.rs"),
    include_str!("../../../upgrade/src/state_partition.rs"),
    include_str!("uki.rs"),
];

/// What GRUB does, in the folder of the recipes.
pub(crate) const GRUB_CONFIGURATION: &str = "grub/grub.cfg";

pub(crate) const MIB: u64 = 1024 * 1024;

/// A disk image that has been built.
#[derive(Debug)]
pub(crate) struct Disk {
    /// The image, sparse.
    pub(crate) image: PathBuf,
    /// The folder of boot loader and stubs, the loader signed if anything is.
    pub(crate) boot: PathBuf,
    /// The unified kernel image, signed if anything is.
    pub(crate) uki: PathBuf,
    /// The kernel command line.
    pub(crate) command_line: String,
    /// The GUID of the slot that the root stands in.
    pub(crate) slot: Uuid,
    /// The packages of boot loaders and stub.
    pub(crate) packages: Vec<Package>,
}

/// What a disk image is made of.
#[derive(Debug)]
pub(crate) struct Parts<'build> {
    /// Folder of the recipes.
    pub(crate) folder: &'build Path,
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
    /// The flavour's name.
    pub(crate) flavour: &'build str,
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
    let names = [content.boot_package.clone(), content.grub.package.clone()];
    let packages = packages::exact(workspace, &names)?;
    packages::fetch(workspace, &packages)?;
    let mut step = workspace
        .step("disk")
        .code(CODE)
        .input("recipe", &recipe.text)
        .input("version", parts.version)
        .input("flavour", parts.flavour)
        .input("epoch", workspace.epoch_seconds.to_string())
        .input("command line", &command_line)
        .result_of(&parts.kernel.tree)
        .result_of(&parts.initrd.path)
        .file(&parts.folder.join(GRUB_CONFIGURATION))?;
    for package in &packages {
        step = step.input("package", &package.sha256);
    }
    if let Some(keys) = parts.keys {
        step = sign::inputs(step, keys)?;
    }
    let uki_name = format!("keelson_{}.efi", parts.version);
    let result = step.run(|path, running| {
        files::make_directory(path)?;
        let (boot, uki) = (path.join("boot"), path.join(&uki_name));
        uki::unpack_boot_files(workspace, content, &packages, &boot)?;
        running.busy_with("unified kernel image");
        let starts = (parts.initrd.path.as_path(), command_line.as_str());
        uki::make(workspace, parts, starts, &boot, &uki)?;
        if let Some(keys) = parts.keys {
            running.busy_with("signing");
            for program in [&uki, &boot.join(uki::LOADER)] {
                sign::sign(workspace, keys, program)?;
            }
        }
        let scratch = path.join("scratch");
        files::make_directory(&scratch)?;
        running.busy_with("GRUB");
        let layout = gpt::Layout::new(content, slot);
        let grub = bios::Grub::unpack(workspace, &content.grub, &packages, &scratch.join("grub"))?;
        let code = bios::Code::make(&grub, &layout, &scratch)?;
        running.busy_with("EFI system partition");
        let esp = scratch.join("esp.img");
        let on_it = esp::Content {
            size_bytes: content.esp_mib * MIB,
            fat_bits: 32,
            menu_seconds: content.menu_seconds,
            boot: &boot,
            uki: &uki,
            keys: parts.keys,
            more: bios::files_of_esp(&scratch, parts, &uki, &code)?,
        };
        esp::make(workspace, on_it, &esp)?;
        running.busy_with("state partition");
        let state = scratch.join("state.img");
        state::make(content.state_mib * MIB, workspace.epoch_seconds, &state)?;
        running.busy_with("partitions");
        let image = path.join("keelson.img");
        write_disk(&layout, [&esp, &parts.root.image, &state], &image)?;
        code.install(&image, &layout)?;
        files::remove(&scratch)
    })?;
    Ok(Disk {
        image: result.join("keelson.img"),
        boot: result.join("boot"),
        uki: result.join(uki_name),
        command_line,
        slot,
        packages,
    })
}

/// Writes partition table, EFI system partition, root and state.
fn write_disk(layout: &gpt::Layout, [esp, root, state]: [&Path; 3], to: &Path) -> Result<()> {
    let size = fs::metadata(root)
        .with_context(|| format!("examining {}", root.display()))?
        .len();
    let room = layout.size_bytes_of(gpt::SLOT_A);
    ensure!(
        size <= room,
        "the root image has {} MiB, more than the {} MiB of a slot: raise slot_mib in disk.yml or put less on the root",
        size.div_ceil(MIB),
        room / MIB
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
