//! sshd's host keys: made once, kept on the state partition, and told at the machine, so that whoever logs in from elsewhere for
//! the first time can compare.

use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};
use keelson_config::cloud_config::HOST_KEY_KINDS;
use keelson_config::instance::{HOST_KEY_KINDS_FILE, TOLD_KINDS_FILE};
use keelson_sys::durable::{Access, Tree};
use nix::fcntl::OFlag;

use crate::log;

const KEYGEN: &str = "/usr/bin/ssh-keygen";
/// Unless others are asked for. RSA is left out: every client of the last ten years takes these, and making an RSA key takes
/// seconds.
const USUAL_KINDS: [&str; 2] = ["ed25519", "ecdsa"];
const MAX_KEY_BYTES: u64 = 64 * 1024;

/// The kinds in a file of the configuration's; `None` without the file.
fn kinds_in(directory: &Path, file: &str) -> Option<Vec<&'static str>> {
    let text = fs::read_to_string(directory.join(file)).ok()?;
    let is_there = |kind: &&str| text.split_whitespace().any(|word| word == *kind);
    Some(HOST_KEY_KINDS.into_iter().filter(is_there).collect())
}

/// The kinds that are asked for; `None` for the usual ones. A file that names none was left by a power cut.
fn asked(directory: &Path) -> Option<Vec<&'static str>> {
    kinds_in(directory, HOST_KEY_KINDS_FILE).filter(|kinds| !kinds.is_empty())
}

/// Makes the keys that are missing in `directory`; `scratch` is a private directory that is not kept. Gives how many were made.
/// Those of other kinds stay, and sshd is not told of them ([`name_for_sshd`]).
pub(crate) fn ensure(directory: &Path, scratch: &Path) -> usize {
    let mut kinds = asked(directory).unwrap_or_else(|| USUAL_KINDS.to_vec());
    // The one that takes seconds last.
    kinds.sort_by_key(|kind| *kind == "rsa");
    let made = kinds
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

/// Names the keys in `directory` that sshd is to show in `file` below `run`, which its settings include (sshd_config(5)); a key that is
/// not there it would complain of. The one of kind RSA stands in the configuration's own settings.
///
/// # Errors
/// What writing reports.
pub(crate) fn name_for_sshd(directory: &Path, (run, file): (&Path, &str)) -> Result<()> {
    let asked = asked(directory);
    let mut text = String::new();
    for kind in USUAL_KINDS {
        let path = directory.join(format!("ssh_host_{kind}_key"));
        if asked.as_ref().is_none_or(|kinds| kinds.contains(&kind)) && path.exists() {
            text.push_str(&format!("HostKey {}\n", path.display()));
        }
    }
    Tree::open(run)
        .and_then(|tree| tree.write_later(Path::new(file), text.as_bytes(), Access::root(0o644)))
        .with_context(|| format!("write {}/{file}", run.display()))
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
    keygen(
        Command::new(KEYGEN)
            .args(["-q", "-t", kind, "-N", "", "-C", "", "-f"])
            .arg(&new),
    )?;
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

/// What it prints.
fn keygen(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("run {KEYGEN}"))?;
    if !output.status.success() {
        bail!(
            "{KEYGEN}: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Tells the fingerprints of the host keys in `directory` at the machine's `console`, between the lines that cloud-init has around
/// them and that programs look for, and in the log; but for the kinds that are not to be told.
pub(crate) fn tell(directory: &Path, console: &Path) {
    let told = kinds_in(directory, TOLD_KINDS_FILE).unwrap_or_else(|| HOST_KEY_KINDS.to_vec());
    let asked = asked(directory);
    let is_asked = |kind: &&str| asked.as_ref().is_none_or(|asked| asked.contains(kind));
    let mut lines = Vec::new();
    for kind in told.into_iter().filter(is_asked) {
        let path = directory.join(format!("ssh_host_{kind}_key"));
        if !path.exists() {
            continue;
        }
        match keygen(Command::new(KEYGEN).arg("-lf").arg(path)) {
            Ok(line) => lines.push(line.trim().to_owned()),
            Err(error) => log::error(&format!(
                "take the {kind} host key's fingerprint: {error:#}"
            )),
        }
    }
    if lines.is_empty() {
        return;
    }
    for line in &lines {
        log::info(&format!("host key {line}"));
    }
    let text = format!(
        "\r\n-----BEGIN SSH HOST KEY FINGERPRINTS-----\r\n{}\r\n-----END SSH HOST KEY FINGERPRINTS-----\r\n",
        lines.join("\r\n")
    );
    // A line that nobody reads must not hold up the rest of the console, nor become its terminal.
    let flags = OFlag::O_NONBLOCK | OFlag::O_NOCTTY;
    let written = OpenOptions::new()
        .write(true)
        .custom_flags(flags.bits())
        .open(console)
        .and_then(|mut console| console.write_all(text.as_bytes()));
    if let Err(error) = written {
        log::error(&format!(
            "tell the fingerprints at {}: {error}",
            console.display()
        ));
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    fn cannot() -> bool {
        let cannot = !Path::new(KEYGEN).exists() || !nix::unistd::Uid::effective().is_root();
        if cannot {
            eprintln!("skipped: needs {KEYGEN} and root");
        }
        cannot
    }

    #[test]
    fn keys_are_made_once_and_again_when_they_are_gone_or_empty() {
        if cannot() {
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

    #[test]
    fn sshd_shows_keys_of_the_kinds_that_are_asked_for_and_none_is_taken_away() {
        if cannot() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        let run = tempfile::tempdir().unwrap();
        let scratch = directory.path().join("scratch");
        let kinds = directory.path().join(HOST_KEY_KINDS_FILE);
        let shown = || {
            name_for_sshd(directory.path(), (run.path(), "host-keys.conf")).unwrap();
            let file = run.path().join("host-keys.conf");
            assert_eq!(fs::metadata(&file).unwrap().mode() & 0o7777, 0o644);
            fs::read_to_string(file).unwrap()
        };
        let line = |kind| {
            let key = format!("ssh_host_{kind}_key");
            format!("HostKey {}\n", directory.path().join(key).display())
        };
        assert_eq!(shown(), "");
        assert_eq!(ensure(directory.path(), &scratch), 2);
        let usual = line("ed25519") + &line("ecdsa");
        assert_eq!(shown(), usual);
        fs::write(&kinds, "rsa ed25519\n").unwrap();
        assert_eq!(ensure(directory.path(), &scratch), 1);
        assert_eq!(shown(), line("ed25519"));
        let is_there = |name: &str| directory.path().join(name).exists();
        assert!(is_there("ssh_host_rsa_key") && is_there("ssh_host_ecdsa_key.pub"));
        // What a power cut left is not asked for by anybody.
        for text in ["", "\n", "\0\0\0"] {
            fs::write(&kinds, text).unwrap();
            assert_eq!(ensure(directory.path(), &scratch), 0);
            assert_eq!(shown(), usual, "{text:?}");
        }
    }

    #[test]
    fn fingerprints_are_told_but_for_kinds_that_are_not_to_be() {
        if cannot() {
            return;
        }
        let directory = tempfile::tempdir().unwrap();
        ensure(directory.path(), &directory.path().join("scratch"));
        let console = directory.path().join("console");
        let told = |kinds: Option<&str>| {
            fs::write(&console, "").unwrap();
            let file = directory.path().join(TOLD_KINDS_FILE);
            match kinds {
                Some(kinds) => fs::write(file, kinds).unwrap(),
                None => drop(fs::remove_file(file)),
            }
            tell(directory.path(), &console);
            let text = fs::read_to_string(&console).unwrap();
            let lines = text.lines().filter(|line| !line.is_empty());
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        let all = told(None);
        assert_eq!(all[0], "-----BEGIN SSH HOST KEY FINGERPRINTS-----");
        assert_eq!(all[3], "-----END SSH HOST KEY FINGERPRINTS-----");
        let key = fs::read_to_string(directory.path().join("ssh_host_ed25519_key.pub")).unwrap();
        let of_it = Command::new("sh")
            .arg("-c")
            .arg("printf %s \"$1\" | base64 -d | openssl dgst -sha256 -binary | base64 | tr -d =")
            .args(["sh", key.split(' ').nth(1).unwrap().trim()])
            .output()
            .unwrap();
        let of_it = String::from_utf8(of_it.stdout).unwrap();
        let told_of_it = all.iter().find(|line| line.contains("(ED25519)")).unwrap();
        assert!(
            told_of_it.contains(&format!("SHA256:{}", of_it.trim())),
            "{told_of_it}"
        );
        let some = told(Some("ecdsa\n"));
        assert!(some.len() == 3 && some[1].ends_with("(ECDSA)"), "{some:?}");
        assert_eq!(told(Some("\n")), Vec::<String>::new());
    }
}
