//! The EFI system partition: mounted as long as it is needed, by this service alone.
//!
//! What may be started, and how often it is tried, stands in the names of the unified kernel images for systemd-boot, and in GRUB's state (`grub.rs`)
//! for machines with BIOS. Each change is made to both, and each of the two is changed in one step. What counts is what the boot loader of this boot
//! reads and writes; [`Esp::reconcile`] has the other one follow.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sha2::{Digest as _, Sha256};

use crate::entry::{DIRECTORY, Entry, Reason};
use crate::grub::Grub;

const TEMPORARY: &str = "keelson.new";

/// What has started this system.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loader {
    /// systemd-boot, or something that counts no tries.
    SystemdBoot,
    /// GRUB, on a machine with BIOS.
    Grub,
}

impl Loader {
    /// The one that gave the kernel this command line.
    pub fn of(command_line: &str) -> Self {
        let mut words = command_line.split_ascii_whitespace();
        match words.any(|word| word.starts_with("keelson.tries=")) {
            true => Loader::Grub,
            false => Loader::SystemdBoot,
        }
    }
}

/// The mounted partition; unmounted when this is dropped.
#[derive(Debug)]
pub struct Esp {
    root: PathBuf,
    mounted: bool,
    loader: Loader,
}

impl Esp {
    /// Mounts the partition `device` at `root`.
    ///
    /// # Errors
    /// What mount(2) reports.
    pub fn mount(device: &Path, root: &Path, read_only: bool) -> Result<Self> {
        fs::create_dir_all(root).with_context(|| format!("make {}", root.display()))?;
        let mut flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
        flags.set(MsFlags::MS_RDONLY, read_only);
        mount(Some(device), root, Some("vfat"), flags, Some("umask=0077"))
            .with_context(|| format!("mount the EFI system partition {}", device.display()))?;
        Ok(Esp {
            root: root.to_owned(),
            mounted: true,
            loader: Loader::SystemdBoot,
        })
    }

    /// The same, seen as this boot loader sees it.
    pub fn seen_by(mut self, loader: Loader) -> Self {
        self.loader = loader;
        self
    }

    /// One that is a directory already, like that of a live system.
    pub fn of_directory(root: &Path) -> Self {
        Esp {
            root: root.to_owned(),
            mounted: false,
            loader: Loader::SystemdBoot,
        }
    }

    /// An empty one that is a directory.
    #[cfg(test)]
    pub(crate) fn directory(root: &Path) -> Self {
        fs::create_dir_all(root.join(DIRECTORY)).unwrap();
        Esp::of_directory(root)
    }

    /// Where its files are.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// The image of an entry.
    pub fn image(&self, entry: &Entry) -> PathBuf {
        self.file(entry)
            .unwrap_or_else(|_| self.path(&entry.to_string()))
    }

    /// The image of an entry, to be read.
    ///
    /// # Errors
    /// What open(2) reports.
    pub fn open(&self, entry: &Entry) -> Result<File> {
        File::open(self.file(entry)?).with_context(|| format!("open {entry}"))
    }

    /// The version that PID 1 has given up, and why; `None` when there is none.
    ///
    /// # Errors
    /// What open(2) and read(2) report.
    pub fn reason(&self) -> Result<Option<Reason>> {
        Reason::read(&self.root).context("read why a version was given up")
    }

    /// What PID 1 said is noted elsewhere.
    ///
    /// # Errors
    /// What unlink(2) and fsync(2) report.
    pub fn remove_reason(&self) -> Result<()> {
        Reason::remove(&self.root).context("remove why a version was given up")
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(DIRECTORY).join(name)
    }

    fn grub(&self) -> Grub<'_> {
        Grub { root: &self.root }
    }

    /// The files of a version: one, but for power cuts while it got another name.
    fn files(&self, version: &str) -> Result<Vec<Entry>> {
        let mut named = self.named()?;
        named.retain(|entry| entry.version == version);
        Ok(named)
    }

    /// The file of an entry, whose counter may be another one when GRUB counts.
    fn file(&self, entry: &Entry) -> Result<PathBuf> {
        let files = self.files(&entry.version)?;
        let found = files.iter().find(|file| *file == entry);
        let found = found
            .or(files.first())
            .with_context(|| format!("the EFI system partition has no {entry}"))?;
        Ok(self.path(&found.to_string()))
    }

    /// Our boot entries, in the order in which the boot loader prefers them.
    ///
    /// # Errors
    /// The directory, or GRUB's state, cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
        let mut entries = self.named()?;
        if self.loader == Loader::Grub {
            let counted = self.grub().entries()?;
            for entry in &mut entries {
                let known = counted
                    .iter()
                    .find(|counted| counted.version == entry.version);
                // GRUB does not start what it has not been told of.
                let known = known.cloned();
                *entry = known.unwrap_or_else(|| Entry::bad(&entry.version));
            }
            entries.dedup();
        }
        entries.sort_by(Entry::cmp_as_loader);
        Ok(entries)
    }

    /// The boot entries by their files' names alone.
    fn named(&self) -> Result<Vec<Entry>> {
        let directory = self.root.join(DIRECTORY);
        let reading = || format!("read {DIRECTORY} on the EFI system partition");
        let mut entries = Vec::new();
        for entry in fs::read_dir(directory).with_context(reading)? {
            let name = entry.with_context(reading)?.file_name();
            entries.extend(name.to_str().and_then(Entry::parse));
        }
        entries.sort_by(Entry::cmp_as_loader);
        Ok(entries)
    }

    /// Has the names say what GRUB's state says, or the other way round: whichever the boot loader of this boot has changed counts. Nothing is written
    /// when they agree.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn reconcile(&self) -> Result<()> {
        let grub = self.grub();
        // A state that names nothing is damaged or was never written: GRUB starts whatever it finds then, and counts nothing.
        let entries = match self.loader == Loader::Grub && grub.entries()?.is_empty() {
            true => self.named()?,
            false => self.entries()?,
        };
        for entry in &entries {
            if !grub.has(entry) {
                grub.add(entry, self.open(entry)?)?;
            }
            if let [file] = self.files(&entry.version)?.as_slice() {
                self.rename_file(file, entry)?;
            }
        }
        grub.set(&entries)
    }

    /// The command line in the image of an entry (its section `.cmdline`).
    ///
    /// # Errors
    /// It cannot be read, or is no unified kernel image.
    pub fn command_line(&self, entry: &Entry) -> Result<String> {
        let mut file = self.open(entry)?;
        crate::uki::command_line(&mut file).with_context(|| format!("read {entry}"))
    }

    /// Removes an entry, durably.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn remove(&self, entry: &Entry) -> Result<()> {
        let removing = || format!("remove {entry} from the EFI system partition");
        let path = self.file(entry)?;
        let mut left = self.entries()?;
        left.retain(|other| other.version != entry.version);
        // GRUB forgets it first: what it is told of is there.
        self.grub().set(&left)?;
        fs::remove_file(path)
            .and_then(|()| self.sync())
            .with_context(removing)?;
        if self.files(&entry.version)?.is_empty() {
            self.grub().forget(entry);
        }
        Ok(())
    }

    /// Gives an entry another counter, durably. After a power cut it has one name or the other, or both, and for GRUB one counter or the other.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn rename(&self, from: &Entry, to: &Entry) -> Result<()> {
        let mut entries = self.entries()?;
        let file = self.files(&from.version)?;
        let file = file.iter().find(|file| *file == from).or(file.first());
        let file = file.with_context(|| format!("the EFI system partition has no {from}"))?;
        self.rename_file(file, to)?;
        for entry in entries.iter_mut().filter(|entry| *entry == from) {
            *entry = to.clone();
        }
        self.grub().set(&entries)
    }

    fn rename_file(&self, from: &Entry, to: &Entry) -> Result<()> {
        let (old, new) = (from.to_string(), to.to_string());
        // Two names of one file after a power cut: taking one away would take the file away.
        if old == new || self.path(&new).exists() {
            return Ok(());
        }
        fs::rename(self.path(&old), self.path(&new))
            .and_then(|()| self.sync())
            .with_context(|| format!("rename {old} to {new} on the EFI system partition"))
    }

    /// Takes an image in, under a name that is no entry yet; gives its SHA-256, which what stands on the disk has as well.
    ///
    /// # Errors
    /// What the system calls report; or what stands there is not what was read.
    pub fn stage(&self, content: &mut impl Read) -> Result<[u8; 32]> {
        let path = self.path(TEMPORARY);
        let staged = copy(content, &path)
            .and_then(|digest| {
                ensure!(
                    digest_of(&path)? == digest,
                    "the EFI system partition does not give back what was written to it: it may be defective"
                );
                Ok(digest)
            });
        if staged.is_err() {
            self.discard();
        }
        staged
    }

    /// The command line in the image that was taken in.
    ///
    /// # Errors
    /// As [`command_line`](Self::command_line).
    pub fn staged_command_line(&self) -> Result<String> {
        let mut file = File::open(self.path(TEMPORARY)).context("open the new image")?;
        crate::uki::command_line(&mut file).context("read the new image")
    }

    /// Makes the image that was taken in an entry, durably: the one step after which the boot loader knows of it. That is its name for systemd-boot,
    /// and for GRUB, which is told all else before, the change of its state.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn commit(&self, entry: &Entry) -> Result<()> {
        let mut entries = self.entries()?;
        entries.retain(|other| other.version != entry.version);
        entries.push(entry.clone());
        let image = File::open(self.path(TEMPORARY)).context("open the new image")?;
        self.grub().add(entry, image)?;
        let named = fs::rename(self.path(TEMPORARY), self.path(&entry.to_string()));
        named
            .and_then(|()| self.sync())
            .with_context(|| format!("add {entry} to the EFI system partition"))?;
        self.grub().set(&entries)
    }

    /// Throws away what was taken in.
    pub fn discard(&self) {
        // That it is not there is as good; otherwise it is overwritten by the next.
        let _ = fs::remove_file(self.path(TEMPORARY));
    }

    fn sync(&self) -> io::Result<()> {
        let root = File::open(&self.root)?;
        nix::unistd::syncfs(root)?;
        // vfat flushes the disk's own cache only for a file or a directory.
        File::open(self.root.join(DIRECTORY))?.sync_all()
    }
}

fn copy(content: &mut impl Read, path: &Path) -> Result<[u8; 32]> {
    let writing = "write to the EFI system partition (is it full?)";
    let mut file = File::create(path).context(writing)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        let length = content
            .read(&mut buffer)
            .context("take the unified kernel image in")?;
        if length == 0 {
            break;
        }
        let piece = buffer.get(..length).unwrap_or_default();
        hasher.update(piece);
        file.write_all(piece).context(writing)?;
    }
    file.sync_all().context(writing)?;
    drop_cache(&file);
    Ok(hasher.finalize().into())
}

fn digest_of(path: &Path) -> Result<[u8; 32]> {
    let mut hasher = Sha256::new();
    io::copy(&mut File::open(path)?, &mut hasher)?;
    Ok(hasher.finalize().into())
}

/// Has the kernel forget what it holds of a file that was synced, so that reading it again asks the disk.
pub(crate) fn drop_cache(file: &File) {
    use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
    // It only makes the check that follows a weaker one.
    let _ = posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED);
}

impl Drop for Esp {
    fn drop(&mut self) {
        if self.mounted
            && let Err(error) = umount2(&self.root, MntFlags::empty())
        {
            eprintln!("<4>unmount the EFI system partition: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_come_and_go_and_other_systems_files_stay() {
        let directory = tempfile::tempdir().unwrap();
        let esp = Esp::directory(directory.path());
        fs::write(esp.path("debian.efi"), "x").unwrap();
        let (old, new) = (Entry::good("1.0"), Entry::on_trial("2.0"));
        for entry in [&old, &new] {
            let image = crate::uki::sample("quiet");
            esp.stage(&mut &image[..]).unwrap();
            esp.commit(entry).unwrap();
        }
        esp.stage(&mut &b"never"[..]).unwrap();
        esp.discard();
        assert_eq!(esp.entries().unwrap(), [new.clone(), old.clone()]);
        esp.rename(&new, &Entry::bad("2.0")).unwrap();
        assert_eq!(esp.entries().unwrap(), [old.clone(), Entry::bad("2.0")]);
        esp.rename(&old, &old).unwrap();
        esp.remove(&Entry::bad("2.0")).unwrap();
        assert_eq!(esp.entries().unwrap(), [old]);
        assert!(esp.path("debian.efi").exists());
        assert!(esp.remove(&new).is_err());
    }

    #[test]
    fn what_grub_has_counted_is_what_counts_on_a_machine_with_bios() {
        let directory = tempfile::tempdir().unwrap();
        let esp = Esp::directory(directory.path()).seen_by(Loader::Grub);
        let (old, new) = (Entry::good("1.0"), Entry::on_trial("2.0"));
        for entry in [&old, &new] {
            esp.stage(&mut &crate::uki::sample("quiet")[..]).unwrap();
            esp.commit(entry).unwrap();
        }
        assert_eq!(esp.entries().unwrap(), [new.clone(), old.clone()]);
        let tried = Entry::parse("keelson_2.0+2-1.efi").unwrap();
        esp.grub().set(&[tried.clone(), old.clone()]).unwrap();
        assert_eq!(esp.entries().unwrap(), [tried.clone(), old.clone()]);
        assert!(esp.path(&new.to_string()).exists());
        // Names follow, and so systemd-boot would go on where GRUB was.
        esp.reconcile().unwrap();
        assert!(esp.path(&tried.to_string()).exists());
        esp.rename(&tried, &Entry::bad("2.0")).unwrap();
        assert_eq!(
            esp.grub().entries().unwrap(),
            [old.clone(), Entry::bad("2.0")]
        );
        // A power cut before GRUB was told of it: it is not what is started next.
        esp.grub().set(std::slice::from_ref(&old)).unwrap();
        assert_eq!(esp.entries().unwrap(), [old.clone(), Entry::bad("2.0")]);
        esp.remove(&Entry::bad("2.0")).unwrap();
        assert_eq!(esp.entries().unwrap(), std::slice::from_ref(&old));
        // The state is damaged: it is made again of what is there.
        fs::write(directory.path().join(crate::uki::grub::STATE), "noise").unwrap();
        esp.reconcile().unwrap();
        assert_eq!(esp.entries().unwrap(), [old]);
    }

    #[test]
    fn grub_follows_the_names_on_a_machine_with_uefi() {
        let directory = tempfile::tempdir().unwrap();
        let esp = Esp::directory(directory.path());
        fs::write(esp.path("keelson_1.0.efi"), crate::uki::sample("quiet")).unwrap();
        fs::write(esp.path("keelson_2.0+2-1.efi"), crate::uki::sample("loud")).unwrap();
        esp.reconcile().unwrap();
        let named = esp.named().unwrap();
        assert_eq!(esp.grub().entries().unwrap(), named);
        let text = fs::read_to_string(directory.path().join("grub/entries/2.0.cfg")).unwrap();
        assert!(text.contains("'loud'"), "{text}");
    }

    #[test]
    fn a_word_on_the_command_line_says_that_grub_was_it() {
        for (line, loader) in [
            ("quiet keelson.tries=2-1", Loader::Grub),
            ("quiet keelson.tries=none", Loader::Grub),
            ("quiet", Loader::SystemdBoot),
        ] {
            assert_eq!(Loader::of(line), loader);
        }
    }
}
