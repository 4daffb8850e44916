//! Clients that connect and then do nothing, or not enough.

use crate::kills::Client;
use crate::world::World;
use serde_json::json;
use std::fs;
use std::io::Write;
use std::os::unix::net::UnixStream;

/// Of each kind: those who never end their request, those who listen to events and do not read, and those who are
/// attached to a container that prints all the time and do not read either.
const OF_EACH: usize = 167;
/// What such a client may cost at most, in KiB: what is sent to it is kept up to a limit.
const MEMORY_OF_EACH_KIB: u64 = 512;
/// Nothing more than that, however long it goes on.
const GROWTH_KIB: u64 = 8 * 1024;

fn memory_kib(pid: i32) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let number = line.unwrap().split_whitespace().next();
    number.unwrap().parse().unwrap()
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

#[test]
fn five_hundred_clients_who_do_not_read_hurt_nobody() {
    let Some(world) = World::start(&[], true) else {
        return;
    };
    let client = Client {
        socket: world.run().join("system.sock"),
    };
    let body = json!({
        "Image": "keelson/box", "OpenStdin": true, "AttachStdout": true, "StopSignal": "SIGKILL",
        "Cmd": ["sh", "-c", "while :; do echo 0123456789012345678901234567890123456789; done"],
        "HostConfig": {"NetworkMode": "none"},
    });
    let made = client.ask("POST", "/containers/create?name=loud", &body.to_string());
    assert_eq!(made.0, 201, "{made:?}");
    assert_eq!(client.ask("POST", "/containers/loud/start", "").0, 204);
    let pid = world.engine_pid();
    let before = descriptors(pid);

    let requests = [
        "GET /containers/json HTTP/1.1\r\nHost:",
        "GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
        "POST /containers/loud/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: tcp\r\n\r\n",
    ];
    let crowd: Vec<UnixStream> = (0..OF_EACH)
        .flat_map(|_| requests)
        .map(|request| {
            let mut stream = UnixStream::connect(&client.socket).unwrap();
            stream.write_all(request.as_bytes()).unwrap();
            stream
        })
        .collect();
    assert!(crowd.len() > 500);
    let mut memory = Vec::new();
    for round in 0..600 {
        if round % 300 == 299 {
            memory.push(memory_kib(pid));
        }
        let (status, all) = client.ask("GET", "/containers/json?all=1", "");
        assert_eq!((status, all.as_array().unwrap().len()), (200, 1));
        // Each is an event for those who listen.
        let (name, other) = match all[0]["Names"][0].as_str().unwrap() {
            "/loud" => ("loud", "noisy"),
            _ => ("noisy", "loud"),
        };
        let renamed = client.ask(
            "POST",
            &format!("/containers/{name}/rename?name={other}"),
            "",
        );
        assert_eq!(renamed.0, 204, "{renamed:?}");
    }
    let of_each = memory[0] / crowd.len() as u64;
    assert!(of_each < MEMORY_OF_EACH_KIB, "{of_each} KiB a client");
    assert!(memory[1] < memory[0] + GROWTH_KIB, "{memory:?} KiB");
    assert_eq!(client.ask("POST", "/containers/loud/stop", "").0, 204);

    // When they are gone, nothing is left of them.
    drop(crowd);
    world.wait("their descriptors to be closed", || {
        (descriptors(pid) <= before).then_some(())
    });
    assert_eq!(client.ask("DELETE", "/containers/loud", "").0, 204);
}
