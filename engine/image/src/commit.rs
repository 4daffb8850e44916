//! The last steps of whatever brings an image: its documents, and its name.

use crate::{blob, failpoint};
use keelson_image::document::{Configuration, Descriptor, Manifest, media};
use keelson_image::store::{Entry, Lock};
use keelson_image::{Digest, Reference, Store};
use std::collections::BTreeMap;

/// Makes an image of layers that are in the store already; its number.
///
/// # Errors
/// When a document cannot be written.
pub(crate) fn image(
    store: &Store,
    configuration: &Configuration,
    layers: Vec<Descriptor>,
    reference: Option<Reference>,
) -> anyhow::Result<Digest> {
    let text = serde_json::to_vec(configuration)?;
    let id = blob::put(store, &text)?;
    let manifest = serde_json::to_vec(&Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.to_owned()),
        config: descriptor(media::CONFIG, &id, text.len() as u64),
        layers,
    })?;
    let entry = Entry {
        manifest: blob::put(store, &manifest)?,
        size: manifest.len() as u64,
        reference,
        pulled: None,
    };
    commit(store, entry)?;
    Ok(id)
}

/// What points to content of the store.
pub(crate) fn descriptor(kind: &str, digest: &Digest, size: u64) -> Descriptor {
    Descriptor {
        media_type: kind.to_owned(),
        digest: digest.clone(),
        size,
        platform: None,
        annotations: BTreeMap::new(),
    }
}

/// Gives an image its entry. A name that another image had is taken from it; that one stays without, until it is cleaned
/// away. Returns whether anything changed.
///
/// # Errors
/// When index.json cannot be read or written.
pub(crate) fn commit(store: &Store, entry: Entry) -> anyhow::Result<bool> {
    let _lock = Lock::exclusive(store)?;
    let mut entries = store.entries()?;
    if entries.contains(&entry) {
        return Ok(false);
    }
    if let Some(reference) = &entry.reference {
        lose_name(&mut entries, reference);
    }
    entries.retain(|other| !(other.reference.is_none() && other.manifest == entry.manifest));
    entries.push(entry);
    failpoint::reach("before-index");
    store.replace_entries(&entries)?;
    failpoint::reach("after-index");
    Ok(true)
}

/// Takes a name from whoever has it; an image that has no other name stays as one without.
pub(crate) fn lose_name(entries: &mut Vec<Entry>, reference: &Reference) {
    let Some(at) = entries
        .iter()
        .position(|entry| entry.reference.as_ref() == Some(reference))
    else {
        return;
    };
    let mut entry = entries.remove(at);
    if entries.iter().any(|other| other.manifest == entry.manifest) {
        return;
    }
    entry.reference = None;
    entries.push(entry);
}
