//! Attacks on the way that releases take: a machine, the real program that asks, and a registry of the attacker's. Each is refused, the message says
//! why, and the machine starts what it started before.

use super::origin::{Making, Origin, Reply};
use super::victim::{settings, victim};
use super::*;
use crate::release::chunks::tests::noise;
use crate::release::document::{DOCUMENT_MAX_BYTES, media};
use crate::release::signature;
use crate::release::tests::key;
use keelson_image::Digest;

#[test]
fn what_is_not_signed_by_a_trusted_key_is_refused() {
    let origin = Origin::start();
    let mut world = victim(&origin);
    let making = Making::of("600");
    let digest = origin.offer("stable", &making);
    world.refuses("no signature", "not signed");
    let payload = signature::payload(&digest, "keelson");
    let (stranger, _) = key();
    origin
        .store
        .lock()
        .unwrap()
        .sign(&digest, &payload, &stranger);
    world.refuses("wrong key", "none of the keys that this image trusts");
    let other = origin.offer("other", &Making::of("601"));
    let payload = signature::payload(&other, "keelson");
    origin
        .store
        .lock()
        .unwrap()
        .sign(&digest, &payload, &origin.key);
    world.refuses("signature of another release", "that of another release");
    // As a whole it is signed, but it is an application's.
    let mut store = origin.store.lock().unwrap().clone();
    let config = store.add("application/vnd.oci.image.config.v1+json", b"{}");
    let image = serde_json::json!({"schemaVersion": 2, "config": config, "layers": []});
    let image = image.to_string().into_bytes();
    let digest = Digest::of(&image);
    store.sign(&digest, &signature::payload(&digest, "app"), &origin.key);
    store.manifests.insert("stable".to_owned(), image);
    *origin.store.lock().unwrap() = store;
    world.refuses("signature of another image", "no release of Keelson");
    origin.publish(&making);
    world.takes(&origin, "600");
}

#[test]
fn older_and_replayed_releases_are_refused_after_a_way_back_too() {
    let origin = Origin::start();
    let mut world = victim(&origin);
    origin.publish(&Making::of("400"));
    world.refuses("older than what runs", "older than 500, which runs");
    let between = Making::of("550");
    origin.publish(&Making::of("600"));
    world.takes(&origin, "600");
    // Somebody goes back; what is between is replayed.
    world.system.rollback().unwrap();
    assert_eq!(world.settle(), "500");
    origin.publish(&between);
    world.refuses("replayed", "older than 600, which was good on this machine");
    let mut expired = Making::of("700");
    expired.description["expires"] = "2020-01-01T00:00:00Z".into();
    origin.publish(&expired);
    world.refuses("expired", "has expired");
    let mut foreign = Making::of("700");
    foreign.description["architecture"] = "s390x".into();
    origin.publish(&foreign);
    world.refuses("another processor's", "is for s390x");
    // By name it is somebody's wish.
    assert_eq!(world.take(Some("550")).unwrap().to, "550");
}

#[test]
fn documents_that_are_cut_off_too_long_or_exchanged_are_refused() {
    let origin = Origin::start();
    let mut world = victim(&origin);
    let digest = origin.publish(&Making::of("600"));
    let [description, chunks, uki_chunks] = [media::DESCRIPTION, media::CHUNKS, media::UKI_CHUNKS]
        .map(|kind| origin.part("stable", kind));
    let signed = signature::tag(&digest);
    let cut = |mut reply: Reply| {
        reply.told = Some(reply.body.len());
        reply.body.truncate(reply.body.len() / 2);
        reply
    };
    let long = |mut reply: Reply| {
        reply
            .body
            .resize(usize::try_from(DOCUMENT_MAX_BYTES).unwrap() + 1, b' ');
        reply
    };
    let other = |mut reply: Reply| {
        let middle = reply.body.len() / 2;
        reply.body[middle] ^= 1;
        reply
    };
    type Change = fn(Reply) -> Reply;
    for (name, change, words) in [
        (
            "manifests/stable".to_owned(),
            cut as Change,
            "read the manifest",
        ),
        ("manifests/stable".to_owned(), long, "too long"),
        ("manifests/stable".to_owned(), other, "not signed"),
        (format!("manifests/{signed}"), cut, "read the manifest"),
        (format!("manifests/{signed}"), long, "too long"),
        (format!("blobs/{}", description.digest), cut, "breaks off"),
        (format!("blobs/{}", description.digest), long, "too long"),
        (
            format!("blobs/{}", description.digest),
            other,
            "not what its digest says",
        ),
        (format!("blobs/{}", chunks.digest), cut, "breaks off"),
        (
            format!("blobs/{}", chunks.digest),
            other,
            "not what its digest says",
        ),
        (
            format!("blobs/{}", uki_chunks.digest),
            other,
            "not what its digest says",
        ),
    ] {
        let what = name.clone();
        origin.play(
            move |path, _, reply| match path.ends_with(&name) && reply.status < 300 {
                true => change(reply),
                false => reply,
            },
        );
        world.refuses(&what, words);
    }
    // A list that claims to be endless is not read.
    let name = format!("blobs/{}", chunks.digest);
    origin.play(move |path, _, mut reply| {
        if path.ends_with(&name) {
            reply.told = Some(1 << 40);
        }
        reply
    });
    world.refuses("an endless list", "too long");
    world.takes(&origin, "600");
}

#[test]
fn content_that_is_cut_off_too_long_or_exchanged_is_refused() {
    let origin = Origin::start();
    origin.publish(&Making::of("600"));
    for (kind, what) in [
        (media::ROOT, "root image"),
        (media::UKI, "unified kernel image"),
    ] {
        let mut world = victim(&origin);
        let name = origin.part("stable", kind).digest.to_string();
        let cut = name.clone();
        origin.play(move |path, _, mut reply| {
            if path.ends_with(&cut) {
                reply.told = Some(reply.body.len());
                reply.body.truncate(reply.body.len() / 2);
            }
            reply
        });
        world.breaks_off(&format!("{what}, cut off"), "breaks off");
        let shorter = name.clone();
        origin.play(move |path, _, mut reply| {
            if path.ends_with(&shorter) {
                reply.body.truncate(reply.body.len() / 2);
            }
            reply
        });
        world.breaks_off(&format!("{what}, shorter"), "breaks off");
        let changed = name.clone();
        origin.play(move |path, _, mut reply| {
            if path.ends_with(&changed) {
                let last = reply.body.len() - 1;
                reply.body[last] ^= 1;
            }
            reply
        });
        world.breaks_off(
            &format!("{what}, changed"),
            "not those of the signed release",
        );
        // What comes after its end is never read.
        origin.play(move |path, _, mut reply| {
            if path.ends_with(&name) {
                reply.body.extend(noise(1 << 20, 9));
            }
            reply
        });
        assert_eq!(world.take(None).unwrap().to, "600", "{what}, longer");
        world.system.rollback().unwrap();
        world.takes(&origin, "600");
    }
}

#[test]
fn a_registry_that_changes_its_answer_between_two_requests_is_refused() {
    let origin = Origin::start();
    let mut world = victim(&origin);
    // Unsigned, with the same parts but its own root.
    let digest = origin.publish(&Making::of("600"));
    let mut evil = Making::of("600");
    evil.root = noise(500_000, 66);
    let evil = origin.offer("evil", &evil);
    {
        let mut store = origin.store.lock().unwrap();
        let good = store.manifests[digest.as_str()].clone();
        store.manifests.insert("stable".to_owned(), good);
        // The signature of the good one stands at the place of the evil one's.
        let signed = store.manifests[&signature::tag(&digest)].clone();
        store.manifests.insert(signature::tag(&evil), signed);
    }
    // The good one when its tag is asked for first, the evil one from then on.
    let bytes = origin.store.lock().unwrap().manifests["evil"].clone();
    origin.play(move |path, before, mut reply| {
        if path.ends_with("manifests/stable") && before > 0 {
            reply.body.clone_from(&bytes);
        }
        reply
    });
    world.system.check(None).unwrap();
    world.refuses("another release", "that of another release");
    // The root of the good one at first, that of the evil one after so many bytes.
    let (good, evil) = (
        origin.part("stable", media::ROOT),
        origin.part("evil", media::ROOT),
    );
    let root = origin.store.lock().unwrap().blobs[evil.digest.as_str()].clone();
    let good = good.digest.to_string();
    origin.play(move |path, _, mut reply| {
        if path.ends_with(&good) {
            let length = reply.body.len();
            reply.body[length / 2..].copy_from_slice(&root[length / 2..length]);
        }
        reply
    });
    world.breaks_off("half of another root", "not those of the signed release");
    world.takes(&origin, "600");
}

#[test]
fn releases_that_do_not_fit_or_lead_elsewhere_are_refused() {
    let origin = Origin::start();
    let mut world = victim(&origin);
    let mut large = Making::of("600");
    large.root = noise((1 << 20) + 1, 5);
    origin.publish(&large);
    world.refuses("a root larger than the slot", "and the slot 1048576 only");
    let mut same = Making::of("600");
    same.description["root_hash"] = Making::of("500").description["root_hash"].clone();
    origin.publish(&same);
    world.refuses("the root that runs", "has the same root image");
    for version in ["../600", "600/../../x", "600\\n", ""] {
        let mut path = Making::of("600");
        path.description["version"] = version.into();
        origin.publish(&path);
        world.refuses("a version that is a path", "is no version");
    }
    let mut elsewhere = Making::of("600");
    elsewhere.uki = Making::of("601").uki;
    origin.publish(&elsewhere);
    world.breaks_off("a kernel of another root", "would start another root");
    let mut none = Making::of("600");
    none.uki = noise(100_000, 5);
    origin.publish(&none);
    world.breaks_off("a kernel that is none", "no program for UEFI");
    origin.publish(&Making::of("600"));
    world.takes(&origin, "600");
}

#[test]
fn layouts_whose_files_lead_elsewhere_are_refused() {
    let origin = Origin::start();
    let mut world = victim(&origin);
    origin.publish(&Making::of("600"));
    // The same release as an image layout on a disk.
    let layout = world.path("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    let store = origin.store.lock().unwrap().clone();
    let blob = |digest: &str| {
        layout
            .join("blobs/sha256")
            .join(digest.replace("sha256:", ""))
    };
    let mut names = Vec::new();
    for (name, bytes) in &store.manifests {
        let digest = Digest::of(bytes);
        fs::write(blob(digest.as_str()), bytes).unwrap();
        names.push(serde_json::json!({
            "mediaType": media::MANIFEST, "digest": digest, "size": bytes.len(),
            "annotations": {"org.opencontainers.image.ref.name": name},
        }));
    }
    for (digest, bytes) in &store.blobs {
        fs::write(blob(digest), bytes).unwrap();
    }
    let index = serde_json::json!({"schemaVersion": 2, "manifests": names}).to_string();
    fs::write(layout.join("index.json"), &index).unwrap();
    fs::write(
        world.path("settings.json"),
        settings(layout.to_str().unwrap()),
    )
    .unwrap();
    let description = origin.part("stable", media::DESCRIPTION).digest.to_string();
    let (place, secret) = (blob(&description), world.path("secret"));
    let content = fs::read(&place).unwrap();
    fs::write(&secret, "not for everybody").unwrap();
    for (target, words) in [
        (secret.as_path(), "not what its digest says"),
        (Path::new("/dev/zero"), "is no file"),
        (layout.as_path(), "is no file"),
        (Path::new("/nowhere"), "no blob"),
    ] {
        fs::remove_file(&place).unwrap();
        symlink(target, &place).unwrap();
        world.refuses("a link", words);
    }
    fs::remove_file(&place).unwrap();
    fs::write(&place, content).unwrap();
    let tricked = index.replace(
        Digest::of(&store.manifests["stable"]).hex(),
        "../../../secret0000000000000000000000000000000000000000000000000",
    );
    fs::write(layout.join("index.json"), tricked).unwrap();
    world.refuses("a digest that is a path", "read index.json");
    fs::write(layout.join("index.json"), index).unwrap();
    world.takes(&origin, "600");
}

#[test]
fn a_full_efi_system_partition_leaves_what_was_there() {
    let origin = Origin::start();
    let mut world = victim(&origin);
    origin.publish(&Making::of("600"));
    // Every write to what is staged fails with ENOSPC.
    let usual = world.system.mount;
    world.system.mount = |_, root, _| {
        let esp = Esp::directory(root);
        let staged = root.join("EFI/Linux/keelson.new");
        if !staged.is_symlink() {
            symlink("/dev/full", &staged)?;
        }
        Ok(esp)
    };
    world.breaks_off("disk full", "is it full?");
    world.system.mount = usual;
    world.takes(&origin, "600");
}
