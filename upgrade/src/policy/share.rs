//! Which machines come first: each has a number of its own for each version, and a delay of its own, both always the same.

use std::time::Duration;

use sha2::{Digest as _, Sha256};

/// A number that a machine always has for something, evenly spread.
fn number(machine_id: &str, version: &str, what: &str) -> u64 {
    let mut hasher = Sha256::new();
    for text in [machine_id.trim(), version, what] {
        hasher.update(text);
        hasher.update(b"\n");
    }
    let digest: [u8; 32] = hasher.finalize().into();
    digest
        .first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first))
}

/// Which hundredth of all machines this one is in for a version, 0 to 99.
pub fn hundredth(machine_id: &str, version: &str) -> u8 {
    u8::try_from(number(machine_id, version, "staged") % 100).unwrap_or(99)
}

/// By how much this machine puts off its restart for a version, below `jitter`.
pub fn delay(machine_id: &str, version: &str, jitter: Duration) -> Duration {
    let seconds = number(machine_id, version, "restart").checked_rem(jitter.as_secs());
    Duration::from_secs(seconds.unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machines_are_spread_evenly_and_stay_where_they_are() {
        let first = (0..1000).filter(|machine| hundredth(&machine.to_string(), "2.0") < 10);
        let count = first.count();
        assert!(
            (60..140).contains(&count),
            "{count} of 1000 are in the first tenth"
        );
        assert_eq!(hundredth("a\n", "2.0"), hundredth("a", "2.0"));
        // Not always the same machines come first.
        assert!((0..100).any(|version| hundredth("a", &version.to_string()) < 10));
        let jitter = Duration::from_secs(600);
        assert_eq!(delay("a", "2.0", jitter), delay("a", "2.0", jitter));
        assert!((0..100).all(|machine| delay(&machine.to_string(), "2.0", jitter) < jitter));
        assert_eq!(delay("a", "2.0", Duration::ZERO), Duration::ZERO);
    }
}
