//! Whether a release is taken without being asked for.

use super::share::hundredth;
use crate::journal::Pending;
use crate::protocol::Happened;
use crate::release::document::Description;

/// What a machine knows when it chooses.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'f> {
    /// Its id; `None` where it has none.
    pub machine_id: Option<&'f str>,
    /// The version that runs.
    pub running: &'f str,
    /// All that happened, the oldest first.
    pub history: &'f [Happened],
    /// The version that is installed already.
    pub pending: Option<&'f Pending>,
}

/// Why a release that might be taken by name is not taken by itself, for a person; `None`: it is.
pub fn leaves(description: &Description, facts: &Facts<'_>) -> Option<String> {
    let version = description.version.as_str();
    if version == facts.running {
        return Some(format!("version {version} is the newest"));
    }
    if facts.pending.is_some_and(|pending| pending.to == version) {
        return Some(format!("version {version} is on the disk already"));
    }
    if let Some(last) = last_word(version, facts.history)
        && last.from == version
    {
        return Some(format!(
            "version {version} was given up on this machine on {} and is taken by name only",
            last.time
        ));
    }
    let staged = description.staged.unwrap_or(100);
    // A machine without an id is among the last.
    let own = facts.machine_id.map_or(99, |id| hundredth(id, version));
    (own >= staged).then(|| {
        format!("version {version} is for {staged} of 100 machines so far, and this one is number {own} from 0 on")
    })
}

/// The last entry that says something of a version.
fn last_word<'h>(version: &str, history: &'h [Happened]) -> Option<&'h Happened> {
    history
        .iter()
        .rev()
        .find(|entry| match entry.what.as_str() {
            // The one that it came from is no worse for that.
            "upgraded" => entry.to == version,
            _ => entry.from == version || entry.to == version,
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description(version: &str, staged: Option<u8>) -> Description {
        Description {
            version: version.into(),
            architecture: "amd64".into(),
            created: String::new(),
            expires: None,
            staged,
            root_hash: "00".repeat(32),
            hash_offset_bytes: 0,
        }
    }

    fn happened(what: &str, from: &str, to: &str) -> Happened {
        Happened {
            time: "2026-01-01T00:00:00Z".into(),
            what: what.into(),
            from: from.into(),
            to: to.into(),
            why: None,
            log: Vec::new(),
        }
    }

    fn leaves(history: &[Happened], staged: Option<u8>) -> Option<String> {
        let facts = Facts {
            machine_id: Some("0123"),
            running: "1",
            history,
            pending: None,
        };
        super::leaves(&description("2", staged), &facts)
    }

    #[test]
    fn what_was_given_up_is_not_taken_again_until_somebody_did_with_success() {
        assert_eq!(leaves(&[], None), None);
        let up = happened("upgraded", "1", "2");
        for left in ["went back", "rolled back"] {
            let left = happened(left, "2", "1");
            let why = leaves(&[up.clone(), left.clone()], None).unwrap();
            assert!(why.contains("given up on this machine on 2026"), "{why}");
            assert_eq!(leaves(&[left, up.clone()], None), None);
        }
        // Back to it by hand, and on to another one.
        let history = [
            happened("rolled back", "3", "2"),
            happened("upgraded", "2", "4"),
        ];
        assert_eq!(leaves(&history, None), None);
    }

    #[test]
    fn a_machine_beyond_the_share_waits() {
        let own = hundredth("0123", "2");
        assert_eq!(leaves(&[], Some(own + 1)), None);
        assert!(
            leaves(&[], Some(own))
                .unwrap()
                .contains(&format!("number {own}"))
        );
        let unknown = Facts {
            machine_id: None,
            running: "1",
            history: &[],
            pending: None,
        };
        assert!(super::leaves(&description("2", Some(99)), &unknown).is_some());
        assert_eq!(super::leaves(&description("2", Some(100)), &unknown), None);
    }
}
