//! Back to what is in the other slot.

use anyhow::{Context as _, Result};

use super::System;
use crate::entry::Entry;
use crate::journal::{Journal, timestamp};
use crate::protocol::{Happened, Upgraded};

impl System {
    /// Has the boot loader take the version in the other slot, or, when that is what it would take next and was never started, has
    /// it not.
    ///
    /// # Errors
    /// There is none, or the EFI system partition cannot be written.
    pub fn rollback(&self) -> Result<Upgraded> {
        let _changing = self.change()?;
        let (running, disk, journal) = (self.version()?, self.disk()?, self.journal()?);
        let esp = self.esp(&disk, false)?;
        let entries = self.entries(&esp, &disk)?;
        let current = entries
            .running
            .context("the EFI system partition has no entry of the version that runs")?;
        let other = entries
            .other
            .context("there is no other version on the disk")?;
        let pending = journal.pending()?;
        let is_new = pending.as_ref().is_some_and(|pending| {
            pending.to == other.version && self.boot_id().is_ok_and(|boot| boot == pending.boot_id)
        });
        let (from, to) = match is_new {
            true => (other.version.clone(), running),
            false => (running, other.version.clone()),
        };
        if is_new {
            // First what shall be taken, then what shall not: in between there is always something to take.
            esp.rename(&current, &Entry::good(&to))?;
            esp.rename(&other, &Entry::bad(&from))?;
            // This ends a trial, too: whoever judges it looks here.
            journal.set_pending(None)?;
        } else {
            let mut next = other.clone();
            if other.tries.is_some() {
                next = Entry::on_trial(&to);
                journal.set_pending(Some(&self.trial_from(&from, &to)?))?;
                esp.rename(&other, &next)?;
            } else {
                journal.set_pending(None)?;
            }
            if current.cmp_as_loader(&next).is_le() || current.tries.is_some() {
                esp.rename(&current, &Entry::bad(&from))?;
            }
        }
        note(&journal, from, to)
    }
}

fn note(journal: &Journal, from: String, to: String) -> Result<Upgraded> {
    println!("<5>rolled back from {from} to {to}, as asked for");
    journal.add(Happened {
        time: timestamp(),
        what: "rolled back".to_owned(),
        from: from.clone(),
        to: to.clone(),
        why: Some("asked for".to_owned()),
        log: Vec::new(),
    })?;
    Ok(Upgraded {
        from,
        to,
        fetched_bytes: 0,
        copied_bytes: 0,
        total_bytes: 0,
    })
}
