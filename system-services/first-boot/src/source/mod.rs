//! Data sources: who the machine is, what its user and those who run it want, as the disks and the kernel command line say.
//!
//! Files are read straight from block devices, so that nothing is mounted and no privilege is needed for it. Crates exist for
//! the file systems, but `fatfs` refuses small FAT32 volumes that Linux takes, the ISO 9660 ones bring a FUSE server along or
//! know no Rock Ridge, and UDF's brings twelve others; a few files need none of that.
//!
//! - [`firmware`]: credentials in the firmware's tables
//! - [`disks`]: seeds and config drives on disks
//! - [`devices`]: the block devices that there are
//! - [`fat`]: FAT12, FAT16, FAT32 with long names
//! - [`iso`]: ISO 9660 with Rock Ridge or Joliet names
//! - [`udf`]: UDF, as Azure writes it
//! - [`guestinfo`]: VMware's variables
//! - [`bytes`]: numbers in byte arrays

mod bytes;
mod devices;
pub(crate) mod disks;
mod fat;
pub(crate) mod firmware;
pub(crate) mod guestinfo;
mod iso;
mod udf;

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use keelson_config::MAX_DOCUMENT_BYTES;

pub(crate) use devices::block_devices;

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

/// A file system that bears a label and whose files can be read.
pub(crate) trait Volume {
    /// The file at `path`, without a slash in front and in any mix of capitals; `None` when there is none.
    fn file(&self, path: &str) -> io::Result<Option<Vec<u8>>>;
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
