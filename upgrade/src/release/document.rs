//! The manifest of a release, and its configuration: what the release says of itself.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
pub use keelson_image::document::Descriptor;
use serde::{Deserialize, Serialize};

use crate::entry::is_version;

/// Media types.
pub mod media {
    /// A manifest (OCI image specification 1.1).
    pub const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
    /// `artifactType` of a release.
    pub const RELEASE: &str = "application/vnd.keelson.os.release.v1";
    /// What a release says of itself.
    pub const DESCRIPTION: &str = "application/vnd.keelson.os.description.v1+json";
    /// The unified kernel image (UAPI.5).
    pub const UKI: &str = "application/vnd.keelson.os.uki.v1";
    /// The root image as it stands in a slot.
    pub const ROOT: &str = "application/vnd.keelson.os.root.v1";
    /// The list of the root image's chunks, as casync writes it.
    pub const CHUNKS: &str = "application/vnd.keelson.os.chunks.v1+caibx";
    /// The list of the unified kernel image's chunks, in the same format.
    pub const UKI_CHUNKS: &str = "application/vnd.keelson.os.uki-chunks.v1+caibx";
    /// The bill of materials.
    pub const SBOM: &str = "application/spdx+json";
}

/// The annotation that names a manifest of a layout.
pub const REF_NAME: &str = "org.opencontainers.image.ref.name";
/// No document is longer, in bytes.
pub const DOCUMENT_MAX_BYTES: u64 = 1024 * 1024;
/// No unified kernel image is longer, in bytes: the EFI system partition holds two.
pub const UKI_MAX_BYTES: u64 = 56 * 1024 * 1024;

/// A manifest.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    /// Always 2.
    pub schema_version: u32,
    /// [`media::MANIFEST`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// [`media::RELEASE`]
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact_type: Option<String>,
    /// The description.
    pub config: Descriptor,
    /// The parts.
    pub layers: Vec<Descriptor>,
    /// More about it, for people.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

impl Manifest {
    /// Reads the manifest of a release.
    ///
    /// # Errors
    /// It is none.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let manifest = Self::read_any(bytes)?;
        let kind = manifest.artifact_type.as_deref().unwrap_or_default();
        ensure!(
            kind == media::RELEASE && manifest.config.media_type == media::DESCRIPTION,
            "it is no release of Keelson: its artifact type is `{kind}`"
        );
        Ok(manifest)
    }

    /// Reads a manifest of any kind.
    ///
    /// # Errors
    /// It is none.
    pub fn read_any(bytes: &[u8]) -> Result<Self> {
        let manifest: Self = serde_json::from_slice(bytes).context("read the manifest")?;
        ensure!(
            manifest.schema_version == 2,
            "the manifest is of another generation, {}",
            manifest.schema_version
        );
        Ok(manifest)
    }

    /// The part of this media type.
    ///
    /// # Errors
    /// There is none.
    pub fn layer(&self, kind: &str) -> Result<&Descriptor> {
        let layer = self.layers.iter().find(|layer| layer.media_type == kind);
        layer.with_context(|| format!("the release has no part of the type {kind}"))
    }
}

/// What a release says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Description {
    /// Its version (UAPI Version Format).
    pub version: String,
    /// Processor, in Go's words.
    pub architecture: String,
    /// When it was made, RFC 3339.
    pub created: String,
    /// From then on it is not taken any more unless asked for by its version, RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<String>,
    /// So many of a hundred machines take it by themselves; all when nothing is said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged: Option<u8>,
    /// Root hash of the root image's dm-verity tree, in hex.
    pub root_hash: String,
    /// Where in the root image the dm-verity superblock is, in bytes.
    pub hash_offset_bytes: u64,
}

impl Description {
    /// Reads one.
    ///
    /// # Errors
    /// It is malformed.
    pub fn read(bytes: &[u8]) -> Result<Self> {
        let description: Self =
            serde_json::from_slice(bytes).context("read the release's description")?;
        ensure!(
            is_version(&description.version),
            "`{}` is no version",
            description.version
        );
        let is_hash = description.root_hash.len() == 64
            && description
                .root_hash
                .bytes()
                .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte));
        ensure!(
            is_hash,
            "`{}` is no root hash: 64 hexadecimal digits",
            description.root_hash
        );
        ensure!(
            description.staged.is_none_or(|staged| staged <= 100),
            "it is staged for more than all machines"
        );
        Ok(description)
    }

    /// The slot's partition GUID: the first half of the root hash (Discoverable Partitions Specification), in the usual notation.
    pub fn slot(&self) -> String {
        let half = hex::decode(self.root_hash.get(..32).unwrap_or_default());
        let half = half.ok().and_then(|bytes| <[u8; 16]>::try_from(bytes).ok());
        uuid::Uuid::from_bytes(half.unwrap_or_default()).to_string()
    }

    /// The tag of a version: what a tag may not hold is replaced (OCI distribution specification, "Pulling manifests").
    pub fn tag(version: &str) -> String {
        version.replace('~', "_")
    }

    /// The version that a tag means; `None` of a channel, a signature and whatever else is there.
    pub fn version_of(tag: &str) -> Option<String> {
        let version = tag.replace('_', "~");
        let is_one = version.starts_with(|first: char| first.is_ascii_digit());
        (is_one && is_version(&version)).then_some(version)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn description() -> serde_json::Value {
        serde_json::json!({
            "version": "1.2.3",
            "architecture": "amd64",
            "created": "2026-01-01T00:00:00Z",
            "root_hash": "0123456789abcdef".repeat(4),
            "hash_offset_bytes": 4096,
        })
    }

    #[test]
    fn a_slot_has_the_first_half_of_the_root_hash() {
        let read = Description::read(description().to_string().as_bytes()).unwrap();
        assert_eq!(read.slot(), "01234567-89ab-cdef-0123-456789abcdef");
        assert_eq!(read.expires, None);
    }

    #[test]
    fn a_tag_means_the_version_that_it_was_made_of() {
        for version in ["1.0", "1.2~rc1", "2026.11-3"] {
            let tag = Description::tag(version);
            assert_eq!(Description::version_of(&tag).as_deref(), Some(version));
        }
        for tag in ["stable", "sha256-00.sig", "", "1/2"] {
            assert_eq!(Description::version_of(tag), None, "{tag}");
        }
    }

    #[test]
    fn versions_and_hashes_that_are_none_are_refused() {
        for (key, value, words) in [
            ("version", "../1", "no version"),
            ("version", "", "no version"),
            ("root_hash", "ABC", "no root hash"),
            ("root_hash", &"A".repeat(64), "no root hash"),
        ] {
            let mut wrong = description();
            wrong[key] = value.into();
            let error = Description::read(wrong.to_string().as_bytes()).unwrap_err();
            assert!(error.to_string().contains(words), "{error}");
        }
        assert!(Description::read(b"{").is_err());
    }
}
