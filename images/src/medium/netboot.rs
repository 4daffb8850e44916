//! What machines are started with from the network: an initial RAM disk that brings the whole medium with it, for boot loaders that take kernel, initial RAM
//! disk and command line apart; and one EFI program of the three, for HTTP boot. The command line has the root hash, as everywhere.

use std::fs::{self, File};
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::{LIVE, Medium};
use crate::disk::gpt::Layout;
use crate::disk::{MIB, sign, uki};
use crate::files;
use crate::initrd::cpio;

/// Where PID 1 looks for a medium in the initial RAM disk.
const PLACE: &str = "usr/lib/keelson/medium.img";

/// Makes initial RAM disk, command line and program.
///
/// # Errors
/// When a tool fails or a file cannot be written.
pub(super) fn build(medium: &Medium<'_>) -> Result<Vec<(String, PathBuf)>> {
    let command_line = format!("{} {LIVE}", medium.disk.command_line);
    let result = medium.step("netboot").run(|path, running| {
        files::make_directory(path)?;
        let initrd = path.join("netboot-initrd");
        initrd_with(medium, path, &initrd)?;
        let line = format!("{command_line}\n");
        files::write_durably(&path.join("netboot-cmdline"), line.as_bytes())?;
        running.busy_with("EFI program");
        let program = path.join("netboot.efi");
        let starts = (initrd.as_path(), command_line.as_str());
        uki::make(
            medium.workspace,
            medium.parts,
            starts,
            &medium.disk.boot,
            &program,
        )?;
        match medium.parts.keys {
            Some(keys) => sign::sign(medium.workspace, keys, &program),
            None => Ok(()),
        }
    })?;
    let names = ["netboot-cmdline", "netboot-initrd", "netboot.efi"];
    let output = |name: &str| (name.to_owned(), result.join(name));
    Ok(names.map(output).into())
}

/// The initial RAM disk, and behind it an archive with the medium: archives follow each other at multiples of four bytes.
fn initrd_with(medium: &Medium<'_>, folder: &Path, to: &Path) -> Result<()> {
    let writing = || format!("writing {}", to.display());
    let tree = folder.join("tree");
    let image = tree.join(PLACE);
    files::make_directory(image.parent().unwrap_or(&tree))?;
    write_medium(medium, &image)?;
    let mut first = fs::read(&medium.parts.initrd.path).with_context(writing)?;
    first.resize(first.len().next_multiple_of(4), 0);
    let mut archive = BufWriter::new(File::create(to).with_context(writing)?);
    archive.write_all(&first).with_context(writing)?;
    cpio::write_tree(&tree, medium.workspace.epoch_seconds, &mut archive)?;
    archive.flush().with_context(writing)?;
    files::remove(&tree)
}

/// A disk image with an EFI system partition and a slot.
fn write_medium(medium: &Medium<'_>, to: &Path) -> Result<()> {
    let writing = || format!("writing {}", to.display());
    let parts = [&medium.esp, &medium.parts.root.image];
    let mut end = MIB;
    let mut places = [0..0, 0..0];
    for (place, part) in places.iter_mut().zip(parts) {
        let size = fs::metadata(part).with_context(writing)?.len();
        *place = end..end + size.next_multiple_of(MIB);
        end = place.end;
    }
    let mut disk = File::options()
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(to)
        .with_context(writing)?;
    disk.set_len(end + MIB).with_context(writing)?;
    for (place, part) in places.iter().zip(parts) {
        files::copy_sparse(part, &mut disk, place.start)?;
    }
    Layout::of_medium(medium.disk.slot, places)
        .write(&mut disk)
        .with_context(writing)
}
