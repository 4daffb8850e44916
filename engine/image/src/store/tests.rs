use super::*;
use crate::document::{Descriptor, RootFs, media};

/// Puts an image with one made-up layer into the store.
pub(crate) fn put(store: &Store, name: Option<&str>, content: &str) -> Image {
    store.prepare().unwrap();
    let blob = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(store.blob(&digest), bytes).unwrap();
        digest
    };
    let layer = blob(content.as_bytes());
    let configuration = Configuration {
        architecture: "amd64".into(),
        os: "linux".into(),
        rootfs: RootFs {
            kind: "layers".into(),
            diff_ids: vec![layer.clone()],
        },
        ..Configuration::default()
    };
    let config = blob(&serde_json::to_vec(&configuration).unwrap());
    let descriptor = |kind: &str, digest: &Digest| Descriptor {
        media_type: kind.into(),
        digest: digest.clone(),
        size: content.len() as u64,
        platform: None,
        annotations: BTreeMap::new(),
    };
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(media::MANIFEST.into()),
        config: descriptor(media::CONFIG, &config),
        layers: vec![descriptor(media::LAYER, &layer)],
    };
    let manifest = blob(&serde_json::to_vec(&manifest).unwrap());
    fs::create_dir_all(store.layer(&layer)).unwrap();
    let mut entries = store.entries().unwrap();
    let reference = name.map(|name| name.parse::<Reference>().unwrap());
    entries.push(Entry {
        pulled: reference
            .as_ref()
            .map(|name| (name.familiar_name(), manifest.clone())),
        reference,
        manifest: manifest.clone(),
        size: 1,
    });
    store.replace_entries(&entries).unwrap();
    store.image(&manifest).unwrap()
}

fn store() -> (tempfile::TempDir, Store) {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::new(directory.path().join("images"));
    (directory, store)
}

#[test]
fn an_image_is_found_by_name_digest_number_and_the_beginning_of_it() {
    let (_directory, store) = store();
    assert!(store.images().unwrap().is_empty());
    let one = put(&store, Some("app:1"), "one");
    put(&store, Some("app:2"), "two");
    put(&store, None, "three");
    let id = |name: &str| store.find(name).map(|image| image.id);
    for name in [
        "app:1",
        "docker.io/library/app:1",
        one.id.as_str(),
        one.id.hex(),
        one.id.short(),
        &format!("app@{}", one.manifest),
    ] {
        assert_eq!(id(name).unwrap(), one.id, "{name}");
    }
    assert!(matches!(id("app"), Err(Error::Missing(name)) if name == "app:latest"));
    assert!(matches!(id("App"), Err(Error::Invalid(_))));
    assert!(matches!(id(""), Err(Error::Invalid(_))));
    let image = store.find("app:1").unwrap();
    assert_eq!(image.repo_tags, ["app:1"]);
    assert_eq!(image.layers, [store.layer(&Digest::of(b"one"))]);
    assert_eq!(store.images().unwrap().len(), 3);
}

#[test]
fn a_lease_is_there_until_it_is_released() {
    let (_directory, store) = store();
    let image = put(&store, Some("app"), "one");
    store.lease("container", &image.id).unwrap();
    let held = store.leases().unwrap();
    assert_eq!(held[&image.id], BTreeSet::from(["container".to_owned()]));
    store.release("container").unwrap();
    store.release("container").unwrap();
    assert!(store.leases().unwrap().is_empty());
    assert!(matches!(
        store.lease("x", &Digest::of(b"")),
        Err(Error::Missing(_))
    ));
}

#[test]
fn marks_of_the_living_are_heeded_and_those_of_the_dead_removed() {
    let (_directory, store) = store();
    store.prepare().unwrap();
    let digest = Digest::of(b"layer");
    fs::write(
        store.incoming("1.mark"),
        format!("{}\n", Digest::of(b"dead")),
    )
    .unwrap();
    let mark = Mark::set(&store, std::slice::from_ref(&digest)).unwrap();
    assert_eq!(Mark::all(&store).unwrap(), BTreeSet::from([digest]));
    assert!(!store.incoming("1.mark").exists());
    drop(mark);
    assert!(Mark::all(&store).unwrap().is_empty());
}
