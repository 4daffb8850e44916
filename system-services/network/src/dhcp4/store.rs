//! Leases kept over restarts: one JSON file per interface, named after its Ethernet address.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::lease::{Held, Lease};
use super::machine::Start;
use crate::files::{self, Durability};

/// Where one interface's lease is kept.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    boot_id: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    lease: Lease,
    /// The boot in which `since_boot_ms` holds.
    boot_id: String,
    /// When the lease began, on that boot's clock.
    since_boot_ms: u64,
    /// When it ends by the wall clock, which may have been wrong; `None` is never.
    ends_unix_s: Option<u64>,
}

impl Store {
    /// The store in `directory` for the interface with that Ethernet address. `boot_id` names the present boot.
    pub fn new(directory: &Path, hardware_address: [u8; 6], boot_id: &str) -> Self {
        let name = hardware_address.map(|byte| format!("{byte:02x}")).join("-");
        Self {
            path: directory.join(format!("lease-{name}.json")),
            boot_id: boot_id.to_owned(),
        }
    }

    /// What to start from. `is_configured` says whether the interface has an address that we gave it.
    ///
    /// # Errors
    /// Why a file that is there could not be read; a missing one is no error.
    pub fn load(
        &self,
        now: Duration,
        wall: SystemTime,
        is_configured: impl Fn(&Lease) -> bool,
    ) -> io::Result<Start> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Start::Fresh),
            Err(error) => return Err(error),
        };
        let record: Record = serde_json::from_slice(&bytes)?;
        if record.boot_id == self.boot_id {
            let held = Held {
                lease: record.lease,
                since: Duration::from_millis(record.since_boot_ms),
            };
            return Ok(match (held.has_expired(now), is_configured(&held.lease)) {
                (true, _) => Start::Hint(held.lease.address),
                (false, true) => Start::Adopted(held),
                (false, false) => Start::Saved(held.lease),
            });
        }
        // A wall clock that is behind says too little has passed: the server will know better.
        let over = record
            .ends_unix_s
            .is_some_and(|end| end <= unix_seconds(wall));
        Ok(if over {
            Start::Hint(record.lease.address)
        } else {
            Start::Saved(record.lease)
        })
    }

    /// Keeps a lease; it is on disk when this returns.
    ///
    /// # Errors
    /// What writing reports.
    pub fn save(&self, held: &Held, now: Duration, wall: SystemTime) -> io::Result<()> {
        let left_s = held
            .expires_at()
            .map(|end| end.saturating_sub(now).as_secs());
        let record = Record {
            lease: held.lease.clone(),
            boot_id: self.boot_id.clone(),
            since_boot_ms: held.since.as_millis().try_into().unwrap_or(u64::MAX),
            ends_unix_s: left_s.map(|left_s| unix_seconds(wall).saturating_add(left_s)),
        };
        files::replace(&self.path, &serde_json::to_vec(&record)?, Durability::Disk)
    }

    /// Throws the kept lease away.
    ///
    /// # Errors
    /// What unlink(2) reports.
    pub fn forget(&self) -> io::Result<()> {
        files::remove(&self.path, Durability::Disk)
    }

    /// The file's path, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn unix_seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 0xab];
    const MINUTE: Duration = Duration::from_secs(60);

    fn held() -> Held {
        let lease = Lease {
            address: Ipv4Addr::new(10, 0, 0, 5),
            prefix_len: 24,
            server: Ipv4Addr::new(10, 0, 0, 1),
            lifetime_s: 600,
            renew_s: 300,
            rebind_s: 500,
            routes: Vec::new(),
            name_servers: Vec::new(),
            search: Vec::new(),
            time_servers: Vec::new(),
            mtu: None,
            host_name: None,
        };
        Held {
            lease,
            since: MINUTE,
        }
    }

    #[test]
    fn a_kept_lease_is_taken_up_as_far_as_it_still_holds() {
        let directory = tempfile::tempdir().unwrap();
        let wall = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let store = Store::new(directory.path(), HARDWARE, "boot-1");
        assert_eq!(store.load(MINUTE, wall, |_| true).unwrap(), Start::Fresh);
        store.save(&held(), MINUTE, wall).unwrap();
        assert!(
            directory
                .path()
                .join("lease-02-00-00-00-00-ab.json")
                .exists()
        );

        assert_eq!(
            store.load(2 * MINUTE, wall, |_| true).unwrap(),
            Start::Adopted(held())
        );
        assert_eq!(
            store.load(2 * MINUTE, wall, |_| false).unwrap(),
            Start::Saved(held().lease)
        );
        assert_eq!(
            store.load(11 * MINUTE, wall, |_| true).unwrap(),
            Start::Hint(held().lease.address)
        );

        let later = Store::new(directory.path(), HARDWARE, "boot-2");
        let soon = wall + MINUTE;
        assert_eq!(
            later.load(MINUTE, soon, |_| true).unwrap(),
            Start::Saved(held().lease)
        );
        assert_eq!(
            later.load(MINUTE, UNIX_EPOCH, |_| true).unwrap(),
            Start::Saved(held().lease)
        );
        assert_eq!(
            later.load(MINUTE, wall + 20 * MINUTE, |_| true).unwrap(),
            Start::Hint(held().lease.address)
        );

        store.forget().unwrap();
        assert_eq!(store.load(MINUTE, wall, |_| true).unwrap(), Start::Fresh);
    }

    #[test]
    fn a_damaged_file_is_an_error_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path(), HARDWARE, "boot-1");
        for content in ["", "{", "null", "{\"lease\": 5}", "\u{0}\u{0}"] {
            fs::write(store.path(), content).unwrap();
            assert!(
                store.load(MINUTE, UNIX_EPOCH, |_| true).is_err(),
                "{content:?}"
            );
        }
    }
}
