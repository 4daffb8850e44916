//! The device mapper's ioctls (linux/dm-ioctl.h), as far as a read-only dm-verity device needs them.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd as _;

mod request {
    //! The ioctls, by their names in the kernel's headers.
    use super::Buffer;
    nix::ioctl_readwrite!(dm_dev_create, 0xfd, 3, Header);
    nix::ioctl_readwrite!(dm_dev_remove, 0xfd, 4, Header);
    nix::ioctl_readwrite!(dm_dev_suspend, 0xfd, 6, Header);
    nix::ioctl_readwrite!(dm_table_load, 0xfd, 9, Header);
    nix::ioctl_readwrite!(dm_table_status, 0xfd, 12, Header);

    /// `struct dm_ioctl`: only its size matters here, it is part of the ioctls' numbers.
    pub(super) type Header = [u64; 39];

    /// One of the functions above.
    pub(super) type Function = unsafe fn(libc::c_int, *mut Header) -> nix::Result<libc::c_int>;

    pub(super) fn header(buffer: &mut Buffer) -> *mut Header {
        (&raw mut buffer.0).cast()
    }
}

/// `sizeof(struct dm_ioctl)`; what follows it is the table.
const HEADER_BYTES: usize = 312;
const TARGET_BYTES: usize = 40;
const BUFFER_BYTES: usize = 4096;
const FLAG_READ_ONLY: u32 = 1;

/// `struct dm_ioctl` and the data behind it.
#[repr(C, align(8))]
struct Buffer([u8; BUFFER_BYTES]);

/// The device mapper's control device.
#[derive(Debug)]
pub struct DeviceMapper {
    control: File,
}

/// One target that maps a whole device.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The target's type, like `verity`.
    pub kind: &'a str,
    /// The length of the device, in sectors of 512 bytes.
    pub sectors: u64,
    /// The target's own parameters.
    pub parameters: &'a str,
}

impl DeviceMapper {
    /// Opens /dev/mapper/control; the module dm-mod must be loaded.
    ///
    /// # Errors
    /// What open(2) reports.
    pub fn open() -> io::Result<Self> {
        let control = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/mapper/control")?;
        Ok(Self { control })
    }

    /// Makes a device without a table; returns N of its node /dev/dm-N.
    ///
    /// # Errors
    /// What the DM_DEV_CREATE ioctl reports, `EBUSY` when the name is in use.
    pub fn create(&self, name: &str) -> io::Result<u32> {
        let mut buffer = prepare(name, 0)?;
        self.call(request::dm_dev_create, &mut buffer)?;
        let device = u64::from_ne_bytes(read(&buffer, 40));
        // huge_encode_dev: minor bits 0-7 and 20-31, major bits 8-19.
        Ok(u32::try_from((device & 0xff) | ((device >> 12) & 0xf_ff00)).unwrap_or(u32::MAX))
    }

    /// Loads a read-only table of one target.
    ///
    /// # Errors
    /// What the DM_TABLE_LOAD ioctl reports; `InvalidInput` when the parameters are longer than 3 KiB.
    pub fn load_read_only(&self, name: &str, target: &Target<'_>) -> io::Result<()> {
        let mut buffer = prepare(name, FLAG_READ_ONLY)?;
        put(&mut buffer, 20, &1u32.to_ne_bytes())?;
        put(&mut buffer, HEADER_BYTES + 8, &target.sectors.to_ne_bytes())?;
        let kind = c_string(target.kind, 16)?;
        put(&mut buffer, HEADER_BYTES + 24, &kind)?;
        let parameters = c_string(target.parameters, 3072)?;
        put(&mut buffer, HEADER_BYTES + TARGET_BYTES, &parameters)?;
        self.call(request::dm_table_load, &mut buffer)
    }

    /// Puts the loaded table to use.
    ///
    /// # Errors
    /// What the DM_DEV_SUSPEND ioctl reports.
    pub fn resume(&self, name: &str) -> io::Result<()> {
        self.call(request::dm_dev_suspend, &mut prepare(name, 0)?)
    }

    /// What the one target of a device says of itself: `V` or `C` (corrupted) for `verity`.
    ///
    /// # Errors
    /// What the DM_TABLE_STATUS ioctl reports.
    pub fn status(&self, name: &str) -> io::Result<String> {
        let mut buffer = prepare(name, 0)?;
        self.call(request::dm_table_status, &mut buffer)?;
        let text = buffer.0.get(HEADER_BYTES + TARGET_BYTES..);
        let text = text.unwrap_or_default().split(|byte| *byte == 0).next();
        Ok(String::from_utf8_lossy(text.unwrap_or_default()).into_owned())
    }

    /// Removes a device.
    ///
    /// # Errors
    /// What the DM_DEV_REMOVE ioctl reports, `EBUSY` when it is in use.
    pub fn remove(&self, name: &str) -> io::Result<()> {
        self.call(request::dm_dev_remove, &mut prepare(name, 0)?)
    }

    fn call(&self, function: request::Function, buffer: &mut Buffer) -> io::Result<()> {
        // SAFETY: the header says how long the buffer is; the kernel reads and writes within it only, and finds
        // strings in it that end with a NUL.
        unsafe { function(self.control.as_raw_fd(), request::header(buffer)) }?;
        Ok(())
    }
}

/// A buffer with a header for the device of that name.
fn prepare(name: &str, flags: u32) -> io::Result<Buffer> {
    let mut buffer = Buffer([0; BUFFER_BYTES]);
    let size = u32::try_from(BUFFER_BYTES).unwrap_or(0);
    let start = u32::try_from(HEADER_BYTES).unwrap_or(0);
    for (index, word) in [4, 0, 0, size, start, 0, 0, flags].into_iter().enumerate() {
        put(&mut buffer, index * 4, &word.to_ne_bytes())?;
    }
    put(&mut buffer, 48, &c_string(name, 128)?)?;
    Ok(buffer)
}

fn put(buffer: &mut Buffer, at: usize, bytes: &[u8]) -> io::Result<()> {
    let place = buffer
        .0
        .get_mut(at..at + bytes.len())
        .ok_or(io::ErrorKind::InvalidInput)?;
    place.copy_from_slice(bytes);
    Ok(())
}

fn read<const N: usize>(buffer: &Buffer, at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    if let Some(found) = buffer.0.get(at..at + N) {
        bytes.copy_from_slice(found);
    }
    bytes
}

/// `text` with a NUL behind it, when that fits into `space` bytes.
fn c_string(text: &str, space: usize) -> io::Result<Vec<u8>> {
    if text.len() >= space || text.contains('\0') {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut bytes = text.as_bytes().to_vec();
    bytes.push(0);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_header_has_the_kernels_size() {
        assert_eq!(size_of::<request::Header>(), HEADER_BYTES);
    }

    #[test]
    fn names_and_parameters_are_bounded() {
        assert!(prepare(&"x".repeat(127), 0).is_ok());
        assert!(prepare(&"x".repeat(128), 0).is_err());
        assert!(prepare("a\0b", 0).is_err());
    }
}
