//! The log service as a process of its own, in directories of its own.
#![allow(dead_code)] // Each test program uses its part.

use keelson_sys::control;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr, connect, socket};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{BufRead, BufReader, Write};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;

/// Far longer than anything here takes.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) struct Log {
    child: Option<Child>,
    /// On a disk, as the state partition is.
    pub(crate) state: TempDir,
    pub(crate) run: TempDir,
    settings: Vec<(&'static str, String)>,
}

impl Log {
    pub(crate) fn start() -> Self {
        Self::start_with(&[])
    }

    pub(crate) fn start_with(settings: &[(&'static str, &str)]) -> Self {
        let mut log = Self {
            child: None,
            state: tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap(),
            run: tempfile::tempdir().unwrap(),
            settings: settings
                .iter()
                .map(|(name, value)| (*name, (*value).to_owned()))
                .collect(),
        };
        log.restart();
        log
    }

    /// Starts it and waits until it says that it is ready.
    pub(crate) fn restart(&mut self) {
        let path = self.run.path().join("notify");
        let _ = std::fs::remove_file(&path);
        let notified = UnixDatagram::bind(&path).unwrap();
        notified.set_read_timeout(Some(DEADLINE)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keelson-log"))
            .env("NOTIFY_SOCKET", &path)
            .env("KEELSON_LOG_DIRECTORY", self.state.path())
            .env("KEELSON_LOG_RUN_DIRECTORY", self.run.path())
            .env("KEELSON_LOG_KMSG", "/nonexistent")
            .env("KEELSON_LOG_SYSLOG_SERVICE", "console")
            .envs(self.settings.iter().map(|(name, value)| (name, value)))
            .spawn()
            .unwrap();
        self.child = Some(child);
        let mut message = [0; 256];
        let length = notified
            .recv(&mut message)
            .expect("the log is ready in time");
        assert!(message[..length].starts_with(b"READY=1\n"));
    }

    pub(crate) fn signal(&mut self, signal: Signal) {
        let mut child = self.child.take().unwrap();
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        child.wait().unwrap();
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.run.path().join(name)
    }

    /// Hands one packet over and gives the answer.
    pub(crate) fn offer(&self, packet: &str, fd: Option<BorrowedFd<'_>>) -> Value {
        let connection = socket(
            AddressFamily::Unix,
            SockType::SeqPacket,
            SockFlag::SOCK_CLOEXEC,
            None,
        )
        .unwrap();
        connect(
            connection.as_raw_fd(),
            &UnixAddr::new(&self.path("log.sock")).unwrap(),
        )
        .unwrap();
        control::send(connection.as_fd(), packet.as_bytes(), fd).unwrap();
        let answer = control::recv(connection.as_fd()).unwrap().unwrap();
        serde_json::from_slice(&answer.bytes).unwrap()
    }

    pub(crate) fn hand_over(&self, name: &str, pipe: &File) {
        let packet = json!({"name": name, "stream": "stdout"}).to_string();
        assert_eq!(self.offer(&packet, Some(pipe.as_fd())), json!({"ok": true}));
    }

    /// The answers to a query, as they come.
    pub(crate) fn query(&self, request: &Value) -> impl Iterator<Item = Value> + use<> {
        self.follow(request).0
    }

    /// The answers to a query, and the connection.
    pub(crate) fn follow(
        &self,
        request: &Value,
    ) -> (impl Iterator<Item = Value> + use<>, UnixStream) {
        let mut client = UnixStream::connect(self.path("query.sock")).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(format!("{request}\n").as_bytes()).unwrap();
        let side = client.try_clone().unwrap();
        let lines = BufReader::new(client).lines();
        let answers = lines.map(|line| serde_json::from_str(&line.unwrap()).unwrap());
        (answers, side)
    }

    /// The messages of one service, followed until one is `last`.
    pub(crate) fn messages_until(&self, service: &str, last: &str) -> Vec<String> {
        let mut messages = Vec::new();
        for record in self.query(&json!({"service": service, "follow": true})) {
            let message = record["message"].as_str().unwrap().to_owned();
            let found = message == last;
            messages.push(message);
            if found {
                return messages;
            }
        }
        panic!("the log ended before {last:?}");
    }
}

impl Drop for Log {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

pub(crate) fn pipe() -> (File, File) {
    // Closed in programs that tests beside this one start: an end that they held would stay open.
    let (reader, writer) = std::io::pipe().unwrap();
    (OwnedFd::from(reader).into(), OwnedFd::from(writer).into())
}
