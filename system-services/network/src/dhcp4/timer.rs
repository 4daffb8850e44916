//! The clock that leases live by: it goes on while the machine sleeps (`CLOCK_BOOTTIME`).

use std::io;
use std::time::Duration;

use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

use crate::watched::Watched;

/// Time since boot.
pub fn now() -> Duration {
    // CLOCK_BOOTTIME with a valid pointer cannot fail.
    nix::time::clock_gettime(nix::time::ClockId::CLOCK_BOOTTIME)
        .map(Duration::from)
        .unwrap_or_default()
}

/// Wakes a task at a time of this clock.
#[derive(Debug)]
pub struct Timer(Watched<TimerFd>);

impl Timer {
    /// A timer that is not set.
    ///
    /// # Errors
    /// What timerfd_create(2) or the event loop reports.
    pub fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self(Watched::new(TimerFd::new(
            ClockId::CLOCK_BOOTTIME,
            flags,
        )?)?))
    }

    /// Sets the timer to a time since boot; a time in the past is now. `None` stops it.
    ///
    /// # Errors
    /// What timerfd_settime(2) reports.
    pub fn set(&self, deadline: Option<Duration>) -> io::Result<()> {
        let timer = self.0.get();
        match deadline {
            None => timer.unset()?,
            Some(deadline) => {
                let at = TimeSpec::from(deadline.max(Duration::from_nanos(1))); // zero would stop it
                timer.set(
                    Expiration::OneShot(at),
                    TimerSetTimeFlags::TFD_TIMER_ABSTIME,
                )?;
            }
        }
        Ok(())
    }

    /// Waits until the time has come.
    ///
    /// # Errors
    /// What reading the timer reports.
    pub async fn expired(&self) -> io::Result<()> {
        self.0
            .read(|timer| timer.wait().map_err(io::Error::from))
            .await
    }
}
