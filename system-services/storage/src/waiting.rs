//! Waits for devices: nodes and links that udev makes are announced by the file system they are in.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use signal_hook::consts::SIGTERM;
use signal_hook::flag::register_conditional_shutdown;

const DEV: &str = "/dev";

/// What is waited for.
pub(crate) struct Waiting {
    inotify: Inotify,
    /// Nothing is being done that SIGTERM may not end.
    is_idle: Arc<AtomicBool>,
}

impl Waiting {
    /// Waits for new devices.
    ///
    /// # Errors
    /// What inotify(7) reports.
    pub(crate) fn new() -> Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC).context("watch /dev")?;
        let is_idle = Arc::new(AtomicBool::new(false));
        register_conditional_shutdown(SIGTERM, 0, Arc::clone(&is_idle)).context("await SIGTERM")?;
        let waiting = Waiting { inotify, is_idle };
        waiting.watch(Path::new(DEV)).context("watch /dev")?;
        Ok(waiting)
    }

    /// Waits for `source` too, when it is a link in a directory of its own.
    pub(crate) fn watch_for(&mut self, source: &str) {
        let Some(directory) = Path::new(source).parent() else {
            return;
        };
        // The nearest that is there: where the next one appears.
        let there = directory
            .ancestors()
            .find(|path| path.starts_with(DEV) && path.is_dir());
        if let Some(directory) = there
            && let Err(error) = self.watch(directory)
        {
            eprintln!("<4>watch {}: {error:#}", directory.display());
        }
    }

    fn watch(&self, directory: &Path) -> Result<()> {
        let flags =
            AddWatchFlags::IN_CREATE | AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_ATTRIB;
        self.inotify.add_watch(directory, flags)?;
        Ok(())
    }

    /// Returns when something has come.
    ///
    /// # Errors
    /// What inotify(7) reports.
    pub(crate) fn next(&mut self) -> Result<()> {
        self.is_idle.store(true, Ordering::SeqCst);
        let events = self.inotify.read_events();
        self.is_idle.store(false, Ordering::SeqCst);
        events?;
        Ok(())
    }
}
