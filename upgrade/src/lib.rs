//! The operating system as a whole: releases, the slots they are written to, and whether what was started is any good.
//!
//! Without input or output of their own:
//!
//! - [`entry`]: names of boot entries, and their order; a crate of its own, which PID 1 shares
//! - [`release`]: what is signed, and by whom
//! - [`state_partition`]: what the state partition is, for all who make one
//! - [`uki`]: what a unified kernel image says, and how GRUB starts it
//! - [`protocol`]: what the service is asked, and answers
//! - [`settings`]: what the configuration says
//! - [`policy`]: what is taken without being asked, and when the machine restarts for it
//!
//! With input and output, in the order in which they stand on each other:
//!
//! - [`disk`]: slots and partition table
//! - [`esp`]: the EFI system partition, and what GRUB is told there (`grub`)
//! - [`slot`]: writes a root image
//! - [`assembly`]: puts a file together from what is here and what is fetched
//! - [`source`]: fetches releases
//! - [`journal`]: what is under way, and what happened
//! - [`health`]: whether this boot is good
//! - [`checks`]: whether it is for those who use it
//! - [`system`]: all of it put together: upgrade, rollback, the verdict on a boot
//! - [`install`]: onto another disk
//! - `socket`: requests

pub mod assembly;
pub mod checks;
pub mod disk;
pub mod esp;
mod grub;
pub mod health;
pub mod install;
pub mod journal;
pub mod policy;
pub mod protocol;
pub mod release;
pub mod settings;
pub mod slot;
pub mod socket;
pub mod source;
pub mod state_partition;
pub mod system;
pub use keelson_boot_entries as entry;
pub use keelson_uki as uki;
