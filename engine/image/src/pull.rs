//! An image from a registry into the store.

use crate::arguments::{self, Request};
use crate::failure::Failure;
use crate::progress::Progress;
use crate::registry::{Credentials, Fetched, Remote};
use crate::{access, blob, change, commit, unpack};
use anyhow::{Context, bail};
use keelson_image::document::{
    Configuration, Descriptor, Index, Manifest, Platform, chain_ids, media,
};
use keelson_image::store::{Entry, Mark};
use keelson_image::{Digest, Reference, Store};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};

/// So many layers come at once.
const PARALLEL: usize = 3;

/// Pulls an image.
///
/// # Errors
/// In Docker's words; then the store is as before.
pub(crate) fn pull(
    store: &Store,
    request: &Request,
    asked: &arguments::Pull,
    progress: &Progress,
) -> anyhow::Result<()> {
    let name: Reference = asked
        .reference
        .parse()
        .map_err(|why: String| Failure::error(400, why))?;
    let platform = platform(asked.platform.as_deref())?;
    let given = match asked.auth {
        true => Credentials::read(std::io::stdin())?,
        false => None,
    };
    let remotes = access::remotes(request, &name, given)?;
    let (remote, top) = first_that_has(&remotes, name.target())?;
    let from = format!("Pulling from {}", name.repository);
    progress.line(&serde_json::json!({ "status": from, "id": name.target() }));
    let (manifest, document) = choose(remote, &top, &platform)?;
    let pulled = fetch(store, remote, &manifest, &document, progress);
    if let Err(error) = &pulled
        && is_disk_full(error)
    {
        // What came of it is of no use: the room is needed.
        change::collect(store).context("clean up after the disk was full")?;
    }
    let _mark = pulled?;
    let entry = Entry {
        manifest: manifest.digest,
        size: manifest.bytes.len() as u64,
        reference: name.tag.as_ref().map(|_| Reference {
            digest: None,
            ..name.clone()
        }),
        pulled: Some((name.familiar_name(), top.digest.clone())),
    };
    let changed = commit::commit(store, entry)?;
    progress.status("", &format!("Digest: {}", top.digest));
    let familiar = name.familiar();
    progress.status(
        "",
        &match changed {
            true => format!("Status: Downloaded newer image for {familiar}"),
            false => format!("Status: Image is up to date for {familiar}"),
        },
    );
    Ok(())
}

/// The place that has the manifest, and the manifest. What is said when none has it is what the registry itself says.
fn first_that_has<'r>(
    remotes: &'r [Remote],
    target: &str,
) -> anyhow::Result<(&'r Remote, Fetched)> {
    let mut failed = None;
    for remote in remotes {
        match remote.manifest(target) {
            Ok(fetched) => return Ok((remote, fetched)),
            // A refusal says more than a connection that did not come about.
            Err(error) if failed.is_none() || error.downcast_ref::<Failure>().is_some() => {
                failed = Some(error);
            }
            Err(_) => {}
        }
    }
    Err(failed.context("no registry to ask")?)
}

/// `OS/ARCH[/VARIANT]`; this machine's unless told otherwise.
fn platform(text: Option<&str>) -> anyhow::Result<Platform> {
    let Some(text) = text.filter(|text| !text.is_empty()) else {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        return Ok(Platform {
            architecture: architecture.to_owned(),
            os: "linux".to_owned(),
            variant: None,
        });
    };
    let mut parts = text.split('/').map(str::to_owned);
    match (parts.next(), parts.next(), parts.next(), parts.next()) {
        (Some(os), Some(architecture), variant, None)
            if !os.is_empty() && !architecture.is_empty() =>
        {
            Ok(Platform {
                architecture,
                os,
                variant,
            })
        }
        _ => Err(Failure::error(
            400,
            format!("\"{text}\" is an invalid OS/ARCH[/VARIANT]"),
        )),
    }
}

/// The manifest of one image: itself, or that of the platform out of a list.
fn choose(
    remote: &Remote,
    top: &Fetched,
    wanted: &Platform,
) -> anyhow::Result<(Fetched, Manifest)> {
    let kind = kind(top)?;
    if !media::is_index(&kind) {
        let manifest = parse(&top.bytes)?;
        let top = Fetched {
            bytes: top.bytes.clone(),
            digest: top.digest.clone(),
            media_type: kind,
        };
        return Ok((top, manifest));
    }
    let index: Index =
        serde_json::from_slice(&top.bytes).context("the list of manifests cannot be read")?;
    let chosen = select(&index.manifests, wanted).ok_or_else(|| {
        let Platform {
            os, architecture, ..
        } = wanted;
        Failure::error(
            404,
            format!("no matching manifest for {os}/{architecture} in the manifest list entries"),
        )
    })?;
    let fetched = remote.manifest(chosen.digest.as_str())?;
    let manifest = parse(&fetched.bytes)?;
    Ok((fetched, manifest))
}

/// What a manifest is, by its own word, or that of the registry.
fn kind(fetched: &Fetched) -> anyhow::Result<String> {
    let value: serde_json::Value =
        serde_json::from_slice(&fetched.bytes).context("the manifest is not JSON")?;
    if value["schemaVersion"] != 2 {
        bail!(
            "the manifest has schema version {}, which is not supported: 2 is",
            value["schemaVersion"]
        );
    }
    let own = value["mediaType"].as_str();
    let guess = match value["manifests"].is_array() {
        true => media::INDEX,
        false => media::MANIFEST,
    };
    let kind = own.unwrap_or(
        match media::MANIFESTS.contains(&fetched.media_type.as_str()) {
            true => &fetched.media_type,
            false => guess,
        },
    );
    if !media::MANIFESTS.contains(&kind) {
        bail!("`{kind}` is no manifest of an image");
    }
    Ok(kind.to_owned())
}

fn parse(bytes: &[u8]) -> anyhow::Result<Manifest> {
    serde_json::from_slice(bytes).context("the manifest cannot be read")
}

/// The best entry: the variant asked for, else one without, else any.
fn select<'m>(manifests: &'m [Descriptor], wanted: &Platform) -> Option<&'m Descriptor> {
    let fits = |descriptor: &&Descriptor| {
        let platform = descriptor.platform.as_ref();
        platform.is_some_and(|platform| {
            platform.os == wanted.os
                && platform.architecture == wanted.architecture
                && (wanted.variant.is_none() || platform.variant == wanted.variant)
        })
    };
    let plain = |descriptor: &&Descriptor| {
        descriptor
            .platform
            .as_ref()
            .is_some_and(|platform| platform.variant.is_none())
    };
    let all = || manifests.iter().filter(fits);
    all().find(plain).or_else(|| all().next())
}

/// Brings all that the image is made of; what it needs is marked until the mark is dropped.
fn fetch(
    store: &Store,
    remote: &Remote,
    manifest: &Fetched,
    document: &Manifest,
    progress: &Progress,
) -> anyhow::Result<Mark> {
    let mut needed = vec![manifest.digest.clone(), document.config.digest.clone()];
    needed.extend(document.layers.iter().map(|layer| layer.digest.clone()));
    let mut mark = Mark::set(store, &needed)?;
    if document.config.size > keelson_image::store::DOCUMENT_MAX_BYTES {
        bail!(
            "the image's configuration is too long: {} bytes",
            document.config.size
        );
    }
    let quiet = Progress::silent();
    blob::fetch(store, remote, &document.config, &quiet)?;
    let configuration: Configuration = store.document(&document.config.digest)?;
    let diff_ids = &configuration.rootfs.diff_ids;
    if diff_ids.len() != document.layers.len() {
        bail!(
            "the image has {} layers and its configuration {}",
            document.layers.len(),
            diff_ids.len()
        );
    }
    let chain = chain_ids(diff_ids);
    mark.add(store, &chain)?;
    layers(store, remote, document, diff_ids, &chain, progress)?;
    let put = blob::put(store, &manifest.bytes)?;
    debug_assert_eq!(put, manifest.digest);
    Ok(mark)
}

/// Fetches layers side by side and unpacks each when those below it are.
fn layers(
    store: &Store,
    remote: &Remote,
    document: &Manifest,
    diff_ids: &[Digest],
    chain: &[Digest],
    progress: &Progress,
) -> anyhow::Result<()> {
    let missing = |at: usize| {
        !store.layer(&chain[at]).exists() || !store.blob(&document.layers[at].digest).exists()
    };
    let mut queue = VecDeque::new();
    for (at, layer) in document.layers.iter().enumerate() {
        let id = layer.digest.short();
        match missing(at) {
            true => {
                progress.status(id, "Pulling fs layer");
                queue.push_back(at);
            }
            false => progress.status(id, "Already exists"),
        }
    }
    for at in queue.iter().skip(PARALLEL) {
        progress.status(document.layers[*at].digest.short(), "Waiting");
    }
    let wanted: Vec<usize> = queue.iter().copied().collect();
    let queue = Mutex::new(queue);
    let take = || {
        queue
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop_front()
    };
    std::thread::scope(|scope| {
        let (sender, fetched) = mpsc::channel();
        for _ in 0..PARALLEL.min(wanted.len()) {
            let sender = sender.clone();
            let take = &take;
            scope.spawn(move || {
                while let Some(at) = take() {
                    let result = blob::fetch(store, remote, &document.layers[at], progress);
                    let failed = result.is_err();
                    if sender.send((at, result)).is_err() || failed {
                        return;
                    }
                }
            });
        }
        drop(sender);
        let stop = |error| {
            queue.lock().unwrap_or_else(PoisonError::into_inner).clear();
            error
        };
        let mut here = vec![false; document.layers.len()];
        for at in wanted {
            while !here[at] {
                let (which, result) = fetched.recv().context("a layer did not come")?;
                result.map_err(stop)?;
                here[which] = true;
            }
            let layer = &document.layers[at];
            let below: Vec<PathBuf> = chain[..at].iter().rev().map(|id| store.layer(id)).collect();
            unpack::layer(
                store,
                &layer.digest,
                &diff_ids[at],
                &chain[at],
                &below,
                progress,
            )
            .map_err(stop)?;
            progress.status(layer.digest.short(), "Pull complete");
        }
        Ok(())
    })
}

fn is_disk_full(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<std::io::Error>()
            .is_some_and(|error| error.kind() == std::io::ErrorKind::StorageFull)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn descriptor(os: &str, architecture: &str, variant: Option<&str>) -> Descriptor {
        Descriptor {
            media_type: media::MANIFEST.into(),
            digest: Digest::of(format!("{os}{architecture}{variant:?}").as_bytes()),
            size: 1,
            platform: Some(Platform {
                os: os.into(),
                architecture: architecture.into(),
                variant: variant.map(str::to_owned),
            }),
            annotations: Default::default(),
        }
    }

    #[test]
    fn the_platform_is_chosen_out_of_a_list() {
        let all = [
            descriptor("linux", "arm", Some("v7")),
            descriptor("linux", "arm", Some("v6")),
            descriptor("windows", "amd64", None),
            descriptor("linux", "amd64", Some("v3")),
            descriptor("linux", "amd64", None),
            Descriptor {
                platform: None,
                ..descriptor("x", "y", None)
            },
        ];
        let chosen = |text: &str| {
            select(&all, &platform(Some(text)).unwrap()).map(|found| found.digest.clone())
        };
        assert_eq!(chosen("linux/amd64").as_ref(), Some(&all[4].digest));
        assert_eq!(chosen("linux/arm").as_ref(), Some(&all[0].digest));
        assert_eq!(chosen("linux/arm/v6").as_ref(), Some(&all[1].digest));
        assert_eq!(chosen("linux/riscv64"), None);
        for wrong in ["linux", "linux/", "a/b/c/d"] {
            assert!(platform(Some(wrong)).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_manifest_says_what_it_is_or_the_registry_does() {
        let fetched = |text: &str, media_type: &str| Fetched {
            bytes: text.into(),
            digest: Digest::of(b""),
            media_type: media_type.into(),
        };
        let kind = |text: &str, media_type: &str| {
            kind(&fetched(text, media_type)).map_err(|error| error.to_string())
        };
        assert_eq!(
            kind(r#"{"schemaVersion":2,"manifests":[]}"#, "").unwrap(),
            media::INDEX
        );
        assert_eq!(
            kind(r#"{"schemaVersion":2}"#, media::DOCKER_MANIFEST).unwrap(),
            media::DOCKER_MANIFEST
        );
        assert!(
            kind(r#"{"schemaVersion":1}"#, "")
                .unwrap_err()
                .contains("schema version 1")
        );
        assert!(
            kind(r#"{"schemaVersion":2,"mediaType":"text/html"}"#, "")
                .unwrap_err()
                .contains("no manifest")
        );
        assert!(kind("<html>", "").is_err());
    }
}
