//! A network-config that is tried out: `keelson network apply --confirm` writes it, the network service goes back by itself when
//! its time is over, and `keelson network confirm` makes it last.

use serde::{Deserialize, Serialize};

use super::Network;

/// Name of the file among the network service's own.
pub const TRIAL_FILE: &str = "trial.json";

/// What is tried out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// In this boot alone (`/proc/sys/kernel/random/boot_id`): a machine that is started again goes back.
    pub boot_id: String,
    /// When it ends, in seconds since the machine's start (`CLOCK_BOOTTIME`).
    pub ends_at_s: u64,
    /// The document, as it was written.
    pub document: String,
    /// What it says.
    pub network: Network,
}

impl Trial {
    /// Whether it holds at this time of this boot.
    pub fn holds(&self, boot_id: &str, now_s: u64) -> bool {
        self.boot_id == boot_id && now_s < self.ends_at_s
    }
}
