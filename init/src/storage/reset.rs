//! Factory reset: the state partition's file system is made anew before it is mounted.
//!
//! The wish stands in the partition table, as an attribute of the state partition. It is taken away when the new file system is on
//! the disk: wherever the power fails, the next boot does it again, or finds it done.

use super::gpt::Write;
use super::partition::{self, Device};
use crate::kmsg;
use crate::state_partition::{MKE2FS, MKE2FS_EXTENDED, NEW_BYTES, RESET_ATTRIBUTE};
use anyhow::{Context as _, Result, bail};
use keelson_sys::block;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The image on the root that has mke2fs.
const IMAGE: &str = "usr/lib/keelson/images/storage";
/// The dynamic loader, below `usr` of that image.
const LOADERS: [&str; 2] = [
    "lib/x86_64-linux-gnu/ld-linux-x86-64.so.2",
    "lib/aarch64-linux-gnu/ld-linux-aarch64.so.1",
];
/// Libraries, below the same.
const LIBRARIES: [&str; 2] = ["lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu"];

/// Makes the file system on `device` anew when somebody wishes that: by the partition table, or by the kernel's command line
/// (`asked`), whose wish is noted in the table first.
pub(super) fn if_wished(device: &Device, asked: bool, root: &Path) -> Result<()> {
    let Some(number) = device.number else {
        match asked {
            true => bail!(
                "{} is no partition and is not reset",
                device.node().display()
            ),
            false => return Ok(()),
        }
    };
    let disk_node = device.disk_node();
    let table = match partition::read_table(&disk_node) {
        Ok(table) => table,
        // A table of another kind: nobody can have noted a wish in it.
        Err(_) if !asked => return Ok(()),
        Err(error) => return Err(error),
    };
    let attributes = table.attributes(number).unwrap_or_default();
    let noted = attributes & RESET_ATTRIBUTE != 0;
    if !asked && !noted {
        return Ok(());
    }
    let disk = OpenOptions::new()
        .read(true)
        .write(true)
        .open(&disk_node)
        .context("open the disk")?;
    let disk_bytes = block::size_bytes(&disk).context("size of the disk")?;
    let note = |attributes: u64| -> Result<()> {
        for write in table.plan_attributes(disk_bytes, number, attributes)? {
            write_flushed(&disk, &write).context("write the partition table")?;
        }
        Ok(())
    };
    if !noted {
        note(attributes | RESET_ATTRIBUTE)?;
    }
    kmsg::error(format_args!(
        "factory reset: {} is made anew, what was on it is lost",
        device.node().display()
    ));
    make(&device.node(), root)?;
    note(attributes & !RESET_ATTRIBUTE)?;
    kmsg::info("factory reset: done");
    Ok(())
}

/// Has mke2fs make the file system, and waits until the disk has it.
fn make(node: &Path, root: &Path) -> Result<()> {
    let mut command = mke2fs(&root.join(IMAGE))?;
    command.args(MKE2FS).arg(MKE2FS_EXTENDED).arg(node);
    command.arg(format!("{}k", NEW_BYTES >> 10));
    let output = command.output().context("run mke2fs")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("mke2fs: {}, {}", output.status, said.trim());
    }
    File::open(node)
        .and_then(|device| device.sync_all())
        .context("flush the new file system")
}

/// mke2fs of an image that is no root, by that image's own dynamic loader.
fn mke2fs(image: &Path) -> Result<Command> {
    let usr = image.join("usr");
    let there = |names: &[&str]| -> Option<PathBuf> {
        let mut paths = names.iter().map(|name| usr.join(name));
        paths.find(|path| path.exists())
    };
    let loader = there(&LOADERS).context("the root has no mke2fs")?;
    let mut command = Command::new(loader);
    command
        .arg("--library-path")
        .arg(there(&LIBRARIES).context("the root has no libraries for mke2fs")?)
        .arg(usr.join("sbin/mke2fs"))
        .env("MKE2FS_CONFIG", image.join("etc/mke2fs.conf"));
    Ok(command)
}

fn write_flushed(disk: &File, write: &Write) -> std::io::Result<()> {
    disk.write_all_at(&write.bytes, write.offset)?;
    disk.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_the_program_nothing_is_run() {
        let root = tempfile::tempdir().unwrap();
        let error = make(Path::new("/dev/null"), root.path()).unwrap_err();
        assert_eq!(error.to_string(), "the root has no mke2fs");
    }
}
