//! What is done with images that are there.

use crate::server::{Packed, Registry};
use crate::world::{Archive, World};
use serde_json::json;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

fn archive(content: &str) -> Vec<u8> {
    Archive::new().file("file", 0o644, content.as_bytes()).end()
}

fn imported(world: &World, name: &str, content: &str) -> String {
    let arguments = ["import", "--reference", name, "--change", "CMD [\"sh\"]"];
    let answer = world.feed(&arguments, &archive(content)).well();
    answer.lines[0]["status"].as_str().unwrap().to_owned()
}

#[test]
fn an_archive_is_imported_saved_and_loaded_elsewhere() {
    let world = World::new();
    let id = imported(&world, "app:1", "content");
    let image = world.store.find("app:1").unwrap();
    assert_eq!(image.id.as_str(), id);
    assert_eq!(image.configuration.config["Cmd"], json!(["sh"]));
    world.run(&["tag", "app:1", "other:2"]).well();
    let saved = world
        .run(&["save", "app:1", "other:2"])
        .well()
        .output
        .stdout;

    let elsewhere = World::new();
    let loaded = elsewhere.feed(&["load"], &saved).well();
    let told: Vec<_> = loaded
        .lines
        .iter()
        .filter_map(|line| line["stream"].as_str())
        .collect();
    assert_eq!(told, ["Loaded image: app:1\n", "Loaded image: other:2\n"]);
    elsewhere.check();
    let image = elsewhere.store.find("other:2").unwrap();
    assert_eq!(image.id.as_str(), id);
    assert_eq!(fs::read(image.layers[0].join("file")).unwrap(), b"content");
}

#[test]
fn what_older_docker_versions_saved_is_loaded_too() {
    let layer = archive("old");
    let diff_id = keelson_image::Digest::of(&layer);
    let config = json!({ "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": [diff_id] } });
    let manifest =
        json!([{ "Config": "abc.json", "RepoTags": ["old:1"], "Layers": ["abc/layer.tar"] }]);
    let saved = Archive::new()
        .file("abc/layer.tar", 0o644, &layer)
        .file("abc.json", 0o644, config.to_string().as_bytes())
        .file("manifest.json", 0o644, manifest.to_string().as_bytes())
        .end();
    let world = World::new();
    world.feed(&["load"], &saved).well();
    world.check();
    let image = world.store.find("old:1").unwrap();
    assert_eq!(fs::read(image.layers[0].join("file")).unwrap(), b"old");
    let error = world.feed(&["load"], &archive("no image")).error();
    assert!(
        error.contains("neither index.json nor manifest.json"),
        "{error}"
    );
}

#[test]
fn an_image_goes_with_its_last_name_and_not_while_a_container_needs_it() {
    let world = World::new();
    imported(&world, "app:1", "content");
    world.run(&["tag", "app:1", "app:2"]).well();
    let image = world.store.find("app:1").unwrap();
    world.run(&["remove", "app:1"]).well();
    assert!(world.store.find("app:1").is_err() && world.store.find("app:2").is_ok());
    world.store.lease("container", &image.id).unwrap();
    let error = world.run(&["remove", "app:2"]).error();
    assert!(
        error.contains("container is using its referenced image"),
        "{error}"
    );
    world.run(&["prune", "--all"]).well();
    assert!(image.layers[0].is_dir());
    world.store.release("container").unwrap();
    world.run(&["remove", "app:2"]).well();
    assert!(!image.layers[0].exists());
    assert!(!world.store.blob(&image.id).exists() && !world.store.blob(&image.manifest).exists());
}

#[test]
fn layers_are_shared_and_stay_for_as_long_as_one_image_has_them() {
    let (registry, world) = (Registry::plain(), World::new());
    world.trust(&registry);
    let common = (archive("common"), Packed::Gzip);
    registry.push(
        "one",
        "1",
        &[common.clone(), (archive("one"), Packed::Gzip)],
    );
    registry.push("two", "1", &[common, (archive("two"), Packed::Gzip)]);
    let name = |repository: &str| format!("{}/{repository}:1", registry.host());
    world.run(&["pull", &name("one")]).well();
    assert!(
        world
            .run(&["pull", &name("two")])
            .well()
            .says("Already exists")
    );
    let (one, two) = (
        world.store.find(&name("one")).unwrap(),
        world.store.find(&name("two")).unwrap(),
    );
    assert_eq!(one.layers[1], two.layers[1]);
    world.run(&["remove", &name("one")]).well();
    assert!(!one.layers[0].exists() && two.layers[1].exists());
    world.check();
}

#[test]
fn files_are_copied_in_and_out_and_no_link_leads_out() {
    let (world, root) = (World::new(), tempfile::tempdir().unwrap());
    let path = root.path().display().to_string();
    let outside = world.path("outside");
    fs::write(&outside, "outside").unwrap();
    fs::create_dir(root.path().join("srv")).unwrap();
    std::os::unix::fs::symlink(&outside, root.path().join("srv/leak")).unwrap();
    std::os::unix::fs::symlink("/", root.path().join("srv/up")).unwrap();
    world
        .feed(&["copy-in", "--root", &path, "/srv"], &archive("copied"))
        .well();
    assert_eq!(fs::read(root.path().join("srv/file")).unwrap(), b"copied");
    world
        .feed(
            &["copy-in", "--root", &path, "/srv/up"],
            &archive("at the root"),
        )
        .well();
    assert_eq!(fs::read(root.path().join("file")).unwrap(), b"at the root");
    let through = Archive::new().file("leak", 0o644, b"changed").end();
    world
        .feed(&["copy-in", "--root", &path, "/srv"], &through)
        .well();
    assert_eq!(fs::read(&outside).unwrap(), b"outside");

    let out = world
        .run(&["copy-out", "--root", &path, "/srv/file"])
        .well()
        .output
        .stdout;
    let mut archive = tar::Archive::new(&out[..]);
    let names: Vec<_> = archive
        .entries()
        .unwrap()
        .map(|entry| entry.unwrap().path().unwrap().into_owned())
        .collect();
    assert_eq!(names, [std::path::PathBuf::from("file")]);
    let stat = world.run(&["stat", "--root", &path, "/srv/file"]).well();
    assert_eq!(
        (
            stat.lines[0]["name"].as_str(),
            stat.lines[0]["size"].as_u64()
        ),
        (Some("file"), Some(6))
    );
    let error = world.run(&["stat", "--root", &path, "/nothing"]).error();
    assert_eq!(error, "Could not find the file /nothing in container");
}

#[test]
fn what_a_container_has_written_becomes_a_layer_of_a_new_image() {
    use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
    let world = World::new();
    let parent = imported(&world, "app:1", "content");
    let upper = world.path("upper");
    fs::create_dir_all(upper.join("etc")).unwrap();
    fs::write(upper.join("etc/new"), "new").unwrap();
    let hidden = upper.join("file");
    let kind = FileType::CharacterDevice;
    mknodat(CWD, &hidden, kind, Mode::empty(), makedev(0, 0)).unwrap();
    let config = json!({
        "Cmd": ["sh", "-c", "x"], "Env": ["A=1", "B=1"], "Hostname": "abc", "Tty": true, "Labels": null,
    });
    let upper = upper.display().to_string();
    let arguments = [
        "commit",
        "--root",
        &upper,
        "app:1",
        "--reference",
        "app:2",
        "--message",
        "note",
        "--author",
        "me",
        "--change",
        "ENV A=2",
        "--change",
        "LABEL a=b",
    ];
    let made = world.feed(&arguments, config.to_string().as_bytes()).well();
    world.check();
    let image = world.store.find("app:2").unwrap();
    assert_eq!(made.lines[0]["status"], image.id.as_str());
    let expected = json!({ "Cmd": ["sh", "-c", "x"], "Env": ["B=1", "A=2"], "Labels": {"a": "b"} });
    assert_eq!(image.configuration.config, expected);
    assert_eq!(image.configuration.author.as_deref(), Some("me"));
    let step = image.configuration.history.last().unwrap();
    assert_eq!(
        (step.created_by.as_deref(), step.comment.as_deref()),
        (Some("sh -c x"), Some("note"))
    );
    let [top, bottom] = &image.layers[..] else {
        panic!("{:?}", image.layers)
    };
    assert_eq!(fs::read(top.join("etc/new")).unwrap(), b"new");
    let gone = fs::symlink_metadata(top.join("file")).unwrap();
    assert!(gone.file_type().is_char_device() && gone.rdev() == 0);
    assert_eq!(fs::read(bottom.join("file")).unwrap(), b"content");
    assert_eq!(world.store.find("app:1").unwrap().id.as_str(), parent);
    // It can be taken elsewhere as any other.
    let saved = world.run(&["save", "app:2"]).well().output.stdout;
    let elsewhere = World::new();
    elsewhere.feed(&["load"], &saved).well();
    elsewhere.check();
}
