//! The EFI system partition: mounted as long as it is needed, by this service alone.

use std::fs::{self, File};
use std::io::{self, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use sha2::{Digest as _, Sha256};

use crate::entry::{DIRECTORY, Entry, Reason};

const TEMPORARY: &str = "keelson.new";

/// The mounted partition; unmounted when this is dropped.
#[derive(Debug)]
pub struct Esp {
    root: PathBuf,
    mounted: bool,
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
        })
    }

    /// One that is a directory already, like that of a live system.
    pub fn of_directory(root: &Path) -> Self {
        Esp {
            root: root.to_owned(),
            mounted: false,
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
        self.path(&entry.to_string())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.join(DIRECTORY).join(name)
    }

    /// Our boot entries, in the order in which the boot loader prefers them.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>> {
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

    /// The image of an entry.
    ///
    /// # Errors
    /// What open(2) reports.
    pub fn open(&self, entry: &Entry) -> Result<File> {
        File::open(self.path(&entry.to_string())).with_context(|| format!("open {entry}"))
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

    /// The command line in the image of an entry (its section `.cmdline`).
    ///
    /// # Errors
    /// It cannot be read, or is no unified kernel image.
    pub fn command_line(&self, entry: &Entry) -> Result<String> {
        let mut file = self.open(entry)?;
        crate::uki::command_line(&mut file).with_context(|| format!("read {entry}"))
    }

    /// The image of an entry, to be read.
    ///
    /// # Errors
    /// What open(2) reports.
    pub fn open(&self, entry: &Entry) -> Result<File> {
        File::open(self.path(&entry.to_string())).with_context(|| format!("open {entry}"))
    }

    /// Removes an entry, durably.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn remove(&self, entry: &Entry) -> Result<()> {
        fs::remove_file(self.path(&entry.to_string()))
            .and_then(|()| self.sync())
            .with_context(|| format!("remove {entry} from the EFI system partition"))
    }

    /// Gives an entry another counter, durably. After a power cut it has one name or the other, or both.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn rename(&self, from: &Entry, to: &Entry) -> Result<()> {
        let (old, new) = (from.to_string(), to.to_string());
        if old == new {
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

    /// Makes the image that was taken in an entry, durably: the one step after which the boot loader knows of it.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn commit(&self, entry: &Entry) -> Result<()> {
        let named = fs::rename(self.path(TEMPORARY), self.path(&entry.to_string()));
        named
            .and_then(|()| self.sync())
            .with_context(|| format!("add {entry} to the EFI system partition"))
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
        for (entry, content) in [(&old, b"old"), (&new, b"new")] {
            esp.stage(&mut &content[..]).unwrap();
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
}
