//! Releases as attackers would have them.

use std::collections::BTreeMap;
use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use super::*;

/// A store in memory, and the key that signs.
#[derive(Clone, Default)]
pub(crate) struct Memory {
    pub(crate) manifests: BTreeMap<String, Vec<u8>>,
    pub(crate) blobs: BTreeMap<String, Vec<u8>>,
}

impl Store for Memory {
    fn manifest(&mut self, target: &str) -> Result<Option<Vec<u8>>> {
        Ok(self.manifests.get(target).cloned())
    }

    fn blob(&mut self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let blob = self.blobs.get(digest.as_str()).context("no such blob")?;
        ensure!(blob.len() as u64 <= limit, "too long");
        Ok(blob.clone())
    }
}

impl Memory {
    pub(crate) fn add(&mut self, kind: &str, content: &[u8]) -> serde_json::Value {
        let digest = Digest::of(content);
        self.blobs.insert(digest.to_string(), content.to_vec());
        json!({"mediaType": kind, "digest": digest, "size": content.len()})
    }

    /// A release of this version under this tag, not signed; gives its digest.
    fn release(&mut self, tag: &str, version: &str) -> Digest {
        let image = vec![7; 100_000];
        let chunks = Chunks::of(&image[..]).unwrap().encode();
        let description = json!({
            "version": version, "architecture": "amd64", "created": "2026-01-01T00:00:00Z",
            "root_hash": "0123456789abcdef".repeat(4), "hash_offset_bytes": 4096,
        });
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media::MANIFEST,
            "artifactType": media::RELEASE,
            "config": self.add(media::DESCRIPTION, description.to_string().as_bytes()),
            "layers": [self.add(media::UKI, b"uki"), self.add(media::ROOT, &image), self.add(media::CHUNKS, &chunks)],
        });
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        self.manifests.insert(tag.to_owned(), bytes.clone());
        self.manifests.insert(digest.to_string(), bytes);
        digest
    }

    pub(crate) fn sign(&mut self, digest: &Digest, payload: &[u8], key: &tempfile::TempDir) {
        let file = |name: &str| key.path().join(name).display().to_string();
        std::fs::write(file("payload"), payload).unwrap();
        openssl(&[
            "dgst",
            "-sha256",
            "-sign",
            &file("key"),
            "-out",
            &file("out"),
            &file("payload"),
        ]);
        let mut layer = self.add(signature::PAYLOAD_TYPE, payload);
        let signature = STANDARD.encode(std::fs::read(file("out")).unwrap());
        layer["annotations"] = json!({signature::ANNOTATION: signature});
        let config = self.add("application/vnd.oci.image.config.v1+json", b"{}");
        let manifest = json!({"schemaVersion": 2, "config": config, "layers": [layer]});
        self.manifests
            .insert(signature::tag(digest), manifest.to_string().into_bytes());
    }
}

fn openssl(arguments: &[&str]) {
    let output = Command::new("openssl").args(arguments).output().unwrap();
    assert!(output.status.success(), "{output:?}");
}

pub(crate) fn key() -> (tempfile::TempDir, Keys) {
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str| directory.path().join(name).display().to_string();
    openssl(&[
        "genpkey",
        "-algorithm",
        "EC",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-out",
        &file("key"),
    ]);
    openssl(&[
        "pkey",
        "-pubout",
        "-in",
        &file("key"),
        "-out",
        &file("key.pub"),
    ]);
    let keys = Keys::read(directory.path()).unwrap();
    (directory, keys)
}

#[test]
fn a_signed_release_is_found_with_all_that_belongs_to_it() {
    let (key, keys) = key();
    let mut store = Memory::default();
    let digest = store.release("stable", "2.0");
    store.sign(&digest, &signature::payload(&digest, "keelson"), &key);
    for target in ["stable", digest.as_str()] {
        let release = find(&mut store, target, &keys).unwrap();
        assert_eq!(
            (
                release.description.version.as_str(),
                release.signer.as_str()
            ),
            ("2.0", "key")
        );
        assert_eq!(release.chunks(&mut store).unwrap().size_bytes(), 100_000);
    }
}

#[test]
fn what_no_trusted_key_has_signed_is_refused_with_the_reason() {
    let ((key, keys), (stranger, _)) = (self::key(), self::key());
    let mut store = Memory::default();
    let refusal =
        |store: &mut Memory, target: &str| format!("{:#}", find(store, target, &keys).unwrap_err());
    let digest = store.release("stable", "2.0");
    assert!(refusal(&mut store, "beta").contains("no release `beta`"));
    assert!(refusal(&mut store, "stable").contains("not signed"));
    let payload = signature::payload(&digest, "keelson");
    store.sign(&digest, &payload, &stranger);
    assert!(refusal(&mut store, "stable").contains("none of the keys"));
    // The signature of an older release at the place of this one's.
    let old = store.release("old", "1.0");
    store.sign(&digest, &signature::payload(&old, "keelson"), &key);
    assert!(refusal(&mut store, "stable").contains("of another release"));
    // Another manifest under a digest that was asked for.
    store.sign(&digest, &payload, &key);
    let other = store.manifests["old"].clone();
    store.manifests.insert(digest.to_string(), other);
    assert!(refusal(&mut store, digest.as_str()).contains("has the digest"));
    let error = find(&mut store, "stable", &Keys::default()).unwrap_err();
    assert!(
        error.to_string().contains("trusts no release key"),
        "{error}"
    );
}

#[test]
fn a_signed_manifest_whose_parts_were_exchanged_is_refused() {
    let (key, keys) = key();
    let mut store = Memory::default();
    let digest = store.release("stable", "2.0");
    store.sign(&digest, &signature::payload(&digest, "keelson"), &key);
    let release = find(&mut store, "stable", &keys).unwrap();
    let shorter = Chunks::of(&[7; 50_000][..]).unwrap().encode();
    store
        .blobs
        .insert(release.chunks.digest.to_string(), shorter);
    let error = release.chunks(&mut store).unwrap_err();
    assert!(
        error.to_string().contains("not what its digest says"),
        "{error}"
    );
    let manifest = Manifest::read(&store.manifests["stable"]).unwrap();
    let config = manifest.config.digest.to_string();
    store.blobs.insert(config, b"{}".to_vec());
    let error = find(&mut store, "stable", &keys).unwrap_err();
    assert!(
        error.to_string().contains("not what its digest says"),
        "{error}"
    );
}

#[test]
fn a_signed_manifest_of_something_else_is_no_release() {
    let (key, keys) = key();
    let mut store = Memory::default();
    let config = store.add("application/vnd.oci.image.config.v1+json", b"{}");
    let bytes = json!({"schemaVersion": 2, "config": config, "layers": []})
        .to_string()
        .into_bytes();
    let digest = Digest::of(&bytes);
    store.manifests.insert("stable".to_owned(), bytes);
    store.sign(&digest, &signature::payload(&digest, "app"), &key);
    let error = find(&mut store, "stable", &keys).unwrap_err();
    assert!(
        error.to_string().contains("no release of Keelson"),
        "{error}"
    );
}
