//! What GRUB is told on the EFI system partition, and what it has counted there (`keelson_uki::grub` has the formats).

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};

use crate::entry::{Entry, TRIES, Tries, compare_versions};
use crate::uki::grub::{self, Choice};

/// GRUB's files below the root of the EFI system partition.
#[derive(Debug)]
pub(crate) struct Grub<'r> {
    pub(crate) root: &'r Path,
}

impl Grub<'_> {
    /// What GRUB chooses from, in the order in which it prefers them; nothing when its state is damaged or was never written.
    ///
    /// # Errors
    /// It cannot be read.
    pub(crate) fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries: Vec<Entry> = grub::choices(&self.state()?)
            .into_iter()
            .map(|choice| Entry {
                tries: tries(&choice.tries),
                version: choice.version,
            })
            .collect();
        entries.sort_by(Entry::cmp_as_loader);
        Ok(entries)
    }

    /// Has GRUB choose from the first two of these, which are in the boot loader's order, durably and in one step: the write of one sector.
    ///
    /// # Errors
    /// What the system calls report.
    pub(crate) fn set(&self, entries: &[Entry]) -> Result<()> {
        let mut entries = entries.to_vec();
        entries.sort_by(Entry::cmp_as_loader);
        entries.dedup_by(|one, other| one.version == other.version);
        entries.truncate(2);
        entries.sort_by(|one, other| compare_versions(&other.version, &one.version));
        let choices: Vec<Choice> = entries.iter().map(choice).collect();
        let block = grub::state(&choices)?;
        let old = self.state()?;
        if old == block {
            return Ok(());
        }
        let path = self.root.join(grub::STATE);
        let writing = || format!("write {} on the EFI system partition", grub::STATE);
        let (first, rest) = block.split_at(grub::SECTOR_BYTES);
        if old.get(grub::SECTOR_BYTES..) != Some(rest) {
            return replace(&path, &block).with_context(writing);
        }
        let file = OpenOptions::new().write(true).open(&path);
        file.and_then(|file| {
            file.write_all_at(first, 0)?;
            file.sync_all()
        })
        .with_context(writing)
    }

    fn state(&self) -> Result<Vec<u8>> {
        match fs::read(self.root.join(grub::STATE)) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            read => {
                read.with_context(|| format!("read {} on the EFI system partition", grub::STATE))
            }
        }
    }

    fn path(&self, entry: &Entry) -> PathBuf {
        self.root.join(grub::path(&entry.version))
    }

    /// Whether GRUB knows how to start this version.
    pub(crate) fn has(&self, entry: &Entry) -> bool {
        self.path(entry).exists()
    }

    /// Tells GRUB how to start this version, whose image is `image`, durably; it does not do so before [`set`](Self::set) names it.
    ///
    /// # Errors
    /// What the system calls report, or the image is none that GRUB can start.
    pub(crate) fn add(&self, entry: &Entry, mut image: File) -> Result<()> {
        let path = self.path(entry);
        let adding = || {
            format!(
                "write {} on the EFI system partition",
                grub::path(&entry.version)
            )
        };
        let text = grub::entry(&mut image).with_context(adding)?;
        if fs::read_to_string(&path).is_ok_and(|old| old == text) {
            return Ok(());
        }
        replace(&path, text.as_bytes()).with_context(adding)?;
        let read = fs::read_to_string(&path).with_context(adding)?;
        ensure!(
            read == text,
            "the EFI system partition does not give back what was written to it: it may be defective"
        );
        Ok(())
    }

    /// Removes what GRUB was told of a version that is gone.
    pub(crate) fn forget(&self, entry: &Entry) {
        // Some bytes that nobody reads, when it stays; they are written anew before they count again.
        let _ = fs::remove_file(self.path(entry));
    }
}

/// A file is there whole or as it was, but for a power cut within the rename, which vfat does in several writes.
fn replace(path: &Path, content: &[u8]) -> std::io::Result<()> {
    let directory = path.parent().unwrap_or(path);
    fs::create_dir_all(directory)?;
    let temporary = directory.join("new");
    let mut file = File::create(&temporary)?;
    file.write_all(content)?;
    file.sync_all()?;
    super::esp::drop_cache(&file);
    fs::rename(&temporary, path)?;
    nix::unistd::syncfs(File::open(directory)?)?;
    File::open(directory)?.sync_all()
}

fn choice(entry: &Entry) -> Choice {
    let tries = match entry.tries {
        None => "",
        Some(Tries { left, .. }) if left >= TRIES => "3-0",
        Some(Tries { left: 2, .. }) => "2-1",
        Some(Tries { left: 1, .. }) => "1-2",
        Some(Tries { done: TRIES, .. }) => "0-3",
        Some(Tries { done: 0, .. }) => "0-0",
        Some(_) => "0-4",
    };
    Choice {
        version: entry.version.clone(),
        tries: tries.to_owned(),
    }
}

fn tries(word: &str) -> Option<Tries> {
    let (left, done) = word.split_once('-')?;
    Some(Tries {
        left: left.parse().ok()?,
        done: done.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_counter_has_one_of_the_words_that_grub_counts_with() {
        for (name, word) in [
            ("keelson_1.efi", ""),
            ("keelson_1+3.efi", "3-0"),
            ("keelson_1+9.efi", "3-0"),
            ("keelson_1+2-1.efi", "2-1"),
            ("keelson_1+1-2.efi", "1-2"),
            ("keelson_1+0-3.efi", "0-3"),
            ("keelson_1+0.efi", "0-0"),
            ("keelson_1+0-1.efi", "0-4"),
            ("keelson_1+0-7.efi", "0-4"),
        ] {
            let choice = choice(&Entry::parse(name).unwrap());
            assert_eq!(choice.tries, word, "{name}");
        }
    }

    #[test]
    fn the_state_names_two_versions_and_stays_one_file() {
        let directory = tempfile::tempdir().unwrap();
        let grub = Grub {
            root: directory.path(),
        };
        assert_eq!(grub.entries().unwrap(), []);
        let entries = ["keelson_1.10+3.efi", "keelson_1.9.efi", "keelson_1.8+0.efi"];
        let entries = entries.map(|name| Entry::parse(name).unwrap());
        grub.set(&entries).unwrap();
        let path = directory.path().join(grub::STATE);
        let file = File::open(&path).unwrap();
        assert_eq!(grub.entries().unwrap(), entries[..2]);
        grub.set(&entries[1..]).unwrap();
        assert_eq!(grub.entries().unwrap(), entries[1..]);
        // Written over, not replaced.
        let mut start = [0; 64];
        file.read_exact_at(&mut start, 0).unwrap();
        assert_eq!(start.to_vec(), fs::read(&path).unwrap()[..64]);
    }
}
