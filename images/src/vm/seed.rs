//! The NoCloud seed: a small FAT image labelled `cidata`. No image has a password, so without one nobody can log in.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use super::{existing, remember, remembered};
use crate::arguments::Run;
use crate::command;
use crate::files;
use crate::workspace::Workspace;

/// Where `mkimage.sh` passes the public SSH keys of whoever called it, one a line.
const KEYS_VARIABLE: &str = "KEELSON_SSH_KEYS";

/// Size of the image; FAT needs some room for itself.
const SIZE_BYTES: u64 = 1024 * 1024;

/// The files of a seed.
const FILES: [&str; 4] = ["user-data", "meta-data", "vendor-data", "network-config"];

/// Letters of random passwords: none that look alike.
const LETTERS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";

/// The seed to attach: the one that was named, or one with a password that is shown here.
///
/// # Errors
/// When the named one does not exist or mtools fail.
pub(crate) fn prepare(
    workspace: &Workspace,
    folder: &Path,
    options: &Run,
) -> Result<Option<PathBuf>> {
    if options.no_seed {
        return Ok(None);
    }
    let image = folder.join("seed.img");
    match &options.seed {
        Some(seed) if existing(seed)?.is_dir() => {
            pack(seed, &image)?;
            return Ok(Some(image));
        }
        Some(seed) => return Ok(Some(seed.clone())),
        None => {}
    }
    let kept = if options.fresh {
        None
    } else {
        remembered(folder, "password")
    };
    let password = match options.password.clone().or(kept) {
        Some(password) => password,
        None => random_password()?,
    };
    remember(folder, "password", &password)?;
    let keys = std::env::var(KEYS_VARIABLE).unwrap_or_default();
    let source = folder.join("seed");
    files::make_directory(&source)?;
    files::write_durably(
        &source.join("user-data"),
        user_data(&password, &keys).as_bytes(),
    )?;
    let id = format!(
        "run-{}",
        files::sha256(&source.join("user-data"))?
            .get(..12)
            .unwrap_or_default()
    );
    files::write_durably(
        &source.join("meta-data"),
        format!("instance-id: {id}\n").as_bytes(),
    )?;
    pack(&source, &image)?;
    let count = key_lines(&keys).count();
    workspace.progress.note(&format!(
        "log in as `keelson` with the password `{password}`; SSH takes {count} key(s) of yours"
    ));
    Ok(Some(image))
}

/// A cloud-config; JSON is YAML too, and quotes whatever stands in the password.
fn user_data(password: &str, keys: &str) -> String {
    let keys: Vec<Value> = key_lines(keys).map(Value::from).collect();
    let config = json!({
        "password": password,
        "chpasswd": {"expire": false},
        "ssh_authorized_keys": keys,
    });
    format!("#cloud-config\n{config:#}\n")
}

fn key_lines(keys: &str) -> impl Iterator<Item = &str> {
    keys.lines()
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Packs the seed files of `folder` into the FAT image `to`.
fn pack(folder: &Path, to: &Path) -> Result<()> {
    files::replace_durably(to, |temporary| {
        let file =
            File::create(temporary).with_context(|| format!("making {}", temporary.display()))?;
        file.set_len(SIZE_BYTES)
            .with_context(|| format!("making {}", temporary.display()))?;
        command::run(
            Command::new("mformat")
                .args(["-v", "cidata", "-i"])
                .arg(temporary)
                .arg("::"),
        )
        .context("making the seed")?;
        for name in FILES {
            let path = folder.join(name);
            if path.exists() {
                command::run(
                    Command::new("mcopy")
                        .arg("-i")
                        .arg(temporary)
                        .arg(&path)
                        .arg("::"),
                )
                .with_context(|| format!("copying {} into the seed", path.display()))?;
            }
        }
        Ok(())
    })
}

fn random_password() -> Result<String> {
    let mut bytes = [0; 10];
    let mut source = File::open("/dev/urandom").context("opening /dev/urandom")?;
    source
        .read_exact(&mut bytes)
        .context("reading /dev/urandom")?;
    Ok(bytes
        .iter()
        .map(|byte| char::from(LETTERS[usize::from(byte % 32)]))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_user_data_is_a_cloud_config_whatever_the_password() {
        let text = user_data("it's \"quoted\": #yes", "ssh-ed25519 AAAA me\n\n# remark\n");
        let parsed: Value =
            serde_yaml::from_str(text.strip_prefix("#cloud-config\n").unwrap()).unwrap();
        assert_eq!(parsed["password"], "it's \"quoted\": #yes");
        assert_eq!(
            parsed["ssh_authorized_keys"],
            json!(["ssh-ed25519 AAAA me"])
        );
    }

    #[test]
    fn random_passwords_differ() {
        assert_ne!(random_password().unwrap(), random_password().unwrap());
    }

    #[test]
    fn a_folder_becomes_a_labelled_image() {
        let scratch = tempfile::tempdir().unwrap();
        fs::write(scratch.path().join("user-data"), "#cloud-config\n").unwrap();
        let image = scratch.path().join("seed.img");
        pack(scratch.path(), &image).unwrap();
        let listing = command::run(Command::new("mdir").arg("-i").arg(&image)).unwrap();
        assert!(
            listing.contains("cidata") || listing.contains("CIDATA"),
            "{listing}"
        );
    }
}
