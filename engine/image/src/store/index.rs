//! index.json: which names lead to which manifests.

use super::{Error, Store, at};
use crate::document::{Descriptor, Index, REF_NAME, media};
use crate::{Digest, Reference};
use std::collections::BTreeMap;
use std::fs;
use std::io;

/// What a registry knew the image by when it was pulled: repository as people write it, and digest.
const PULLED: &str = "io.keelson.image.pulled";

/// One name of an image, or an image without one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The manifest's digest.
    pub manifest: Digest,
    /// Bytes of the manifest.
    pub size: u64,
    /// The name with its tag.
    pub reference: Option<Reference>,
    /// The repository that it was pulled from, and the digest that it has there: an index's for one of several platforms.
    pub pulled: Option<(String, Digest)>,
}

impl Store {
    /// All entries.
    ///
    /// # Errors
    /// When index.json is there and cannot be read.
    pub fn entries(&self) -> Result<Vec<Entry>, Error> {
        let path = self.directory().join("index.json");
        let text = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            other => other.map_err(at(&path))?,
        };
        let index: Index =
            serde_json::from_slice(&text).map_err(|error| at(&path)(error.into()))?;
        Ok(index.manifests.into_iter().map(entry).collect())
    }

    /// Replaces index.json; on the disk when this returns. The caller holds the lock alone.
    ///
    /// # Errors
    /// What the system calls report; the old one is then still there.
    pub fn replace_entries(&self, entries: &[Entry]) -> Result<(), Error> {
        let index = Index {
            schema_version: 2,
            media_type: Some(media::INDEX.to_owned()),
            manifests: entries.iter().map(descriptor).collect(),
        };
        let text = serde_json::to_vec(&index)
            .map_err(|error| at(&self.directory().join("index.json"))(error.into()))?;
        self.write("index.json", &text)
    }
}

fn entry(descriptor: Descriptor) -> Entry {
    let annotation = |name: &str| descriptor.annotations.get(name);
    let pulled = annotation(PULLED).and_then(|text| {
        let (name, digest) = text.split_once('@')?;
        Some((name.to_owned(), digest.parse().ok()?))
    });
    Entry {
        reference: annotation(REF_NAME).and_then(|name| name.parse().ok()),
        pulled,
        manifest: descriptor.digest,
        size: descriptor.size,
    }
}

fn descriptor(entry: &Entry) -> Descriptor {
    let mut annotations = BTreeMap::new();
    if let Some(reference) = &entry.reference {
        annotations.insert(REF_NAME.to_owned(), reference.to_string());
    }
    if let Some((name, digest)) = &entry.pulled {
        annotations.insert(PULLED.to_owned(), format!("{name}@{digest}"));
    }
    Descriptor {
        media_type: media::MANIFEST.to_owned(),
        digest: entry.manifest.clone(),
        size: entry.size,
        platform: None,
        annotations,
    }
}
