//! An image that is an optical disc with El Torito entries for BIOS and UEFI, and a disk with a partition table; so it starts from a disc and from a stick.
//! The file system of the disc holds GRUB alone: all else is in the partitions.

use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use gptman::GPT;

use super::Medium;
use crate::command;
use crate::disk::gpt::Layout;
use crate::files;

const SECTOR_BYTES: u64 = 512;
/// What is added for the second partition table: a whole number of a disc's blocks.
const TABLE_BYTES: u64 = 64 * 1024;
/// What is before the old partition table in the first sector.
const BOOT_CODE_BYTES: usize = 440;
/// Numbers that xorriso gives the partitions for a while.
const ESP: u32 = 2;
const SLOT: u32 = 3;

/// Makes the image.
///
/// # Errors
/// When xorriso fails, or the table cannot be written.
pub(super) fn build(medium: &Medium<'_>) -> Result<PathBuf> {
    medium.step("iso").run(|path, running| {
        let tree = path.with_extension("tree");
        files::remove(&tree)?;
        files::make_directory(&tree)?;
        let [core, first_sector] = &medium.grub;
        fs::copy(core, tree.join("grub.img")).context("copying GRUB")?;
        running.busy_with("xorriso");
        let made = xorriso(medium, &tree, first_sector, path);
        files::remove(&tree)?;
        made?;
        write_table(medium, path)
    })
}

fn xorriso(medium: &Medium<'_>, tree: &Path, first_sector: &Path, to: &Path) -> Result<()> {
    let mut xorriso = Command::new("xorriso");
    xorriso.env(
        "SOURCE_DATE_EPOCH",
        medium.workspace.epoch_seconds.to_string(),
    );
    xorriso.args(["-as", "mkisofs", "-quiet", "-R", "-V", "KEELSON"]);
    xorriso.args(["-b", "grub.img", "-no-emul-boot", "-boot-load-size", "4"]);
    xorriso.args(["-boot-info-table", "--grub2-boot-info"]);
    xorriso.arg("--grub2-mbr").arg(first_sector);
    for (number, part) in [(ESP, &medium.esp), (SLOT, &medium.parts.root.image)] {
        xorriso.args(["-append_partition", &number.to_string(), "0xef"]);
        xorriso.arg(part);
    }
    xorriso.args(["-appended_part_as_gpt", "-eltorito-alt-boot", "-e"]);
    xorriso.arg(format!("--interval:appended_partition_{ESP}:all::"));
    xorriso.args(["-no-emul-boot", "-o"]).arg(to).arg(tree);
    command::run(&mut xorriso)
        .context("making the image of the disc")
        .map(drop)
}

/// Writes a partition table as disks have it, in place of xorriso's, which has other names and numbers.
fn write_table(medium: &Medium<'_>, path: &Path) -> Result<()> {
    let writing = || format!("writing the partition table of {}", path.display());
    let mut image = File::options()
        .read(true)
        .write(true)
        .open(path)
        .with_context(writing)?;
    let table = GPT::find_from(&mut image).with_context(writing)?;
    let place = |number: u32, part: &Path| -> Result<Range<u64>> {
        let size = fs::metadata(part).with_context(writing)?.len();
        let start = table
            .iter()
            .find(|(other, entry)| *other == number && entry.is_used())
            .map(|(_, entry)| entry.starting_lba * SECTOR_BYTES)
            .with_context(|| format!("xorriso has made no partition {number}"))?;
        Ok(start..start + size.next_multiple_of(SECTOR_BYTES))
    };
    let places = [
        place(ESP, &medium.esp)?,
        place(SLOT, &medium.parts.root.image)?,
    ];
    let size = image.metadata().with_context(writing)?.len();
    ensure!(
        places.iter().all(|place| place.end <= size),
        "{} ends before its partitions do",
        path.display()
    );
    image
        .set_len((size + TABLE_BYTES).next_multiple_of(TABLE_BYTES))
        .with_context(writing)?;
    // The table's writer clears the first sector, in which GRUB for sticks is.
    let mut program = [0; BOOT_CODE_BYTES];
    image.read_exact_at(&mut program, 0).with_context(writing)?;
    Layout::of_medium(medium.disk.slot, places)
        .write(&mut image)
        .with_context(writing)?;
    image.write_all_at(&program, 0).with_context(writing)
}
