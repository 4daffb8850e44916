//! What comes from registries that do what they should.

use crate::server::{PASSWORD, Packed, Registry, USER, with_password};
use crate::world::{Archive, World};
use keelson_image::Digest;
use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

fn base() -> Vec<u8> {
    Archive::new()
        .directory("etc", 0o750)
        .file("etc/old", 0o644, b"old")
        .file("bin", 0o4755, b"program")
        .hard_link("other", "bin")
        .symlink("link", "etc/old")
        .fifo("pipe")
        .file("bare", 0o644, b"without numbers of an owner")
        .end()
}

#[test]
fn an_image_is_pulled_unpacked_and_found() {
    let (registry, world) = (Registry::plain(), World::new());
    world.trust(&registry);
    // The second layer takes one file away and puts another where it has no entry for the directory.
    let second = Archive::new()
        .file("etc/.wh.old", 0o644, b"")
        .file("etc/new", 0o600, b"new")
        .directory("var", 0o755)
        .file("var/.wh..wh..opq", 0o644, b"")
        .end();
    let digest = registry.push(
        "team/app",
        "1",
        &[(base(), Packed::Gzip), (second, Packed::Zstd)],
    );
    let name = format!("{}/team/app:1", registry.host());
    let pulled = world.run(&["pull", &name]).well();
    for status in [
        "Pulling from team/app",
        "Pulling fs layer",
        "Pull complete",
        "Downloaded newer image",
    ] {
        assert!(pulled.says(status), "{status}: {:?}", pulled.lines);
    }
    assert!(pulled.says(&format!("Digest: {digest}")));
    world.check();

    let image = world.store.find(&name).unwrap();
    assert_eq!(
        image.repo_digests,
        [format!("{}/team/app@{digest}", registry.host())]
    );
    let [top, bottom] = &image.layers[..] else {
        panic!("{:?}", image.layers)
    };
    let file = fs::symlink_metadata(bottom.join("bin")).unwrap();
    assert_eq!(
        (file.mode() & 0o7777, file.uid(), file.gid(), file.nlink()),
        (0o4755, 7, 8, 2)
    );
    assert_eq!(file.mtime(), 1_000_000);
    assert!(
        fs::symlink_metadata(bottom.join("pipe"))
            .unwrap()
            .file_type()
            .is_fifo()
    );
    assert_eq!(fs::metadata(bottom.join("bare")).unwrap().uid(), 0);
    let hidden = fs::symlink_metadata(top.join("etc/old")).unwrap();
    assert!(hidden.file_type().is_char_device() && hidden.rdev() == 0);
    // As the layer below has it, for this one has no entry.
    let etc = fs::metadata(top.join("etc")).unwrap();
    assert_eq!((etc.mode() & 0o7777, etc.uid()), (0o750, 7));
    let mut value = [0; 8];
    let length =
        rustix::fs::lgetxattr(top.join("var"), "trusted.overlay.opaque", &mut value[..]).unwrap();
    assert_eq!(&value[..length], b"y");

    let again = world.run(&["pull", &name]).well();
    assert!(
        again.says("Already exists") && again.says("Image is up to date"),
        "{:?}",
        again.lines
    );
}

#[test]
fn a_registry_without_tls_is_refused_unless_it_is_named_so() {
    let (registry, world) = (Registry::plain(), World::new());
    registry.push("app", "1", &[(base(), Packed::Plain)]);
    let name = format!("{}/app:1", registry.host());
    let error = world.run(&["pull", &name]).error();
    assert!(error.contains("https://localhost"), "{error}");
    assert!(world.store.images().unwrap().is_empty());
    world.trust(&registry);
    world.run(&["pull", &name]).well();
}

#[test]
fn an_authority_of_ones_own_is_believed_when_it_is_named() {
    let (registry, world) = (Registry::secure(), World::new());
    registry.push("app", "1", &[(base(), Packed::Gzip)]);
    let name = format!("{}/app:1", registry.host());
    let error = world.run(&["pull", &name]).error();
    assert!(
        error.contains("UnknownIssuer") && error.contains("registries file"),
        "{error}"
    );
    let ca = registry.directory.path().join("ca.pem");
    world.settings(&format!(
        "registries: {{\"{}\": {{ca: {}}}}}",
        registry.host(),
        ca.display()
    ));
    world.run(&["pull", &name]).well();
}

#[test]
fn a_password_is_asked_for_and_given() {
    let (registry, _data) =
        with_password(|open| drop(open.push("app", "1", &[(base(), Packed::Gzip)])));
    let world = World::new();
    world.trust(&registry);
    let name = format!("{}/app:1", registry.host());
    let error = world.run(&["pull", &name]).error();
    assert!(error.contains("no basic auth credentials"), "{error}");
    let auth = |password: &str| json!({ "username": USER, "password": password }).to_string();
    let error = world
        .feed(&["pull", "--auth", &name], auth("wrong").as_bytes())
        .error();
    assert!(error.contains("pull access denied"), "{error}");
    world
        .feed(&["pull", "--auth", &name], auth(PASSWORD).as_bytes())
        .well();
    // By the settings as well.
    let world = World::new();
    world.settings(&format!(
        "registries: {{\"{}\": {{insecure: true, username: {USER}, password: {PASSWORD}}}}}",
        registry.host()
    ));
    world.run(&["pull", &name]).well();
}

#[test]
fn the_platform_is_chosen_out_of_a_list_and_a_digest_is_a_name() {
    let (registry, world) = (Registry::plain(), World::new());
    world.trust(&registry);
    let of = |architecture: &str| {
        let archive = Archive::new()
            .file("architecture", 0o644, architecture.as_bytes())
            .end();
        let digest = registry.push("app", architecture, &[(archive, Packed::Gzip)]);
        json!({
            "mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest, "size": 1,
            "platform": { "os": "linux", "architecture": architecture },
        })
    };
    let kind = "application/vnd.oci.image.index.v1+json";
    let index =
        json!({ "schemaVersion": 2, "mediaType": kind, "manifests": [of("arm64"), of("amd64")] });
    let digest = registry.push_manifest("app", "all", kind, &index);
    let name = format!("{}/app@{digest}", registry.host());
    world
        .run(&["pull", "--platform", "linux/arm64", &name])
        .well();
    let image = world.store.find(&name).unwrap();
    assert_eq!(
        fs::read(image.layers[0].join("architecture")).unwrap(),
        b"arm64"
    );
    assert!(image.repo_tags.is_empty());
    let error = world
        .run(&["pull", "--platform", "linux/s390x", &name])
        .error();
    assert_eq!(
        error,
        "no matching manifest for linux/s390x in the manifest list entries"
    );
}

#[test]
fn what_is_not_there_is_said_as_docker_says_it() {
    let (registry, world) = (Registry::plain(), World::new());
    world.trust(&registry);
    let error = world
        .run(&["pull", &format!("{}/nothing:1", registry.host())])
        .error();
    assert_eq!(
        error,
        "manifest for nothing:1 not found: manifest unknown: manifest unknown"
    );
    let error = world.run(&["pull", "Nothing"]).error();
    assert!(error.contains("must be lowercase"), "{error}");
}

#[test]
fn a_mirror_that_is_away_is_passed_over() {
    let (registry, world) = (Registry::plain(), World::new());
    registry.push("app", "1", &[(base(), Packed::Gzip)]);
    let port = registry.port;
    world.settings(&format!(
        "registries:\n  origin.test:\n    mirrors: [\"http://127.0.0.1:1\", \"http://localhost:{port}\"]\n"
    ));
    world.run(&["pull", "origin.test/app:1"]).well();
    assert_eq!(
        world.store.find("origin.test/app:1").unwrap().repo_tags,
        ["origin.test/app:1"]
    );
}

#[test]
fn two_pulls_of_one_image_at_the_same_time_both_succeed() {
    let (registry, world) = (Registry::plain(), World::new());
    world.trust(&registry);
    let big = Archive::new()
        .file("big", 0o644, &vec![7; 20_000_000])
        .end();
    registry.push("app", "1", &[(base(), Packed::Gzip), (big, Packed::Plain)]);
    let name = format!("{}/app:1", registry.host());
    let pulls: Vec<_> = (0..4)
        .map(|_| world.command(&["pull", &name]).spawn().unwrap())
        .collect();
    for pull in pulls {
        let output = pull.wait_with_output().unwrap();
        assert!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stdout)
        );
    }
    world.check();
    assert_eq!(world.store.images().unwrap().len(), 1);
    assert_eq!(
        Digest::of(&fs::read(world.store.find(&name).unwrap().layers[0].join("big")).unwrap()),
        Digest::of(&vec![7; 20_000_000])
    );
}
