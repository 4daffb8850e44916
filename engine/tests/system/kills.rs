//! `kill -9` of the engine again and again, while containers come and go: what it has said stays true.

use crate::world::World;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// So many kills unless `KEELSON_KILLS` says otherwise.
const KILLS: u32 = 60;
const PATIENCE: Duration = Duration::from_secs(60);

/// A client that asks again when the engine has died before it answered.
pub(crate) struct Client {
    pub(crate) socket: PathBuf,
}

impl Client {
    pub(crate) fn try_ask(
        &self,
        method: &str,
        path: &str,
        body: &str,
    ) -> std::io::Result<(u16, Value)> {
        let mut stream = UnixStream::connect(&self.socket)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let cut = || std::io::Error::other("the answer was cut");
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
        let status = head[9..12].parse().map_err(|_| cut())?;
        let is_empty = matches!(status, 204 | 304);
        match serde_json::from_str(body) {
            Ok(value) => Ok((status, value)),
            Err(_) if is_empty => Ok((status, Value::Null)),
            Err(_) => Err(cut()),
        }
    }

    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.try_ask(method, path, body) {
                Ok((503, _)) | Err(_) => {}
                Ok(answer) => return answer,
            }
            assert!(Instant::now() < deadline, "{method} {path} is not answered");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    /// Runs a container to its end; every tenth stays. What is told of it must be so.
    fn run(&self, number: usize) {
        let (name, code) = (format!("c{number}"), number % 7);
        let body = json!({ "Image": "keelson/box", "Cmd": ["sh", "-c", format!("exit {code}")], "HostConfig": {"NetworkMode": "none"} });
        let path = format!("/containers/create?name={name}");
        let (status, answer) = self.ask("POST", &path, &body.to_string());
        // Made, whether or not the one who made it lived to say so.
        assert!(matches!(status, 201 | 409), "{status} {answer}");
        let started = self.ask("POST", &format!("/containers/{name}/start"), "");
        assert!(matches!(started.0, 204 | 304), "{name}: {started:?}");
        let (status, answer) = self.ask("POST", &format!("/containers/{name}/wait"), "");
        assert_eq!(
            (status, &answer["StatusCode"]),
            (200, &json!(code)),
            "{name}"
        );
        let (_, seen) = self.ask("GET", &format!("/containers/{name}/json"), "");
        assert_eq!(seen["State"]["ExitCode"], json!(code), "{name}: {seen}");
        if !number.is_multiple_of(10) {
            let (status, answer) = self.ask("DELETE", &format!("/containers/{name}"), "");
            // Gone already: the answer was lost.
            assert!(
                matches!(status, 204 | 404 | 409),
                "{name}: {status} {answer}"
            );
        }
    }
}

#[test]
fn kills_without_end_lose_no_container_no_status_and_no_line() {
    let kills: u32 = std::env::var("KEELSON_KILLS").map_or(KILLS, |text| text.parse().unwrap());
    let file = "services:
  counts: {image: keelson/box, command: [sh, -c, 'i=0; while :; do echo $$i; i=$$((i+1)); sleep 0.01; done'], stop_signal: KILL}
  log: {image: keelson/box, command: [sleep, '100000'], stop_signal: KILL, x-keelson: {ready: notify}}
";
    let Some(mut world) = World::start(&[("all", file)], true) else {
        return;
    };
    world.wait_running("counts");
    world.wait_running("log");
    // Nobody takes the pipes, and containers need not wait for that: this test reads in the log service's place.
    world.notify("log", "READY=1");
    let first = world.service("counts");
    world.wait("the pipe to be stored", || {
        let held = world.init().lock().unwrap();
        held.stored.contains_key("counts.stdout").then_some(())
    });
    let pipe = world.init().lock().unwrap().stored["counts.stdout"]
        .as_fd()
        .try_clone_to_owned()
        .unwrap();
    let over = AtomicBool::new(false);
    let socket = world.run().join("system.sock");
    let made = std::thread::scope(|scope| {
        let reader = scope.spawn(|| {
            let lines = BufReader::new(File::from(pipe)).lines();
            for (expected, line) in (0_u32..).zip(lines) {
                assert_eq!(line.unwrap().parse(), Ok(expected));
                if over.load(Ordering::Relaxed) {
                    return;
                }
            }
        });
        let workers: Vec<_> = (0..3)
            .map(|worker| {
                let (socket, over) = (socket.clone(), &over);
                scope.spawn(move || {
                    let client = Client { socket };
                    let numbers = (0..).map(|round| round * 3 + worker);
                    let done = numbers.take_while(|_| !over.load(Ordering::Relaxed));
                    done.inspect(|number| client.run(*number)).last()
                })
            })
            .collect();
        for kill in 0..kills {
            // Numbers that have nothing to do with each other, and come again when the test does.
            let pause = u64::from(kill.wrapping_mul(2_654_435_761) >> 25);
            std::thread::sleep(Duration::from_millis(pause));
            world.kill_engine();
            world.start_engine();
        }
        over.store(true, Ordering::Relaxed);
        let made: Vec<usize> = workers
            .into_iter()
            .filter_map(|worker| worker.join().unwrap())
            .collect();
        reader.join().unwrap();
        made
    });
    assert_eq!(world.service("counts").pid, first.pid);
    assert!(made.iter().sum::<usize>() > 0, "nothing came to its end");
    all_are_there(&world, &Client { socket }, &made);
}

/// Exactly those are there that were to stay, each with its status, and nothing of the others.
fn all_are_there(world: &World, client: &Client, made: &[usize]) {
    let mut expected: Vec<String> = made
        .iter()
        .flat_map(|last| (last % 3..=*last).step_by(3))
        .filter(|number| number.is_multiple_of(10))
        .map(|number| format!("/c{number}"))
        .collect();
    expected.sort();
    let (_, all) = client.ask("GET", "/containers/json?all=1", "");
    let mut names: Vec<String> = all
        .as_array()
        .unwrap()
        .iter()
        .map(|container| container["Names"][0].as_str().unwrap().to_owned())
        .filter(|name| name.starts_with("/c") && name != "/counts")
        .collect();
    names.sort();
    assert_eq!(names, expected);
    for name in &names {
        let (_, seen) = client.ask("GET", &format!("/containers{name}/json"), "");
        let number: usize = name[2..].parse().unwrap();
        assert_eq!(seen["State"]["ExitCode"], json!(number % 7), "{name}");
    }
    let left = |directory: PathBuf| -> Vec<String> {
        let entries = std::fs::read_dir(directory).into_iter().flatten().flatten();
        let names = entries.map(|entry| entry.file_name().to_string_lossy().into_owned());
        names
            .filter(|name| name.len() == 12 && name.bytes().all(|byte| byte.is_ascii_hexdigit()))
            .collect()
    };
    let cgroups = || left(PathBuf::from("/sys/fs/cgroup/user"));
    let deadline = Instant::now() + Duration::from_secs(20);
    while !cgroups().is_empty() {
        assert!(
            Instant::now() < deadline,
            "these cgroups are left, each with its processes, and whether its container, its bundle and the runtime's record are: {:#?}",
            cgroups()
                .iter()
                .map(|key| remains(world, key))
                .collect::<Vec<_>>()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    world.wait("the last bundles to be removed", || {
        let kept = left(world.state().join("containers")).len();
        let bundles = left(world.run().join("containers")).len();
        (kept == names.len() && bundles <= kept).then_some(())
    });
    assert!(Path::new("/sys/fs/cgroup/system/counts").exists());
}

fn remains(world: &World, key: &str) -> (String, String, [bool; 3]) {
    let processes = std::fs::read_to_string(format!("/sys/fs/cgroup/user/{key}/cgroup.procs"));
    let places = [
        world.state().join("containers").join(key),
        world.run().join("containers").join(key),
        world.run().join("runtime").join(key),
    ];
    (
        key.to_owned(),
        processes.unwrap_or_default(),
        places.map(|place| place.exists()),
    )
}
