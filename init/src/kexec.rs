//! Starting again without the firmware: the kernel that the upgrade service has laid out is loaded, and reboot(2) starts it.
//!
//! Not where the kernel is locked down (UEFI Secure Boot): it would check the kernel's own signature, but nobody the initial RAM disk and
//! the command line, which hold the root hash. There the firmware has to look at the whole.

use crate::files;
use anyhow::{Context as _, Result, ensure};
use std::fs::File;
use std::path::Path;

/// What the upgrade service has laid out: `linux`, `initrd`, `cmdline`.
const NEXT: &str = "/run/keelson/kexec/next";
/// Which kind of lockdown holds is the word in brackets (kernel_lockdown(7)).
const LOCKDOWN: &str = "/sys/kernel/security/lockdown";

/// Loads the next kernel.
pub(crate) fn load() -> Result<()> {
    let lockdown = files::get_if_present(LOCKDOWN)?.unwrap_or_default();
    ensure!(
        is_open(&lockdown),
        "the kernel is locked down: only the firmware checks the whole of what is started"
    );
    let next = Path::new(NEXT);
    let open =
        |name: &str| File::open(next.join(name)).with_context(|| format!("open {NEXT}/{name}"));
    let command_line = files::get(next.join("cmdline"))?;
    keelson_sys::kexec::load(&open("linux")?, &open("initrd")?, &command_line)
        .context("load the next kernel")
}

/// Whether nothing is locked down; a kernel without lockdown has no such file.
fn is_open(lockdown: &str) -> bool {
    lockdown.is_empty() || lockdown.contains("[none]")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_kernel_starts_no_other() {
        assert!(is_open("[none] integrity confidentiality") && is_open(""));
        assert!(!is_open("none [integrity] confidentiality"));
        assert!(!is_open("none integrity [confidentiality]"));
    }
}
