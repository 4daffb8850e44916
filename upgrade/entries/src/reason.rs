//! Why a version was given up, in a file beside its boot entry: whoever runs next has it in the history.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::path::{Path, PathBuf};

use crate::{DIRECTORY, is_version};

/// The file's name, which is no boot entry's.
const NAME: &str = "keelson.given-up";
const TEMPORARY: &str = "keelson.given-up.new";
/// What is read of it at most, in bytes.
const LIMIT_BYTES: u64 = 4096;

/// A version, and why it was given up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reason {
    /// The version.
    pub version: String,
    /// A sentence for a person, in one line.
    pub why: String,
}

impl Reason {
    /// The reason in a file: the version in its first line, the sentence in the second. Control characters become spaces: nobody has
    /// signed what is there.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let text = String::from_utf8_lossy(bytes);
        let (version, why) = text.split_once('\n')?;
        is_version(version).then(|| Reason {
            version: version.to_owned(),
            why: one_line(why),
        })
    }

    /// What stands in the file.
    pub fn encode(&self) -> Vec<u8> {
        format!("{}\n{}\n", self.version, one_line(&self.why)).into_bytes()
    }

    /// Reads that of the EFI system partition mounted at `esp`; `None` when there is none, or what is there is no reason.
    ///
    /// # Errors
    /// What open(2) and read(2) report.
    pub fn read(esp: &Path) -> io::Result<Option<Self>> {
        let file = match File::open(path(esp, NAME)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let mut bytes = Vec::new();
        file.take(LIMIT_BYTES).read_to_end(&mut bytes)?;
        Ok(Self::parse(&bytes))
    }

    /// Writes it, durably: after a power cut it is there whole, or that of before.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn write(&self, esp: &Path) -> io::Result<()> {
        let temporary = path(esp, TEMPORARY);
        let mut file = File::create(&temporary)?;
        file.write_all(&self.encode())?;
        file.sync_all()?;
        fs::rename(temporary, path(esp, NAME))?;
        File::open(esp.join(DIRECTORY))?.sync_all()
    }

    /// Removes that of the EFI system partition mounted at `esp`, durably; that there is none is fine.
    ///
    /// # Errors
    /// What unlink(2) and fsync(2) report.
    pub fn remove(esp: &Path) -> io::Result<()> {
        match fs::remove_file(path(esp, NAME)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(error),
            Ok(()) => File::open(esp.join(DIRECTORY))?.sync_all(),
        }
    }
}

fn path(esp: &Path, name: &str) -> PathBuf {
    esp.join(DIRECTORY).join(name)
}

fn one_line(text: &str) -> String {
    let text = text.trim().chars();
    text.map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_reason_is_kept_until_it_is_removed() {
        let esp = tempfile::tempdir().unwrap();
        fs::create_dir_all(esp.path().join(DIRECTORY)).unwrap();
        assert_eq!(Reason::read(esp.path()).unwrap(), None);
        let reason = Reason {
            version: "1.2".into(),
            why: "dm-verity refuses\u{1b}[31m block 4\n".into(),
        };
        reason.write(esp.path()).unwrap();
        let read = Reason::read(esp.path()).unwrap().unwrap();
        assert_eq!(read.why, "dm-verity refuses [31m block 4");
        Reason::remove(esp.path()).unwrap();
        Reason::remove(esp.path()).unwrap();
        assert_eq!(Reason::read(esp.path()).unwrap(), None);
    }

    proptest! {
        #[test]
        fn a_reason_comes_back(version in "[0-9a-z][0-9a-z.~-]{0,20}", why in "[a-z0-9:, ]{0,80}") {
            let reason = Reason { version, why: why.trim().to_owned() };
            prop_assert_eq!(Reason::parse(&reason.encode()), Some(reason));
        }

        #[test]
        fn no_file_panics(bytes: Vec<u8>) {
            let _ = Reason::parse(&bytes);
        }
    }
}
