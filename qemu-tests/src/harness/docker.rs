//! Images made on the spot, and `docker` over SSH. No registry is asked.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};

use crate::harness::process;
use crate::harness::ssh::Ssh;

/// The image that [`import`] makes: busybox with all its applets.
pub const IMAGE: &str = "tests/busybox";
/// How long `docker` may take for one container on a slow machine.
pub const DOCKER_DEADLINE: Duration = Duration::from_secs(90);

const BUSYBOX: &str = "/usr/bin/busybox";

/// Builds a root of the tool root's static busybox and imports it as [`IMAGE`].
///
/// # Errors
/// When it cannot be built, or docker refuses it.
pub fn import(ssh: &Ssh) -> Result<()> {
    let line = format!("docker import --change 'CMD [\"sh\"]' - {IMAGE}");
    let output = ssh.run_with(&line, &root_archive()?, DOCKER_DEADLINE)?;
    ensure!(
        output.status.success(),
        "docker import: {}",
        output.text().trim()
    );
    Ok(())
}

/// Starts a container in the background and gives its id. `arguments` are those of `docker run`.
///
/// # Errors
/// When docker refuses.
pub fn run_detached(ssh: &Ssh, arguments: &str) -> Result<String> {
    ssh.check_within(&format!("docker run -d {arguments}"), DOCKER_DEADLINE)
}

/// Runs a container to its end and gives its output.
///
/// # Errors
/// When docker refuses, or the container fails.
pub fn run(ssh: &Ssh, arguments: &str) -> Result<String> {
    ssh.check_within(&format!("docker run --rm {arguments}"), DOCKER_DEADLINE)
}

/// Process id, start time and restart count of a container: the same for as long as it lives.
///
/// # Errors
/// When there is no such container.
pub fn life(ssh: &Ssh, container: &str) -> Result<String> {
    let format = "{{.State.Status}} {{.State.Pid}} {{.State.StartedAt}} {{.RestartCount}}";
    ssh.check(&format!("docker inspect --format '{format}' {container}"))
}

fn root_archive() -> Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    let program = std::fs::read(BUSYBOX).with_context(|| format!("reading {BUSYBOX}"))?;
    append(&mut archive, "bin/busybox", 0o755, &program)?;
    append(
        &mut archive,
        "etc/passwd",
        0o644,
        b"root:x:0:0:root:/:/bin/sh\n",
    )?;
    let applets = process::check(Command::new(BUSYBOX).arg("--list"), Duration::from_secs(10))?;
    for applet in applets.lines().filter(|applet| *applet != "busybox") {
        let mut header = header(0o777, 0);
        header.set_entry_type(tar::EntryType::Symlink);
        let path = format!("bin/{applet}");
        archive
            .append_link(&mut header, path, "busybox")
            .context("adding a link to the test image")?;
    }
    archive.into_inner().context("ending the test image")
}

fn append(
    archive: &mut tar::Builder<Vec<u8>>,
    path: &str,
    mode: u32,
    content: &[u8],
) -> Result<()> {
    let mut header = header(mode, content.len() as u64);
    archive
        .append_data(&mut header, path, content)
        .with_context(|| format!("adding {path} to the test image"))
}

fn header(mode: u32, size_bytes: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_mode(mode);
    header.set_size(size_bytes);
    header
}
