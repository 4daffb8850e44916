//! Giving a version up from below: its slot has decayed, so that it cannot say so itself.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;

use crate::{DIRECTORY, Entry, Reason, Tries};

/// Where GRUB has the versions that it can start, and their tries.
const GRUB_STATE: &str = "grub/state";
const SECTOR_BYTES: usize = 512;

/// Has the boot loader take another version than this one from now on, for this reason, durably; `esp` is where the EFI system partition is
/// mounted. Gives the version that it takes; `None`, and nothing is changed, when there is none that it would prefer.
///
/// First the reason is written, then the entry renamed: after a power cut the next boot finds what this one has found.
///
/// # Errors
/// What the system calls report.
pub fn give_up(esp: &Path, version: &str, why: &str) -> io::Result<Option<String>> {
    let directory = esp.join(DIRECTORY);
    let mut entries = Vec::new();
    for entry in fs::read_dir(&directory)? {
        entries.extend(entry?.file_name().to_str().and_then(Entry::parse));
    }
    let Some((next, renames)) = plan(&entries, version) else {
        return Ok(None);
    };
    let reason = Reason {
        version: version.to_owned(),
        why: why.to_owned(),
    };
    reason.write(esp)?;
    for (from, to) in renames {
        fs::rename(
            directory.join(from.to_string()),
            directory.join(to.to_string()),
        )?;
    }
    // vfat flushes the disk's own cache for a file or a directory only.
    File::open(&directory)?.sync_all()?;
    tell_grub(esp, version)?;
    Ok(Some(next))
}

/// The same for GRUB, where it has been told of this version: by the write of one sector, as the upgrade service does it (`keelson_uki::grub` has the
/// format).
fn tell_grub(esp: &Path, version: &str) -> io::Result<()> {
    let path = esp.join(GRUB_STATE);
    let old = match fs::read(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        read => read?,
    };
    let Some(sector) = given_up(&old, version) else {
        return Ok(());
    };
    let file = File::options().write(true).open(&path)?;
    file.write_all_at(&sector, 0)?;
    file.sync_all()
}

/// The first sector of GRUB's environment block, with no tries left for this version; `None` when it does not name it.
fn given_up(block: &[u8], version: &str) -> Option<Vec<u8>> {
    let text = std::str::from_utf8(block.get(..SECTOR_BYTES)?).ok()?;
    let mut named = None;
    let mut lines = Vec::new();
    for line in text.trim_end_matches('#').lines() {
        match line.split_once('=') {
            Some((name, value)) if value == version => named = Some(format!("{name}_tries")),
            Some((name, _)) if named.as_deref() == Some(name) => {
                lines.push(format!("{name}=0-0"));
                continue;
            }
            _ => {}
        }
        lines.push(line.to_owned());
    }
    named?;
    let mut sector = (lines.join("\n") + "\n").into_bytes();
    (sector.len() <= SECTOR_BYTES).then(|| sector.resize(SECTOR_BYTES, b'#'))?;
    Some(sector)
}

/// What is taken when this version is given up, and the names that change.
fn plan(entries: &[Entry], version: &str) -> Option<(String, Vec<(Entry, Entry)>)> {
    let bad = Entry::bad(version);
    let others = entries.iter().filter(|entry| entry.version != version);
    let next = others
        .filter(|entry| entry.cmp_as_loader(&bad).is_lt())
        .min_by(|left, right| left.cmp_as_loader(right))?;
    // After a power cut one file may have two names. Neither may replace the other: the file would be freed, and be there still.
    let mut names = entries.to_vec();
    let mut renames = Vec::new();
    let ours = |entry: &&Entry| entry.version == version && !entry.is_bad();
    for entry in entries.iter().filter(ours) {
        let mut free = (0..=u32::MAX).map(|done| Entry {
            tries: Some(Tries { left: 0, done }),
            ..bad.clone()
        });
        let to = free.find(|to| !names.contains(to))?;
        names.push(to.clone());
        renames.push((entry.clone(), to));
    }
    (!renames.is_empty()).then(|| (next.version.clone(), renames))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(names: &[&str], version: &str) -> (Option<String>, Vec<String>) {
        let esp = tempfile::tempdir().unwrap();
        let directory = esp.path().join(DIRECTORY);
        fs::create_dir_all(&directory).unwrap();
        for name in names {
            fs::write(directory.join(name), name).unwrap();
        }
        let next = give_up(esp.path(), version, "decayed").unwrap();
        let reason = Reason::read(esp.path()).unwrap();
        assert_eq!(reason.is_some(), next.is_some());
        let mut entries: Vec<Entry> = fs::read_dir(directory)
            .unwrap()
            .filter_map(|entry| Entry::parse(entry.unwrap().file_name().to_str().unwrap()))
            .collect();
        entries.sort_by(Entry::cmp_as_loader);
        (next, entries.iter().map(Entry::to_string).collect())
    }

    #[test]
    fn the_boot_loader_takes_the_other_version_when_there_is_one() {
        for (names, version, next, after) in [
            (
                ["keelson_2.efi", "keelson_1.efi"],
                "2",
                "1",
                ["keelson_1.efi", "keelson_2+0.efi"],
            ),
            (
                ["keelson_2+1-2.efi", "keelson_1.efi"],
                "2",
                "1",
                ["keelson_1.efi", "keelson_2+0.efi"],
            ),
            (
                ["keelson_2+3.efi", "keelson_1.efi"],
                "1",
                "2",
                ["keelson_2+3.efi", "keelson_1+0.efi"],
            ),
            // A newer version that somebody has rolled back from: better than none.
            (
                ["keelson_1.efi", "keelson_2+0.efi"],
                "1",
                "2",
                ["keelson_2+0.efi", "keelson_1+0.efi"],
            ),
        ] {
            let (taken, left) = run(&names, version);
            assert_eq!(
                (taken.as_deref(), left),
                (Some(next), after.map(str::to_owned).to_vec())
            );
        }
    }

    #[test]
    fn grub_takes_the_other_version_too() {
        let block = |tries: &str| {
            let mut block = format!(
                "# GRUB Environment Block\nhigher=2\nhigher_tries={tries}\nlower=1\nlower_tries=\n"
            )
            .into_bytes();
            block.resize(512, b'#');
            block
        };
        for tries in ["", "2-1"] {
            let mut whole = block(tries);
            whole.resize(1024, b'#');
            assert_eq!(given_up(&whole, "2"), Some(block("0-0")));
            assert_eq!(given_up(&whole, "3"), None);
        }
        assert_eq!(given_up(b"short", "2"), None);
    }

    #[test]
    fn nothing_changes_when_there_is_nothing_better() {
        for (names, version) in [
            (&["keelson_1.efi"][..], "1"),
            (&["keelson_1.efi", "debian.efi"], "1"),
            // Two that have failed: the boot loader would go on with the newer one.
            (&["keelson_2+0.efi", "keelson_1+0.efi"], "2"),
            (&["keelson_2.efi", "keelson_1+0-3.efi"], "2"),
            // Given up already, and there for want of another.
            (&["keelson_2+0.efi", "keelson_1+0.efi"], "1"),
            (&["keelson_2.efi"], "1"),
        ] {
            let (taken, left) = run(names, version);
            assert_eq!(taken, None, "{names:?}");
            let names: Vec<&str> = names
                .iter()
                .copied()
                .filter(|name| name.starts_with("keelson"))
                .collect();
            assert_eq!(left, names);
        }
    }

    #[test]
    fn two_names_of_one_file_stay_two_names() {
        let (taken, left) = run(
            &["keelson_2.efi", "keelson_2+1-2.efi", "keelson_1.efi"],
            "2",
        );
        assert_eq!(taken.as_deref(), Some("1"));
        assert_eq!(left.len(), 3);
        assert_eq!(left[0], "keelson_1.efi");
        assert!(
            left.contains(&"keelson_2+0.efi".to_owned())
                && left.contains(&"keelson_2+0-1.efi".to_owned())
        );
    }
}
