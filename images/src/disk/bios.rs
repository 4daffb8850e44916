//! What starts machines without UEFI: GRUB, in the first sector of the disk and in a partition of its own, and what it reads on the EFI system partition.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use keelson_uki::grub::{self, Choice};

use super::{GRUB_CONFIGURATION, Parts, gpt};
use crate::command;
use crate::files;
use crate::image::Tree;
use crate::packages::{self, Package};
use crate::recipe;
use crate::workspace::Workspace;

/// The kind of core image that disks have, as grub-mkimage calls it.
pub(crate) const DISK: &str = "i386-pc";
/// The kind that is started from an optical disc, and from a disk that holds a disc's image.
pub(crate) const DISC: &str = "i386-pc-eltorito";

const SECTOR_BYTES: usize = 512;
/// The first sector's program; what is behind it is the old partition table.
const BOOT_CODE_BYTES: usize = 440;
/// Where boot.img says at which sector the core image begins (8 bytes; GRUB's `boot/i386/pc/boot.S`).
const KERNEL_SECTOR: usize = 0x5c;
/// Where boot.img jumps over its check of the drive's number, unless that is wanted: some firmware hands a wrong one.
const DRIVE_CHECK: usize = 0x66;
/// Where the core image's first sector says at which sector the rest begins (8 bytes; `boot/i386/pc/diskboot.S`).
const FIRST_BLOCKLIST: usize = SECTOR_BYTES - 12;

/// The folder of GRUB's images and modules, unpacked.
#[derive(Debug)]
pub(crate) struct Grub {
    folder: PathBuf,
    modules: Vec<String>,
}

impl Grub {
    /// Unpacks what the recipe names below `to`.
    ///
    /// # Errors
    /// The package does not have it.
    pub(crate) fn unpack(
        workspace: &Workspace,
        recipe: &recipe::Grub,
        packages: &[Package],
        to: &Path,
    ) -> Result<Self> {
        let folder = recipe.folder.relative();
        let tree = Tree::create(to)?;
        for package in packages
            .iter()
            .filter(|package| package.name == recipe.package)
        {
            packages::unpack(&packages::archive_path(workspace, package), &tree, |path| {
                !path.starts_with(folder) && !folder.starts_with(path)
            })?;
        }
        ensure!(
            tree.has(&format!("{folder}/boot.img"))?,
            "disk.yml: package {} has no /{folder}/boot.img",
            recipe.package
        );
        Ok(Self {
            folder: tree.place(folder)?,
            modules: recipe.modules.clone(),
        })
    }

    /// One of its files.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn file(&self, name: &str) -> Result<Vec<u8>> {
        let path = self.folder.join(name);
        fs::read(&path).with_context(|| format!("reading {}", path.display()))
    }

    /// Makes a core image of this kind, which reads `grub.cfg` on the EFI system partition of the disk that it is started from.
    ///
    /// # Errors
    /// grub-mkimage fails.
    pub(crate) fn core(&self, kind: &str, to: &Path) -> Result<Vec<u8>> {
        let prefix = format!("(,gpt{})/{}", gpt::ESP, grub::DIRECTORY);
        let mut mkimage = Command::new("grub-mkimage");
        mkimage.arg("-d").arg(&self.folder);
        mkimage.args(["-O", kind, "-p", &prefix, "-o"]).arg(to);
        command::run(mkimage.args(&self.modules)).context("making GRUB's core image")?;
        fs::read(to).with_context(|| format!("reading {}", to.display()))
    }
}

/// GRUB for disks, each part of which says where the next one is: it starts from any disk that has its partition in the same place.
#[derive(Debug)]
pub(crate) struct Code {
    /// The first sector's program.
    boot: Vec<u8>,
    /// What is in GRUB's partition.
    core: Vec<u8>,
}

impl Code {
    /// Makes it, for disks with this layout; what grub-bios-setup would do on a machine of its own. `scratch` is a folder for what is made on the way.
    ///
    /// # Errors
    /// grub-mkimage fails, or the core image does not fit its partition.
    pub(crate) fn make(grub: &Grub, layout: &gpt::Layout, scratch: &Path) -> Result<Self> {
        let boot = grub.file("boot.img")?;
        let core = grub.core(DISK, &scratch.join("disk-core.img"))?;
        Self::of(&boot, core, layout)
    }

    fn of(boot: &[u8], mut core: Vec<u8>, layout: &gpt::Layout) -> Result<Self> {
        let room = layout.size_bytes_of(gpt::BIOS);
        ensure!(
            core.len() as u64 <= room && core.len() > SECTOR_BYTES,
            "GRUB's core image has {} bytes, its partition {room} (bios_mib in disk.yml)",
            core.len()
        );
        let sector = layout.offset_bytes(gpt::BIOS) / SECTOR_BYTES as u64;
        let mut boot = boot
            .get(..BOOT_CODE_BYTES)
            .context("boot.img is too short")?
            .to_vec();
        put(&mut boot, KERNEL_SECTOR, &sector.to_le_bytes());
        put(&mut boot, DRIVE_CHECK, &[0x90, 0x90]);
        put(&mut core, FIRST_BLOCKLIST, &(sector + 1).to_le_bytes());
        Ok(Self { boot, core })
    }

    /// Puts it into the first sector of the disk image and into its partition.
    ///
    /// # Errors
    /// The image cannot be written.
    pub(crate) fn install(&self, image: &Path, layout: &gpt::Layout) -> Result<()> {
        let disk = File::options().write(true).open(image);
        disk.and_then(|disk| {
            disk.write_all_at(&self.boot, 0)?;
            disk.write_all_at(&self.core, layout.offset_bytes(gpt::BIOS))
        })
        .with_context(|| format!("writing GRUB to {}", image.display()))
    }
}

fn put(bytes: &mut [u8], at: usize, field: &[u8]) {
    if let Some(place) = bytes.get_mut(at..at + field.len()) {
        place.copy_from_slice(field);
    }
}

/// GRUB's files for the EFI system partition, made in `folder`, and their paths there.
///
/// # Errors
/// The unified kernel image is none that GRUB can start, or a file cannot be written.
pub(crate) fn files_of_esp(
    folder: &Path,
    parts: &Parts<'_>,
    uki: &Path,
    code: &Code,
) -> Result<Vec<(PathBuf, String)>> {
    let mut image = File::open(uki).with_context(|| format!("opening {}", uki.display()))?;
    let entry = grub::entry(&mut image)
        .with_context(|| format!("telling GRUB how to start {}", uki.display()))?;
    let good = Choice {
        version: parts.version.to_owned(),
        tries: String::new(),
    };
    let configuration = files::read_text(&parts.folder.join(GRUB_CONFIGURATION))?;
    let contents = [
        (
            "grub.cfg",
            grub::CONFIGURATION.to_owned(),
            configuration.into_bytes(),
        ),
        ("state", grub::STATE.to_owned(), grub::state(&[good])?),
        ("entry.cfg", grub::path(parts.version), entry.into_bytes()),
        // What installations put onto other disks.
        ("boot.img", grub::BOOT.to_owned(), code.boot.clone()),
        ("core.img", grub::CORE.to_owned(), code.core.clone()),
    ];
    let mut written = Vec::new();
    for (name, path, content) in contents {
        let file = folder.join(name);
        files::write_durably(&file, &content)?;
        written.push((file, path));
    }
    Ok(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_part_of_grub_says_where_the_next_is() {
        let scratch = tempfile::tempdir().unwrap();
        let image = scratch.path().join("disk");
        fs::write(&image, vec![0; 4 << 20]).unwrap();
        let layout = gpt::Layout::new(&gpt::tests::recipe(), uuid::Uuid::nil());
        let code = Code::of(&[7; 512], vec![8; 2000], &layout).unwrap();
        code.install(&image, &layout).unwrap();
        let bytes = fs::read(&image).unwrap();
        let field = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap());
        assert_eq!(field(KERNEL_SECTOR), 2048);
        assert_eq!(bytes[439..441], [7, 0]);
        assert_eq!(field((1 << 20) + FIRST_BLOCKLIST), 2049);
        let error = Code::of(&[7; 512], vec![8; 2 << 20], &layout).unwrap_err();
        assert!(error.to_string().contains("bios_mib"), "{error}");
    }
}
