//! Calls fdatasync(2), on another thread, so that a slow disk does not stop the reading.
//!
//! What was stored is on the disk a second later, errors at once. When nothing is stored nothing is called, and no
//! timer runs.

use crate::store::SharedStore;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::timeout;

/// Longest time that a record which is no error stays in memory only.
const SYNC_DELAY: Duration = Duration::from_secs(1);

/// Syncs when there is something to sync, for ever.
///
/// # Errors
/// The store takes nothing any more.
pub async fn run(store: SharedStore) -> io::Result<()> {
    let signals = store.borrow().signals();
    loop {
        signals.dirty.notified().await;
        // Elapsed or urgent: either way it is time.
        let _ = timeout(SYNC_DELAY, signals.urgent.notified()).await;
        let files = store.borrow().files();
        let result = tokio::task::spawn_blocking(move || sync(&files)).await;
        if let Err(error) = result.map_err(io::Error::other).and_then(|result| result) {
            store.borrow_mut().sync_failed(&error)?;
        }
    }
}

/// Writes the files' data to the disk.
///
/// # Errors
/// What fdatasync(2) reports.
pub fn sync(files: &[Arc<File>]) -> io::Result<()> {
    files.iter().try_for_each(|file| file.sync_data())
}
