//! dm-verity: the superblock that veritysetup writes before the hash tree, and the device made from it.
//! <https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity>

use crate::files;
use anyhow::{Context as _, Result, bail, ensure};
use keelson_sys::device_mapper::{DeviceMapper, Target};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

/// The superblock's size; the tree begins at the next hash block.
pub(crate) const SUPERBLOCK_BYTES: usize = 512;
/// The one block size that our slots have, of data and hashes.
const BLOCK_BYTES: u64 = 4096;
/// The device's name in the device mapper.
pub(crate) const NAME: &str = "keelson-root";

/// What the superblock says. Nothing in it is trusted: with a wrong value no block agrees with the root hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Superblock {
    /// Blocks of data.
    pub(crate) data_blocks: u64,
    /// What each block's hash begins with.
    pub(crate) salt: Vec<u8>,
}

impl Superblock {
    /// Reads the first 512 bytes of the hash area.
    pub(crate) fn parse(bytes: &[u8; SUPERBLOCK_BYTES]) -> Result<Self> {
        ensure!(
            bytes.starts_with(b"verity\0\0"),
            "there is no verity superblock"
        );
        let u32_at = |at| field(bytes, at).map(u32::from_le_bytes);
        ensure!(
            u32_at(8) == Some(1) && u32_at(12) == Some(1),
            "the verity superblock is of an unknown version"
        );
        let algorithm = bytes.get(32..64).unwrap_or_default();
        ensure!(
            algorithm.starts_with(b"sha256\0"),
            "the verity hash is not sha256"
        );
        let block = u32::try_from(BLOCK_BYTES).ok();
        ensure!(
            u32_at(64) == block && u32_at(68) == block,
            "the verity blocks are not of 4096 bytes"
        );
        let data_blocks = field(bytes, 72).map_or(0, u64::from_le_bytes);
        ensure!(
            data_blocks > 0 && data_blocks <= u64::MAX / BLOCK_BYTES,
            "the verity superblock has an absurd size"
        );
        let salt_bytes = field(bytes, 80).map_or(0, u16::from_le_bytes);
        ensure!(
            salt_bytes <= 256,
            "the verity superblock has an absurd salt"
        );
        let salt_end = usize::from(salt_bytes).saturating_add(88);
        let salt = bytes.get(88..salt_end).unwrap_or_default().to_vec();
        Ok(Self { data_blocks, salt })
    }

    /// The parameters of the kernel's `verity` target. On a block that does not agree with its hash the kernel
    /// fails the read (no option asks for more): a changed bit is never used, and the uevent that comes with it has PID 1 leave
    /// the slot in order.
    fn parameters(&self, device: &Path, hash_offset: u64, root_hash: &str) -> Result<String> {
        let data_bytes = self.data_blocks.checked_mul(BLOCK_BYTES);
        if data_bytes != Some(hash_offset) {
            bail!(
                "the verity superblock says {} blocks of data, the command line {} bytes",
                self.data_blocks,
                hash_offset
            );
        }
        let device = device.display();
        let hash_start = self.data_blocks.saturating_add(1);
        let salt = if self.salt.is_empty() {
            "-".to_owned()
        } else {
            files::hex(&self.salt)
        };
        let blocks = self.data_blocks;
        Ok(format!(
            "1 {device} {device} {BLOCK_BYTES} {BLOCK_BYTES} {blocks} {hash_start} sha256 {root_hash} {salt}"
        ))
    }
}

/// Makes the verified device over a slot; returns its node.
pub(crate) fn open(slot: &Path, hash_offset: u64, root_hash: &str) -> Result<PathBuf> {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    File::open(slot)
        .and_then(|file| file.read_exact_at(&mut bytes, hash_offset))
        .with_context(|| format!("read the verity superblock at byte {hash_offset}"))?;
    let superblock = Superblock::parse(&bytes).with_context(|| {
        format!(
            "block {} (the verity superblock) is damaged",
            hash_offset / BLOCK_BYTES
        )
    })?;
    let parameters = superblock.parameters(slot, hash_offset, root_hash)?;
    let mapper = DeviceMapper::open().context("open the device mapper")?;
    let minor = mapper.create(NAME).context("make the verity device")?;
    let sectors = superblock.data_blocks.saturating_mul(BLOCK_BYTES / 512);
    let target = Target {
        kind: "verity",
        sectors,
        parameters: &parameters,
    };
    let started = mapper
        .load_read_only(NAME, &target)
        .context("load the verity table")
        .and_then(|()| mapper.resume(NAME).context("start the verity device"));
    if let Err(error) = started {
        mapper
            .remove(NAME)
            .with_context(|| format!("remove the verity device after {error:#}"))?;
        return Err(error);
    }
    Ok(PathBuf::from(format!("/dev/dm-{minor}")))
}

/// Removes the verified device, which must not be in use.
pub(crate) fn close() -> Result<()> {
    DeviceMapper::open()
        .and_then(|mapper| mapper.remove(NAME))
        .context("remove the verity device")
}

fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn encode(data_blocks: u64, salt: &[u8]) -> [u8; SUPERBLOCK_BYTES] {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        let mut put = |at: usize, field: &[u8]| bytes[at..at + field.len()].copy_from_slice(field);
        put(0, b"verity");
        put(8, &1u32.to_le_bytes());
        put(12, &1u32.to_le_bytes());
        put(32, b"sha256");
        put(64, &4096u32.to_le_bytes());
        put(68, &4096u32.to_le_bytes());
        put(72, &data_blocks.to_le_bytes());
        put(80, &(salt.len() as u16).to_le_bytes());
        put(88, salt);
        bytes
    }

    #[test]
    fn the_table_is_what_the_kernel_wants() {
        let superblock = Superblock::parse(&encode(10, &[0xab, 0x01])).unwrap();
        let table = superblock
            .parameters(Path::new("/dev/vda2"), 40960, "cafe")
            .unwrap();
        assert_eq!(
            table,
            "1 /dev/vda2 /dev/vda2 4096 4096 10 11 sha256 cafe ab01"
        );
        assert!(
            superblock
                .parameters(Path::new("/dev/vda2"), 8192, "cafe")
                .is_err()
        );
    }

    #[test]
    fn a_damaged_superblock_is_refused() {
        let good = encode(10, b"salt");
        assert!(Superblock::parse(&good).is_ok());
        for at in [0, 8, 12, 32, 64, 68, 81] {
            let mut bytes = good;
            bytes[at] ^= 0x40;
            assert!(Superblock::parse(&bytes).is_err(), "byte {at}");
        }
        assert!(Superblock::parse(&encode(0, b"")).is_err());
    }

    proptest! {
        #[test]
        fn a_superblock_comes_back(data_blocks in 1..u64::MAX / 4096, salt in proptest::collection::vec(any::<u8>(), 0..=256)) {
            let superblock = Superblock::parse(&encode(data_blocks, &salt)).unwrap();
            prop_assert_eq!(superblock, Superblock { data_blocks, salt });
        }

        #[test]
        fn no_superblock_panics(bytes in proptest::collection::vec(any::<u8>(), SUPERBLOCK_BYTES)) {
            let mut array: [u8; SUPERBLOCK_BYTES] = bytes.try_into().unwrap();
            let _ = Superblock::parse(&array);
            array[..16].copy_from_slice(&encode(1, b"")[..16]);
            let _ = Superblock::parse(&array);
        }
    }
}
