//! Plays dockerd (when called with `--config-file`) and containerd for the tests: writes what it is told to `FAKE_LOG`.

use nix::sys::signal::{SigSet, Signal};
use serde_json::Value;
use std::env;
use std::fs;
use std::io::Write;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::{Arc, Mutex};

type Clients = Arc<Mutex<Vec<UnixStream>>>;

fn main() {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGHUP);
    signals.add(Signal::SIGTERM);
    signals.thread_block().unwrap();
    match env::args()
        .skip_while(|argument| argument != "--config-file")
        .nth(1)
    {
        Some(file) => dockerd(&file, &signals),
        None => containerd(&signals),
    }
}

fn log(line: &str) {
    let path = env::var("FAKE_LOG").unwrap();
    let mut file = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(path)
        .unwrap();
    file.write_all(format!("{line}\n").as_bytes()).unwrap();
}

fn containerd(signals: &SigSet) {
    assert_eq!(env::var_os("NOTIFY_SOCKET"), None);
    log(&format!("containerd starts {}", std::process::id()));
    while signals.wait().unwrap() != Signal::SIGTERM {}
    log("containerd stops");
}

fn read_settings(file: &str) -> Value {
    serde_json::from_slice(&fs::read(file).unwrap()).unwrap()
}

fn dockerd(file: &str, signals: &SigSet) {
    let settings = read_settings(file);
    if settings["mtu"] == "wrong" {
        log("dockerd refuses its settings");
        std::process::exit(1);
    }
    let host = settings["hosts"][0]
        .as_str()
        .unwrap()
        .strip_prefix("unix://")
        .unwrap()
        .to_owned();
    let clients = serve(UnixListener::bind(host).unwrap());
    log(&format!("dockerd starts {}", std::process::id()));
    keelson_sys::notify::notify("READY=1").unwrap();
    loop {
        let live_restore = read_settings(file)["live-restore"].clone();
        if signals.wait().unwrap() == Signal::SIGTERM {
            log(&format!("dockerd stops, live-restore {live_restore}"));
            if settings["mtu"] != "deaf" {
                return;
            }
        } else {
            log(&format!(
                "dockerd reloads, live-restore {}",
                read_settings(file)["live-restore"]
            ));
            for client in clients.lock().unwrap().iter_mut() {
                let _ = client.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"Action\":\"reload\"}\n");
            }
        }
    }
}

fn serve(listener: UnixListener) -> Clients {
    let clients = Clients::default();
    let held = Arc::clone(&clients);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            held.lock().unwrap().push(client.unwrap());
        }
    });
    clients
}
