//! Programs that run in a container when files of the host change (`x-keelson.on_change`).
//!
//! For services that read their configuration again only when they are told to.

use crate::compose::service::OnChange;
use crate::readiness::register;
use crate::runtime::Runtime;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::unix::AsyncFd;

/// How long the program may take.
const TIMEOUT: Duration = Duration::from_secs(30);
/// The first pause after a failure; each further one is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// A service that has just begun may not hear yet; after so many failures it is said, and given up until the next change.
const ATTEMPTS: u32 = 5;

/// Runs the program after each change, until the task is aborted. `at_once`: as if a change had just been seen.
/// `report` gets what went wrong.
pub async fn watch(
    on_change: OnChange,
    runtime: Runtime,
    id: String,
    at_once: bool,
    report: impl Fn(String),
) {
    let path = &on_change.path;
    let changes = match Changes::of(Path::new(path)) {
        Ok(changes) => changes,
        Err(error) => return report(format!("cannot watch {path}: {error}")),
    };
    let command: Vec<String> = on_change.exec.iter().map(|word| word.0.clone()).collect();
    let mut due = at_once;
    loop {
        if !due && let Err(error) = changes.next().await {
            return report(format!("cannot watch {path} any longer: {error}"));
        }
        due = false;
        let mut pause = FIRST_PAUSE;
        for attempt in 1..=ATTEMPTS {
            if matches!(runtime.exec(&id, &command, TIMEOUT).await, Ok(true)) {
                break;
            }
            if attempt == ATTEMPTS {
                report(format!(
                    "{path} changed, but `{}` failed {ATTEMPTS} times",
                    command.join(" ")
                ));
                break;
            }
            // A further change does not need to wait.
            if tokio::time::timeout(pause, changes.next()).await.is_ok() {
                due = true;
                break;
            }
            pause *= 2;
        }
    }
}

/// What happens in a directory.
pub(crate) struct Changes {
    inotify: Inotify,
    ready: AsyncFd<OwnedFd>,
}

impl Changes {
    pub(crate) fn of(directory: &Path) -> std::io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let files = AddWatchFlags::IN_CLOSE_WRITE
            | AddWatchFlags::IN_MOVED_TO
            | AddWatchFlags::IN_MOVED_FROM
            | AddWatchFlags::IN_DELETE;
        inotify.add_watch(directory, files | AddWatchFlags::IN_ONLYDIR)?;
        let descriptor = inotify.as_fd().try_clone_to_owned()?;
        let ready = register(descriptor)?;
        Ok(Self { inotify, ready })
    }

    /// Returns after one or more changes.
    pub(crate) async fn next(&self) -> std::io::Result<()> {
        loop {
            let mut ready = self.ready.readable().await?;
            let read = ready.try_io(|_| self.inotify.read_events().map_err(Into::into));
            if let Ok(events) = read {
                return events.map(drop);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    /// Whether a change is seen within the blink of an eye in which the event, if any, is there already.
    async fn seen(changes: &Changes) -> bool {
        tokio::time::timeout(Duration::from_millis(1), changes.next())
            .await
            .is_ok()
    }

    #[tokio::test]
    async fn files_written_renamed_and_removed_are_changes_and_read_ones_are_not() {
        let directory = tempfile::tempdir().unwrap();
        let (new, old) = (directory.path().join("new"), directory.path().join("old"));
        let changes = Changes::of(directory.path()).unwrap();
        assert!(!seen(&changes).await);
        fs::write(&new, "1").unwrap();
        assert!(seen(&changes).await);
        fs::rename(&new, &old).unwrap();
        assert!(seen(&changes).await);
        fs::read(&old).unwrap();
        assert!(!seen(&changes).await);
        fs::remove_file(&old).unwrap();
        assert!(seen(&changes).await);
        assert!(!seen(&changes).await, "one change was seen twice");
    }

    #[tokio::test]
    async fn what_is_no_directory_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(Changes::of(file.path()).is_err());
        assert!(Changes::of(Path::new("/nowhere")).is_err());
    }
}
