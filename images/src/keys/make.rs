//! `keys`: makes what a set of keys lacks, and touches nothing that is there.

use std::fs::{self, DirBuilder, File, Permissions};
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use super::{Keys, SECURE_BOOT};
use crate::command;
use crate::files;
use crate::workspace::Workspace;

/// Firmware does not look at the time, but other programs do; a machine is in use for at most this long.
const VALIDITY_DAYS: &str = "7300";

/// The owner that our entries in the firmware's lists name.
const OWNER: &str = "6b65656c-736f-4e00-8000-000000000020";

/// Makes the set of keys in `folder` (seen from the project's top folder), or what it lacks, and checks it.
///
/// # Errors
/// When others may enter the folder, a file cannot be made, or the set is not whole after that.
pub(crate) fn make(workspace: &Workspace, folder: &Path) -> Result<()> {
    let folder = super::inside(workspace, folder)?;
    prepare(&folder)?;
    let set = Set {
        workspace,
        scratch: tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(&folder)
            .with_context(|| format!("making a folder in {}", folder.display()))?,
        folder: &folder,
    };
    for name in SECURE_BOOT {
        set.certificate(name)?;
    }
    for (index, name) in SECURE_BOOT.into_iter().enumerate() {
        set.enrolment(name, SECURE_BOOT[index.saturating_sub(1)])?;
    }
    set.release()?;
    drop(set);
    Keys::open(workspace, &folder)?;
    let shown = workspace.shown(&folder);
    workspace.progress.note(&format!(
        "the set of keys in {shown} is complete: builds need db.key and what is public; keep the other .key files elsewhere"
    ));
    Ok(())
}

/// Makes the folder, or makes sure that one that is there is private.
fn prepare(folder: &Path) -> Result<()> {
    let making = || format!("making directory {}", folder.display());
    if !folder.exists() {
        return DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)
            .with_context(making);
    }
    let mode = fs::metadata(folder).with_context(making)?.permissions();
    ensure!(
        mode.mode() & 0o077 == 0,
        "others may enter {}: `chmod 700` it first, or name another folder",
        folder.display()
    );
    Ok(())
}

/// A set being made. Files are made in a scratch folder and appear whole under their names.
struct Set<'make> {
    workspace: &'make Workspace,
    folder: &'make Path,
    scratch: TempDir,
}

impl Set<'_> {
    /// The key `name` and its certificate. One whose certificate is there may be kept elsewhere.
    fn certificate(&self, name: &str) -> Result<()> {
        let (key, certificate) = (format!("{name}.key"), format!("{name}.crt"));
        if self.path(&certificate).exists() {
            return Ok(());
        }
        self.make(&key, 0o600, |to| {
            let mut openssl = Command::new("openssl");
            openssl.args(["genpkey", "-quiet", "-algorithm", "RSA"]);
            openssl.args(["-pkeyopt", "rsa_keygen_bits:2048", "-out"]);
            command::run(openssl.arg(to)).map(drop)
        })?;
        self.make(&certificate, 0o644, |to| {
            let mut openssl = Command::new("openssl");
            openssl.args(["req", "-new", "-x509", "-sha256", "-passin", "pass:"]);
            openssl.args(["-days", VALIDITY_DAYS]);
            openssl.args(["-subj", &format!("/CN=Keelson Secure Boot {name}/")]);
            openssl.args(["-addext", "basicConstraints=critical,CA:FALSE"]);
            openssl.args(["-addext", "keyUsage=critical,digitalSignature"]);
            openssl.arg("-key").arg(self.path(&key));
            command::run(openssl.arg("-out").arg(to)).map(drop)
        })
    }

    /// What the firmware is handed to enrol the certificate `name`, signed by `signer`.
    fn enrolment(&self, name: &str, signer: &str) -> Result<()> {
        self.make(&format!("{name}.auth"), 0o644, |to| {
            let list = to.with_extension("esl");
            let mut gather = Command::new("cert-to-efi-sig-list");
            gather
                .args(["-g", OWNER])
                .arg(self.path(&format!("{name}.crt")));
            command::run(gather.arg(&list))?;
            let key = self.path(&format!("{signer}.key"));
            ensure!(
                key.exists(),
                "{} must sign it and is not there",
                key.display()
            );
            let mut sign = Command::new("sign-efi-sig-list");
            sign.args(["-g", OWNER, "-k"]).arg(key);
            sign.arg("-c").arg(self.path(&format!("{signer}.crt")));
            command::run(sign.arg(name).arg(&list).arg(to)).map(drop)
        })
    }

    /// The pair that releases are signed with. A private half whose public one is there may be kept elsewhere.
    fn release(&self) -> Result<()> {
        if self.path("release.pub").exists() {
            return Ok(());
        }
        self.make("release.key", 0o600, |to| {
            let mut openssl = Command::new("openssl");
            openssl.args(["genpkey", "-quiet", "-algorithm", "EC"]);
            openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-out"]);
            command::run(openssl.arg(to)).map(drop)
        })?;
        self.make("release.pub", 0o644, |to| {
            let mut openssl = Command::new("openssl");
            openssl.args(["pkey", "-passin", "pass:", "-pubout", "-in"]);
            openssl.arg(self.path("release.key"));
            command::run(openssl.arg("-out").arg(to)).map(drop)
        })
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// Has `fill` write the file `name`, unless there is one.
    fn make(&self, name: &str, mode: u32, fill: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
        let path = self.path(name);
        if path.exists() {
            return Ok(());
        }
        let shown = self.workspace.shown(&path);
        let making = || format!("making {shown}");
        let scratch = self.scratch.path().join(name);
        fill(&scratch).with_context(making)?;
        fs::set_permissions(&scratch, Permissions::from_mode(mode)).with_context(making)?;
        let synced = File::open(&scratch).and_then(|file| file.sync_all());
        synced.with_context(making)?;
        // Unlike a rename, this never takes the place of a file that somebody else has made meanwhile.
        fs::hard_link(&scratch, &path).with_context(making)?;
        files::sync_directory(&path)?;
        self.workspace.progress.note(&format!("made {shown}"));
        Ok(())
    }
}
