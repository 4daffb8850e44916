//! A release of the operating system: an OCI artifact (OCI image specification 1.1, "Guidance for an Artifact Manifest"), in any
//! registry or as an image layout.
//!
//! - [`document`]: its manifest and what it says of itself
//! - [`chunks`]: its root image, cut into pieces
//! - [`signature`]: who made it
//! - [`find`]: fetches what is signed, and believes nothing before its signature

pub mod chunks;
pub mod document;
pub mod signature;

use anyhow::{Context as _, Result, bail, ensure};
use keelson_image::Digest;

use chunks::{Chunks, LIST_MAX_BYTES};
use document::{DOCUMENT_MAX_BYTES, Description, Descriptor, Manifest, media};
use signature::Keys;

/// Where documents and content come from.
pub trait Store {
    /// A manifest by tag or digest; `None` when there is none.
    ///
    /// # Errors
    /// The store cannot be reached, or does not answer as it should.
    fn manifest(&mut self, target: &str) -> Result<Option<Vec<u8>>>;

    /// All of a blob, at most `limit` bytes.
    ///
    /// # Errors
    /// As [`manifest`](Self::manifest); it is longer, or not there.
    fn blob(&mut self, digest: &Digest, limit: u64) -> Result<Vec<u8>>;
}

/// A release that a trusted key has signed.
#[derive(Clone, Debug)]
pub struct Release {
    /// Digest of its manifest.
    pub digest: Digest,
    /// The name of the key.
    pub signer: String,
    /// What it says of itself.
    pub description: Description,
    /// The unified kernel image.
    pub uki: Descriptor,
    /// The root image: erofs and dm-verity tree.
    pub root: Descriptor,
    /// The list of the root image's chunks.
    pub chunks: Descriptor,
    /// The list of the unified kernel image's; releases made before there was one have none.
    pub uki_chunks: Option<Descriptor>,
}

/// Fetches the release that `target`, a tag or a digest, means.
///
/// # Errors
/// There is none, no trusted key has signed it, or it is malformed.
pub fn find(store: &mut impl Store, target: &str, keys: &Keys) -> Result<Release> {
    ensure!(!keys.is_empty(), signature::Refused::NoKeys);
    let bytes = store
        .manifest(target)?
        .with_context(|| format!("there is no release `{target}`"))?;
    let digest = Digest::of(&bytes);
    if let Ok(wanted) = target.parse::<Digest>() {
        ensure!(
            wanted == digest,
            "the manifest {wanted} has the digest {digest}"
        );
    }
    let signer = verify(store, &digest, keys)
        .with_context(|| format!("release `{target}` ({}) is not taken", digest.short()))?;
    let manifest = Manifest::read(&bytes)?;
    let config = store.blob(&manifest.config.digest, DOCUMENT_MAX_BYTES)?;
    ensure!(
        Digest::of(&config) == manifest.config.digest,
        "the release's description is not what its digest says"
    );
    Ok(Release {
        digest,
        signer,
        description: Description::read(&config)?,
        uki: manifest.layer(media::UKI)?.clone(),
        root: manifest.layer(media::ROOT)?.clone(),
        chunks: manifest.layer(media::CHUNKS)?.clone(),
        uki_chunks: manifest.layer(media::UKI_CHUNKS).ok().cloned(),
    })
}

/// The name of the trusted key that has signed the manifest `digest`.
fn verify(store: &mut impl Store, digest: &Digest, keys: &Keys) -> Result<String> {
    let tag = signature::tag(digest);
    let Some(bytes) = store.manifest(&tag)? else {
        bail!("it is not signed (there is no {tag})");
    };
    let signatures = Manifest::read_any(&bytes).context("read its signatures")?;
    let mut last = None;
    for layer in &signatures.layers {
        let Some(signature) = layer.annotations.get(signature::ANNOTATION) else {
            continue;
        };
        let payload = store.blob(&layer.digest, DOCUMENT_MAX_BYTES)?;
        match keys.check(digest, &payload, signature) {
            Ok(name) => return Ok(name.to_owned()),
            Err(refused) => last = Some(refused),
        }
    }
    match last {
        Some(refused) => Err(refused.into()),
        None => bail!("it is not signed ({tag} holds no signature)"),
    }
}

impl Release {
    /// Fetches the list of the root image's chunks.
    ///
    /// # Errors
    /// It is not what the signed manifest says, or malformed.
    pub fn chunks(&self, store: &mut impl Store) -> Result<Chunks> {
        list(store, &self.chunks, &self.root)
    }

    /// Fetches the list of the unified kernel image's chunks; `None` when the release has no such list.
    ///
    /// # Errors
    /// As [`chunks`](Self::chunks).
    pub fn uki_chunks(&self, store: &mut impl Store) -> Result<Option<Chunks>> {
        let chunks = self.uki_chunks.as_ref();
        chunks
            .map(|chunks| list(store, chunks, &self.uki))
            .transpose()
    }
}

fn list(store: &mut impl Store, chunks: &Descriptor, image: &Descriptor) -> Result<Chunks> {
    let bytes = store.blob(&chunks.digest, LIST_MAX_BYTES)?;
    ensure!(
        Digest::of(&bytes) == chunks.digest,
        "the list of chunks is not what its digest says"
    );
    let chunks = Chunks::decode(&bytes)?;
    ensure!(
        chunks.size_bytes() == image.size,
        "the list of chunks is of an image of {} bytes, not {}",
        chunks.size_bytes(),
        image.size
    );
    Ok(chunks)
}

#[cfg(test)]
pub(crate) mod tests;
