//! The hardware watchdog: fed as long as PID 1's loop turns.

use crate::kmsg;
use keelson_sys::machine::set_watchdog_timeout;
use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::time::{Duration, Instant};

const DEVICE: &str = "/dev/watchdog0";
/// How long the machine may hang before it is started again.
const TIMEOUT: Duration = Duration::from_secs(60);

/// An open, running watchdog.
#[derive(Debug)]
pub(crate) struct Watchdog {
    device: File,
    interval: Duration,
    next: Instant,
}

impl Watchdog {
    /// Opens and starts the machine's watchdog; `None` when it has none.
    pub(super) fn open() -> Option<Self> {
        let device = match OpenOptions::new().write(true).open(DEVICE) {
            Ok(device) => device,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return None,
            Err(error) => {
                kmsg::error(format_args!("open the watchdog: {error}"));
                return None;
            }
        };
        // A device without this ioctl keeps a timeout of its own, of which a minute is the usual one.
        let timeout = kmsg::tolerate(
            "set the watchdog's timeout",
            set_watchdog_timeout(&device, TIMEOUT),
        )
        .unwrap_or(TIMEOUT);
        kmsg::info(format_args!(
            "watchdog {DEVICE} runs with {} s",
            timeout.as_secs()
        ));
        let interval = timeout
            .checked_div(4)
            .unwrap_or_default()
            .max(Duration::from_secs(1));
        let mut watchdog = Self {
            device,
            interval,
            next: Instant::now(),
        };
        watchdog.feed();
        Some(watchdog)
    }

    /// When it wants to be fed.
    pub(super) fn next(&self) -> Instant {
        self.next
    }

    /// Feeds it.
    pub(crate) fn feed(&mut self) {
        kmsg::tolerate("feed the watchdog", self.device.write_all(b"\0"));
        self.next = Instant::now()
            .checked_add(self.interval)
            .unwrap_or(self.next);
    }

    /// Stops it: the machine goes down in order.
    pub(crate) fn stop(mut self) {
        kmsg::tolerate("stop the watchdog", self.device.write_all(b"V"));
    }
}
