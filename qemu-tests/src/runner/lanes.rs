//! The order in which tests run: some alone, the others in two lanes beside each other.
//!
//! A machine that boots keeps two processors busy; one that waits for a deadline, a lease or its shutdown keeps none. Two machines at a time take
//! what the other leaves.

use std::collections::VecDeque;
use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};
use std::thread;

use anyhow::Result;

use crate::harness::lab::Lab;
use crate::runner::report::Report;
use crate::tests::Test;

/// Topics that measure time, or bring a machine to its limits.
const ALONE: [&str; 6] = ["boot", "abuse", "power", "power_cut", "bare", "kexec"];
/// Topics that share no machine with others: whichever lane is free takes the next one.
const BESIDE: [&str; 12] = [
    "upgrade",
    "corruption",
    "install",
    "moments",
    "upgrade_policy",
    "media",
    "secure_boot",
    "networks",
    "broken",
    "clouds",
    "configuration",
    "storage",
];
/// So many failures may be accidents; of more, a second try would only take time.
const MOST_AGAIN: usize = 6;

/// Runs `tests`; those that fail once more at the end if `again`, when nothing else is under way.
///
/// # Errors
/// When there is no lab for the second lane.
pub fn run(tests: &[&Test], mut lab: Lab, report: &Report, again: bool) -> Result<()> {
    let (alone, together): (Vec<&Test>, Vec<&Test>) =
        tests.iter().partition(|test| ALONE.contains(&test.topic));
    let (beside, shared): (Vec<&Test>, Vec<&Test>) = together
        .into_iter()
        .partition(|test| BESIDE.contains(&test.topic));
    for test in alone {
        one(test, &mut lab, report);
    }
    let topics = Mutex::new(by_topic(beside));
    let mut other = lab.another("-beside")?;
    thread::scope(|scope| {
        scope.spawn(|| drain(&topics, &mut other, report));
        for test in shared {
            one(test, &mut lab, report);
        }
        drain(&topics, &mut lab, report);
    });
    let failed: Vec<&&Test> = tests
        .iter()
        .filter(|test| report.has_failed(test.name))
        .collect();
    if again && failed.len() <= MOST_AGAIN {
        // With nothing of what the first try had made.
        let mut fresh = lab.another("-again")?;
        for test in failed {
            let dir = folder(&fresh, test);
            let first = dir.with_extension("first");
            // They are there to be read by whoever wonders why; the test does not need them.
            let _ = fs::remove_dir_all(&first);
            let _ = fs::rename(&dir, &first);
            report.again(test.name, Some(&dir), || {
                fresh.begin(test.name)?;
                (test.run)(&mut fresh)
            });
        }
        other.remove_shared();
        fresh.remove_shared();
    }
    // After a failure they may be what explains it.
    if report.is_clean() {
        lab.remove_shared();
        other.remove_shared();
    }
    Ok(())
}

/// Topics in the order of [`BESIDE`], the longest first, each with its tests.
fn by_topic(tests: Vec<&Test>) -> VecDeque<Vec<&Test>> {
    let of = |topic: &&str| {
        let mine = tests.iter().filter(|test| test.topic == *topic);
        mine.copied().collect::<Vec<_>>()
    };
    BESIDE
        .iter()
        .map(of)
        .filter(|tests| !tests.is_empty())
        .collect()
}

fn drain(topics: &Mutex<VecDeque<Vec<&Test>>>, lab: &mut Lab, report: &Report) {
    loop {
        let next = topics
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front();
        let Some(tests) = next else { return };
        for test in tests {
            one(test, lab, report);
        }
    }
}

fn one(test: &Test, lab: &mut Lab, report: &Report) {
    let dir = folder(lab, test);
    report.step(test.name, Some(&dir), || {
        lab.begin(test.name)?;
        (test.run)(lab)
    });
}

fn folder(lab: &Lab, test: &Test) -> PathBuf {
    lab.out().join("tests").join(test.name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tests;

    #[test]
    fn every_topic_that_is_named_has_tests() {
        let all = tests::all();
        for topic in ALONE.iter().chain(&BESIDE) {
            assert!(all.iter().any(|test| test.topic == *topic), "{topic}");
        }
    }

    #[test]
    fn topics_keep_their_tests_together() {
        let all = tests::all();
        let topics = by_topic(all.iter().collect());
        assert_eq!(topics.len(), BESIDE.len());
        for (tests, topic) in topics.iter().zip(BESIDE) {
            assert!(tests.iter().all(|test| test.topic == topic));
        }
    }
}
