//! A registry that answers as it likes, and releases to be had from it.

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

use serde_json::json;

use super::*;
use crate::release::chunks::Chunks;
use crate::release::chunks::tests::noise;
use crate::release::document::{Descriptor, media};
use crate::release::signature;
use crate::release::tests::{Memory, key};
use keelson_image::Digest;

/// What an answer is.
#[derive(Clone, Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
    /// What the answer says of its length, if that is not how it is.
    pub(super) told: Option<usize>,
}

/// What becomes of an answer: the path, how often it was asked for before, and what would be right.
pub(super) type Trick = Box<dyn Fn(&str, u32, Reply) -> Reply + Send>;

/// A registry.
pub(super) struct Origin {
    pub(super) port: u16,
    pub(super) store: Arc<Mutex<Memory>>,
    trick: Arc<Mutex<Option<Trick>>>,
    /// The key that machines trust.
    pub(super) key: tempfile::TempDir,
}

/// A release as it is made; each part can be another one.
pub(super) struct Making {
    pub(super) version: String,
    pub(super) root: Vec<u8>,
    pub(super) uki: Vec<u8>,
    pub(super) description: serde_json::Value,
}

impl Making {
    pub(super) fn of(version: &str) -> Self {
        let guid = slot_guid(version).replace('-', "");
        let hash = format!("{guid}{}", "ab".repeat(16));
        let line = format!(
            "keelson.slot=PARTUUID={} keelson.roothash={hash} keelson.hashoffset=4096",
            slot_guid(version)
        );
        let mut uki = image(&line);
        uki.extend(noise(300_000, 21));
        let mut root = noise(400_000, 22);
        root.extend(noise(100_000, version.parse().unwrap()));
        Making {
            version: version.to_owned(),
            root,
            uki,
            description: json!({
                "version": version, "architecture": architecture(), "created": "2026-01-01T00:00:00Z",
                "root_hash": hash, "hash_offset_bytes": 4096,
            }),
        }
    }
}

impl Origin {
    pub(super) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let origin = Origin {
            port: listener.local_addr().unwrap().port(),
            store: Arc::default(),
            trick: Arc::default(),
            key: key().0,
        };
        let (store, trick) = (origin.store.clone(), origin.trick.clone());
        let counts = Arc::new(Mutex::new(HashMap::new()));
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let (store, trick, counts) = (store.clone(), trick.clone(), counts.clone());
                // What a client that goes away misses is its own matter.
                thread::spawn(move || drop(answer(client, &store, &trick, &counts)));
            }
        });
        origin
    }

    pub(super) fn source(&self) -> String {
        format!("127.0.0.1:{}/os", self.port)
    }

    pub(super) fn play(&self, trick: impl Fn(&str, u32, Reply) -> Reply + Send + 'static) {
        *self.trick.lock().unwrap() = Some(Box::new(trick));
    }

    pub(super) fn behave(&self) {
        *self.trick.lock().unwrap() = None;
    }

    /// Offers a release, not signed; gives its digest.
    pub(super) fn offer(&self, tag: &str, making: &Making) -> Digest {
        let mut store = self.store.lock().unwrap();
        let chunks = |image: &[u8]| Chunks::of(image).unwrap().encode();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": media::MANIFEST, "artifactType": media::RELEASE,
            "config": store.add(media::DESCRIPTION, making.description.to_string().as_bytes()),
            "layers": [
                store.add(media::UKI, &making.uki), store.add(media::ROOT, &making.root),
                store.add(media::CHUNKS, &chunks(&making.root)),
                store.add(media::UKI_CHUNKS, &chunks(&making.uki)),
            ],
        });
        let bytes = manifest.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        for name in [tag.to_owned(), digest.to_string(), making.version.clone()] {
            store.manifests.insert(name, bytes.clone());
        }
        digest
    }

    pub(super) fn sign(&self, digest: &Digest) {
        let payload = signature::payload(digest, "keelson");
        self.store.lock().unwrap().sign(digest, &payload, &self.key);
    }

    /// Offers a signed release; gives its digest.
    pub(super) fn publish(&self, making: &Making) -> Digest {
        let digest = self.offer("stable", making);
        self.sign(&digest);
        digest
    }

    /// A part of what is offered under this tag.
    pub(super) fn part(&self, tag: &str, kind: &str) -> Descriptor {
        let store = self.store.lock().unwrap();
        let manifest = store.manifests.get(tag).unwrap();
        let manifest = crate::release::document::Manifest::read_any(manifest).unwrap();
        match kind {
            media::DESCRIPTION => manifest.config,
            kind => manifest.layer(kind).unwrap().clone(),
        }
    }
}

fn answer(
    client: TcpStream,
    store: &Mutex<Memory>,
    trick: &Mutex<Option<Trick>>,
    counts: &Mutex<HashMap<String, u32>>,
) -> std::io::Result<()> {
    let mut lines = BufReader::new(client.try_clone()?.take(64 * 1024)).lines();
    let first = lines.next().unwrap_or_else(|| Ok(String::new()))?;
    // Somebody who would rather have TLS.
    let Some(path) = first
        .strip_prefix("GET ")
        .and_then(|rest| rest.split(' ').next())
    else {
        return Ok(());
    };
    let mut range = None;
    for line in lines {
        let line = line?.to_ascii_lowercase();
        if line.is_empty() {
            break;
        }
        if let Some(bytes) = line.strip_prefix("range: bytes=") {
            let (from, to) = bytes.split_once('-').unwrap_or_default();
            range = Some((from.parse::<usize>().unwrap(), to.parse::<usize>().ok()));
        }
    }
    let found = {
        let store = store.lock().unwrap();
        match path
            .strip_prefix("/v2/os/")
            .and_then(|rest| rest.split_once('/'))
        {
            Some(("manifests", name)) => store.manifests.get(name).cloned(),
            Some(("blobs", name)) => store.blobs.get(name).cloned(),
            _ => None,
        }
    };
    let mut reply = match found {
        None => Reply {
            status: 404,
            body: b"{}".to_vec(),
            told: None,
        },
        Some(body) => match range {
            None => Reply {
                status: 200,
                body,
                told: None,
            },
            Some((from, to)) => {
                let end = to.map_or(body.len(), |to| body.len().min(to + 1));
                let body = body.get(from..end).unwrap_or_default().to_vec();
                Reply {
                    status: 206,
                    body,
                    told: None,
                }
            }
        },
    };
    let before = {
        let mut counts = counts.lock().unwrap();
        let count = counts.entry(path.to_owned()).or_default();
        *count += 1;
        *count - 1
    };
    if let Some(trick) = trick.lock().unwrap().as_ref() {
        reply = trick(path, before, reply);
    }
    let told = reply.told.unwrap_or(reply.body.len());
    let mut client = client;
    write!(
        client,
        "HTTP/1.1 {} X\r\nContent-Length: {told}\r\nConnection: close\r\n\r\n",
        reply.status
    )?;
    client.write_all(&reply.body)
}
