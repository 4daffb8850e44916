//! `load`: images from an archive, an OCI image layout or what older Docker versions saved.

use crate::failure::Failure;
use crate::progress::Progress;
use crate::unpack::{self, decompress};
use crate::{blob, commit};
use anyhow::{Context, bail};
use keelson_image::document::{
    CONTAINERD_NAME, Configuration, Descriptor, Index, Manifest, REF_NAME, chain_ids, media,
};
use keelson_image::store::{DOCUMENT_MAX_BYTES, Entry, Mark};
use keelson_image::{Digest, Reference, Store};
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tar::EntryType;

/// One image of Docker's manifest.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Saved {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    layers: Vec<String>,
}

/// Takes every image of the archive on standard input.
///
/// # Errors
/// When it is no such archive, or something in it is not what its digest says; images that came before stay.
pub(crate) fn load(store: &Store, progress: &Progress) -> anyhow::Result<()> {
    let spread = Spread::out(store)?;
    if let Some(text) = spread.read("index.json")? {
        let index: Index = serde_json::from_slice(&text).context("index.json of the archive")?;
        return index
            .manifests
            .iter()
            .try_for_each(|descriptor| layout(store, &spread, descriptor, progress));
    }
    let Some(text) = spread.read("manifest.json")? else {
        return Err(Failure::error(
            400,
            "the archive has neither index.json nor manifest.json: it is no image",
        ));
    };
    let saved: Vec<Saved> =
        serde_json::from_slice(&text).context("manifest.json of the archive")?;
    saved
        .iter()
        .try_for_each(|image| docker(store, &spread, image, progress))
}

/// The files of an archive, on the disk for as long as they are looked at.
struct Spread {
    directory: PathBuf,
    /// Names that stand for other files of it.
    links: BTreeMap<PathBuf, PathBuf>,
}

impl Drop for Spread {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}

impl Spread {
    fn out(store: &Store) -> anyhow::Result<Self> {
        let directory = store.incoming(&format!("{}.load", std::process::id()));
        let _ = fs::remove_dir_all(&directory);
        fs::create_dir(&directory).with_context(|| format!("make {}", directory.display()))?;
        let mut spread = Self {
            directory,
            links: BTreeMap::new(),
        };
        let mut archive = tar::Archive::new(decompress::reader(io::stdin().lock())?);
        for entry in archive.entries().context("read the archive")? {
            let mut entry = entry.context("read the archive")?;
            let name = entry.path()?.into_owned();
            let Some(plain) = plain(&name) else {
                bail!("the archive's name {} leads out", name.display());
            };
            match entry.header().entry_type() {
                EntryType::Regular | EntryType::Continuous => {
                    let path = spread.directory.join(&plain);
                    if let Some(parent) = path.parent() {
                        fs::create_dir_all(parent)?;
                    }
                    let mut file = File::create(&path)?;
                    io::copy(&mut entry, &mut file)
                        .with_context(|| format!("unpack {}", name.display()))?;
                }
                EntryType::Symlink | EntryType::Link => {
                    let target = entry
                        .link_name()?
                        .context("a link leads nowhere")?
                        .into_owned();
                    let base = match entry.header().entry_type() {
                        EntryType::Symlink => plain.parent().unwrap_or(Path::new("")).to_owned(),
                        _ => PathBuf::new(),
                    };
                    spread.links.insert(plain, normal(&base.join(target)));
                }
                _ => {}
            }
        }
        Ok(spread)
    }

    fn path(&self, name: &str) -> anyhow::Result<PathBuf> {
        let plain = plain(Path::new(name))
            .with_context(|| format!("the archive's name {name} leads out"))?;
        let target = self.links.get(&plain).unwrap_or(&plain);
        let safe =
            self::plain(target).with_context(|| format!("the archive's link {name} leads out"))?;
        Ok(self.directory.join(safe))
    }

    /// A document, when there is one of that name.
    fn read(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let file = match File::open(self.path(name)?) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            other => other.with_context(|| format!("read {name} of the archive"))?,
        };
        let mut text = Vec::new();
        file.take(DOCUMENT_MAX_BYTES + 1).read_to_end(&mut text)?;
        if text.len() as u64 > DOCUMENT_MAX_BYTES {
            bail!("{name} of the archive is too long for a document");
        }
        Ok(Some(text))
    }

    fn document(&self, name: &str) -> anyhow::Result<Vec<u8>> {
        self.read(name)?
            .with_context(|| format!("the archive has no {name}"))
    }
}

/// A name without `/` in front, `.` and `..`; `None` for one that leads out.
fn plain(name: &Path) -> Option<PathBuf> {
    use std::path::Component;
    let mut plain = PathBuf::new();
    for part in name.components() {
        match part {
            Component::Normal(part) => plain.push(part),
            Component::RootDir | Component::CurDir => {}
            _ => return None,
        }
    }
    Some(plain)
}

/// A path with `..` worked out, as text: links of old archives go `../HEX/layer.tar`.
fn normal(path: &Path) -> PathBuf {
    use std::path::Component;
    let mut normal = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => drop(normal.pop()),
            Component::Normal(part) => normal.push(part),
            _ => {}
        }
    }
    normal
}

fn layout(
    store: &Store,
    spread: &Spread,
    descriptor: &Descriptor,
    progress: &Progress,
) -> anyhow::Result<()> {
    let name = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
    let bytes = spread.document(&name(&descriptor.digest))?;
    if Digest::of(&bytes) != descriptor.digest {
        bail!(
            "the archive's {} is not what it is called",
            descriptor.digest
        );
    }
    if media::is_index(&descriptor.media_type) {
        let index: Index =
            serde_json::from_slice(&bytes).context("a list of manifests in the archive")?;
        // Of several platforms those that the archive has: Docker saves one and lists them all.
        return index
            .manifests
            .iter()
            .filter(|inner| {
                spread
                    .path(&name(&inner.digest))
                    .is_ok_and(|path| path.exists())
            })
            .try_for_each(|inner| {
                let mut inner = inner.clone();
                inner.annotations.extend(descriptor.annotations.clone());
                layout(store, spread, &inner, progress)
            });
    }
    let manifest: Manifest = serde_json::from_slice(&bytes).context("a manifest in the archive")?;
    let named = descriptor.annotations.get(CONTAINERD_NAME);
    let named = named.or_else(|| descriptor.annotations.get(REF_NAME));
    // A layout's own names may be tags alone, which name nothing.
    let reference = named
        .filter(|name| name.contains(['/', ':']))
        .and_then(|name| name.parse::<Reference>().ok());
    let parts = Parts {
        config: spread.path(&name(&manifest.config.digest))?,
        layers: manifest
            .layers
            .iter()
            .map(|layer| spread.path(&name(&layer.digest)))
            .collect::<Result<_, _>>()?,
    };
    take(
        store,
        &bytes,
        &manifest,
        &parts,
        &reference.into_iter().collect::<Vec<_>>(),
        progress,
    )
}

/// Where the content of an image is.
struct Parts {
    config: PathBuf,
    layers: Vec<PathBuf>,
}

/// An image of an older archive has no manifest: one is made.
fn docker(
    store: &Store,
    spread: &Spread,
    image: &Saved,
    progress: &Progress,
) -> anyhow::Result<()> {
    let config = spread.document(&image.config)?;
    let mut layers = Vec::new();
    let mut paths = Vec::new();
    for name in &image.layers {
        let path = spread.path(name)?;
        let mut file = File::open(&path).with_context(|| format!("the archive has no {name}"))?;
        let (digest, size) = blob::put_stream(store, &mut file, None)?;
        layers.push(Descriptor {
            media_type: media::LAYER.to_owned(),
            digest,
            size,
            platform: None,
            annotations: BTreeMap::new(),
        });
        paths.push(path);
    }
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.to_owned()),
        config: Descriptor {
            media_type: media::CONFIG.to_owned(),
            digest: Digest::of(&config),
            size: config.len() as u64,
            platform: None,
            annotations: BTreeMap::new(),
        },
        layers,
    };
    let bytes = serde_json::to_vec(&manifest)?;
    let tags = image.repo_tags.iter().flatten();
    let names = tags
        .map(|tag| {
            tag.parse::<Reference>()
                .map_err(|why| Failure::error(400, why))
        })
        .collect::<Result<Vec<_>, _>>()?;
    let parts = Parts {
        config: spread.path(&image.config)?,
        layers: paths,
    };
    take(store, &bytes, &manifest, &parts, &names, progress)
}

/// Puts one image into the store, under all its names.
fn take(
    store: &Store,
    bytes: &[u8],
    manifest: &Manifest,
    parts: &Parts,
    names: &[Reference],
    progress: &Progress,
) -> anyhow::Result<()> {
    let mut needed = vec![Digest::of(bytes), manifest.config.digest.clone()];
    needed.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
    let mut mark = Mark::set(store, &needed)?;
    put_file(store, &parts.config, &manifest.config.digest)?;
    let configuration: Configuration = store.document(&manifest.config.digest)?;
    let diff_ids = &configuration.rootfs.diff_ids;
    if diff_ids.len() != manifest.layers.len() {
        bail!(
            "the image has {} layers and its configuration {}",
            manifest.layers.len(),
            diff_ids.len()
        );
    }
    let chain = chain_ids(diff_ids);
    mark.add(store, &chain)?;
    for (at, layer) in manifest.layers.iter().enumerate() {
        put_file(store, &parts.layers[at], &layer.digest)?;
        let below: Vec<PathBuf> = chain[..at].iter().rev().map(|id| store.layer(id)).collect();
        unpack::layer(
            store,
            &layer.digest,
            &diff_ids[at],
            &chain[at],
            &below,
            progress,
        )?;
    }
    let digest = blob::put(store, bytes)?;
    let entry = |reference: Option<&Reference>| Entry {
        manifest: digest.clone(),
        size: bytes.len() as u64,
        reference: reference.cloned(),
        pulled: None,
    };
    for name in names {
        commit::commit(store, entry(Some(name)))?;
        progress.line(&json!({ "stream": format!("Loaded image: {}\n", name.familiar()) }));
    }
    if names.is_empty() {
        commit::commit(store, entry(None))?;
        let id = &manifest.config.digest;
        progress.line(&json!({ "stream": format!("Loaded image ID: {id}\n") }));
    }
    Ok(())
}

fn put_file(store: &Store, path: &Path, digest: &Digest) -> anyhow::Result<()> {
    if store.blob(digest).exists() {
        return Ok(());
    }
    let mut file = File::open(path).with_context(|| format!("the archive lacks {digest}"))?;
    blob::put_stream(store, &mut file, Some(digest)).map(drop)
}
