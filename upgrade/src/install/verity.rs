//! A root image with its dm-verity tree (kernel: Documentation/admin-guide/device-mapper/verity.rst): each block is checked while it is
//! copied, and again when it is read back.

use std::fs::File;
use std::os::unix::fs::FileExt as _;

use anyhow::{Context as _, Result, ensure};
use ring::digest::{Context, SHA256};

/// Blocks of data and of hashes, in bytes.
pub const BLOCK_BYTES: usize = 4096;
const DIGEST_BYTES: usize = 32;
const DIGESTS_PER_BLOCK: u64 = (BLOCK_BYTES / DIGEST_BYTES) as u64;
/// A root image is smaller than a slot; this only keeps nonsense out of memory.
const BLOCKS_MAX: u64 = (16 << 30) / BLOCK_BYTES as u64;
const SALT_MAX: usize = 256;

/// The tree of a root image, found to be that of its root hash.
#[derive(Debug)]
pub struct Tree {
    salt: Vec<u8>,
    data_blocks: u64,
    /// Superblock and hashes, as they stand behind the data.
    area: Vec<u8>,
    /// Where in `area` the hashes of the data begin.
    leaves: usize,
}

impl Tree {
    /// Reads the tree that stands in a slot behind `hash_offset` bytes of data.
    ///
    /// # Errors
    /// It cannot be read, or is not the tree of `root_hash` (64 hex digits).
    pub fn read(slot: &File, hash_offset: u64, root_hash: &str) -> Result<Self> {
        let root: Vec<u8> = hex::decode(root_hash).context("read the root hash")?;
        let mut superblock = vec![0; BLOCK_BYTES];
        slot.read_exact_at(&mut superblock, hash_offset)
            .context("read the superblock of dm-verity")?;
        let (data_blocks, salt) = parse(&superblock)?;
        ensure!(
            data_blocks * BLOCK_BYTES as u64 == hash_offset,
            "the superblock of dm-verity says {data_blocks} blocks of data, and {hash_offset} bytes are expected"
        );
        // The level of the root comes first, that of the data last.
        let mut levels = vec![data_blocks.div_ceil(DIGESTS_PER_BLOCK)];
        while let Some(blocks) = levels.last().filter(|blocks| **blocks > 1) {
            levels.push(blocks.div_ceil(DIGESTS_PER_BLOCK));
        }
        levels.reverse();
        let hashes = levels.iter().sum::<u64>() as usize * BLOCK_BYTES;
        let mut area = superblock;
        area.resize(BLOCK_BYTES + hashes, 0);
        slot.read_exact_at(
            area.get_mut(BLOCK_BYTES..).unwrap_or_default(),
            hash_offset + BLOCK_BYTES as u64,
        )
        .context("read the tree of dm-verity")?;
        let tree = Tree {
            salt,
            data_blocks,
            leaves: area.len() - levels.last().map_or(0, |last| *last as usize * BLOCK_BYTES),
            area,
        };
        tree.check_levels(&levels, &root)?;
        Ok(tree)
    }

    fn check_levels(&self, levels: &[u64], root: &[u8]) -> Result<()> {
        let mut blocks = self
            .area
            .get(BLOCK_BYTES..)
            .unwrap_or_default()
            .chunks(BLOCK_BYTES);
        let mut expected: Vec<&[u8]> = vec![root];
        for level in levels {
            let mut next = Vec::new();
            for (block, digest) in blocks.by_ref().take(*level as usize).zip(&expected) {
                ensure!(
                    self.digest(block).as_ref() == *digest,
                    "the tree of dm-verity is damaged: it is not that of the root hash"
                );
                next.extend(block.chunks(DIGEST_BYTES));
            }
            expected = next;
        }
        Ok(())
    }

    fn digest(&self, block: &[u8]) -> ring::digest::Digest {
        let mut context = Context::new(&SHA256);
        context.update(&self.salt);
        context.update(block);
        context.finish()
    }

    /// Length of data and tree, in bytes.
    pub fn image_bytes(&self) -> u64 {
        self.data_bytes() + self.area.len() as u64
    }

    /// Length of the data, in bytes.
    pub fn data_bytes(&self) -> u64 {
        self.data_blocks * BLOCK_BYTES as u64
    }

    /// What stands behind the data.
    pub fn area(&self) -> &[u8] {
        &self.area
    }

    /// Checks whole blocks of data, the first of which has the number `first`.
    ///
    /// # Errors
    /// A block is not what the tree says.
    pub fn check(&self, first: u64, blocks: &[u8]) -> Result<()> {
        for (number, block) in (first..).zip(blocks.chunks(BLOCK_BYTES)) {
            let at = self.leaves + number as usize * DIGEST_BYTES;
            let expected = self.area.get(at..at + DIGEST_BYTES).unwrap_or_default();
            ensure!(
                number < self.data_blocks && self.digest(block).as_ref() == expected,
                "block {number} is damaged"
            );
        }
        Ok(())
    }
}

/// The superblock: how many blocks of data there are, and the salt.
fn parse(bytes: &[u8]) -> Result<(u64, Vec<u8>)> {
    let u32_at = |at: usize| {
        let field = bytes.get(at..).and_then(<[u8]>::first_chunk);
        field.map_or(0, |field| u32::from_le_bytes(*field))
    };
    let is_usual = bytes.starts_with(b"verity\0\0")
        && u32_at(8) == 1
        && u32_at(12) == 1
        && bytes.get(32..39) == Some(b"sha256\0")
        && u32_at(64) as usize == BLOCK_BYTES
        && u32_at(68) as usize == BLOCK_BYTES;
    ensure!(is_usual, "there is no superblock of dm-verity");
    let blocks = bytes.get(72..).and_then(<[u8]>::first_chunk);
    let blocks = blocks.map_or(0, |field| u64::from_le_bytes(*field));
    let salt = (u32_at(80) & 0xffff) as usize;
    ensure!(
        (1..=BLOCKS_MAX).contains(&blocks) && salt <= SALT_MAX,
        "the superblock of dm-verity is damaged"
    );
    Ok((
        blocks,
        bytes.get(88..88 + salt).unwrap_or_default().to_vec(),
    ))
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// An image over this data and its root hash, made from the leaves up.
    pub(crate) fn image(data: &[u8]) -> (Vec<u8>, String) {
        let salt = [7; 32];
        let digest = |block: &[u8]| {
            let mut context = Context::new(&SHA256);
            context.update(&salt);
            context.update(block);
            context.finish().as_ref().to_vec()
        };
        let mut levels: Vec<Vec<u8>> = Vec::new();
        let mut below = data.to_vec();
        while below.len() > BLOCK_BYTES || levels.is_empty() {
            let mut level: Vec<u8> = below.chunks(BLOCK_BYTES).flat_map(digest).collect();
            level.resize(level.len().next_multiple_of(BLOCK_BYTES), 0);
            levels.push(level.clone());
            below = level;
        }
        let mut superblock = vec![0; BLOCK_BYTES];
        let mut put =
            |at: usize, field: &[u8]| superblock[at..at + field.len()].copy_from_slice(field);
        put(0, b"verity");
        put(8, &1u32.to_le_bytes());
        put(12, &1u32.to_le_bytes());
        put(32, b"sha256");
        put(64, &4096u32.to_le_bytes());
        put(68, &4096u32.to_le_bytes());
        put(72, &((data.len() / BLOCK_BYTES) as u64).to_le_bytes());
        put(80, &32u16.to_le_bytes());
        put(88, &salt);
        let root = hex::encode(digest(levels.last().unwrap()));
        let mut image = [data, &superblock].concat();
        levels.iter().rev().for_each(|level| image.extend(level));
        (image, root)
    }

    fn file(content: &[u8]) -> File {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(content, 0).unwrap();
        file
    }

    fn noise(blocks: usize) -> Vec<u8> {
        crate::release::chunks::tests::noise(blocks * BLOCK_BYTES, 5)
    }

    #[test]
    fn every_block_of_an_image_is_known() {
        for blocks in [1, 2, 127, 128, 129, 300] {
            let data = noise(blocks);
            let (image, root) = image(&data);
            let tree = Tree::read(&file(&image), data.len() as u64, &root).unwrap();
            assert_eq!(tree.image_bytes(), image.len() as u64, "{blocks}");
            tree.check(0, &data).unwrap();
            tree.check(blocks as u64 - 1, &data[data.len() - BLOCK_BYTES..])
                .unwrap();
            assert!(tree.check(blocks as u64, &data[..BLOCK_BYTES]).is_err());
        }
    }

    /// Where veritysetup is, it makes the image.
    #[test]
    fn what_veritysetup_makes_is_read() {
        let data = noise(300);
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().write_all_at(&data, 0).unwrap();
        let offset = format!("--hash-offset={}", data.len());
        let mut command = std::process::Command::new("/usr/sbin/veritysetup");
        command.arg("format").args([file.path(), file.path()]);
        let Ok(output) = command.arg(offset).output() else {
            return;
        };
        let text = String::from_utf8(output.stdout).unwrap();
        let root = text
            .lines()
            .find_map(|line| line.strip_prefix("Root hash:"))
            .unwrap();
        let tree = Tree::read(file.as_file(), data.len() as u64, root.trim()).unwrap();
        tree.check(0, &data).unwrap();
        let length = file.as_file().metadata().unwrap().len();
        assert_eq!(tree.image_bytes(), length);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn one_flipped_bit_anywhere_is_seen(blocks in 1..300usize, at: usize, bit in 0..8u8) {
            let data = noise(blocks);
            let (mut image, root) = image(&data);
            let at = at % image.len();
            image[at] ^= 1 << bit;
            let read = Tree::read(&file(&image), data.len() as u64, &root);
            let checked = read.and_then(|tree| {
                tree.check(0, &image[..data.len()]).map(|()| tree)
            });
            // Bytes of the superblock and of its hashes' padding that say nothing change nothing.
            let says_nothing = (data.len()..data.len() + BLOCK_BYTES).contains(&at);
            prop_assert!(checked.is_err() || says_nothing, "byte {}", at);
        }

        #[test]
        fn no_superblock_panics(bytes in proptest::collection::vec(any::<u8>(), BLOCK_BYTES)) {
            let _ = parse(&bytes);
            let mut bytes = bytes;
            bytes[..72].copy_from_slice(&image(&noise(1)).0[BLOCK_BYTES..BLOCK_BYTES + 72]);
            let _ = parse(&bytes);
        }
    }
}
