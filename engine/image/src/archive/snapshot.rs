//! `commit`: an image of what a container has written, on top of the image that it was made from.

use super::import::changes;
use super::pack::{Packer, Tree};
use crate::arguments::Snapshot;
use crate::failure::Failure;
use crate::progress::Progress;
use crate::{blob, commit, unpack};
use anyhow::{Context, anyhow};
use keelson_image::document::{Configuration, History, Manifest, chain_ids, media};
use keelson_image::store::Mark;
use keelson_image::{Digest, Reference, Store};
use serde_json::{Map, Value, json};
use std::io::{self, BufWriter};
use std::path::Path;
use std::thread;
use std::time::SystemTime;

/// What a container's configuration has that an image's has not.
const OF_CONTAINERS: [&str; 9] = [
    "AttachStderr",
    "AttachStdin",
    "AttachStdout",
    "Domainname",
    "Hostname",
    "Image",
    "OpenStdin",
    "StdinOnce",
    "Tty",
];

/// Makes an image. The container's configuration is on standard input.
///
/// # Errors
/// When the parent is not in the store, or something cannot be read; then there is no image.
pub(crate) fn snapshot(store: &Store, asked: &Snapshot, progress: &Progress) -> anyhow::Result<()> {
    let reference = asked.reference.as_deref().map(|name| {
        name.parse::<Reference>()
            .map_err(|why| Failure::error(400, why))
    });
    let reference = reference.transpose()?;
    let mut config: Map<String, Value> =
        serde_json::from_reader(io::stdin().lock()).context("the container's configuration")?;
    config.retain(|key, value| !value.is_null() && !OF_CONTAINERS.contains(&key.as_str()));
    let config = changes(config, &asked.changes)?;

    let parent = store.find(&asked.parent)?;
    let below: Manifest = store.document(&parent.manifest)?;
    let (layer, size) = pack(store, &asked.root)?;
    let mut mark = Mark::set(store, std::slice::from_ref(&layer))?;
    let mut configuration = Configuration {
        created: Some(humantime::format_rfc3339_seconds(SystemTime::now()).to_string()),
        author: asked.author.clone().or(parent.configuration.author.clone()),
        ..parent.configuration.clone()
    };
    configuration.rootfs.diff_ids.push(layer.clone());
    configuration.history.push(History {
        created: configuration.created.clone(),
        created_by: words(&config),
        comment: asked.message.clone(),
        empty_layer: false,
    });
    configuration.config = Value::Object(config);
    let chain = chain_ids(&configuration.rootfs.diff_ids);
    let chain = chain.last().context("it has no layers")?;
    mark.add(store, std::slice::from_ref(chain))?;
    // It is not compressed: its digest is that of its content.
    unpack::layer(
        store,
        &layer,
        &layer,
        chain,
        &parent.layers,
        &Progress::silent(),
    )?;

    let mut layers = below.layers;
    layers.push(commit::descriptor(media::LAYER, &layer, size));
    let id = commit::image(store, &configuration, layers, reference)?;
    progress.line(&json!({ "status": id }));
    Ok(())
}

/// The upper directory as a blob.
fn pack(store: &Store, upper: &Path) -> anyhow::Result<(Digest, u64)> {
    let (mut reader, writer) = io::pipe().context("make a pipe")?;
    let upper = upper.to_owned();
    let packing = thread::spawn(move || {
        let mut packer = Packer::new(BufWriter::new(writer), Tree::Upper);
        // A container that never ran has written nothing.
        if upper.exists() {
            packer.content(&upper, Path::new(""))?;
        }
        packer.finish()
    });
    let put = blob::put_stream(store, &mut reader, None);
    drop(reader);
    let packed = packing.join().map_err(|_| anyhow!("packing has failed"))?;
    // What could not be read says more than that the pipe ended.
    let put = put?;
    packed?;
    Ok(put)
}

/// What the container ran.
fn words(config: &Map<String, Value>) -> Option<String> {
    let list = |key: &str| {
        config
            .get(key)
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
    };
    let all: Vec<&str> = list("Entrypoint")
        .chain(list("Cmd"))
        .filter_map(Value::as_str)
        .collect();
    (!all.is_empty()).then(|| all.join(" "))
}
