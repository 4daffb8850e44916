//! The keys that a build is signed with: those of UEFI Secure Boot, and the release key.
//!
//! - `make.rs`: the command `keys`, which makes what a set lacks
//! - `openssl.rs`: what openssl is asked
//!
//! A set is a folder. `PK`, `KEK` and `db` each have a private key (`.key`), a certificate (`.crt`) and what the firmware is
//! handed to enrol it (`.auth`, UEFI 2.10, section 8.2.2); `release.key` and `release.pub` are one pair. A build needs `db.key`
//! and what is public, so the other private keys can be kept elsewhere. Only what is public is an input of a step.

mod make;
mod openssl;

use std::fs;
use std::path::{Component, Path, PathBuf};

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};

use crate::workspace::Workspace;

pub(crate) use make::make;

/// The keys of Secure Boot, each signed by the one before it; the first signs itself.
const SECURE_BOOT: [&str; 3] = ["PK", "KEK", "db"];

/// A whole set of keys, checked.
#[derive(Debug)]
pub(crate) struct Keys {
    /// Private key of db.
    pub(crate) db_key: PathBuf,
    /// Certificate of db, PEM.
    pub(crate) db_certificate: PathBuf,
    /// SHA-256 of that certificate's DER form, in hex.
    pub(crate) db_sha256: String,
    /// The release key's public half: SubjectPublicKeyInfo, PEM.
    pub(crate) release: String,
    /// SHA-256 of the same in DER form, in hex.
    pub(crate) release_sha256: String,
    /// What the firmware enrols: name of the variable, and its authenticated content.
    pub(crate) enrolment: Vec<(&'static str, Vec<u8>)>,
}

impl Keys {
    /// Opens the set in `folder` (seen from the project's top folder).
    ///
    /// # Errors
    /// When a file is missing, parts do not belong together, or one key is used for two things.
    pub(crate) fn open(workspace: &Workspace, folder: &Path) -> Result<Self> {
        let folder = inside(workspace, folder)?;
        let shown = workspace.shown(&folder).to_string();
        ensure!(
            folder.is_dir(),
            "there is no folder {shown} (paths are taken from the project's folder): `./mkimage.sh keys --output {shown}` makes a set of keys"
        );
        let file = |name: &str| {
            let path = folder.join(name);
            ensure!(
                path.is_file(),
                "{shown}/{name} is missing: bring it back from where it is kept, or have `./mkimage.sh keys --output {shown}` make what the set lacks"
            );
            Ok(path)
        };
        let (db_key, db_certificate) = (file("db.key")?, file("db.crt")?);
        let db_public = openssl::public_of_certificate(&db_certificate)?;
        ensure!(
            openssl::public_of_key(&db_key)? == db_public,
            "{shown}/db.key is not the key of {shown}/db.crt"
        );
        let release_path = file("release.pub")?;
        let release = openssl::public_of_public(&release_path)?;
        ensure!(
            release != db_public,
            "{shown}/release.pub is the key of {shown}/db.crt: what signs upgrades must not be what the firmware trusts"
        );
        openssl::check_release(&release_path)?;
        let mut enrolment = Vec::new();
        for name in SECURE_BOOT {
            let path = file(&format!("{name}.auth"))?;
            let content = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
            let certificate = openssl::der_of_certificate(&file(&format!("{name}.crt"))?)?;
            ensure!(
                holds(&content, &certificate),
                "{shown}/{name}.auth does not hold {shown}/{name}.crt: remove it and have `./mkimage.sh keys --output {shown}` make it anew"
            );
            enrolment.push((name, content));
        }
        Ok(Self {
            db_sha256: sha256(&openssl::der_of_certificate(&db_certificate)?),
            release_sha256: sha256(&openssl::der_of_public(&release_path)?),
            db_key,
            db_certificate,
            release,
            enrolment,
        })
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// Whether `part` stands somewhere in `whole`.
fn holds(whole: &[u8], part: &[u8]) -> bool {
    !part.is_empty() && whole.windows(part.len()).any(|window| window == part)
}

/// A folder that is still there when the tool root, in which this runs, is gone: one of the project's.
fn inside(workspace: &Workspace, folder: &Path) -> Result<PathBuf> {
    let path = workspace.top.join(folder);
    let leaves = path.components().any(|part| part == Component::ParentDir);
    ensure!(
        path.starts_with(&workspace.top) && !leaves,
        "{} is outside the project's folder, which is all that is seen from here: name a folder in it, such as out/keys",
        folder.display()
    );
    Ok(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn set() -> (tempfile::TempDir, Workspace) {
        let scratch = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(scratch.path(), &scratch.path().join("out")).unwrap();
        make(&workspace, Path::new("keys")).unwrap();
        (scratch, workspace)
    }

    fn refusal(workspace: &Workspace) -> String {
        format!(
            "{:#}",
            Keys::open(workspace, Path::new("keys")).unwrap_err()
        )
    }

    #[test]
    fn a_set_is_private_complete_and_made_once() {
        let (scratch, workspace) = set();
        let folder = scratch.path().join("keys");
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&folder), 0o700);
        let read_all = || -> Vec<(String, Vec<u8>)> {
            let mut all: Vec<_> = fs::read_dir(&folder)
                .unwrap()
                .map(|entry| entry.unwrap())
                .map(|entry| {
                    let name = entry.file_name().into_string().unwrap();
                    (name, fs::read(entry.path()).unwrap())
                })
                .collect();
            all.sort();
            all
        };
        let first = read_all();
        let names: Vec<&str> = first.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(
            names,
            [
                "KEK.auth",
                "KEK.crt",
                "KEK.key",
                "PK.auth",
                "PK.crt",
                "PK.key",
                "db.auth",
                "db.crt",
                "db.key",
                "release.key",
                "release.pub"
            ]
        );
        for (name, content) in &first {
            let private = name.ends_with(".key");
            assert_eq!(
                mode(&folder.join(name)),
                if private { 0o600 } else { 0o644 },
                "{name}"
            );
            let text = String::from_utf8_lossy(content);
            assert_eq!(text.contains("PRIVATE KEY"), private, "{name}");
        }
        let text = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
        assert!(text("release.key").starts_with("-----BEGIN PRIVATE KEY-----"));
        make(&workspace, Path::new("keys")).unwrap();
        assert_eq!(read_all(), first);
        let keys = Keys::open(&workspace, Path::new("keys")).unwrap();
        assert_eq!(keys.release, text("release.pub"));
        assert!(keys.db_sha256.len() == 64 && keys.db_sha256 != keys.release_sha256);
    }

    #[test]
    fn each_file_that_is_missing_is_named_with_what_makes_it() {
        let (scratch, workspace) = set();
        for name in ["db.key", "db.crt", "KEK.crt", "release.pub", "PK.auth"] {
            let path = scratch.path().join("keys").join(name);
            let aside = path.with_extension("aside");
            fs::rename(&path, &aside).unwrap();
            let error = refusal(&workspace);
            assert!(
                error.contains(&format!("keys/{name} is missing"))
                    && error.contains("./mkimage.sh keys --output keys"),
                "{error}"
            );
            fs::rename(&aside, &path).unwrap();
        }
        let none = Keys::open(&workspace, Path::new("none"))
            .unwrap_err()
            .to_string();
        assert!(none.contains("there is no folder none"), "{none}");
    }

    #[test]
    fn private_keys_but_dbs_may_be_elsewhere_and_are_not_made_again() {
        let (scratch, workspace) = set();
        let path = |name: &str| scratch.path().join("keys").join(name);
        for name in ["PK.key", "KEK.key", "release.key"] {
            fs::remove_file(path(name)).unwrap();
        }
        make(&workspace, Path::new("keys")).unwrap();
        Keys::open(&workspace, Path::new("keys")).unwrap();
        assert!(!path("PK.key").exists() && !path("release.key").exists());
        // What only an absent key can sign is said.
        fs::remove_file(path("db.auth")).unwrap();
        let error = format!("{:#}", make(&workspace, Path::new("keys")).unwrap_err());
        assert!(error.contains("KEK.key"), "{error}");
    }

    #[test]
    fn an_interrupted_set_is_completed_with_the_keys_that_are_there() {
        let (scratch, workspace) = set();
        let path = |name: &str| scratch.path().join("keys").join(name);
        let key = fs::read(path("db.key")).unwrap();
        for name in ["db.crt", "db.auth", "release.pub"] {
            fs::remove_file(path(name)).unwrap();
        }
        make(&workspace, Path::new("keys")).unwrap();
        Keys::open(&workspace, Path::new("keys")).unwrap();
        assert_eq!(fs::read(path("db.key")).unwrap(), key);
    }

    #[test]
    fn parts_of_different_sets_and_one_key_for_two_things_are_refused() {
        let (scratch, workspace) = set();
        let path = |name: &str| scratch.path().join("keys").join(name);
        let swap = |name: &str, other: &str| {
            let old = fs::read(path(name)).unwrap();
            fs::copy(path(other), path(name)).unwrap();
            let error = refusal(&workspace);
            fs::write(path(name), old).unwrap();
            error
        };
        let error = swap("db.key", "KEK.key");
        assert!(error.contains("keys/db.key is not the key of"), "{error}");
        let error = swap("KEK.auth", "PK.auth");
        assert!(error.contains("keys/KEK.auth does not hold"), "{error}");
        let public = openssl::public_of_certificate(&path("db.crt")).unwrap();
        fs::write(path("release.pub"), public).unwrap();
        let error = refusal(&workspace);
        assert!(error.contains("release.pub is the key of"), "{error}");
        let public = openssl::public_of_certificate(&path("KEK.crt")).unwrap();
        fs::write(path("release.pub"), public).unwrap();
        let error = refusal(&workspace);
        assert!(error.contains("P-256"), "{error}");
    }

    #[test]
    fn a_private_key_in_the_place_of_the_public_one_is_not_passed_on() {
        let (scratch, workspace) = set();
        let path = |name: &str| scratch.path().join("keys").join(name);
        let public = fs::read_to_string(path("release.pub")).unwrap();
        fs::copy(path("release.key"), path("release.pub")).unwrap();
        let keys = Keys::open(&workspace, Path::new("keys")).unwrap();
        assert_eq!(keys.release, public);
    }

    #[test]
    fn a_folder_that_others_may_enter_gets_no_keys() {
        let scratch = tempfile::tempdir().unwrap();
        let workspace = Workspace::open(scratch.path(), &scratch.path().join("out")).unwrap();
        let folder = scratch.path().join("open");
        fs::create_dir(&folder).unwrap();
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o755)).unwrap();
        let error = make(&workspace, Path::new("open")).unwrap_err().to_string();
        assert!(error.contains("chmod 700"), "{error}");
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 0);
    }
}
