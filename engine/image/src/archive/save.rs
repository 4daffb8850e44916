//! `save`: an archive that is an OCI image layout and has Docker's manifest.json beside it, as Docker 25 and later write.

use keelson_image::document::{CONTAINERD_NAME, Descriptor, Index, Manifest, REF_NAME, media};
use keelson_image::{Digest, Image, Reference, Store};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Write};

/// Writes images to standard output. A name stands for its image under that name; a number for all its names.
///
/// # Errors
/// When there is no such image; then nothing is written.
pub(crate) fn save(store: &Store, names: &[String]) -> anyhow::Result<()> {
    let mut chosen: Vec<(Image, Vec<Reference>)> = Vec::new();
    for name in names {
        let image = store.find(name)?;
        let reference = name.parse::<Reference>().ok();
        let named = reference.filter(|reference| image.repo_tags.contains(&reference.familiar()));
        let names: Vec<Reference> = match named {
            Some(reference) => vec![reference],
            None => image
                .repo_tags
                .iter()
                .filter_map(|tag| tag.parse().ok())
                .collect(),
        };
        match chosen.iter_mut().find(|(other, _)| other.id == image.id) {
            Some((_, all)) => all.extend(names),
            None => chosen.push((image, names)),
        }
    }
    let out = io::BufWriter::new(io::stdout().lock());
    let mut archive = tar::Builder::new(out);
    write(store, &chosen, &mut archive)?;
    archive.into_inner()?.flush()?;
    Ok(())
}

fn write(
    store: &Store,
    chosen: &[(Image, Vec<Reference>)],
    archive: &mut tar::Builder<impl Write>,
) -> anyhow::Result<()> {
    let mut blobs: BTreeSet<Digest> = BTreeSet::new();
    let (mut index, mut docker) = (Vec::new(), Vec::new());
    for (image, names) in chosen {
        let manifest: Manifest = store.document(&image.manifest)?;
        blobs.insert(image.manifest.clone());
        blobs.insert(manifest.config.digest.clone());
        blobs.extend(manifest.layers.iter().map(|layer| layer.digest.clone()));
        let size = store.blob(&image.manifest).metadata()?.len();
        let descriptor = |annotations| Descriptor {
            media_type: manifest
                .media_type
                .clone()
                .unwrap_or(media::MANIFEST.to_owned()),
            digest: image.manifest.clone(),
            size,
            platform: None,
            annotations,
        };
        if names.is_empty() {
            index.push(descriptor(BTreeMap::new()));
        }
        index.extend(names.iter().map(|name| {
            let tag = name.tag.clone().unwrap_or_default();
            descriptor(BTreeMap::from([
                (CONTAINERD_NAME.to_owned(), name.to_string()),
                (REF_NAME.to_owned(), tag),
            ]))
        }));
        let path = |digest: &Digest| format!("blobs/sha256/{}", digest.hex());
        let tags: Vec<String> = names.iter().map(Reference::familiar).collect();
        let layers: Vec<String> = manifest
            .layers
            .iter()
            .map(|layer| path(&layer.digest))
            .collect();
        docker.push(json!({
            "Config": path(&manifest.config.digest), "RepoTags": tags, "Layers": layers,
        }));
    }
    let index = Index {
        schema_version: 2,
        media_type: Some(media::INDEX.to_owned()),
        manifests: index,
    };
    for digest in &blobs {
        let file = File::open(store.blob(digest))?;
        let mut header = header(file.metadata()?.len());
        let name = format!("blobs/sha256/{}", digest.hex());
        archive.append_data(&mut header, name, file)?;
    }
    for (name, value) in [
        ("index.json", serde_json::to_value(&index)?),
        ("manifest.json", Value::from(docker)),
        ("oci-layout", json!({ "imageLayoutVersion": "1.0.0" })),
    ] {
        let text = serde_json::to_vec(&value)?;
        let mut header = header(text.len() as u64);
        archive.append_data(&mut header, name, &text[..])?;
    }
    Ok(())
}

/// Root's, readable, of no time: the same images make the same archive.
fn header(size: u64) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_size(size);
    header.set_mode(0o644);
    header.set_mtime(0);
    header
}
