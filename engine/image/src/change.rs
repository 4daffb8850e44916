//! Names given and taken, images removed, and what nobody needs cleaned away.

use crate::commit::{commit, lose_name};
use crate::failure::Failure;
use anyhow::Context;
use keelson_image::document::{Configuration, Manifest, chain_ids};
use keelson_image::store::{Entry, Error, Lock, Mark};
use keelson_image::{Digest, Image, Reference, Store};
use rustix::fs::{FlockOperation, flock};
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::Path;

/// Gives an image one more name.
///
/// # Errors
/// When there is no such image, or it is no name.
pub(crate) fn tag(store: &Store, source: &str, target: &str) -> anyhow::Result<()> {
    let image = store.find(source)?;
    let reference: Reference = target
        .parse()
        .map_err(|why: String| Failure::error(400, why))?;
    if reference.digest.is_some() {
        return Err(Failure::error(
            400,
            "refusing to create a tag with a digest reference",
        ));
    }
    let size = fs::metadata(store.blob(&image.manifest))?.len();
    let entries = store.entries()?;
    let pulled = entries
        .into_iter()
        .find(|entry| entry.manifest == image.manifest)
        .and_then(|entry| entry.pulled);
    commit(
        store,
        Entry {
            manifest: image.manifest,
            size,
            // A digest is a registry's word for a repository, not for another one.
            pulled: pulled.filter(|(name, _)| *name == reference.familiar_name()),
            reference: Some(reference),
        },
    )?;
    Ok(())
}

/// Takes a name away, and the image with its last name.
///
/// # Errors
/// When there is no such image, or a container needs it.
pub(crate) fn remove(store: &Store, name: &str, force: bool) -> anyhow::Result<()> {
    let told = {
        let _lock = Lock::exclusive(store)?;
        let image = store.find(name)?;
        let mut entries = store.entries()?;
        let named = named(&image, name);
        let told = match named {
            Some(reference) if image.repo_tags.len() > 1 => {
                lose_name(&mut entries, &reference);
                vec![json!({ "Untagged": reference.familiar() })]
            }
            _ => remove_whole(store, &image, &mut entries, named.is_none(), force)?,
        };
        store.replace_entries(&entries)?;
        told
    };
    collect(store)?;
    println!("{}", Value::from(told));
    Ok(())
}

/// The tag that was meant, when one was.
fn named(image: &Image, name: &str) -> Option<Reference> {
    let reference: Reference = name.parse().ok()?;
    image
        .repo_tags
        .contains(&reference.familiar())
        .then_some(reference)
}

fn remove_whole(
    store: &Store,
    image: &Image,
    entries: &mut Vec<Entry>,
    by_number: bool,
    force: bool,
) -> anyhow::Result<Vec<Value>> {
    let short = image.id.short();
    if by_number && image.repo_tags.len() > 1 && !force {
        let why = format!(
            "conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories"
        );
        return Err(Failure::error(409, why));
    }
    let leases = store.leases()?;
    if let Some(holder) = leases.get(&image.id).and_then(|holders| holders.first()) {
        let name = image.repo_tags.first().map_or(short, String::as_str);
        let why = format!(
            "conflict: unable to remove repository reference \"{name}\" - container {holder} is using its referenced image {short}"
        );
        return Err(Failure::error(409, why));
    }
    entries.retain(|entry| entry.manifest != image.manifest);
    let untagged = image.repo_tags.iter().chain(&image.repo_digests);
    let mut told: Vec<Value> = untagged.map(|name| json!({ "Untagged": name })).collect();
    told.push(json!({ "Deleted": image.id }));
    Ok(told)
}

/// Removes images that have no name, or with `all` those that no container needs.
///
/// # Errors
/// What the system calls report.
pub(crate) fn prune(store: &Store, all: bool) -> anyhow::Result<()> {
    let mut told = Vec::new();
    {
        let _lock = Lock::exclusive(store)?;
        let (mut entries, leases) = (store.entries()?, store.leases()?);
        for image in store.images()? {
            if leases.contains_key(&image.id) || !(all || image.repo_tags.is_empty()) {
                continue;
            }
            told.extend(remove_whole(store, &image, &mut entries, true, true)?);
        }
        store.replace_entries(&entries)?;
    }
    let reclaimed = collect(store)?;
    println!(
        "{}",
        json!({ "ImagesDeleted": told, "SpaceReclaimed": reclaimed })
    );
    Ok(())
}

/// Removes what no image and no pull that lives needs. Gives the bytes that the blobs took.
///
/// # Errors
/// What the system calls report.
pub(crate) fn collect(store: &Store) -> anyhow::Result<u64> {
    let _lock = Lock::exclusive(store)?;
    let mut needed = Mark::all(store)?;
    for entry in store.entries()? {
        needed.extend(reach(store, &entry.manifest)?);
    }
    let is_needed = |name: &str| {
        let digest = format!("sha256:{name}").parse::<Digest>();
        digest.is_ok_and(|digest| needed.contains(&digest))
    };
    let mut reclaimed = 0;
    for directory in ["blobs/sha256", "layers"] {
        let directory = store.directory().join(directory);
        for (name, path) in children(&directory)? {
            if is_needed(&name) {
                continue;
            }
            reclaimed += fs::symlink_metadata(&path)
                .map_or(0, |data| if data.is_file() { data.len() } else { 0 });
            remove_path(&path)?;
        }
    }
    clear_incoming(store)?;
    Ok(reclaimed)
}

/// All that an image is made of. One whose documents are gone needs nothing.
fn reach(store: &Store, manifest: &Digest) -> anyhow::Result<BTreeSet<Digest>> {
    let mut reached = BTreeSet::from([manifest.clone()]);
    let document: Manifest = match store.document(manifest) {
        Err(Error::Io(_, error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(reached);
        }
        other => other?,
    };
    reached.insert(document.config.digest.clone());
    reached.extend(document.layers.into_iter().map(|layer| layer.digest));
    if let Ok(configuration) = store.document::<Configuration>(&document.config.digest) {
        reached.extend(chain_ids(&configuration.rootfs.diff_ids));
    }
    Ok(reached)
}

/// Removes what was left half done by somebody who does not work on it any more.
fn clear_incoming(store: &Store) -> anyhow::Result<()> {
    for (name, path) in children(&store.incoming(""))? {
        let Some((stem, kind)) = name.split_once('.') else {
            continue;
        };
        if kind == "mark" {
            continue;
        }
        // What a live pull has under way is locked by its digest; other files bear the number of their process.
        let lock = store.incoming(&format!("{stem}.lock"));
        let held = File::open(&lock)
            .is_ok_and(|file| flock(&file, FlockOperation::NonBlockingLockExclusive).is_err());
        let number = stem.split('-').next().unwrap_or_default();
        let lives = matches!(kind, "new" | "load") && Path::new("/proc").join(number).exists();
        if !held && !lives && kind != "lock" {
            remove_path(&path)?;
        }
    }
    Ok(())
}

fn children(directory: &Path) -> anyhow::Result<Vec<(String, std::path::PathBuf)>> {
    let entries =
        fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?;
    let mut children = Vec::new();
    for entry in entries {
        let entry = entry.with_context(|| format!("read {}", directory.display()))?;
        children.push((
            entry.file_name().to_string_lossy().into_owned(),
            entry.path(),
        ));
    }
    Ok(children)
}

fn remove_path(path: &Path) -> anyhow::Result<()> {
    let removed = match fs::symlink_metadata(path).map(|data| data.is_dir()) {
        Ok(true) => fs::remove_dir_all(path),
        _ => fs::remove_file(path),
    };
    removed.with_context(|| format!("remove {}", path.display()))
}
