//! DHCPv6 leases kept over restarts: one JSON file per interface, named after its Ethernet address and its name: a VLAN has
//! the address of the interface that it is on.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::lease::{Held, Lease};
use super::machine::Start;
use super::message::Identity;
use crate::files::{self, Durability};

/// No lease is longer than the longest that a server can say, in seconds; what a file says may be anything.
const LONGEST_S: u64 = u32::MAX as u64;

/// Where one interface's lease is kept.
#[derive(Debug, Clone)]
pub struct Store {
    path: PathBuf,
    boot_id: String,
    interface: String,
    identity: Identity,
}

#[derive(Debug, Serialize, Deserialize)]
struct Record {
    /// The interface's name.
    interface: String,
    /// Whom the server knows.
    identity: Identity,
    /// Its times are on the clock of the boot with this identifier.
    boot_id: String,
    held: Held,
    /// When it was written, on that clock.
    written: Duration,
    /// The same by the wall clock, which may have been wrong.
    written_unix_s: u64,
}

impl Store {
    /// The store in `directory` for the interface with that Ethernet address and name, as the kernel takes one. `boot_id` names
    /// the present boot.
    pub fn new(
        directory: &Path,
        hardware_address: [u8; 6],
        interface: &str,
        boot_id: &str,
    ) -> Self {
        let address = hardware_address.map(|byte| format!("{byte:02x}")).join("-");
        Self {
            path: directory.join(format!("lease6-{address}-{interface}.json")),
            boot_id: boot_id.to_owned(),
            interface: interface.to_owned(),
            identity: Identity::of(hardware_address, interface),
        }
    }

    /// What to start from: of this boot what is not over yet, of an earlier one what is not over by the wall clock.
    /// `is_configured` says whether the machine has something of a lease of this boot; of one that it has nothing of, servers
    /// are asked first.
    ///
    /// # Errors
    /// Why a file that is there could not be read, or cannot be of this client; a missing one is no error.
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
        let mut held = record.held;
        let is_its_own = record.interface == self.interface && record.identity == self.identity;
        if !is_its_own || !held.lease.is_possible() {
            return Err(io::Error::other("it is of another client, or of none"));
        }
        let is_of_this_boot = record.boot_id == self.boot_id;
        if !is_of_this_boot {
            // A wall clock that is behind says too little has passed: the server will know better.
            let over = unix_seconds(wall).saturating_sub(record.written_unix_s);
            let over = Duration::from_secs(over);
            let left = |at: Duration| at.saturating_sub(record.written).saturating_sub(over);
            held.lease.map_times(|at| now.saturating_add(left(at)));
        }
        let latest = now.saturating_add(Duration::from_secs(LONGEST_S));
        held.lease.map_times(|at| at.min(latest));
        let whole = held.clone();
        held.lease.drop_ended(now);
        let is_in_use = is_of_this_boot && is_configured(&held.lease);
        Ok(match (held.lease.is_empty(), is_in_use) {
            (true, _) => Start::Hint(whole),
            (false, true) => Start::Adopted(held),
            (false, false) => Start::Saved(held),
        })
    }

    /// Keeps a lease; it is on disk when this returns.
    ///
    /// # Errors
    /// What writing reports.
    pub fn save(&self, held: &Held, now: Duration, wall: SystemTime) -> io::Result<()> {
        let record = Record {
            interface: self.interface.clone(),
            identity: self.identity.clone(),
            boot_id: self.boot_id.clone(),
            held: held.clone(),
            written: now,
            written_unix_s: unix_seconds(wall),
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
    use crate::ipv6::lease::Leased;
    use crate::ipv6::message::Information;
    use crate::ipv6::prefix::Prefix;
    use proptest::prelude::*;

    const HARDWARE: [u8; 6] = [2, 0, 0, 0, 0, 0xab];
    const MINUTE: Duration = Duration::from_secs(60);

    /// An address until minute 11, a prefix until minute 21, renewed at minute 6.
    fn held() -> Held {
        let until = |minutes: u32| Some(MINUTE * minutes);
        let lease = Lease {
            server: vec![1, 2],
            addresses: vec![Leased {
                what: "2001:db8::5".parse().unwrap(),
                preferred_until: until(8),
                valid_until: until(11),
            }],
            prefixes: vec![Leased {
                what: Prefix::new("2001:db8:1::".parse().unwrap(), 56).unwrap(),
                preferred_until: until(8),
                valid_until: until(21),
            }],
            renew_at: until(6),
            rebind_at: None,
        };
        let information = Information {
            name_servers: vec!["2001:db8::53".parse().unwrap()],
            ..Information::default()
        };
        Held { lease, information }
    }

    fn load(store: &Store, now: Duration, wall: SystemTime) -> io::Result<Start> {
        store.load(now, wall, |_| true)
    }

    #[test]
    fn of_this_boot_servers_are_asked_about_it_when_the_machine_has_nothing_of_it() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path(), HARDWARE, "e0", "boot-1");
        store.save(&held(), MINUTE, UNIX_EPOCH).unwrap();
        let start = store.load(2 * MINUTE, UNIX_EPOCH, |lease| *lease != held().lease);
        assert_eq!(start.unwrap(), Start::Saved(held()));
    }

    #[test]
    fn of_this_boot_it_is_taken_up_as_far_as_it_still_holds() {
        let directory = tempfile::tempdir().unwrap();
        let wall = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let store = Store::new(directory.path(), HARDWARE, "e0", "boot-1");
        assert_eq!(load(&store, MINUTE, wall).unwrap(), Start::Fresh);
        store.save(&held(), MINUTE, wall).unwrap();
        assert_eq!(
            load(&store, 2 * MINUTE, wall).unwrap(),
            Start::Adopted(held())
        );
        // However wrong the wall clock goes.
        let Start::Adopted(later) = load(&store, 12 * MINUTE, UNIX_EPOCH).unwrap() else {
            panic!()
        };
        assert!(later.lease.addresses.is_empty());
        assert_eq!(later.lease.prefixes, held().lease.prefixes);
        assert_eq!(
            load(&store, 21 * MINUTE, wall).unwrap(),
            Start::Hint(held())
        );
        store.forget().unwrap();
        assert_eq!(load(&store, MINUTE, wall).unwrap(), Start::Fresh);
    }

    #[test]
    fn of_an_earlier_boot_what_is_left_by_the_wall_clock_counts() {
        let directory = tempfile::tempdir().unwrap();
        let wall = UNIX_EPOCH + Duration::from_secs(1_000_000);
        let store = Store::new(directory.path(), HARDWARE, "e0", "boot-1");
        store.save(&held(), MINUTE, wall).unwrap();
        let later = Store::new(directory.path(), HARDWARE, "e0", "boot-2");
        let Start::Saved(saved) = load(&later, Duration::ZERO, wall + 4 * MINUTE).unwrap() else {
            panic!()
        };
        // Ten minutes were left, four of them are over.
        let address = saved.lease.addresses[0];
        assert_eq!(address.valid_until, Some(6 * MINUTE));
        assert_eq!(saved.lease.renew_at, Some(MINUTE));
        assert_eq!(saved.lease.rebind_at, None);
        assert_eq!(saved.information, held().information);
        let over = load(&later, MINUTE, wall + 30 * MINUTE).unwrap();
        assert!(matches!(over, Start::Hint(_)), "{over:?}");
        // A clock that is behind: no more is left than there was.
        let Start::Saved(saved) = load(&later, MINUTE, UNIX_EPOCH).unwrap() else {
            panic!()
        };
        assert_eq!(saved.lease.addresses[0].valid_until, Some(11 * MINUTE));
    }

    #[test]
    fn what_is_no_lease_of_this_client_is_an_error_and_no_panic() {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path(), HARDWARE, "e0", "boot-1");
        store.save(&held(), MINUTE, UNIX_EPOCH).unwrap();
        let good = fs::read_to_string(store.path()).unwrap();
        for (address, name) in [([2; 6], "e0"), (HARDWARE, "e0.10")] {
            let other = Store::new(directory.path(), address, name, "boot-1");
            assert_eq!(load(&other, MINUTE, UNIX_EPOCH).unwrap(), Start::Fresh);
            fs::copy(store.path(), other.path()).unwrap();
            assert!(load(&other, MINUTE, UNIX_EPOCH).is_err());
        }
        for (old, new) in [
            ("\"length\":56", "\"length\":200"),
            ("2001:db8::5\"", "ff02::5\""),
            ("\"server\":[1,2]", "\"server\":[]"),
            ("{", ""),
        ] {
            assert!(good.contains(old), "{good}");
            fs::write(store.path(), good.replace(old, new)).unwrap();
            assert!(load(&store, MINUTE, UNIX_EPOCH).is_err(), "{new}");
        }
        // A time without end is one that a server can grant.
        let endless = format!("{}", u64::MAX);
        fs::write(
            store.path(),
            good.replace("\"secs\":660", &format!("\"secs\":{endless}")),
        )
        .unwrap();
        let Start::Adopted(held) = load(&store, MINUTE, UNIX_EPOCH).unwrap() else {
            panic!()
        };
        let end = held.lease.addresses[0].valid_until.unwrap();
        assert_eq!(end, MINUTE + Duration::from_secs(LONGEST_S));
    }

    proptest! {
        #[test]
        fn what_is_left_is_never_more_than_there_was(now in 0u64..1 << 40, wall in 0u64..1 << 40, cut in 0usize..400, boot in any::<bool>()) {
            let directory = tempfile::tempdir().unwrap();
            let store = Store::new(directory.path(), HARDWARE, "e0", "boot-1");
            store.save(&held(), MINUTE, UNIX_EPOCH).unwrap();
            let store = Store::new(directory.path(), HARDWARE, "e0", if boot { "boot-1" } else { "boot-2" });
            let (now, wall) = (Duration::from_secs(now), UNIX_EPOCH + Duration::from_secs(wall));
            if let Start::Saved(held) = load(&store, now, wall).unwrap() {
                let ends = held.lease.prefixes[0].valid_until.unwrap();
                prop_assert!(ends > now && ends <= now + 20 * MINUTE);
            }
            // A file that breaks off.
            let bytes = fs::read(store.path()).unwrap();
            fs::write(store.path(), &bytes[..cut.min(bytes.len() - 1)]).unwrap();
            prop_assert!(load(&store, now, wall).is_err());
        }
    }
}
