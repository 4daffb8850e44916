//! NoCloud seeds: a small disk labelled `cidata` with `user-data` and `meta-data`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result};

use crate::harness::process;

/// Hostname that [`usual`] gives the machine.
pub const HOSTNAME: &str = "timber";
/// Password that [`usual`] gives the user `keelson`: for tests of the serial console only.
pub const PASSWORD: &str = "oak and tar";
/// [`PASSWORD`], SHA-512-crypt.
const PASSWORD_HASH: &str = "$6$keelsontest$5g5vYXYZleyJiiY4ZB/SFOFoNP1T8mtDquzNawoh1vxkZ3EKRjfWjTDmvQj9NGjbcR.OUT8.HVDykJuSfbXJR.";
/// The meta-data of most tests.
pub const META_DATA: &str = "instance-id: keelson-test\n";
const TOOL_DEADLINE: Duration = Duration::from_secs(30);

/// The user-data of most tests: hostname, key and password of the default user.
pub fn usual(public_key: &str) -> String {
    format!(
        "#cloud-config\nhostname: {HOSTNAME}\nssh_authorized_keys:\n  - {public_key}\nchpasswd:\n  expire: false\n  \
         users:\n    - {{name: keelson, password: {PASSWORD_HASH:?}}}\n"
    )
}

/// Writes a FAT seed to `dir/seed.img`.
///
/// # Errors
/// When mtools fails.
pub fn fat(dir: &Path, user_data: &str) -> Result<PathBuf> {
    fat_of(dir, &[("user-data", user_data), ("meta-data", META_DATA)])
}

/// The same with these files, by name and content.
///
/// # Errors
/// When mtools fails.
pub fn fat_of(dir: &Path, contents: &[(&str, &str)]) -> Result<PathBuf> {
    let files = write_files(dir, contents)?;
    let image = dir.join("seed.img");
    process::check(
        Command::new("truncate").args(["-s", "1M"]).arg(&image),
        TOOL_DEADLINE,
    )?;
    process::check(
        Command::new("mformat")
            .args(["-v", "cidata", "-i"])
            .arg(&image)
            .arg("::"),
        TOOL_DEADLINE,
    )?;
    process::check(
        Command::new("mcopy")
            .args(["-o", "-i"])
            .arg(&image)
            .args(&files)
            .arg("::"),
        TOOL_DEADLINE,
    )?;
    Ok(image)
}

/// Writes a disc as Azure hands it to machines, UDF with an `ovf-env.xml`, to `dir/azure.img`. `custom_data` is in base64.
///
/// # Errors
/// When genisoimage fails.
pub fn azure(dir: &Path, hostname: &str, custom_data: &str) -> Result<PathBuf> {
    let xml = format!(
        "<?xml version=\"1.0\"?>\n<Environment xmlns=\"http://schemas.dmtf.org/ovf/environment/1\" xmlns:wa=\"http://schemas.microsoft.com/windowsazure\"><wa:ProvisioningSection>\
         <LinuxProvisioningConfigurationSet xmlns=\"http://schemas.microsoft.com/windowsazure\"><HostName>{hostname}</HostName><CustomData>{custom_data}</CustomData>\
         </LinuxProvisioningConfigurationSet></wa:ProvisioningSection></Environment>\n"
    );
    let files = write_files(dir, &[("ovf-env.xml", &xml)])?;
    let image = dir.join("azure.img");
    process::check(
        Command::new("genisoimage")
            .args(["-quiet", "-udf", "-V", "rd_rdfe_stable.1", "-o"])
            .arg(&image)
            .args(&files),
        TOOL_DEADLINE,
    )?;
    Ok(image)
}

/// Writes an ISO 9660 seed to `dir/seed.iso`.
///
/// # Errors
/// When xorriso fails.
pub fn iso(dir: &Path, user_data: &str) -> Result<PathBuf> {
    let files = write_files(dir, &[("user-data", user_data), ("meta-data", META_DATA)])?;
    let image = dir.join("seed.iso");
    let mut command = Command::new("xorriso");
    command
        .args(["-as", "mkisofs", "-quiet", "-V", "cidata", "-J", "-r", "-o"])
        .arg(&image)
        .args(&files);
    process::check(&mut command, TOOL_DEADLINE)?;
    Ok(image)
}

fn write_files(dir: &Path, contents: &[(&str, &str)]) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for (name, content) in contents {
        let path = dir.join(name);
        fs::write(&path, content).with_context(|| format!("writing {}", path.display()))?;
        files.push(path);
    }
    Ok(files)
}
