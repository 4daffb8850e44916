//! A release as an OCI image layout: manifest, unified kernel image, root image, list of chunks, bill of materials, signature.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use keelson_image::Digest;
use keelson_image::document::Index;
use keelson_upgrade::release::chunks::Chunks;
use keelson_upgrade::release::document::{Description, Descriptor, Manifest, REF_NAME, media};
use keelson_upgrade::release::signature::{self, Keys};
use keelson_upgrade::uki;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{Arguments, tools};

const INDEX_TYPE: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG_TYPE: &str = "application/vnd.oci.image.config.v1+json";

/// What was made.
#[derive(Debug)]
pub(crate) struct Released {
    /// Its version.
    pub(crate) version: String,
    /// Digest of its manifest.
    pub(crate) digest: Digest,
    /// Its tags and that of its signature.
    pub(crate) tags: Vec<String>,
}

/// `manifest.json` of the image builder, as far as it matters here.
#[derive(Debug, Deserialize)]
struct Built {
    version: String,
    source_date_epoch: u64,
    root: Root,
}

#[derive(Debug, Deserialize)]
struct Root {
    root_hash: String,
    hash_offset_bytes: u64,
}

/// Adds a release to a layout.
///
/// # Errors
/// The built image is not whole, a key is missing, or the layout cannot be written.
pub(crate) fn release(arguments: &Arguments) -> Result<Released> {
    let from = |name: &str| arguments.from.join(name);
    let built = fs::read(from("manifest.json")).with_context(|| {
        format!(
            "read {} (./mkimage.sh build makes it)",
            from("manifest.json").display()
        )
    })?;
    let built: Built = serde_json::from_slice(&built).context("read manifest.json")?;
    let key = arguments.sign.join("release.key");
    ensure!(
        key.is_file(),
        "{} is missing: ./mkimage.sh keys makes it",
        key.display()
    );
    let layout = Layout::open(&arguments.output)?;
    let scratch = tempfile::tempdir_in(&arguments.output).context("make a temporary folder")?;
    let uki = scratch.path().join("uki");
    tools::from_esp(
        &from("keelson.img"),
        &format!("EFI/Linux/keelson_{}.efi", built.version),
        &uki,
    )?;
    belongs(&uki, &built)?;
    let created = std::time::UNIX_EPOCH + std::time::Duration::from_secs(built.source_date_epoch);
    let description = Description {
        version: built.version.clone(),
        architecture: "amd64".to_owned(),
        created: humantime::format_rfc3339_seconds(created).to_string(),
        expires: arguments.expires.clone(),
        staged: arguments.staged,
        root_hash: built.root.root_hash,
        hash_offset_bytes: built.root.hash_offset_bytes,
    };
    let chunks = chunks(&from("root.img"))?;
    let uki_chunks = self::chunks(&uki)?;
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.to_owned()),
        artifact_type: Some(media::RELEASE.to_owned()),
        config: layout.add(media::DESCRIPTION, &serde_json::to_vec(&description)?)?,
        layers: vec![
            layout.add_file(media::UKI, &uki)?,
            layout.add_file(media::ROOT, &from("root.img"))?,
            layout.add(media::CHUNKS, &chunks.encode())?,
            layout.add(media::UKI_CHUNKS, &uki_chunks.encode())?,
            layout.add_file(media::SBOM, &from("keelson.spdx.json"))?,
        ],
        annotations: BTreeMap::from([
            (
                "org.opencontainers.image.version".to_owned(),
                built.version.clone(),
            ),
            (
                "org.opencontainers.image.created".to_owned(),
                description.created.clone(),
            ),
        ]),
    };
    let release = layout.add(media::MANIFEST, &serde_json::to_vec(&manifest)?)?;
    let signatures = sign(&layout, &release.digest, &key, scratch.path())?;
    let mut tags = vec![signature::tag(&release.digest)];
    layout.name(&signatures, &tags)?;
    let mut names = vec![Description::tag(&built.version)];
    names.extend(arguments.channel.iter().cloned());
    layout.name(&release, &names)?;
    tags.extend(names);
    Ok(Released {
        version: built.version,
        digest: release.digest,
        tags,
    })
}

fn chunks(image: &Path) -> Result<Chunks> {
    let reading = || format!("read {}", image.display());
    let file = File::open(image).with_context(reading)?;
    Chunks::of(BufReader::new(file)).with_context(reading)
}

/// A kernel that starts another root is no release.
fn belongs(uki: &Path, built: &Built) -> Result<()> {
    let mut file = File::open(uki).context("open the unified kernel image")?;
    let line = uki::command_line(&mut file).context("read the unified kernel image")?;
    ensure!(
        line.contains(&format!("keelson.roothash={}", built.root.root_hash)),
        "keelson.img and manifest.json are of different builds"
    );
    Ok(())
}

fn sign(layout: &Layout, digest: &Digest, key: &Path, scratch: &Path) -> Result<Descriptor> {
    let payload = signature::payload(digest, "keelson");
    let file = scratch.join("payload");
    fs::write(&file, &payload).context("write the payload")?;
    let signature = STANDARD.encode(tools::sign(key, &file)?);
    // As a machine would look at it.
    tools::public_key(key, &scratch.join("release.pub"))?;
    Keys::read(scratch)?.check(digest, &payload, &signature)?;
    let mut layer = layout.add(signature::PAYLOAD_TYPE, &payload)?;
    layer
        .annotations
        .insert(signature::ANNOTATION.to_owned(), signature);
    let config = serde_json::json!({
        "architecture": "", "os": "", "config": {},
        "rootfs": {"type": "layers", "diff_ids": [&layer.digest]},
    });
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.to_owned()),
        artifact_type: None,
        config: layout.add(CONFIG_TYPE, &serde_json::to_vec(&config)?)?,
        layers: vec![layer],
        annotations: BTreeMap::new(),
    };
    layout.add(media::MANIFEST, &serde_json::to_vec(&manifest)?)
}

/// An OCI image layout that is written.
struct Layout {
    root: PathBuf,
}

impl Layout {
    fn open(root: &Path) -> Result<Self> {
        let making = || format!("make the image layout {}", root.display());
        fs::create_dir_all(root.join("blobs/sha256")).with_context(making)?;
        fs::write(
            root.join("oci-layout"),
            "{\"imageLayoutVersion\":\"1.0.0\"}",
        )
        .with_context(making)?;
        Ok(Layout {
            root: root.to_owned(),
        })
    }

    fn blob(&self, digest: &Digest) -> PathBuf {
        self.root.join("blobs/sha256").join(digest.hex())
    }

    fn add(&self, kind: &str, content: &[u8]) -> Result<Descriptor> {
        let digest = Digest::of(content);
        let path = self.blob(&digest);
        let new = path.with_extension("new");
        fs::write(&new, content)
            .and_then(|()| fs::rename(&new, &path))
            .with_context(|| format!("write {}", path.display()))?;
        Ok(descriptor(kind, digest, content.len() as u64))
    }

    fn add_file(&self, kind: &str, from: &Path) -> Result<Descriptor> {
        let reading = || format!("read {}", from.display());
        let mut hasher = Sha256::new();
        let mut file = File::open(from).with_context(reading)?;
        let size = std::io::copy(&mut file, &mut hasher).with_context(reading)?;
        let digest = Digest::finish(hasher);
        let path = self.blob(&digest);
        if !path.exists() {
            let new = path.with_extension("new");
            fs::copy(from, &new)
                .and_then(|_| fs::rename(&new, &path))
                .with_context(|| format!("write {}", path.display()))?;
        }
        Ok(descriptor(kind, digest, size))
    }

    /// Gives a manifest these tags; what had them before has them no longer.
    fn name(&self, manifest: &Descriptor, tags: &[String]) -> Result<()> {
        let path = self.root.join("index.json");
        let mut index = match fs::read(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Index {
                schema_version: 2,
                media_type: Some(INDEX_TYPE.to_owned()),
                manifests: Vec::new(),
            },
            other => serde_json::from_slice(&other.context("read index.json")?)
                .context("read index.json")?,
        };
        index.manifests.retain(|other| {
            other
                .annotations
                .get(REF_NAME)
                .is_none_or(|tag| !tags.contains(tag))
        });
        for tag in tags {
            let mut named = manifest.clone();
            named.annotations = BTreeMap::from([(REF_NAME.to_owned(), tag.clone())]);
            index.manifests.push(named);
        }
        let new = path.with_extension("new");
        fs::write(&new, serde_json::to_vec_pretty(&index)?)
            .and_then(|()| fs::rename(&new, &path))
            .context("write index.json")
    }
}

fn descriptor(kind: &str, digest: Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest,
        size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}
