//! The ext4 superblock, as far as mounting and growing it asks (kernel: Documentation/filesystems/ext4).

/// Where the superblock is on the device, in bytes.
pub(crate) const SUPERBLOCK_OFFSET: u64 = 1024;
/// Its size, in bytes.
pub(crate) const SUPERBLOCK_BYTES: usize = 1024;

const STATE_ERRORS: u16 = 2;
const INCOMPAT_64BIT: u32 = 0x80;

/// What the superblock says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// The size of a block, in bytes.
    pub(crate) block_bytes: u64,
    /// The size of the file system, in blocks.
    pub(crate) blocks: u64,
    /// The kernel has found errors and wants e2fsck to run.
    pub(crate) has_errors: bool,
}

impl Superblock {
    /// Reads a superblock; `None` when it is none of ext4.
    pub(crate) fn parse(bytes: &[u8; SUPERBLOCK_BYTES]) -> Option<Self> {
        let u16_at = |at: usize| {
            bytes
                .get(at..)?
                .first_chunk()
                .map(|field| u16::from_le_bytes(*field))
        };
        let u32_at = |at: usize| {
            bytes
                .get(at..)?
                .first_chunk()
                .map(|field| u32::from_le_bytes(*field))
        };
        let (log_block, low) = (u32_at(0x18)?, u32_at(0x4)?);
        if u16_at(0x38)? != 0xef53 || log_block > 6 {
            return None;
        }
        let wide = u32_at(0x60)? & INCOMPAT_64BIT != 0;
        let high = if wide { u32_at(0x150)? } else { 0 };
        Some(Self {
            block_bytes: 1024u64.checked_shl(log_block)?,
            blocks: (u64::from(high) << 32) | u64::from(low),
            has_errors: u16_at(0x3a)? & STATE_ERRORS != 0,
        })
    }

    /// How many blocks fill a device of this size, when that is more than there are.
    pub(crate) fn blocks_to_fill(&self, device_bytes: u64) -> Option<u64> {
        device_bytes
            .checked_div(self.block_bytes)
            .filter(|blocks| *blocks > self.blocks)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made_by_mke2fs(options: &[&str]) -> Option<[u8; SUPERBLOCK_BYTES]> {
        use std::os::unix::fs::FileExt as _;
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(8 << 20).unwrap();
        let made = std::process::Command::new("/usr/sbin/mke2fs")
            .args(options)
            .arg(file.path())
            .output()
            .ok()?;
        assert!(made.status.success());
        let mut bytes = [0; SUPERBLOCK_BYTES];
        file.as_file()
            .read_exact_at(&mut bytes, SUPERBLOCK_OFFSET)
            .unwrap();
        Some(bytes)
    }

    #[test]
    fn what_mke2fs_writes_is_read() {
        for (block, options) in [
            (1024, ["-qFt", "ext4", "-b", "1024"]),
            (4096, ["-qFt", "ext4", "-b", "4096"]),
        ] {
            // Without e2fsprogs on the machine there is nothing to compare with.
            let Some(bytes) = made_by_mke2fs(&options) else {
                return;
            };
            let superblock = Superblock::parse(&bytes).unwrap();
            assert_eq!(
                superblock,
                Superblock {
                    block_bytes: block,
                    blocks: (8 << 20) / block,
                    has_errors: false
                }
            );
            assert_eq!(superblock.blocks_to_fill(8 << 20), None);
            assert_eq!(
                superblock.blocks_to_fill((9 << 20) + 1),
                Some((9 << 20) / block)
            );
        }
    }

    #[test]
    fn noise_is_no_superblock() {
        assert_eq!(Superblock::parse(&[0; SUPERBLOCK_BYTES]), None);
        assert_eq!(Superblock::parse(&[0x5a; SUPERBLOCK_BYTES]), None);
    }

    #[test]
    fn the_error_flag_is_seen() {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        bytes[0x38..0x3c].copy_from_slice(&[0x53, 0xef, 3, 0]);
        assert!(Superblock::parse(&bytes).unwrap().has_errors);
    }
}
