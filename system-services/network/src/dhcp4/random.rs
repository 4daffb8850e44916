//! Numbers that keep machines from doing things at the same moment, and transactions apart. Nothing secret.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

/// SplitMix64: small, and repeatable from its seed, so that tests are.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// Numbers that follow from `seed`.
    pub fn from_seed(seed: u64) -> Self {
        Self(seed)
    }

    /// Numbers that nobody can foresee.
    ///
    /// # Errors
    /// What opening or reading /dev/urandom reports.
    pub fn from_kernel() -> io::Result<Self> {
        let mut seed = [0; 8];
        File::open("/dev/urandom")?.read_exact(&mut seed)?;
        Ok(Self(u64::from_ne_bytes(seed)))
    }

    /// The next number.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut value = self.0;
        value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        value ^ (value >> 31)
    }

    /// A transaction identifier.
    pub fn next_xid(&mut self) -> u32 {
        (self.next_u64() >> 32) as u32
    }

    /// A time from zero up to `limit`.
    pub fn below(&mut self, limit: Duration) -> Duration {
        let limit_us = u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).max(1);
        Duration::from_micros(self.next_u64() % limit_us)
    }
}
