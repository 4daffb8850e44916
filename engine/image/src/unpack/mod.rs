//! Layers, from their archives to directories that overlayfs takes (OCI image specification, "layer.md").
//!
//! - [`layer`]: has one unpacked and checked
//! - [`child`]: the process that does it, shut into the directory; `entry`: one entry of the archive
//! - [`confine`]: what such processes may do; [`decompress`]: gzip, zstd or nothing

pub(crate) mod child;
pub(crate) mod confine;
pub(crate) mod decompress;
pub(crate) mod entry;

use crate::failpoint;
use crate::failure::Failure;
use crate::progress::Progress;
use anyhow::{Context, bail};
use keelson_image::store::Lock;
use keelson_image::{Digest, Store};
use rustix::fs::{
    AtFlags, Gid, Mode, OFlags, ResolveFlags, Uid, chownat, fchmod, openat2, statat, syncfs,
};
use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const CHUNK_BYTES: usize = 256 * 1024;

/// What the process that unpacks has to say.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Report {
    /// The digest of the archive, not compressed.
    diff_id: Digest,
    /// Directories that the archive has no entry for: they are as the layers below have them.
    implied: Vec<PathBuf>,
}

/// Unpacks the layer in a blob, unless it is there already. `below` are the directories of the layers under it, the
/// topmost first.
///
/// # Errors
/// When the archive is not what the configuration says, or hostile, or the disk is full; then nothing is left.
pub(crate) fn layer(
    store: &Store,
    blob: &Digest,
    diff_id: &Digest,
    chain_id: &Digest,
    below: &[PathBuf],
    progress: &Progress,
) -> anyhow::Result<()> {
    let _lock = Lock::on(store, chain_id)?;
    if store.layer(chain_id).exists() {
        return Ok(());
    }
    let directory = store.incoming(&format!("{}.layer", chain_id.hex()));
    clear(&directory)?;
    fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
    let unpacked = into(store, &directory, blob, diff_id, below, progress);
    if unpacked.is_err() {
        clear(&directory)?;
    }
    unpacked?;
    failpoint::reach("layer-unpacked");
    crate::blob::publish(&directory, &store.layer(chain_id))?;
    failpoint::reach("layer-named");
    Ok(())
}

fn clear(directory: &Path) -> anyhow::Result<()> {
    match fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(error).with_context(|| format!("clear {}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn into(
    store: &Store,
    directory: &Path,
    blob: &Digest,
    diff_id: &Digest,
    below: &[PathBuf],
    progress: &Progress,
) -> anyhow::Result<()> {
    let path = store.blob(blob);
    let archive = File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let report = run(directory, archive, blob, progress)?;
    if report.diff_id != *diff_id {
        let why = format!(
            "layer {blob} unpacks to {}, and the image's configuration says {diff_id}",
            report.diff_id
        );
        return Err(Failure::error(500, why));
    }
    let root = open(directory)?;
    for path in &report.implied {
        inherit(&root, path, below)
            .with_context(|| format!("take over the directory {}", path.display()))?;
    }
    syncfs(&root).context("sync the layer")
}

/// Runs the process that unpacks.
fn run(
    directory: &Path,
    mut archive: File,
    blob: &Digest,
    progress: &Progress,
) -> anyhow::Result<Report> {
    let total = archive.metadata()?.len();
    let mut child = Command::new("/proc/self/exe")
        .arg("unpack")
        .arg(directory)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("start the process that unpacks")?;
    let mut meter = progress.meter(blob.short(), "Extracting", total);
    if let Some(mut stdin) = child.stdin.take() {
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = archive.read(&mut buffer).context("read the blob")?;
            // One that takes no more has something to say about it.
            if length == 0 || stdin.write_all(&buffer[..length]).is_err() {
                break;
            }
            meter.add(length);
        }
    }
    let output = child
        .wait_with_output()
        .context("wait for the process that unpacks")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let said = said.trim();
        if said.contains("No space left on device") {
            let full = std::io::Error::from(std::io::ErrorKind::StorageFull);
            return Err(full).context(format!("failed to register layer: {said}"));
        }
        bail!("failed to register layer: {said}");
    }
    serde_json::from_slice(&output.stdout).context("the process that unpacks said nothing")
}

fn open(directory: &Path) -> anyhow::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    rustix::fs::open(directory, flags, Mode::empty())
        .with_context(|| format!("open {}", directory.display()))
}

/// Gives a directory the owner and the mode that it has in the topmost layer below that has it.
fn inherit(root: &OwnedFd, path: &Path, below: &[PathBuf]) -> anyhow::Result<()> {
    let inside = |root: &OwnedFd| {
        let name = if path.as_os_str().is_empty() {
            Path::new(".")
        } else {
            path
        };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        openat2(root, name, flags, Mode::empty(), ResolveFlags::IN_ROOT)
    };
    for layer in below {
        let Ok(found) = inside(&open(layer)?) else {
            continue;
        };
        let like = statat(&found, "", AtFlags::EMPTY_PATH)?;
        let own = inside(root)?;
        let (uid, gid) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
        chownat(&own, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        fchmod(&own, Mode::from_raw_mode(like.st_mode & 0o7777))?;
        return Ok(());
    }
    Ok(())
}
