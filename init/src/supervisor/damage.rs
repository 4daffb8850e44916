//! A slot that decays while it runs. What dm-verity refuses is never used, and what needs it fails: the version is given up and the
//! machine starts another one, in order, so that applications keep what they have written. Without another version it goes on as well as it can.
//!
//! The kernel is not asked to panic or to restart by itself (dm-verity's `panic_on_corruption`): it would do so in the middle of
//! everything, and start the same slot again.

use super::{Phase, Supervisor};
use crate::cmdline::Options;
use crate::storage::slot::describe_block;
use crate::storage::verity;
use crate::uevent::Uevent;
use crate::{fallback, files, kmsg};
use keelson_sys::control::Action;
use keelson_sys::device_mapper::DeviceMapper;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// So many refused blocks are named.
const REFUSALS_MAX: usize = 64;
/// The upgrade service may have the EFI system partition for itself at the moment.
const TRIES_MAX: u32 = 20;
const PAUSE: Duration = Duration::from_secs(1);

/// What is known of the slot's damage.
#[derive(Debug)]
pub(super) struct Damage {
    options: Options,
    /// Blocks that dm-verity has refused.
    refused: BTreeSet<String>,
    way_out: WayOut,
}

/// Whether this version is left for another one.
#[derive(Debug)]
enum WayOut {
    /// Nothing is damaged.
    NotNeeded,
    /// It will be tried then, for this reason, for the so-manieth time.
    Wanted(Instant, String, u32),
    /// This version was given up, or there is no other.
    Settled,
}

impl Damage {
    /// None so far; `options` are those of the kernel's command line.
    pub(super) fn none(options: Options) -> Self {
        Self {
            options,
            refused: BTreeSet::new(),
            way_out: WayOut::NotNeeded,
        }
    }

    /// When it will be tried to leave this version.
    pub(super) fn deadline(&self) -> Option<Instant> {
        match &self.way_out {
            WayOut::Wanted(at, ..) => Some(*at),
            WayOut::NotNeeded | WayOut::Settled => None,
        }
    }

    /// Looks at a kernel event: dm-verity's are `change` events of the device, with the refused block.
    pub(super) fn hear(&mut self, event: &Uevent) {
        let Some(block) = event.get("DM_VERITY_ERR_BLOCK_NR") else {
            return;
        };
        // Not that of some container's own.
        let name = event.get("DEVNAME").unwrap_or_default();
        let name = files::get(format!("/sys/class/block/{name}/dm/name"));
        if name.is_ok_and(|name| name == verity::NAME) {
            self.found(&describe_block(block));
        }
    }

    /// Asks the kernel, for events that nobody has heard.
    pub(super) fn look(&mut self) {
        let status = DeviceMapper::open().and_then(|mapper| mapper.status(verity::NAME));
        if self.refused.is_empty() && status.is_ok_and(|status| status.starts_with('C')) {
            self.found("a block");
        }
    }

    /// Names a refused block once: the kernel tries several times, and whoever reads it again tries again.
    fn found(&mut self, block: &str) {
        if self.refused.len() >= REFUSALS_MAX || !self.refused.insert(block.to_owned()) {
            return;
        }
        let slot = files::get("/run/keelson/slot").unwrap_or_else(|error| format!("({error:#})"));
        let why =
            format!("OS slot {slot}: dm-verity refuses {block}: the data is not what was signed");
        kmsg::error(&why);
        if self.refused.len() == REFUSALS_MAX {
            kmsg::error("further damage to the OS slot is not reported");
        }
        if matches!(self.way_out, WayOut::NotNeeded) {
            self.way_out = WayOut::Wanted(Instant::now(), why, 0);
        }
    }

    /// Gives this version up; true when the machine has to start another one.
    fn leave(&mut self) -> bool {
        let WayOut::Wanted(_, why, tries) = &self.way_out else {
            return false;
        };
        let settled = match fallback::give_up(&self.options, why) {
            Ok(Some(next)) => {
                kmsg::error(format_args!(
                    "this version is given up; restarting, version {next} is next"
                ));
                Some(true)
            }
            Ok(None) => {
                kmsg::error(
                    "there is no other version to go back to: what needs that data fails, the rest goes on",
                );
                Some(false)
            }
            Err(error) if *tries >= TRIES_MAX => {
                kmsg::error(format_args!(
                    "going back to another version: {error:#}; what needs that data fails, the rest goes on"
                ));
                Some(false)
            }
            Err(_) => None,
        };
        match settled {
            Some(leaves) => {
                self.way_out = WayOut::Settled;
                leaves
            }
            None => {
                let now = Instant::now();
                let again = now.checked_add(PAUSE).unwrap_or(now);
                self.way_out = WayOut::Wanted(again, why.clone(), tries.saturating_add(1));
                false
            }
        }
    }
}

impl Supervisor {
    /// It is time to leave this version.
    pub(super) fn leave_slot(&mut self) {
        // Somebody at the rescue shell is not thrown out, and a machine on its way down is.
        if self.damage.leave() && matches!(self.phase, Phase::Running(_) | Phase::Waiting(_)) {
            self.trial.passed();
            self.begin_shutdown(Action::Reboot);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_that_is_refused_again_and_again_is_one_reason_to_leave() {
        let mut damage = Damage::none(Options::parse(""));
        assert_eq!(damage.deadline(), None);
        damage.found("data block 4");
        damage.found("data block 4");
        assert!(damage.deadline().is_some());
        assert_eq!(damage.refused.len(), 1);
        // Nowhere to go to from a machine that is none of ours: tried for a while, and then settled.
        for _ in 0..=TRIES_MAX {
            assert!(!damage.leave());
        }
        assert_eq!(damage.deadline(), None);
        damage.found("data block 5");
        assert_eq!(damage.deadline(), None);
    }

    #[test]
    fn damage_of_another_device_is_none_of_ours() {
        let mut damage = Damage::none(Options::parse(""));
        let bytes =
            b"change@/devices/virtual/block/dm-7\0DEVNAME=dm-no-such\0DM_VERITY_ERR_BLOCK_NR=0,1";
        damage.hear(&Uevent::parse(bytes).unwrap());
        assert_eq!(damage.deadline(), None);
    }
}
