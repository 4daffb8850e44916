//! The two clocks that records carry.

use nix::time::{ClockId, clock_gettime};

/// One moment on both clocks, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time {
    /// Since 1970.
    pub real_us: u64,
    /// Since boot, sleep included.
    pub boot_us: u64,
}

impl Time {
    /// Now.
    #[must_use]
    pub fn now() -> Self {
        Self {
            real_us: read(ClockId::CLOCK_REALTIME),
            boot_us: read(ClockId::CLOCK_BOOTTIME),
        }
    }

    /// The moment of this boot time, which lies in the past.
    #[must_use]
    pub fn at_boot_us(self, boot_us: u64) -> Self {
        let ago_us = self.boot_us.saturating_sub(boot_us);
        Self {
            real_us: self.real_us.saturating_sub(ago_us),
            boot_us,
        }
    }
}

fn read(clock: ClockId) -> u64 {
    // Both clocks exist in every kernel that this runs on, and neither is before its zero.
    clock_gettime(clock).map_or(0, |time| {
        time.tv_sec().unsigned_abs() * 1_000_000 + time.tv_nsec().unsigned_abs() / 1000
    })
}
