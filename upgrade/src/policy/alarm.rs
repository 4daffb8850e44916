//! Waits for a time of the wall clock, or until something has changed: a file in one of some directories, or the clock itself.

use std::os::fd::AsFd as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};

/// One timer, and changes that are heard of.
#[derive(Debug)]
pub struct Alarm {
    changes: Inotify,
    timer: TimerFd,
}

impl Alarm {
    /// Hears of files that are replaced or removed in these directories.
    ///
    /// # Errors
    /// A directory is not there; or what the system calls report.
    pub fn new(directories: &[&Path]) -> Result<Self> {
        let changes = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let kinds =
            AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_CLOSE_WRITE | AddWatchFlags::IN_DELETE;
        for directory in directories {
            let watched = changes.add_watch(*directory, kinds);
            watched.with_context(|| format!("watch {}", directory.display()))?;
        }
        let flags = TimerFlags::TFD_CLOEXEC | TimerFlags::TFD_NONBLOCK;
        let timer = TimerFd::new(ClockId::CLOCK_REALTIME, flags).context("make a timer")?;
        Ok(Alarm { changes, timer })
    }

    /// Until this time of Unix time, for ever when there is none, or until something has changed, the clock too.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn wait(&self, until: Option<Duration>) -> Result<()> {
        // A timer that is set is told when the clock jumps; zero would unset it.
        let until = until
            .unwrap_or(Duration::from_secs(i64::MAX as u64 / 4))
            .max(Duration::from_nanos(1));
        let flags =
            TimerSetTimeFlags::TFD_TIMER_ABSTIME | TimerSetTimeFlags::TFD_TIMER_CANCEL_ON_SET;
        match self
            .timer
            .set(Expiration::OneShot(TimeSpec::from_duration(until)), flags)
        {
            // The clock was set since it was last asked: that is a change.
            Err(Errno::ECANCELED) => return Ok(()),
            other => other.context("set the timer")?,
        }
        let mut ready = [
            PollFd::new(self.changes.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.timer.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut ready, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(error).context("wait for changes"),
        }
        // All that has come counts as one.
        while self.changes.read_events().is_ok() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    #[test]
    fn a_time_and_a_change_both_end_the_waiting() {
        let directory = tempfile::tempdir().unwrap();
        let alarm = Alarm::new(&[directory.path()]).unwrap();
        let now = SystemTime::now()
            .duration_since(SystemTime::UNIX_EPOCH)
            .unwrap();
        alarm.wait(Some(Duration::ZERO)).unwrap();
        alarm.wait(Some(now + Duration::from_millis(20))).unwrap();
        let file = directory.path().join("settings.json");
        std::fs::write(&file, "{}").unwrap();
        alarm.wait(None).unwrap();
        std::fs::remove_file(&file).unwrap();
        alarm.wait(None).unwrap();
        assert!(Alarm::new(&[Path::new("/nowhere")]).is_err());
    }
}
