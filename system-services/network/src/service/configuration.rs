//! The configuration's file, that of one which is tried out, and how changes of both are heard of.

use std::path::Path;
use std::time::Duration;

use keelson_config::network::trial::{TRIAL_FILE, Trial};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

use crate::config::Config;
use crate::dhcp4::timer;
use crate::files::{self, Durability};
use crate::watched::Watched;

/// The configuration, among the leases.
const CONFIGURATION: &str = "config.json";

/// What is tried out, and when that ends, on the clock of [`timer`]. One whose time is over is removed.
pub(super) fn read_trial(state: &Path, boot_id: &str) -> Option<(Config, Duration)> {
    let path = state.join(TRIAL_FILE);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) => {
            if error.kind() != std::io::ErrorKind::NotFound {
                log!(Error, "{}: {error}", path.display());
            }
            return None;
        }
    };
    let now = timer::now();
    let trial = serde_json::from_slice::<Trial>(&bytes);
    match trial.map(|trial| (trial.holds(boot_id, now.as_secs()), trial)) {
        Ok((true, trial)) => {
            let end = Duration::from_secs(trial.ends_at_s);
            return Some((Config::new(Some(trial.network)), end));
        }
        Ok((false, _)) => log!(Info, "what was tried out is over: it is as before"),
        Err(error) => log!(Error, "{}: {error}; it is as before", path.display()),
    }
    if let Err(error) = files::remove(&path, Durability::Disk) {
        log!(Error, "{}: {error}", path.display());
    }
    None
}

/// Reads what is declared. A file that cannot be read is as none: every wired interface asks DHCP.
pub(super) fn read_config(state: &Path) -> Config {
    let path = state.join(CONFIGURATION);
    let bytes = match std::fs::read(&path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Config::default(),
        Err(error) => {
            log!(Error, "{}: {error}; asking DHCP", path.display());
            return Config::default();
        }
    };
    match serde_json::from_slice(&bytes) {
        Ok(network) => Config::new(Some(network)),
        Err(error) => {
            log!(Error, "{}: {error}; asking DHCP", path.display());
            // Another version of this service may have written it: what is held back stays so, or all of it is.
            let firewall = serde_json::from_slice::<serde_json::Value>(&bytes)
                .ok()
                .map(|mut all| all["firewall"].take())
                .filter(|firewall| !firewall.is_null())
                .map(|firewall| serde_json::from_value(firewall).unwrap_or_default());
            Config::of_firewall(firewall)
        }
    }
}

/// Hears of changes of the configuration; `None`, and a word about it, when that is not possible.
pub(super) fn watch(state: &Path) -> Option<Watched<Inotify>> {
    let flags = InitFlags::IN_NONBLOCK | InitFlags::IN_CLOEXEC;
    let begun = Inotify::init(flags).and_then(|inotify| {
        let events =
            AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_CLOSE_WRITE;
        inotify.add_watch(state, events)?;
        Ok(inotify)
    });
    let begun = begun.map_err(std::io::Error::from).and_then(Watched::new);
    begun
        .map_err(|error| {
            log!(
                Warning,
                "{}: {error}; changes of the configuration are not heard of",
                state.display()
            )
        })
        .ok()
}

/// Waits until the configuration is another one; for ever when that is not heard of.
pub(super) async fn changed(changes: Option<&Watched<Inotify>>) -> Option<()> {
    let Some(changes) = changes else {
        return std::future::pending().await;
    };
    loop {
        let events = changes
            .read(|inotify| inotify.read_events().map_err(Into::into))
            .await;
        let mut events = events.ok()?.into_iter();
        let is_ours = |name: &std::ffi::OsStr| name == CONFIGURATION || name == TRIAL_FILE;
        if events.any(|event| event.name.is_some_and(|name| is_ours(&name))) {
            return Some(());
        }
    }
}
