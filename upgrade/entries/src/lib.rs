//! Boot entries: unified kernel images on the EFI system partition, named `keelson_VERSION[+LEFT[-DONE]].efi` (Boot Loader
//! Specification, "Boot counting"; systemd's Automatic Boot Assessment).
//!
//! The boot loader starts the first in the order of [`Entry::cmp_as_loader`], and counts its tries down when it has a counter.
//!
//! - [`Entry`]: the names, and their order
//! - [`give_up`]: has the boot loader take another version than one whose slot has decayed
//! - [`Reason`]: why that was done, for whoever runs next
//!
//! The upgrade service and PID 1 share this; so it panics no more than PID 1 does.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::arithmetic_side_effects
)]
#![cfg_attr(
    test,
    allow(
        clippy::unwrap_used,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects
    )
)]

mod give_up;
mod reason;

pub use give_up::give_up;
pub use reason::Reason;

use std::cmp::Ordering;
use std::fmt;

use uapi_version::Version;

/// Where they are on the EFI system partition (Boot Loader Specification, type 2).
pub const DIRECTORY: &str = "EFI/Linux";
const PREFIX: &str = "keelson_";
const SUFFIX: &str = ".efi";
/// So often a new version is tried before the boot loader goes back.
pub const TRIES: u32 = 3;
/// The longest version.
const VERSION_MAX: usize = 64;

/// A counter in a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tries {
    /// So often it is still tried.
    pub left: u32,
    /// So often it was.
    pub done: u32,
}

/// A boot entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The version of the operating system.
    pub version: String,
    /// Its counter; one that has shown that it is good has none.
    pub tries: Option<Tries>,
}

impl Entry {
    /// A version that is known to be good.
    pub fn good(version: &str) -> Self {
        Entry {
            version: version.to_owned(),
            tries: None,
        }
    }

    /// A version that has to show that it is good.
    pub fn on_trial(version: &str) -> Self {
        let tries = Tries {
            left: TRIES,
            done: 0,
        };
        Entry {
            tries: Some(tries),
            ..Entry::good(version)
        }
    }

    /// A version that is not to be started as long as there is another.
    pub fn bad(version: &str) -> Self {
        let tries = Tries { left: 0, done: 0 };
        Entry {
            tries: Some(tries),
            ..Entry::good(version)
        }
    }

    /// Reads a file's name; `None` when it is none of ours.
    pub fn parse(name: &str) -> Option<Self> {
        let stem = name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?;
        let (version, counter) = match stem.split_once('+') {
            None => (stem, None),
            Some((version, counter)) => (version, Some(counter)),
        };
        if !is_version(version) {
            return None;
        }
        let tries = match counter {
            None => None,
            Some(counter) => {
                let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
                Some(Tries {
                    left: number(left)?,
                    done: number(done)?,
                })
            }
        };
        Some(Entry {
            version: version.to_owned(),
            tries,
        })
    }

    /// The name that the boot loader gives it when it starts it: one try less.
    pub fn started(&self) -> Self {
        let tries = self.tries.map(|tries| Tries {
            left: tries.left.saturating_sub(1),
            done: tries.done.saturating_add(1),
        });
        Entry {
            tries,
            ..self.clone()
        }
    }

    /// Whether the boot loader has given it up.
    pub fn is_bad(&self) -> bool {
        self.tries.is_some_and(|tries| tries.left == 0)
    }

    /// The order in which systemd-boot 257 prefers entries of one operating system: what is not bad, then the higher version, then
    /// more tries left. `Less` comes first.
    pub fn cmp_as_loader(&self, other: &Self) -> Ordering {
        self.is_bad()
            .cmp(&other.is_bad())
            .then_with(|| compare_versions(&other.version, &self.version))
            .then_with(|| {
                let left = |entry: &Self| entry.tries.map_or(u32::MAX, |tries| tries.left);
                left(other).cmp(&left(self))
            })
    }
}

/// The file's name.
impl fmt::Display for Entry {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{PREFIX}{}", self.version)?;
        match self.tries {
            None => {}
            Some(Tries { left, done: 0 }) => write!(formatter, "+{left}")?,
            Some(Tries { left, done }) => write!(formatter, "+{left}-{done}")?,
        }
        formatter.write_str(SUFFIX)
    }
}

fn number(text: &str) -> Option<u32> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// Whether `text` can be a version: a letter or a digit, then letters, digits, `.`, `-`, `~`; at most 64 characters.
pub fn is_version(text: &str) -> bool {
    text.len() <= VERSION_MAX
        && text.starts_with(|first: char| first.is_ascii_alphanumeric())
        && text
            .chars()
            .all(|letter| letter.is_ascii_alphanumeric() || ".-~".contains(letter))
}

/// The order of versions (UAPI Version Format Specification), as the boot loader has it.
pub fn compare_versions(left: &str, right: &str) -> Ordering {
    Version::from(left).cmp(&Version::from(right))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_counter_is_read_from_the_name_and_written_back() {
        for (name, version, tries) in [
            ("keelson_1.2.efi", "1.2", None),
            ("keelson_1.2+3.efi", "1.2", Some((3, 0))),
            ("keelson_1.2+2-1.efi", "1.2", Some((2, 1))),
            ("keelson_1.2~rc1+0-3.efi", "1.2~rc1", Some((0, 3))),
        ] {
            let entry = Entry::parse(name).unwrap();
            let tries = tries.map(|(left, done)| Tries { left, done });
            assert_eq!((entry.version.as_str(), entry.tries), (version, tries));
            assert_eq!(entry.to_string(), name);
        }
    }

    #[test]
    fn what_is_not_ours_is_no_entry() {
        for name in [
            "",
            "debian_1.efi",
            "keelson_.efi",
            "keelson_1",
            "keelson_1+.efi",
            "keelson_1+x.efi",
            "keelson_1+1-.efi",
            "keelson_1+99999999999.efi",
            "keelson_../x.efi",
            ".keelson_1.efi.new",
        ] {
            assert_eq!(Entry::parse(name), None, "{name}");
        }
    }

    #[test]
    fn the_loader_takes_the_highest_version_that_is_not_given_up() {
        let names = |names: &[&str]| {
            let mut entries: Vec<Entry> = names
                .iter()
                .map(|name| Entry::parse(name).unwrap())
                .collect();
            entries.sort_by(Entry::cmp_as_loader);
            entries[0].to_string()
        };
        for (first, second) in [
            ("keelson_1.10.efi", "keelson_1.9.efi"),
            ("keelson_2+3.efi", "keelson_1.efi"),
            ("keelson_1.efi", "keelson_2+0-3.efi"),
            ("keelson_2+0.efi", "keelson_1+0-3.efi"),
            ("keelson_2.efi", "keelson_2~rc1.efi"),
            ("keelson_1+1-2.efi", "keelson_2+0.efi"),
        ] {
            assert_eq!(names(&[second, first]), first);
        }
    }

    #[test]
    fn each_start_takes_a_try() {
        for (before, after) in [
            ("keelson_1.efi", "keelson_1.efi"),
            ("keelson_1+3.efi", "keelson_1+2-1.efi"),
            ("keelson_1+0-3.efi", "keelson_1+0-4.efi"),
        ] {
            assert_eq!(Entry::parse(before).unwrap().started().to_string(), after);
        }
    }

    proptest! {
        #[test]
        fn a_name_is_read_as_it_was_written(version in "[0-9a-z][0-9a-z.~-]{0,20}", left in 0..9u32, done in 0..9u32, counted: bool) {
            let entry = Entry { version, tries: counted.then_some(Tries { left, done }) };
            prop_assert_eq!(Entry::parse(&entry.to_string()), Some(entry));
        }

        #[test]
        fn no_name_panics(name: String) {
            let _ = Entry::parse(&name);
        }
    }
}
