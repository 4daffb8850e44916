//! The disk: finding the OS slot and the state partition, and opening them.
//!
//! - [`partition`]: the block devices that the kernel knows
//! - [`gpt`]: GUID partition tables, and growth of the last partition
//! - [`verity`]: the verified device over the slot
//! - [`ext4`]: the ext4 superblock
//! - [`slot`]: waits for the slot and mounts the root file system from it
//! - [`reset`]: the state partition made anew
//! - [`state`]: the state partition, or memory in its place

mod ext4;
mod gpt;
pub(crate) mod partition;
mod reset;
pub(crate) mod slot;
pub(crate) mod state;
pub(crate) mod verity;
