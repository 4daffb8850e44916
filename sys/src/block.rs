//! Block devices: sizes, partition tables in the kernel, online growth of ext4, loop devices.

use nix::errno::Errno;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::PathBuf;

mod request {
    //! The ioctls, by their names in the kernel's headers.
    #![allow(missing_docs)]
    nix::ioctl_read!(blkgetsize64, 0x12, 114, u64);
    nix::ioctl_write_ptr_bad!(blkpg, 0x1269, super::BlkpgArgument);
    nix::ioctl_none!(blkrrpart, 0x12, 95);
    nix::ioctl_write_ptr!(ext4_ioc_resize_fs, b'f', 16, u64);
    nix::ioctl_none_bad!(loop_ctl_get_free, 0x4c82);
    nix::ioctl_write_ptr_bad!(loop_configure, 0x4c0a, super::LoopConfig);
}

/// `struct blkpg_partition` of linux/blkpg.h.
#[repr(C)]
struct BlkpgPartition {
    start: i64,
    length: i64,
    number: libc::c_int,
    device_name: [u8; 64],
    volume_name: [u8; 64],
}

/// `struct blkpg_ioctl_arg` of linux/blkpg.h.
#[repr(C)]
pub struct BlkpgArgument {
    operation: libc::c_int,
    flags: libc::c_int,
    data_length: libc::c_int,
    data: *const BlkpgPartition,
}

const BLKPG_RESIZE_PARTITION: libc::c_int = 3;

/// `struct loop_config` of linux/loop.h, `loop_info64` spelled out as far as it is used.
#[repr(C)]
pub struct LoopConfig {
    fd: u32,
    block_size: u32,
    numbers: [u64; 5],
    kinds: [u32; 4],
    names: [u8; 64 + 64 + 32],
    init: [u64; 2],
    reserved: [u64; 8],
}

const LO_FLAGS_READ_ONLY: u32 = 1;
const LO_FLAGS_AUTOCLEAR: u32 = 4;
const LO_FLAGS_PARTSCAN: u32 = 8;

/// The size of an open block device, in bytes.
///
/// # Errors
/// What the BLKGETSIZE64 ioctl reports, `ENOTTY` for anything but a block device.
pub fn size_bytes(device: impl AsFd) -> io::Result<u64> {
    let mut size = 0;
    // SAFETY: BLKGETSIZE64 writes one u64 to the address given.
    unsafe { request::blkgetsize64(device.as_fd().as_raw_fd(), &raw mut size) }?;
    Ok(size)
}

/// Tells the kernel that a partition of this disk, possibly in use, has a new length. The table on the disk is
/// not touched.
///
/// # Errors
/// What the BLKPG ioctl reports; `InvalidInput` for an offset beyond the kernel's range.
pub fn resize_partition(
    disk: impl AsFd,
    number: u32,
    start_bytes: u64,
    length_bytes: u64,
) -> io::Result<()> {
    let out_of_range = |_| io::Error::from(io::ErrorKind::InvalidInput);
    let partition = BlkpgPartition {
        start: i64::try_from(start_bytes).map_err(out_of_range)?,
        length: i64::try_from(length_bytes).map_err(out_of_range)?,
        number: libc::c_int::try_from(number).map_err(out_of_range)?,
        device_name: [0; 64],
        volume_name: [0; 64],
    };
    let argument = BlkpgArgument {
        operation: BLKPG_RESIZE_PARTITION,
        flags: 0,
        data_length: libc::c_int::try_from(size_of::<BlkpgPartition>()).unwrap_or(0),
        data: &raw const partition,
    };
    // SAFETY: both structures have the kernel's layout and live until the call returns; it only reads them.
    unsafe { request::blkpg(disk.as_fd().as_raw_fd(), &raw const argument) }?;
    Ok(())
}

/// Makes the kernel read the disk's partition table again; no partition of it may be in use.
///
/// # Errors
/// What the BLKRRPART ioctl reports, `EBUSY` when a partition is in use.
pub fn reread_partitions(disk: impl AsFd) -> io::Result<()> {
    // SAFETY: BLKRRPART takes no argument.
    unsafe { request::blkrrpart(disk.as_fd().as_raw_fd()) }?;
    Ok(())
}

/// Grows a mounted ext4 file system to this many of its blocks; `mountpoint` is any open file or directory of it.
///
/// # Errors
/// What the EXT4_IOC_RESIZE_FS ioctl reports.
pub fn grow_ext4(mountpoint: impl AsFd, blocks: u64) -> io::Result<()> {
    // SAFETY: EXT4_IOC_RESIZE_FS reads one u64 from the address given.
    unsafe { request::ext4_ioc_resize_fs(mountpoint.as_fd().as_raw_fd(), &raw const blocks) }?;
    Ok(())
}

/// Attaches a file, read-only, to a free loop device with sectors of 512 bytes. The device is released with its
/// last user.
///
/// # Errors
/// What opening /dev/loop-control or /dev/loopN and the loop ioctls report.
pub fn attach_loop(file: &File) -> io::Result<(PathBuf, OwnedFd)> {
    attach(file, LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR)
}

/// The same for a file, or a device, that has a partition table: its partitions become devices, too.
///
/// # Errors
/// As [`attach_loop`].
pub fn attach_loop_with_partitions(file: &File) -> io::Result<(PathBuf, OwnedFd)> {
    attach(
        file,
        LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR | LO_FLAGS_PARTSCAN,
    )
}

fn attach(file: &File, flags: u32) -> io::Result<(PathBuf, OwnedFd)> {
    let control = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/loop-control")?;
    loop {
        // SAFETY: LOOP_CTL_GET_FREE takes no argument and returns a number.
        let number = unsafe { request::loop_ctl_get_free(control.as_raw_fd()) }?;
        let path = PathBuf::from(format!("/dev/loop{number}"));
        let device = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_CLOEXEC)
            .open(&path)?;
        let config = LoopConfig {
            fd: u32::try_from(file.as_raw_fd())
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
            block_size: 512,
            numbers: [0; 5],
            kinds: [0, 0, 0, flags],
            names: [0; 160],
            init: [0; 2],
            reserved: [0; 8],
        };
        // SAFETY: the structure has the kernel's layout and the kernel only reads it.
        match unsafe { request::loop_configure(device.as_raw_fd(), &raw const config) } {
            Ok(_) => return Ok((path, device.into())),
            // Somebody else took it between the two calls.
            Err(Errno::EBUSY) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn structures_have_the_kernels_sizes() {
        assert_eq!(size_of::<BlkpgPartition>(), 152);
        assert_eq!(size_of::<BlkpgArgument>(), 24);
        assert_eq!(size_of::<LoopConfig>(), 304);
    }

    #[test]
    fn a_file_has_no_block_device_size() {
        let file = tempfile::tempfile().unwrap();
        assert_eq!(
            size_bytes(&file).unwrap_err().raw_os_error(),
            Some(libc::ENOTTY)
        );
    }
}
