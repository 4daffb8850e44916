//! What the state partition is, for all who make one: the image builder, the installer, and PID 1 when it is reset. The three read this one
//! file: PID 1 links nothing else of this crate.

/// The partition's name (UEFI 2.10, section 5.3.3), and its file system's label.
pub const LABEL: &str = "KEELSON_STATE";

/// Size of the file system when it is made, in bytes; PID 1 lets it grow to its partition.
pub const NEW_BYTES: u64 = 64 << 20;

/// Somebody wishes that PID 1 makes the file system anew at the next boot: a bit of the partition's attributes, of those that are
/// for its type to define (UEFI 2.10, table 5-8). It is taken away when the new one is complete.
pub const RESET_ATTRIBUTE: u64 = 1 << 56;

/// Options of mke2fs(8): those of the large file system that it becomes: 4 KiB blocks, 8192 inodes a group of 128 MiB (one for every
/// 16 KiB), a journal that does not slow Docker down. Room for group descriptors is kept for 1 TiB; beyond it the kernel finds other room.
pub const MKE2FS: [&str; 17] = [
    "-q", "-F", "-t", "ext4", "-L", LABEL, "-b", "4096", "-I", "256", "-N", "8192", "-m", "1",
    "-J", "size=16", "-E",
];

/// What stands behind the last of [`MKE2FS`]; more may be added with commas.
pub const MKE2FS_EXTENDED: &str = "resize=268435456,root_owner=0:0,lazy_itable_init=0";
