//! What `keelson-log forward` promises: the log service, the forwarder, and servers of the test's own.

mod harness;

use harness::{DEADLINE, Log, pipe};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs::File;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::process::{Child, Command};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The forwarder, with positions of its own.
struct Forwarder {
    positions: TempDir,
    child: Option<Child>,
}

impl Forwarder {
    fn new() -> Self {
        Forwarder {
            positions: tempfile::tempdir().unwrap(),
            child: None,
        }
    }

    fn start(&mut self, log: &Log, remote: &str) {
        self.child = Some(self.command(log, remote).spawn().unwrap());
    }

    /// As on a machine, where what it says is logged.
    fn start_logged(&mut self, log: &Log, remote: &str) {
        let (reader, writer) = pipe();
        log.hand_over("log-forward", &reader);
        let mut command = self.command(log, remote);
        self.child = Some(command.stderr(writer).spawn().unwrap());
    }

    fn command(&self, log: &Log, remote: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson-log"));
        command
            .args(["forward", remote])
            .env("KEELSON_LOG_RUN_DIRECTORY", log.run.path())
            .env("KEELSON_LOG_FORWARD_DIRECTORY", self.positions.path());
        command
    }

    fn stop(&mut self, signal: Signal) {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap();
    }
}

impl Drop for Forwarder {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A log with one service.
fn log() -> (Log, File) {
    let log = Log::start();
    let (reader, writer) = pipe();
    log.hand_over("web", &reader);
    (log, writer)
}

fn accept(listener: &TcpListener) -> BufReader<TcpStream> {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(DEADLINE)).unwrap();
    BufReader::new(stream)
}

/// The texts of the service's messages, up to and with `last`.
fn texts(stream: &mut BufReader<TcpStream>, last: &str) -> Vec<String> {
    let mut texts = Vec::new();
    loop {
        let mut line = String::new();
        assert!(stream.read_line(&mut line).unwrap() > 0, "{texts:?}");
        let Some((_, text)) = line.trim_end().split_once(" web - - - ") else {
            continue;
        };
        texts.push(text.to_owned());
        if text == last {
            return texts;
        }
    }
}

#[test]
fn nothing_is_lost_or_sent_twice_while_the_server_or_the_forwarder_is_away() {
    let (log, mut writer) = log();
    let mut forwarder = Forwarder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let remote = format!("tcp,7,127.0.0.1,{}", address.port());
    writer.write_all(b"<3>one\n").unwrap();
    forwarder.start(&log, &remote);
    let mut stream = accept(&listener);
    let mut line = String::new();
    while !line.contains(" web ") {
        line.clear();
        stream.read_line(&mut line).unwrap();
    }
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    let is_message =
        line.starts_with("<27>1 2") && line.ends_with(&format!(" {} web - - - one\n", host.trim()));
    assert!(is_message, "{line}");
    writer.write_all(b"two\n").unwrap();
    assert_eq!(texts(&mut stream, "two"), ["two"]);
    // The server goes away, and comes back.
    drop(stream);
    drop(listener);
    writer.write_all(b"three\nfour\n").unwrap();
    let listener = TcpListener::bind(address).unwrap();
    let mut stream = accept(&listener);
    assert_eq!(texts(&mut stream, "four"), ["three", "four"]);
    // The forwarder goes away, and comes back.
    forwarder.stop(Signal::SIGTERM);
    writer.write_all(b"five\nsix\n").unwrap();
    log.messages_until("web", "six");
    forwarder.start(&log, &remote);
    let mut stream = accept(&listener);
    assert_eq!(texts(&mut stream, "six"), ["five", "six"]);
    // Killed, it may say some of it again, and leaves nothing out.
    forwarder.stop(Signal::SIGKILL);
    writer.write_all(b"seven\n").unwrap();
    forwarder.start(&log, &remote);
    let mut stream = accept(&listener);
    let after = texts(&mut stream, "seven");
    let all = ["five", "six", "seven"];
    assert!(
        all.ends_with(&after.iter().map(String::as_str).collect::<Vec<_>>()[..]),
        "{after:?}"
    );
}

#[test]
fn the_log_service_may_go_away_too() {
    let (mut log, mut writer) = log();
    let mut forwarder = Forwarder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let remote = format!("tcp,7,127.0.0.1,{}", listener.local_addr().unwrap().port());
    forwarder.start(&log, &remote);
    writer.write_all(b"one\n").unwrap();
    let mut stream = accept(&listener);
    assert_eq!(texts(&mut stream, "one"), ["one"]);
    log.signal(Signal::SIGTERM);
    log.restart();
    let (reader, mut writer) = pipe();
    log.hand_over("web", &reader);
    writer.write_all(b"two\n").unwrap();
    let mut stream = accept(&listener);
    assert_eq!(texts(&mut stream, "two"), ["two"]);
}

#[test]
fn lengths_stand_before_messages_that_are_asked_for_so() {
    let (log, mut writer) = log();
    let mut forwarder = Forwarder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    forwarder.start(&log, &format!("tcp-counted,7,localhost,{port}"));
    writer.write_all(b"one\n<5>two \xc3\xa4\n").unwrap();
    let mut stream = accept(&listener);
    let mut found = Vec::new();
    while found.len() < 2 {
        let mut length = Vec::new();
        stream.read_until(b' ', &mut length).unwrap();
        let length = String::from_utf8(length).unwrap().trim().parse().unwrap();
        let mut message = vec![0; length];
        stream.read_exact(&mut message).unwrap();
        let message = String::from_utf8(message).unwrap();
        found.extend(
            message
                .split_once(" web - - - ")
                .map(|(_, text)| text.to_owned()),
        );
    }
    assert_eq!(found, ["one", "two ä"]);
}

#[test]
fn datagrams_are_sent_for_what_is_urgent_enough() {
    let (log, mut writer) = log();
    let mut forwarder = Forwarder::new();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let port = server.local_addr().unwrap().port();
    writer
        .write_all(b"<6>idle\n<4>warned\n<7>noise\n<1>burns\n")
        .unwrap();
    log.messages_until("web", "burns");
    forwarder.start(&log, &format!("udp,4,127.0.0.1,{port}"));
    let mut buffer = [0; 9000];
    let mut receive = || {
        let length = server.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..length].to_vec()).unwrap()
    };
    let mut of_web = Vec::new();
    while of_web.len() < 2 {
        let message = receive();
        of_web.extend(
            message
                .split_once(" web - - - ")
                .map(|(_, text)| text.to_owned()),
        );
    }
    assert_eq!(of_web, ["warned", "burns"]);
}

/// What the forwarder has said so far.
fn words(log: &Log) -> Vec<String> {
    let records = log.query(&json!({"service": "log-forward"}));
    records
        .map(|record| record["message"].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn a_server_that_closes_each_connection_is_tried_ever_more_seldom() {
    let (log, mut writer) = log();
    let mut forwarder = Forwarder::new();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    writer.write_all(b"one\n").unwrap();
    log.messages_until("web", "one");
    forwarder.start_logged(&log, &format!("tcp,7,127.0.0.1,{port}"));
    // What it says of the one is there to be sent by the next.
    drop(listener.accept().unwrap());
    let first = Instant::now();
    for _ in 0..3 {
        drop(listener.accept().unwrap());
    }
    // One second, two, and four.
    assert!(first.elapsed() > Duration::from_secs(6), "{first:?}");
    let words = words(&log);
    assert!((1..=4).contains(&words.len()), "{words:?}");
    let is_trouble = |line: &String| line.ends_with("; it goes on trying");
    assert!(words.iter().all(is_trouble), "{words:?}");
}

#[test]
fn a_port_that_nobody_has_is_told_of_once() {
    let (log, mut writer) = log();
    let mut forwarder = Forwarder::new();
    let server = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap();
    drop(server);
    writer.write_all(b"one\n").unwrap();
    log.messages_until("web", "one");
    forwarder.start_logged(&log, &format!("udp,7,127.0.0.1,{}", address.port()));
    let records = log.query(&json!({"service": "log-forward", "follow": true}));
    let said = records.map(|record| record["message"].as_str().unwrap().to_owned());
    let said: Vec<String> = said.take(1).collect();
    assert!(said[0].contains("refused"), "{said:?}");
    let server = UdpSocket::bind(address).unwrap();
    server.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut buffer = [0; 9000];
    server.recv(&mut buffer).unwrap();
    writer.write_all(b"two\n").unwrap();
    while !buffer.windows(3).any(|bytes| bytes == b"two") {
        buffer.fill(0);
        server.recv(&mut buffer).unwrap();
    }
    assert_eq!(words(&log), said);
}

#[test]
fn positions_of_servers_that_nothing_is_sent_to_any_more_are_forgotten() {
    let (log, _writer) = log();
    let mut forwarder = Forwarder::new();
    let old = forwarder.positions.path().join("tcp:old:514");
    std::fs::write(&old, "{\"id\":1,\"time_us\":1}").unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    forwarder.start(&log, &format!("tcp,7,127.0.0.1,{port}"));
    accept(&listener);
    assert!(!old.exists());
}
