//! sshd's host keys: made once, and kept on the state partition.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use keelson_sys::durable::{Access, Tree};

use crate::log;

const KEYGEN: &str = "/usr/bin/ssh-keygen";
/// RSA is left out: every client of the last ten years takes these, and making an RSA key takes seconds.
const KINDS: [&str; 2] = ["ed25519", "ecdsa"];
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// Makes the keys that are missing in `directory`; `scratch` is a private directory that is not kept. Gives how many.
pub(crate) fn ensure(directory: &Path, scratch: &Path) -> usize {
    let made = KINDS
        .iter()
        .filter(|kind| match ensure_one(kind, directory, scratch) {
            Ok(made) => made,
            Err(error) => {
                log::error(&format!("make the {kind} host key: {error:#}"));
                false
            }
        });
    made.count()
}

fn ensure_one(kind: &str, directory: &Path, scratch: &Path) -> Result<bool> {
    let tree = Tree::open(directory).with_context(|| format!("open {}", directory.display()))?;
    let name = format!("ssh_host_{kind}_key");
    let private = Path::new(&name);
    // A key that a power cut left empty is no key.
    if tree
        .read(private, MAX_KEY_BYTES)
        .context("read the old one")?
        .is_some_and(|key| !key.is_empty())
    {
        return Ok(false);
    }
    fs::create_dir_all(scratch).with_context(|| format!("make {}", scratch.display()))?;
    let new = scratch.join(&name);
    let public = scratch.join(format!("{name}.pub"));
    let generated = Command::new(KEYGEN)
        .args(["-q", "-t", kind, "-N", "", "-C", "", "-f"])
        .arg(&new)
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {KEYGEN}"))?;
    if !generated.status.success() {
        bail!(
            "{KEYGEN}: {}",
            String::from_utf8_lossy(&generated.stderr).trim()
        );
    }
    // The public half first: where the private one is, both are.
    let public_key = fs::read(&public).context("read the new public key")?;
    tree.write(
        Path::new(&format!("{name}.pub")),
        &public_key,
        Access::root(0o644),
    )
    .context("keep the public key")?;
    tree.write(
        private,
        &fs::read(&new).context("read the new key")?,
        Access::root(0o600),
    )
    .context("keep the key")?;
    for path in [new, public] {
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(true)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn keys_are_made_once_and_again_when_they_are_gone_or_empty() {
        if !Path::new(KEYGEN).exists() || !nix::unistd::Uid::effective().is_root() {
            eprintln!("skipped: needs {KEYGEN} and root");
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let scratch = directory.path().join("scratch");
        assert_eq!(ensure(directory.path(), &scratch), 2);
        assert_eq!(ensure(directory.path(), &scratch), 0);
        let key = directory.path().join("ssh_host_ed25519_key");
        assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
        assert!(
            fs::read_to_string(directory.path().join("ssh_host_ed25519_key.pub"))
                .unwrap()
                .starts_with("ssh-ed25519 ")
        );
        fs::write(&key, "").unwrap();
        assert_eq!(ensure(directory.path(), &scratch), 1);
        assert_eq!(fs::read_dir(&scratch).unwrap().count(), 0);
    }
}
