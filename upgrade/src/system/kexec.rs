//! Starting again without the firmware: what the boot loader would start next is laid out for PID 1, and a try of it is taken as the boot
//! loader would have done.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};

use super::System;
use crate::entry::Entry;
use crate::esp::Esp;
use crate::protocol::Prepared;

/// What PID 1 takes, complete; and what is being made.
const NEXT: &str = "next";
const NEW: &str = "new";

impl System {
    /// Lays out kernel, initial RAM disk and command line of the entry that is next.
    ///
    /// # Errors
    /// The kernel is locked down, so that only the firmware may start another; the EFI system partition cannot be read or written; or what is next is
    /// no unified kernel image.
    pub fn prepare_kexec(&self) -> Result<Prepared> {
        let _changing = self.change()?;
        may_kexec(&fs::read_to_string(&self.paths.lockdown).unwrap_or_default())?;
        let disk = self.disk()?;
        let esp = self.esp(&disk, false)?;
        let Some(next) = esp.entries()?.into_iter().next() else {
            bail!("the EFI system partition has no entry");
        };
        let started = next.started();
        let (new, ready) = (self.paths.kexec.join(NEW), self.paths.kexec.join(NEXT));
        for old in [&new, &ready] {
            empty(old)?;
        }
        fs::create_dir(&new).with_context(|| format!("make {}", new.display()))?;
        lay_out(&esp, &next, &started, &new)?;
        // From here on the boot loader thinks that it has started it.
        esp.rename(&next, &started)?;
        fs::rename(&new, &ready).with_context(|| format!("make {}", ready.display()))?;
        println!(
            "<5>version {} is started next, without the firmware",
            next.version
        );
        Ok(Prepared {
            version: next.version,
        })
    }
}

fn lay_out(esp: &Esp, next: &Entry, started: &Entry, to: &Path) -> Result<()> {
    let mut image = esp.open(next)?;
    let line = crate::uki::command_line(&mut image).with_context(|| format!("read {next}"))?;
    for (section, name) in [(".linux", "linux"), (".initrd", "initrd")] {
        let path = to.join(name);
        let copied = crate::uki::section(&mut image, section)
            .and_then(|mut section| Ok(io::copy(&mut section, &mut File::create(&path)?)?));
        copied.with_context(|| format!("copy {section} of {next} to {}", path.display()))?;
    }
    // PID 1 has no other way to know whether the boot loader counts.
    fs::write(
        to.join("cmdline"),
        format!("{line} keelson.kexec={started}\n"),
    )
    .context("write the command line")
}

/// `lockdown` is the kernel's file of that name, empty when it has none.
fn may_kexec(lockdown: &str) -> Result<()> {
    ensure!(
        lockdown.is_empty() || lockdown.contains("[none]"),
        "the kernel is locked down (Secure Boot): only the firmware may start another, because it checks the whole of it"
    );
    Ok(())
}

fn empty(directory: &Path) -> Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", directory.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_locked_kernel_is_left_to_the_firmware() {
        assert!(may_kexec("").is_ok());
        assert!(may_kexec("[none] integrity confidentiality\n").is_ok());
        let error = may_kexec("none [integrity] confidentiality\n").unwrap_err();
        assert!(error.to_string().contains("locked down"), "{error}");
    }
}
