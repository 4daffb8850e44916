//! Programs of Debian's that do what they are for.

use std::fs::{self, File};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use gptman::GPT;
use uuid::{Uuid, uuid};

const TYPE_ESP: Uuid = uuid!("c12a7328-f81f-11d2-ba4b-00a0c93ec93b");

/// Copies a file out of the EFI system partition of a disk image.
///
/// # Errors
/// There is no such partition, or no such file.
pub(crate) fn from_esp(disk: &Path, path: &str, to: &Path) -> Result<()> {
    let offset = esp_offset(disk)
        .with_context(|| format!("find the EFI system partition of {}", disk.display()))?;
    let mut command = Command::new("mcopy");
    command.env("MTOOLS_SKIP_CHECK", "1").args(["-n", "-i"]);
    command
        .arg(format!("{}@@{offset}", disk.display()))
        .arg(format!("::/{path}"))
        .arg(to);
    run(&mut command)
}

/// Where it begins, in bytes.
fn esp_offset(disk: &Path) -> Result<u64> {
    let table = GPT::find_from(&mut File::open(disk)?)?;
    let mut partitions = table.iter();
    let esp =
        partitions.find(|(_, entry)| Uuid::from_bytes_le(entry.partition_type_guid) == TYPE_ESP);
    let (_, entry) = esp.context("it has none")?;
    Ok(entry.starting_lba * table.sector_size)
}

/// The signature of a file, ECDSA with SHA-256, DER.
///
/// # Errors
/// The key cannot be used.
pub(crate) fn sign(key: &Path, file: &Path) -> Result<Vec<u8>> {
    let signature = file.with_extension("sig");
    let mut command = Command::new("openssl");
    command.args(["dgst", "-sha256", "-sign"]).arg(key);
    run(command.arg("-out").arg(&signature).arg(file))?;
    let bytes = fs::read(&signature).context("read the signature")?;
    fs::remove_file(&signature).context("remove the signature's file")?;
    Ok(bytes)
}

/// Writes the public key of `key` to `to`, PEM.
///
/// # Errors
/// The key cannot be read.
pub(crate) fn public_key(key: &Path, to: &Path) -> Result<()> {
    let mut command = Command::new("openssl");
    command.args(["pkey", "-pubout", "-in"]).arg(key);
    run(command.arg("-out").arg(to))
}

/// Copies what has a tag in a layout to a repository, under the same tag.
///
/// # Errors
/// The registry does not take it.
pub(crate) fn push(layout: &Path, tag: &str, repository: &str, insecure: bool) -> Result<()> {
    let mut command = Command::new("skopeo");
    command.args(["copy", "--quiet", "--preserve-digests", "--insecure-policy"]);
    command.arg(format!("--dest-tls-verify={}", !insecure));
    command.arg(format!("oci:{}:{tag}", layout.display()));
    run(command.arg(format!("docker://{repository}:{tag}")))
}

fn run(command: &mut Command) -> Result<()> {
    let program = command.get_program().to_string_lossy().into_owned();
    let output = command
        .output()
        .with_context(|| format!("start {program}"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("{program} failed ({}): {}", output.status, said.trim());
    }
    Ok(())
}
