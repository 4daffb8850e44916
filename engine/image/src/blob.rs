//! Content on its way into the store: checked, written whole, and only then called by its digest.

use crate::failpoint;
use crate::failure::Failure;
use crate::progress::{Meter, Progress};
use crate::registry::Remote;
use anyhow::{Context, bail};
use keelson_image::document::Descriptor;
use keelson_image::store::Lock;
use keelson_image::{Digest, Store};
use sha2::{Digest as _, Sha256};
use std::fs::{self, File};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::Path;
use std::time::Duration;

/// So often a connection may be cut in a row without a byte having come.
const TRIES_MAX: u32 = 5;
/// The first pause before the next try; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(200);
const CHUNK_BYTES: usize = 64 * 1024;

/// Fetches a blob from a registry, unless it is here already; goes on where an earlier try was cut.
///
/// # Errors
/// When it cannot be fetched, is not what its digest says, or the disk is full.
pub(crate) fn fetch(
    store: &Store,
    remote: &Remote,
    blob: &Descriptor,
    progress: &Progress,
) -> anyhow::Result<()> {
    let _lock = Lock::on(store, &blob.digest)?;
    if store.blob(&blob.digest).exists() {
        return Ok(());
    }
    let id = blob.digest.short();
    let mut meter = progress.meter(id, "Downloading", blob.size);
    let mut part = Part::open(store, &blob.digest)?;
    loop {
        let resumed = part.length > 0;
        part.fill(remote, blob, &mut meter)?;
        progress.status(id, "Verifying Checksum");
        if part.digest() == blob.digest {
            break;
        }
        part.clear()?;
        // What was kept from an earlier try may be at fault: once more from the beginning.
        if !resumed {
            let digest = &blob.digest;
            let why = format!("filesystem layer verification failed for digest {digest}");
            return Err(Failure::error(500, why));
        }
    }
    failpoint::reach("blob-fetched");
    part.name(store, &blob.digest)?;
    failpoint::reach("blob-named");
    progress.status(id, "Download complete");
    Ok(())
}

/// A blob that is not complete.
struct Part {
    file: File,
    length: u64,
    hasher: Sha256,
    path: std::path::PathBuf,
}

impl Part {
    fn open(store: &Store, digest: &Digest) -> anyhow::Result<Self> {
        let path = store.incoming(&format!("{}.part", digest.hex()));
        let mut options = File::options();
        options.create(true).truncate(false).read(true).write(true);
        let mut file = options
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        let mut hasher = Sha256::new();
        let length = io::copy(&mut file, &mut HashWriter(&mut hasher))?;
        Ok(Self {
            file,
            length,
            hasher,
            path,
        })
    }

    fn clear(&mut self) -> anyhow::Result<()> {
        self.file.set_len(0)?;
        self.file.seek(SeekFrom::Start(0))?;
        self.length = 0;
        self.hasher = Sha256::new();
        Ok(())
    }

    /// Fetches what is missing.
    fn fill(
        &mut self,
        remote: &Remote,
        blob: &Descriptor,
        meter: &mut Meter<'_>,
    ) -> anyhow::Result<()> {
        let mut tries = 0;
        while self.length < blob.size {
            let before = self.length;
            let cut = match self.fetch_on(remote, blob, meter) {
                Ok(()) if self.length > before => None,
                Ok(()) => Some(anyhow::anyhow!("the connection was closed early")),
                // The disk, or a refusal, does not get better by trying again.
                Err(error) if !is_cut(&error) => return Err(error),
                Err(error) => Some(error),
            };
            if self.length > before {
                tries = 0;
                continue;
            }
            tries += 1;
            if tries >= TRIES_MAX {
                return Err(cut.unwrap_or_else(|| anyhow::anyhow!("no answer")))
                    .with_context(|| format!("fetch {}", blob.digest));
            }
            std::thread::sleep(PAUSE * 2_u32.pow(tries));
        }
        Ok(())
    }

    /// Reads one answer for as long as it lasts.
    fn fetch_on(
        &mut self,
        remote: &Remote,
        blob: &Descriptor,
        meter: &mut Meter<'_>,
    ) -> anyhow::Result<()> {
        let (mut reader, start) = remote.blob(&blob.digest, self.length)?;
        if start != self.length {
            self.clear()?;
        }
        meter.set(self.length);
        let mut buffer = vec![0; CHUNK_BYTES];
        loop {
            let length = match reader.read(&mut buffer) {
                Ok(0) => return Ok(()),
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(anyhow::Error::new(Cut(error))),
            };
            if self.length + length as u64 > blob.size {
                let digest = &blob.digest;
                bail!(
                    "{digest} is longer than its manifest says ({} bytes)",
                    blob.size
                );
            }
            self.write(&buffer[..length])?;
            meter.add(length);
        }
    }

    fn write(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        self.file
            .write_all(bytes)
            .with_context(|| format!("write {}", self.path.display()))?;
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        Ok(())
    }

    fn digest(&self) -> Digest {
        Digest::finish(self.hasher.clone())
    }

    /// Gives it its name, for good.
    fn name(self, store: &Store, digest: &Digest) -> anyhow::Result<()> {
        self.file.sync_all().context("sync the blob")?;
        publish(&self.path, &store.blob(digest))
    }
}

/// A connection that was cut while its content came.
#[derive(Debug)]
pub(crate) struct Cut(pub(crate) io::Error);

impl std::fmt::Display for Cut {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "the connection was cut: {}", self.0)
    }
}

impl std::error::Error for Cut {}

fn is_cut(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Cut>().is_some()
}

/// Moves a complete file or directory to its name; it stays there whatever happens next.
pub(crate) fn publish(from: &Path, to: &Path) -> anyhow::Result<()> {
    fs::rename(from, to).with_context(|| format!("rename to {}", to.display()))?;
    let parent = to.parent().context("the store has no directory")?;
    let synced = File::open(parent).and_then(|parent| parent.sync_all());
    synced.with_context(|| format!("sync {}", parent.display()))
}

/// Puts a document into the store.
pub(crate) fn put(store: &Store, bytes: &[u8]) -> anyhow::Result<Digest> {
    let mut reader = bytes;
    Ok(put_stream(store, &mut reader, None)?.0)
}

/// Puts whatever comes into the store, and gives its digest and length. With `expected`, it must be that.
pub(crate) fn put_stream(
    store: &Store,
    reader: &mut impl Read,
    expected: Option<&Digest>,
) -> anyhow::Result<(Digest, u64)> {
    let mut file = new_file(store)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; CHUNK_BYTES];
    let mut total = 0;
    loop {
        let length = reader.read(&mut buffer).context("read")?;
        if length == 0 {
            break;
        }
        file.0
            .write_all(&buffer[..length])
            .context("write to the store")?;
        hasher.update(&buffer[..length]);
        total += length as u64;
    }
    let digest = Digest::finish(hasher);
    if expected.is_some_and(|expected| *expected != digest) {
        return Err(Failure::error(
            400,
            format!("content has the digest {digest}, which is not its name"),
        ));
    }
    file.0.sync_all().context("sync the blob")?;
    publish(&file.1, &store.blob(&digest))?;
    Ok((digest, total))
}

/// A new file among what is not complete; removed again unless it is named.
struct NewFile(File, std::path::PathBuf);

impl Drop for NewFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.1);
    }
}

fn new_file(store: &Store) -> anyhow::Result<NewFile> {
    use std::sync::atomic::{AtomicU32, Ordering};
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    let path = store.incoming(&format!("{}-{number}.new", std::process::id()));
    let file = File::create(&path).with_context(|| format!("make {}", path.display()))?;
    Ok(NewFile(file, path))
}

/// Hashes what is written.
pub(crate) struct HashWriter<'h>(pub(crate) &'h mut Sha256);

impl Write for HashWriter<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
