//! What the processes of this program may do: capabilities(7), for good.

use anyhow::Context;
use rustix::thread::{
    CapabilitySet, CapabilitySets, remove_capability_from_bounding_set, set_capabilities,
    set_no_new_privs,
};

/// What an archive's content needs to be written as it is.
pub(crate) const ARCHIVE: CapabilitySet = CapabilitySet::CHOWN // owners other than root
    .union(CapabilitySet::DAC_OVERRIDE) // into directories that their owner has closed
    .union(CapabilitySet::FOWNER) // modes and times of others' files
    .union(CapabilitySet::FSETID) // setuid and setgid stay on others' files
    .union(CapabilitySet::MKNOD) // device nodes, and whiteouts, which are such
    .union(CapabilitySet::SETFCAP) // capabilities of files
    .union(CapabilitySet::SYS_ADMIN); // overlayfs's `trusted.` attributes

/// What the process that works on the store needs: what it passes on, and to shut the other in.
pub(crate) const STORE: CapabilitySet = ARCHIVE.union(CapabilitySet::SYS_CHROOT);

/// Gives up everything else, and any way to get it back.
///
/// # Errors
/// When the kernel refuses.
pub(crate) fn confine(kept: CapabilitySet) -> anyhow::Result<()> {
    set_no_new_privs(true).context("give up new privileges")?;
    for capability in CapabilitySet::all().difference(kept).iter() {
        // One that this kernel does not have is not there to be given up.
        let _ = remove_capability_from_bounding_set(capability);
    }
    let sets = CapabilitySets {
        effective: kept,
        permitted: kept,
        inheritable: kept,
    };
    set_capabilities(None, sets).context("give up capabilities (is this root?)")
}
