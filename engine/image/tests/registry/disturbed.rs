//! Registries, networks, disks and machines that do not do what they should.

use crate::server::{Packed, Registry};
use crate::world::{Archive, World};
use std::fs;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const BIG: usize = 3_000_000;

fn big() -> Vec<u8> {
    // Not to be compressed: every byte counts.
    let mut state = 1_u32;
    let bytes: Vec<u8> = (0..BIG)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 24) as u8
        })
        .collect();
    Archive::new().file("big", 0o644, &bytes).end()
}

/// What happens to what a registry answers.
#[derive(Clone, Copy)]
enum Fault {
    /// Each connection ends after so many bytes.
    Cut(u64),
    /// One byte is changed, that far into everything that was ever answered.
    Flip(u64),
}

/// Stands before a registry; gives its port and how many connections there were.
fn proxy(registry: &Registry, fault: Fault) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (port, behind) = (listener.local_addr().unwrap().port(), registry.port);
    let count = Arc::new(AtomicU64::new(0));
    let (counter, total) = (count.clone(), Arc::new(AtomicU64::new(0)));
    std::thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            counter.fetch_add(1, Ordering::SeqCst);
            let Ok(server) = TcpStream::connect(("127.0.0.1", behind)) else {
                return;
            };
            let (mut up_from, mut up_to) =
                (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut up_from, &mut up_to));
            let total = total.clone();
            std::thread::spawn(move || carry(server, client, fault, &total));
        }
    });
    (port, count)
}

fn carry(mut from: TcpStream, mut to: TcpStream, fault: Fault, total: &AtomicU64) {
    let (mut buffer, mut sent) = (vec![0; 16 * 1024], 0_u64);
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        let mut piece = &mut buffer[..length];
        let before = total.fetch_add(length as u64, Ordering::SeqCst);
        match fault {
            Fault::Flip(at) if (before..before + length as u64).contains(&at) => {
                piece[usize::try_from(at - before).unwrap()] ^= 1;
            }
            Fault::Cut(most) if sent + length as u64 > most => {
                piece = &mut piece[..usize::try_from(most - sent).unwrap()];
            }
            _ => {}
        }
        let cut = piece.len() < length;
        if to.write_all(piece).is_err() || cut {
            break;
        }
        sent += length as u64;
    }
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn behind(world: &World, port: u16) -> String {
    world.settings(&format!(
        "registries: {{\"localhost:{port}\": {{insecure: true}}}}"
    ));
    format!("localhost:{port}/app:1")
}

#[test]
fn a_pull_goes_on_after_a_cut_connection() {
    let (registry, world) = (Registry::plain(), World::new());
    registry.push("app", "1", &[(big(), Packed::Plain)]);
    let (port, count) = proxy(&registry, Fault::Cut(1_000_000));
    let name = behind(&world, port);
    world.run(&["pull", &name]).well();
    world.check();
    // Begun anew each time, it would never have come to the end.
    let connections = count.load(Ordering::SeqCst);
    assert!((4..20).contains(&connections), "{connections}");
}

#[test]
fn a_changed_byte_is_found_and_nothing_of_it_is_used() {
    let (registry, world) = (Registry::plain(), World::new());
    registry.push("app", "1", &[(big(), Packed::Plain)]);
    let (port, _) = proxy(&registry, Fault::Flip(1_500_000));
    let name = behind(&world, port);
    let error = world.run(&["pull", &name]).error();
    assert!(
        error.contains("filesystem layer verification failed for digest sha256:"),
        "{error}"
    );
    assert!(world.store.images().unwrap().is_empty());
    assert_eq!(
        fs::read_dir(world.store.directory().join("layers"))
            .unwrap()
            .count(),
        0
    );
    // The fault is over: the next pull finds nothing of it.
    world.run(&["pull", &name]).well();
    world.check();
}

#[test]
fn a_registry_that_never_gives_anything_is_given_up() {
    let (registry, world) = (Registry::plain(), World::new());
    registry.push("app", "1", &[(big(), Packed::Plain)]);
    let (port, _) = proxy(&registry, Fault::Cut(0));
    let error = world.run(&["pull", &behind(&world, port)]).error();
    assert!(error.starts_with("the connection was cut: Get "), "{error}");
}

#[test]
fn hostile_archives_are_refused_and_reach_nothing_outside() {
    let (registry, world) = (Registry::plain(), World::new());
    world.trust(&registry);
    let outside = world.path("outside");
    fs::write(&outside, "outside").unwrap();
    let target = outside.display().to_string();
    let pull = |tag: &str, archive: Vec<u8>| {
        registry.push("app", tag, &[(archive, Packed::Gzip)]);
        world.run(&["pull", &format!("{}/app:{tag}", registry.host())])
    };
    for (tag, archive) in [
        (
            "dots",
            Archive::new().file("../../outside", 0o644, b"x").end(),
        ),
        ("link", Archive::new().hard_link("x", "../../outside").end()),
        ("nowhere", Archive::new().hard_link("x", "nothing").end()),
    ] {
        let error = pull(tag, archive).error();
        assert!(
            error.starts_with("failed to register layer: "),
            "{tag}: {error}"
        );
    }
    // Inside of the root that it is shut into, this one leads to nothing.
    let through = Archive::new()
        .symlink("x", &target)
        .file("x/y", 0o644, b"x")
        .end();
    pull("through", through).error();
    let over = Archive::new()
        .symlink("x", &target)
        .file("x", 0o644, b"x")
        .end();
    pull("over", over).well();
    assert_eq!(fs::read(&outside).unwrap(), b"outside");
    world.check();
}

#[test]
fn a_full_disk_is_said_and_the_room_is_given_back() {
    let (registry, world) = (Registry::plain(), World::new());
    world.trust(&registry);
    registry.push(
        "app",
        "small",
        &[(Archive::new().file("a", 0o644, b"a").end(), Packed::Plain)],
    );
    registry.push("app", "1", &[(big(), Packed::Plain)]);
    let path = world.store.directory().to_owned();
    fs::create_dir(&path).unwrap();
    let options = c"size=4m";
    rustix::mount::mount(
        "tmpfs",
        &path,
        "tmpfs",
        rustix::mount::MountFlags::empty(),
        options,
    )
    .unwrap();
    let name = |tag: &str| format!("{}/app:{tag}", registry.host());
    world.run(&["pull", &name("small")]).well();
    let free = || rustix::fs::statvfs(&path).unwrap().f_bfree;
    let before = free();
    // The blob fits, the layer beside it does not.
    let error = world.run(&["pull", &name("1")]).error();
    assert!(error.contains("No space left on device"), "{error}");
    assert!(
        before - free() <= 2,
        "{before} blocks were free, now {}",
        free()
    );
    world.check();
    assert_eq!(world.store.images().unwrap().len(), 1);
    rustix::mount::unmount(&path, rustix::mount::UnmountFlags::DETACH).unwrap();
}

#[test]
fn a_pull_that_dies_anywhere_leaves_the_image_whole_or_not_at_all() {
    let (registry, world) = (Registry::plain(), World::new());
    world.trust(&registry);
    let small = Archive::new().file("a", 0o644, b"a").end();
    registry.push("app", "1", &[(small, Packed::Gzip), (big(), Packed::Zstd)]);
    let name = format!("{}/app:1", registry.host());
    for failpoint in [
        "blob-fetched",
        "blob-named",
        "layer-unpacked",
        "layer-named",
        "before-index",
        "after-index",
    ] {
        let mut command = world.command(&["pull", &name]);
        let output = command
            .env("KEELSON_FAILPOINT", failpoint)
            .output()
            .unwrap();
        assert!(!output.status.success(), "{failpoint} was not reached");
        world.check();
        let whole = world.store.find(&name).is_ok();
        assert_eq!(whole, failpoint == "after-index", "{failpoint}");
        if whole {
            break;
        }
        // What is half done is in nobody's way, and cleaned away on request.
        if failpoint == "layer-unpacked" {
            world.run(&["prune"]).well();
            let left = fs::read_dir(world.store.incoming(""))
                .unwrap()
                .map(|entry| entry.unwrap().file_name());
            let left: Vec<_> = left
                .filter(|name| !name.to_string_lossy().ends_with(".lock"))
                .collect();
            assert!(left.is_empty(), "{left:?}");
        }
    }
    world.run(&["pull", &name]).well();
    world.check();
}
