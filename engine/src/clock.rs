//! `CLOCK_BOOTTIME`: one time line for the kernel, PID 1 and the engine, going on in suspend.

use nix::time::{ClockId, clock_gettime};

/// Microseconds since the kernel was started.
pub fn now_us() -> u64 {
    let Ok(time) = clock_gettime(ClockId::CLOCK_BOOTTIME) else {
        return 0;
    };
    let part = |value: i64| u64::try_from(value).unwrap_or(0);
    part(time.tv_sec()) * 1_000_000 + part(time.tv_nsec()) / 1000
}
