//! A version that has to show that it is good (systemd's Automatic Boot Assessment): the boot loader counts its tries, the upgrade
//! service judges it, and when no verdict comes the machine starts again, which brings the version before back in the end.

use std::time::{Duration, Instant};

/// The variable that systemd-boot sets when it has started an entry whose tries it counts (Boot Loader Interface).
const COUNTED: &str =
    "/sys/firmware/efi/efivars/LoaderBootCountPath-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f";
/// The longest time that the upgrade service gives a version, and some more for its own start.
const DEADLINE: Duration = Duration::from_secs(20 * 60);

/// So often a version is tried (`+3` in the name of its entry).
const TRIES: u32 = 3;

/// Whether a verdict is waited for.
#[derive(Debug)]
pub(super) struct Trial {
    deadline: Option<Instant>,
    /// The entry that kexec has started: the variable is that of the boot before.
    kexec: Option<String>,
}

impl Trial {
    /// Every boot may be one: the firmware's variables are not there yet, and what GRUB counts is looked at with them. `kexec` is the entry
    /// that was started without the boot loader.
    pub(super) fn begin(kexec: Option<String>) -> Self {
        Self {
            deadline: Instant::now().checked_add(DEADLINE),
            kexec,
        }
    }

    /// When there has to be a verdict.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the boot loader counts the tries of what runs, and nobody has found it good.
    pub(super) fn is_on(&self) -> bool {
        let by_systemd_boot = || match &self.kexec {
            Some(entry) => is_counted(entry),
            None => std::fs::read(COUNTED).is_ok_and(|bytes| is_counted(&path_in(&bytes))),
        };
        let by_grub = || {
            let line = std::fs::read_to_string("/proc/cmdline");
            line.is_ok_and(|line| is_counted_by_grub(&line))
        };
        self.deadline.is_some() && (by_systemd_boot() || by_grub())
    }

    /// Nothing is waited for any more.
    pub(super) fn passed(&mut self) {
        self.deadline = None;
    }
}

/// The path in a variable: four bytes of attributes, then UTF-16.
fn path_in(variable: &[u8]) -> String {
    let units = variable.get(4..).unwrap_or_default().chunks_exact(2);
    let units = units.filter_map(|unit| unit.first_chunk().copied().map(u16::from_le_bytes));
    char::decode_utf16(units.take_while(|unit| *unit != 0))
        .map(|unit| unit.unwrap_or('\u{fffd}'))
        .collect()
}

/// Whether this is the path of an entry `NAME+LEFT-DONE.efi` that is being tried. One that was given up is counted on, too: when there is no
/// other to start it is all there is, and starting again would not help.
fn is_counted(path: &str) -> bool {
    let Some((_, counter)) = path.rsplit_once('+') else {
        return false;
    };
    is_tried(
        counter
            .split_once('.')
            .map_or(counter, |(counter, _)| counter),
    )
}

/// Whether GRUB says so on the kernel's command line: `keelson.tries=LEFT-DONE`, or `none` for a version that is good.
fn is_counted_by_grub(line: &str) -> bool {
    let mut words = line.split_ascii_whitespace();
    words
        .find_map(|word| word.strip_prefix("keelson.tries="))
        .is_some_and(is_tried)
}

/// One that was given up is counted on, too: when there is no other to start it is all there is, and starting again would not help.
fn is_tried(counter: &str) -> bool {
    let (left, done) = counter.split_once('-').unwrap_or((counter, "0"));
    let (left, done) = (left.parse::<u32>(), done.parse::<u32>());
    left.is_ok_and(|left| left > 0) || done == Ok(TRIES)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn variable(path: &str) -> Vec<u8> {
        let units = path.encode_utf16().chain([0]).flat_map(u16::to_le_bytes);
        [6, 0, 0, 0].into_iter().chain(units).collect()
    }

    #[test]
    fn a_version_is_on_trial_as_long_as_its_tries_are_counted_down() {
        for (path, on) in [
            ("\\EFI\\Linux\\keelson_2.0+2-1.efi", true),
            ("\\EFI\\Linux\\keelson_2.0+1-2.efi", true),
            ("\\EFI\\Linux\\keelson_2.0+0-3.efi", true),
            ("\\EFI\\Linux\\keelson_2.0+0-1.efi", false),
            ("\\EFI\\Linux\\keelson_2.0+0-4.efi", false),
            ("\\EFI\\Linux\\keelson_2.0.efi", false),
            ("", false),
        ] {
            assert_eq!(is_counted(&path_in(&variable(path))), on, "{path}");
        }
    }

    #[test]
    fn what_grub_counts_is_a_trial_as_well() {
        for (word, on) in [
            ("keelson.tries=2-1", true),
            ("keelson.tries=0-3", true),
            ("keelson.tries=0-4", false),
            ("keelson.tries=none", false),
            ("quiet", false),
        ] {
            let line = format!("BOOT_IMAGE=(uki)1+2 keelson.hashoffset=4096 {word} quiet\n");
            assert_eq!(is_counted_by_grub(&line), on, "{word}");
        }
    }

    #[test]
    fn what_kexec_has_started_is_not_what_the_boot_loader_has_started_before() {
        assert!(Trial::begin(Some("keelson_2.0+2-1.efi".into())).is_on());
        assert!(!Trial::begin(Some("keelson_2.0.efi".into())).is_on());
    }

    proptest! {
        #[test]
        fn no_variable_panics(bytes: Vec<u8>) {
            let _ = is_counted(&path_in(&bytes));
            let _ = is_counted_by_grub(&String::from_utf8_lossy(&bytes));
        }
    }
}
