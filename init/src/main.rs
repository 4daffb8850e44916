//! PID 1 of Keelson, both in the initrd and on the real root.
//!
//! - [`initrd`]: from the kernel to the verified root
//! - [`root`]: what the real root needs before the engine starts, and what may come after
//! - [`supervisor`]: the event loop: engine, reaping, control socket, watchdog, signals
//! - [`shutdown`]: everything down, in reverse, with a deadline
//! - [`storage`]: slot, dm-verity, state partition
//! - [`fallback`]: out of a slot that has decayed
//! - [`kexec`]: starting again without the firmware
//! - [`kmod`]: kernel modules, and `modprobe` when called by that name
//! - [`rescue`]: the rescue shell
//! - [`uevent`], [`cmdline`], [`files`], [`kmsg`], [`timeline`]: what the others stand on
//!
//! One thread on the real root, no async runtime, no panic (denied by lint; one that slips through is caught round
//! each event).

#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::panic
    )
)]

mod cmdline;
mod fallback;
mod files;
mod initrd;
mod kexec;
mod kmod;
mod kmsg;
mod rescue;
mod root;
mod shutdown;
#[path = "../../upgrade/src/state_partition.rs"]
#[allow(unreachable_pub)]
mod state_partition;
mod storage;
mod supervisor;
mod timeline;
mod uevent;

use std::process::ExitCode;

/// This program on the real root.
pub(crate) const NEXT_PROGRAM: &str = "/usr/lib/keelson/keelson-init";
/// Makes the kernel's grace periods short, at some cost to every processor.
pub(crate) const HURRY: &str = "/sys/kernel/rcu_expedited";
/// The argument that makes a child do what nobody waits for.
pub(crate) const HOUSEKEEPING: &str = "housekeeping";

fn main() -> ExitCode {
    let mut arguments = std::env::args();
    let name = arguments.next().unwrap_or_default();
    let arguments: Vec<String> = arguments.collect();
    if std::process::id() == 1 {
        if is_initrd() {
            initrd::run()
        } else {
            supervisor::run()
        }
    }
    let result = match (name.rsplit('/').next(), arguments.as_slice()) {
        (Some("modprobe"), arguments) => kmod::modprobe(arguments),
        (_, [word]) if word == HOUSEKEEPING => {
            root::housekeeping();
            Ok(())
        }
        _ => Err(anyhow::anyhow!(
            "this is PID 1 of Keelson, or modprobe when called by that name; see keelson(1)"
        )),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Whether `/` is the initial root file system, which lives in memory.
fn is_initrd() -> bool {
    use nix::sys::statfs::{FsType, TMPFS_MAGIC, statfs};
    const RAMFS_MAGIC: FsType = FsType(0x8584_58f6);
    statfs("/").is_ok_and(|root| [TMPFS_MAGIC, RAMFS_MAGIC].contains(&root.filesystem_type()))
}
