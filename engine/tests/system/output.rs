//! What services print, and who reads it.

use crate::PATIENT;
use crate::world::World;
use keelson_sys::control;
use nix::sys::socket::{
    AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, listen, socket,
};
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

#[test]
fn without_a_log_service_output_goes_to_the_engines_own() {
    let file = "services:\n  talks: {image: keelson/box, command: [sh, -c, 'echo to stdout; echo to stderr >&2']}\n";
    let Some(world) = World::start(&[("talks", file)], false) else {
        return;
    };
    let lines = world.wait_for("talks | to std");
    let lines = [lines, world.wait_for("talks | to std")].concat();
    assert!(
        lines.iter().any(|line| line == "talks | to stdout")
            && lines.iter().any(|line| line == "talks | to stderr")
    );
}

#[test]
fn the_log_service_is_given_every_pipe_when_it_is_ready() {
    let file = format!(
        "services:
  talks: {{image: keelson/box, command: [sh, -c, 'echo early; exec sleep 1000']}}
  log: {{image: keelson/box, command: {PATIENT}, x-keelson: {{ready: notify}}}}
"
    );
    let Some(world) = World::start(&[("all", &file)], true) else {
        return;
    };
    world.wait_for("service talks is ready");
    std::fs::create_dir_all(world.run().join("log")).unwrap();
    let listener = socket(
        AddressFamily::Unix,
        SockType::SeqPacket,
        SockFlag::SOCK_CLOEXEC,
        None,
    )
    .unwrap();
    bind(
        listener.as_raw_fd(),
        &UnixAddr::new(&world.run().join("log/log.sock")).unwrap(),
    )
    .unwrap();
    listen(&listener, Backlog::new(8).unwrap()).unwrap();
    world.wait_running("log");
    world.notify("log", "READY=1");
    let mut pipes: BTreeMap<String, OwnedFd> = BTreeMap::new();
    while pipes.len() < 4 {
        let connection = rustix::net::accept(&listener).unwrap();
        let packet = control::recv(connection.as_fd()).unwrap().unwrap();
        let piece: serde_json::Value = serde_json::from_slice(&packet.bytes).unwrap();
        let name = format!(
            "{}.{}",
            piece["name"].as_str().unwrap(),
            piece["stream"].as_str().unwrap()
        );
        pipes.insert(name, packet.fd.unwrap());
        control::send(connection.as_fd(), b"{\"ok\":true}", None).unwrap();
    }
    assert_eq!(
        pipes.keys().collect::<Vec<_>>(),
        ["log.stderr", "log.stdout", "talks.stderr", "talks.stdout"]
    );
    let mut lines = BufReader::new(File::from(pipes.remove("talks.stdout").unwrap())).lines();
    assert_eq!(lines.next().unwrap().unwrap(), "early");
}
