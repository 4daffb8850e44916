//! A volume that is empty gets what the image has in its place, as in Docker.

use super::Shared;
use super::worker::blocking;
use crate::compose::Definition;
use crate::compose::volume::Kind;
use crate::images::tool;
use crate::rootfs;
use anyhow::{Context, bail};
use std::fs;
use std::path::Path;
use std::process::Stdio;

/// Fills the empty volumes of a container whose root is mounted.
///
/// # Errors
/// With the volume that could not be filled; it is empty then.
pub(super) async fn fill(
    shared: &Shared,
    definition: &Definition,
    root: &Path,
) -> anyhow::Result<()> {
    let volumes = shared.options.volumes();
    for volume in &definition.service.volumes {
        let data = Path::new(&volume.source);
        let is_named = volume.kind == Kind::Bind && data.starts_with(volumes.directory());
        if !is_named || !is_empty(data) {
            continue;
        }
        let place = root.join(rootfs::resolve(root, &volume.target)?);
        if place.is_dir() && !is_empty(&place) {
            copy(shared, root, &volume.target, data)
                .await
                .with_context(|| format!("cannot fill the volume at {}", volume.target))?;
        }
    }
    Ok(())
}

fn is_empty(directory: &Path) -> bool {
    fs::read_dir(directory).is_ok_and(|mut entries| entries.next().is_none())
}

/// Beside the volume first, so that what breaks off leaves it empty. The directory itself stays: others may have it mounted.
async fn copy(shared: &Shared, root: &Path, target: &str, data: &Path) -> anyhow::Result<()> {
    let new = data.with_file_name("filling");
    let _ = fs::remove_dir_all(&new);
    fs::create_dir(&new)?;
    let mut out = tool::command(&shared.options);
    out.arg("copy-out").arg("--root").arg(root);
    out.arg(format!("{}/.", target.trim_end_matches('/')));
    let mut packing = out.stdout(Stdio::piped()).spawn()?;
    let archive = packing.stdout.take().context("it has no output")?;
    let mut into = tool::command(&shared.options);
    into.arg("copy-in").arg("--root").arg(&new).arg("/");
    into.stdin(archive.into_owned_fd()?).stdout(Stdio::piped());
    let unpacked = into.output().await?;
    let packed = packing.wait().await?;
    if !packed.success() || !unpacked.status.success() {
        let _ = fs::remove_dir_all(&new);
        let said = String::from_utf8_lossy(&unpacked.stdout);
        let why = said.lines().last().and_then(tool::failure);
        let why = why.map(|failed| failed.message);
        bail!(why.unwrap_or_else(|| "the image's files could not be read".to_owned()));
    }
    let data = data.to_owned();
    blocking(move || {
        // One that is not empty is not filled again: what stands in it has to be whole.
        rustix::fs::syncfs(fs::File::open(&new)?)?;
        for entry in fs::read_dir(&new)? {
            let entry = entry?;
            fs::rename(entry.path(), data.join(entry.file_name()))?;
        }
        rootfs::copy_attributes(&new, &data)?;
        Ok(fs::remove_dir(&new)?)
    })
    .await
}
