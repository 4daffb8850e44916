//! What starts a machine without being installed on it: an image for optical discs and sticks, and the same from the network. A medium has the EFI
//! system partition and the slot of a disk, with the same kernel and the same root in them, and says `keelson.live=1`.
//!
//! - `iso.rs`: for discs and sticks, for UEFI and BIOS
//! - `netboot.rs`: for the network

mod iso;
mod netboot;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::disk::{self, Disk, MIB, bios, esp, gpt, sign, uki};
use crate::files;
use crate::recipe::{self, Recipe};
use crate::step::Step;
use crate::workspace::Workspace;

const CODE: &[&str] = &[
    include_str!("mod.rs"),
    include_str!("iso.rs"),
    include_str!("netboot.rs"),
    include_str!("../initrd/cpio.rs"),
];

/// What PID 1 and others know a medium by.
const LIVE: &str = "keelson.live=1";

/// Room for what is on the EFI system partition beside the unified kernel image.
const ESP_SPARE_BYTES: u64 = 3 * MIB;

/// The media that are wanted.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wanted {
    /// The image for discs and sticks.
    pub(crate) iso: bool,
    /// What machines are started with from the network.
    pub(crate) netboot: bool,
}

/// The parts of all media.
#[derive(Debug)]
struct Medium<'build> {
    workspace: &'build Workspace,
    parts: &'build disk::Parts<'build>,
    disk: &'build Disk,
    /// The EFI system partition.
    esp: PathBuf,
    /// GRUB for discs: its core image and what is in the first sector of a stick.
    grub: [PathBuf; 2],
}

/// Makes what is wanted: names of outputs, and files.
///
/// # Errors
/// When a tool fails.
pub(crate) fn build(
    workspace: &Workspace,
    recipe: &Recipe<recipe::Disk>,
    parts: &disk::Parts<'_>,
    disk: &Disk,
    wanted: Wanted,
) -> Result<Vec<(String, PathBuf)>> {
    if !wanted.iso && !wanted.netboot {
        return Ok(Vec::new());
    }
    let step = inputs(workspace.step("medium"), disk).input("recipe", &recipe.text);
    let result = step.run(|path, _| make_parts(workspace, &recipe.content, parts, disk, path))?;
    let medium = Medium {
        workspace,
        parts,
        disk,
        esp: result.join("esp.img"),
        grub: [result.join("core.img"), result.join("boot_hybrid.img")],
    };
    let mut outputs = Vec::new();
    if wanted.iso {
        outputs.push(("keelson.iso".to_owned(), iso::build(&medium)?));
    }
    if wanted.netboot {
        outputs.extend(netboot::build(&medium)?);
    }
    Ok(outputs)
}

/// What a disk image is made of, and the code of media.
fn inputs<'step>(step: Step<'step>, disk: &Disk) -> Step<'step> {
    let folder = disk.image.parent().unwrap_or(&disk.image);
    step.code(disk::CODE).code(CODE).result_of(folder)
}

impl Medium<'_> {
    fn step(&self, name: &str) -> Step<'_> {
        inputs(self.workspace.step(name), self.disk)
            .result_of(self.esp.parent().unwrap_or(&self.esp))
            .result_of(self.parts.root.image.parent().unwrap_or(&self.esp))
    }
}

fn make_parts(
    workspace: &Workspace,
    recipe: &recipe::Disk,
    parts: &disk::Parts<'_>,
    disk: &Disk,
    path: &Path,
) -> Result<()> {
    let scratch = path.join("scratch");
    for folder in [path, &scratch] {
        files::make_directory(folder)?;
    }
    let (addon, arguments) = (scratch.join("live.addon.efi"), scratch.join("medium.cfg"));
    uki::make_addon(workspace, LIVE, &disk.boot, &addon)?;
    if let Some(keys) = parts.keys {
        sign::sign(workspace, keys, &addon)?;
    }
    files::write_durably(&arguments, format!("set arguments={LIVE}\n").as_bytes())?;
    let boot = scratch.join("boot");
    copy_folder(&disk.boot, &boot)?;
    let grub = bios::Grub::unpack(
        workspace,
        &recipe.grub,
        &disk.packages,
        &scratch.join("grub"),
    )?;
    // For the disks that the medium is installed on; it starts itself in another way.
    let code = bios::Code::make(&grub, &gpt::Layout::new(recipe, disk.slot), &scratch)?;
    let mut more = bios::files_of_esp(&scratch, parts, &disk.uki, &code)?;
    more.extend([
        (addon, "loader/addons/live.addon.efi".to_owned()),
        (arguments, "grub/medium.cfg".to_owned()),
    ]);
    let size = fs::metadata(&disk.uki).context("examining the unified kernel image")?;
    let on_it = esp::Content {
        size_bytes: (size.len() + ESP_SPARE_BYTES).next_multiple_of(MIB),
        fat_bits: 16,
        menu_seconds: recipe.menu_seconds,
        boot: &boot,
        uki: &disk.uki,
        keys: parts.keys,
        more,
    };
    esp::make(workspace, on_it, &path.join("esp.img"))?;
    grub.core(bios::DISC, &path.join("core.img"))?;
    files::write_durably(
        &path.join("boot_hybrid.img"),
        &grub.file("boot_hybrid.img")?,
    )?;
    files::remove(&scratch)
}

/// A copy of the files of a folder: what is made beside them is for one partition only.
fn copy_folder(from: &Path, to: &Path) -> Result<()> {
    files::make_directory(to)?;
    let copying = || format!("copying {}", from.display());
    for entry in fs::read_dir(from).with_context(copying)? {
        let entry = entry.with_context(copying)?;
        if entry.path().is_file() {
            fs::copy(entry.path(), to.join(entry.file_name())).with_context(copying)?;
        }
    }
    Ok(())
}
