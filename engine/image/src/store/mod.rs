//! The directory of images: an OCI image layout (image-layout.md) with more beside it.
//!
//! ```text
//!   oci-layout, index.json        one entry a name; the annotation `org.opencontainers.image.ref.name` is the whole name
//!   blobs/sha256/HEX              manifests, configurations and layers as they came
//!   layers/HEX/                   a layer unpacked, in the form that overlayfs takes, by its ChainID
//!   leases/NAME                   a container holds an image
//!   incoming/                     what is not complete: parts of blobs, layers being unpacked, marks of pulls
//!   lock                          held shared to read and lease, alone to change index.json or remove anything
//! ```
//!
//! A blob or a layer gets its name when it is whole and on the disk, and index.json is replaced last: after a power cut an
//! image is there whole or not at all.

mod index;
mod lock;

pub use index::Entry;
pub use lock::{Lock, Mark};

use crate::document::{Configuration, Manifest, chain_ids};
use crate::{Digest, Reference};
use keelson_sys::durable::{Access, Tree};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Manifests and configurations may have so much.
pub const DOCUMENT_MAX_BYTES: u64 = 4 << 20;

/// Why an image was not found.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// There is none of that name or number.
    #[error("No such image: {0}")]
    Missing(String),
    /// Several numbers begin so.
    #[error("multiple IDs found with provided prefix: {0}")]
    Ambiguous(String),
    /// It is no name.
    #[error("{0}")]
    Invalid(String),
    /// What a system call said.
    #[error("{0}: {1}")]
    Io(String, #[source] io::Error),
}

/// What a system call said, and about what.
pub(crate) fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.display().to_string();
    move |error| Error::Io(path, error)
}

/// An image with all its names.
#[derive(Clone, Debug)]
pub struct Image {
    /// The digest of its configuration.
    pub id: Digest,
    /// The digest of its manifest.
    pub manifest: Digest,
    /// Its names with tags, as people write them.
    pub repo_tags: Vec<String>,
    /// Its names with the digests that registries know it by.
    pub repo_digests: Vec<String>,
    /// Bytes of its layers as they came, the lowest first.
    pub layer_bytes: Vec<u64>,
    /// What it says of itself.
    pub configuration: Configuration,
    /// The directories of its layers, the topmost first.
    pub layers: Vec<PathBuf>,
}

/// The directory of images.
#[derive(Clone, Debug)]
pub struct Store {
    directory: PathBuf,
}

impl Store {
    /// The store in `directory`; nothing is made or read yet.
    pub fn new(directory: PathBuf) -> Self {
        Self { directory }
    }

    /// The directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Makes what is missing of the layout.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn prepare(&self) -> Result<(), Error> {
        for name in ["blobs/sha256", "layers", "leases", "incoming"] {
            let path = self.directory.join(name);
            fs::create_dir_all(&path).map_err(at(&path))?;
        }
        let path = self.directory.join("oci-layout");
        if !path.exists() {
            self.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        }
        Ok(())
    }

    fn write(&self, name: &str, content: &[u8]) -> Result<(), Error> {
        let tree = Tree::open(&self.directory).map_err(at(&self.directory))?;
        let written = tree.write(Path::new(name), content, Access::root(0o644));
        written.map_err(at(&self.directory.join(name)))
    }

    /// Where a blob is, or will be.
    pub fn blob(&self, digest: &Digest) -> PathBuf {
        self.directory.join("blobs/sha256").join(digest.hex())
    }

    /// Where a layer is unpacked, or will be.
    pub fn layer(&self, chain_id: &Digest) -> PathBuf {
        self.directory.join("layers").join(chain_id.hex())
    }

    /// What is not complete.
    pub fn incoming(&self, name: &str) -> PathBuf {
        self.directory.join("incoming").join(name)
    }

    /// Reads a manifest or a configuration.
    ///
    /// # Errors
    /// When it is missing, too long or not what it should be.
    pub fn document<T: serde::de::DeserializeOwned>(&self, digest: &Digest) -> Result<T, Error> {
        let path = self.blob(digest);
        let length = fs::metadata(&path).map_err(at(&path))?.len();
        if length > DOCUMENT_MAX_BYTES {
            return Err(at(&path)(io::Error::other("it is too long for a document")));
        }
        let text = fs::read(&path).map_err(at(&path))?;
        serde_json::from_slice(&text).map_err(|error| at(&path)(error.into()))
    }

    /// All images, in order of number. One whose documents cannot be read is left out.
    ///
    /// # Errors
    /// When index.json cannot be read.
    pub fn images(&self) -> Result<Vec<Image>, Error> {
        let mut images: BTreeMap<Digest, Image> = BTreeMap::new();
        for entry in self.entries()? {
            let Ok(image) = self.image(&entry.manifest) else {
                continue;
            };
            let image = images.entry(image.id.clone()).or_insert(image);
            if let Some(reference) = &entry.reference {
                image.repo_tags.push(reference.familiar());
            }
            if let Some((name, digest)) = &entry.pulled {
                let text = format!("{name}@{digest}");
                if !image.repo_digests.contains(&text) {
                    image.repo_digests.push(text);
                }
            }
        }
        Ok(images.into_values().collect())
    }

    /// The image of a manifest, without names.
    fn image(&self, digest: &Digest) -> Result<Image, Error> {
        let manifest: Manifest = self.document(digest)?;
        let configuration: Configuration = self.document(&manifest.config.digest)?;
        let chain = chain_ids(&configuration.rootfs.diff_ids);
        Ok(Image {
            id: manifest.config.digest,
            manifest: digest.clone(),
            repo_tags: Vec::new(),
            repo_digests: Vec::new(),
            layer_bytes: manifest.layers.iter().map(|layer| layer.size).collect(),
            layers: chain.iter().rev().map(|id| self.layer(id)).collect(),
            configuration,
        })
    }

    /// The image of that name, digest or number, or the beginning of its number.
    ///
    /// # Errors
    /// When there is none, or several.
    pub fn find(&self, name: &str) -> Result<Image, Error> {
        let images = self.images()?;
        let hex = name.strip_prefix("sha256:").unwrap_or(name);
        let exact = images.iter().find(|image| image.id.hex() == hex);
        if let Some(image) = exact {
            return Ok(image.clone());
        }
        let reference = name.parse::<Reference>();
        if let Ok(reference) = &reference {
            let familiar = reference.familiar();
            let by_digest = reference
                .digest
                .as_ref()
                .map(|digest| format!("{}@{digest}", reference.familiar_name()));
            let named = images.iter().find(|image| {
                image.repo_tags.contains(&familiar)
                    || by_digest
                        .as_ref()
                        .is_some_and(|text| image.repo_digests.contains(text))
            });
            if let Some(image) = named {
                return Ok(image.clone());
            }
        }
        let is_hex = !hex.is_empty() && hex.bytes().all(|byte| byte.is_ascii_hexdigit());
        let mut begin = images
            .iter()
            .filter(|image| is_hex && image.id.hex().starts_with(hex));
        match (begin.next(), begin.next(), reference) {
            (Some(image), None, _) => Ok(image.clone()),
            (Some(_), Some(_), _) => Err(Error::Ambiguous(name.to_owned())),
            (None, _, Ok(reference)) => Err(Error::Missing(reference.familiar())),
            (None, _, Err(why)) => Err(Error::Invalid(why)),
        }
    }

    /// Notes durably that `holder` needs an image. Removing it is refused from now on.
    ///
    /// # Errors
    /// When there is no such image any more, or what the system calls report.
    pub fn lease(&self, holder: &str, image: &Digest) -> Result<(), Error> {
        self.prepare()?;
        let _lock = Lock::shared(self)?;
        if !self.images()?.iter().any(|other| other.id == *image) {
            return Err(Error::Missing(image.to_string()));
        }
        self.write(&format!("leases/{holder}"), image.as_str().as_bytes())
    }

    /// Gives an image up; fine when it was not held.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn release(&self, holder: &str) -> Result<(), Error> {
        let directory = self.directory.join("leases");
        let path = directory.join(holder);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(at(&path)(error)),
            Err(_) => return Ok(()),
            Ok(()) => {}
        }
        let synced = File::open(&directory).and_then(|directory| directory.sync_all());
        synced.map_err(at(&directory))
    }

    /// The images that are held, with who holds each.
    ///
    /// # Errors
    /// What the system calls report.
    pub fn leases(&self) -> Result<BTreeMap<Digest, BTreeSet<String>>, Error> {
        let mut leases: BTreeMap<Digest, BTreeSet<String>> = BTreeMap::new();
        let directory = self.directory.join("leases");
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            // One that is being written is nobody's yet.
            if name.starts_with('.') {
                continue;
            }
            let text = fs::read_to_string(entry.path()).map_err(at(&entry.path()))?;
            let digest = text
                .parse()
                .map_err(|why: String| at(&entry.path())(io::Error::other(why)))?;
            leases.entry(digest).or_default().insert(name);
        }
        Ok(leases)
    }
}

#[cfg(test)]
mod tests;
