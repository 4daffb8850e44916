//! `/etc/passwd` and its like. The state partition holds what lasts: it is taken over when it changes, and what people change
//! here, with passwd(1) or useradd(8), is kept there.

use std::ffi::OsStr;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use keelson_sys::durable::{Access, Tree};

use crate::log;

const FILES: [&str; 4] = ["passwd", "group", "shadow", "gshadow"];
const SUDOERS: &str = "sudoers";
const INSTALLED_SUDOERS: &str = "sudoers.d/90-cloud-config";
const VISUDO: &str = "/usr/sbin/visudo";
const MAX_BYTES: u64 = 4 * 1024 * 1024;

/// The two places of the files.
pub(crate) struct Accounts {
    kept: Tree,
    etc: Tree,
}

impl Accounts {
    /// `kept` is the directory on the state partition, `etc` is `/etc`.
    pub(crate) fn open(kept: &Path, etc: &Path) -> Result<Self> {
        let open =
            |path: &Path| Tree::open(path).with_context(|| format!("open {}", path.display()));
        Ok(Accounts {
            kept: open(kept)?,
            etc: open(etc)?,
        })
    }

    /// Takes over what the state partition holds.
    pub(crate) fn take_over(&self) {
        for name in FILES {
            if let Err(error) = copy(name, &self.kept, &self.etc) {
                log::error(&format!("take over {name}: {error:#}"));
            }
        }
        if let Err(error) = self.take_over_sudoers(Path::new(VISUDO)) {
            log::error(&format!("take over the rules for sudo: {error:#}"));
        }
    }

    /// Keeps the file `name`, which has changed in `/etc`, when it is one of accounts.
    pub(crate) fn keep(&self, name: &OsStr) {
        let Some(name) = FILES.iter().find(|file| OsStr::new(file) == name) else {
            return;
        };
        match copy(name, &self.etc, &self.kept) {
            Ok(true) => log::info(&format!("kept a change of /etc/{name}")),
            Ok(false) => {}
            Err(error) => log::error(&format!("keep a change of /etc/{name}: {error:#}")),
        }
    }

    /// Installs the rules only when sudo understands them: one wrong line would lock everybody out of it.
    fn take_over_sudoers(&self, visudo: &Path) -> Result<()> {
        let installed = Path::new(INSTALLED_SUDOERS);
        let wanted = self
            .kept
            .read(Path::new(SUDOERS), MAX_BYTES)
            .context("read them")?
            .unwrap_or_default();
        if wanted.is_empty() {
            return self.etc.remove(installed).context("remove the old ones");
        }
        if self
            .etc
            .read(installed, MAX_BYTES)
            .context("read the old ones")?
            .as_ref()
            == Some(&wanted)
        {
            return Ok(());
        }
        let path: PathBuf = self.kept.path().join(SUDOERS);
        let checked = Command::new(visudo)
            .args(["-c", "-q", "-O", "-P", "-f"])
            .arg(&path)
            .stdin(Stdio::null())
            .output()
            .with_context(|| format!("run {}", visudo.display()))?;
        if !checked.status.success() {
            bail!(
                "sudo does not understand them: {}",
                String::from_utf8_lossy(&checked.stderr).trim()
            );
        }
        self.etc
            .write(installed, &wanted, Access::root(0o440))
            .context("write them")
    }
}

/// Copies a file with its mode and owner when the other one differs; gives whether it did.
fn copy(name: &str, from: &Tree, to: &Tree) -> Result<bool> {
    let path = Path::new(name);
    let Some(content) = from.read(path, MAX_BYTES).context("read it")? else {
        return Ok(false);
    };
    if to
        .read(path, MAX_BYTES)
        .context("read the other one")?
        .as_ref()
        == Some(&content)
    {
        return Ok(false);
    }
    let metadata = fs::metadata(from.path().join(path)).context("read its owner")?;
    let access = Access {
        mode: metadata.mode() & 0o7777,
        uid: metadata.uid(),
        gid: metadata.gid(),
    };
    to.write(path, &content, access).context("write it")?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places() -> (tempfile::TempDir, Accounts) {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir_all(directory.path().join("kept")).unwrap();
        fs::create_dir_all(directory.path().join("etc")).unwrap();
        let accounts = Accounts::open(
            &directory.path().join("kept"),
            &directory.path().join("etc"),
        )
        .unwrap();
        (directory, accounts)
    }

    #[test]
    fn what_is_kept_is_taken_over_and_what_changes_is_kept() {
        let (directory, accounts) = places();
        let read = |path: &str| fs::read_to_string(directory.path().join(path)).unwrap_or_default();
        fs::write(directory.path().join("etc/passwd"), "image").unwrap();
        accounts.take_over();
        assert_eq!(read("etc/passwd"), "image", "nothing is kept yet");
        fs::write(directory.path().join("kept/passwd"), "kept").unwrap();
        accounts.take_over();
        assert_eq!(read("etc/passwd"), "kept");
        fs::write(directory.path().join("etc/passwd"), "changed").unwrap();
        accounts.keep(OsStr::new("passwd"));
        assert_eq!(read("kept/passwd"), "changed");
        accounts.keep(OsStr::new("motd"));
        assert_eq!(
            fs::read_dir(directory.path().join("kept")).unwrap().count(),
            1
        );
    }

    #[test]
    fn rules_that_sudo_does_not_understand_are_not_installed() {
        let (directory, accounts) = places();
        let installed = directory.path().join("etc").join(INSTALLED_SUDOERS);
        fs::write(directory.path().join("kept/sudoers"), "ann ALL=(ALL) ALL\n").unwrap();
        assert!(accounts.take_over_sudoers(Path::new("/bin/false")).is_err());
        assert!(!installed.exists());
        if nix::unistd::Uid::effective().is_root() {
            accounts.take_over_sudoers(Path::new("/bin/true")).unwrap();
            assert_eq!(fs::metadata(&installed).unwrap().mode() & 0o7777, 0o440);
            fs::write(directory.path().join("kept/sudoers"), "").unwrap();
            accounts.take_over_sudoers(Path::new("/bin/false")).unwrap();
            assert!(!installed.exists());
        }
    }
}
