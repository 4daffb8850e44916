//! The NoCloud seed: a file system labelled `cidata` that holds `user-data` and `meta-data`.
//!
//! The files are read straight from the block device, so that nothing is mounted and no privilege is needed for it.
//! Crates exist for both formats, but `fatfs` refuses small FAT32 volumes that Linux takes, and the ISO 9660 ones bring a
//! FUSE server along or know no Rock Ridge; four files in a root directory need neither.
//!
//! - [`devices`]: the block devices that there are
//! - [`fat`]: FAT12, FAT16, FAT32 with long names
//! - [`iso`]: ISO 9660 with Rock Ridge or Joliet names
//! - [`bytes`]: numbers in byte arrays

mod bytes;
mod devices;
mod fat;
mod iso;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use keelson_config::MAX_DOCUMENT_BYTES;

pub(crate) use devices::block_devices;

/// The label of a seed's file system, in small letters or capitals.
const LABEL: &str = "cidata";

/// Something with bytes at offsets: a block device, or an image in memory.
pub(crate) trait ReadAt {
    /// Fills `buffer` from `offset` on.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// The `length` bytes from `offset` on.
    fn bytes_at(&self, offset: u64, length: usize) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.read_at(offset, &mut bytes)?;
        Ok(bytes)
    }
}

impl ReadAt for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }
}

/// A file system that is labelled as a seed and whose root directory can be read.
pub(crate) trait Volume {
    /// The file `name` of the root directory, in any mix of capitals; `None` when there is none.
    fn file(&self, name: &str) -> io::Result<Option<Vec<u8>>>;
}

/// What a seed holds. A file that is not there is `None`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Seed {
    /// The device it was found on.
    pub(crate) device: String,
    /// `user-data`.
    pub(crate) user_data: Option<Vec<u8>>,
    /// `meta-data`.
    pub(crate) meta_data: Option<Vec<u8>>,
    /// Other files of the format that are there and are not read here.
    pub(crate) others: Vec<&'static str>,
}

/// The seed on `device`; `None` when it holds no file system labelled as one.
///
/// # Errors
/// What reading reports, or what is wrong with a file system that has the label.
pub(crate) fn read(name: &str, device: &impl ReadAt) -> io::Result<Option<Seed>> {
    let volume: Box<dyn Volume + '_> = if let Some(volume) = fat::open(device, LABEL)? {
        Box::new(volume)
    } else if let Some(volume) = iso::open(device, LABEL)? {
        Box::new(volume)
    } else {
        return Ok(None);
    };
    let mut others = Vec::new();
    for other in ["vendor-data", "network-config"] {
        if volume
            .file(other)?
            .is_some_and(|content| !content.trim_ascii().is_empty())
        {
            others.push(other);
        }
    }
    Ok(Some(Seed {
        device: name.to_owned(),
        user_data: volume.file("user-data")?,
        meta_data: volume.file("meta-data")?,
        others,
    }))
}

/// The first seed on the devices that there are now; one that is plugged in later is left alone.
/// Devices that cannot be read are skipped, unless they bear the label: `report` is told.
pub(crate) fn find(
    devices: &[(String, Box<Path>)],
    mut report: impl FnMut(String),
) -> Option<Seed> {
    for (name, path) in devices {
        let Ok(device) = File::open(path) else {
            continue;
        };
        match read(name, &device) {
            Ok(Some(seed)) => return Some(seed),
            Ok(None) => {}
            // Only a broken file system gives this kind: empty drives and the like give others.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                report(format!("read the seed on {name}: {error}"))
            }
            Err(_) => {}
        }
    }
    None
}

fn invalid(message: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, message.to_owned())
}

/// Refuses a file that is larger than any document may be.
fn check_size(name: &str, size: u64) -> io::Result<usize> {
    usize::try_from(size)
        .ok()
        .filter(|size| *size <= MAX_DOCUMENT_BYTES)
        .ok_or_else(|| invalid(&format!("{name} is larger than {MAX_DOCUMENT_BYTES} bytes")))
}

#[cfg(test)]
mod tests;
