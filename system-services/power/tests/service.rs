//! What the power service promises, through its sockets. Where the machine has uinput, a real power key is pressed.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;
use std::process::{Child, Command};
use std::time::Duration;
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

struct Power {
    child: Child,
    notified: UnixDatagram,
    directory: TempDir,
}

impl Power {
    fn start(wtmpdb: &str) -> Self {
        let directory = tempfile::tempdir().unwrap();
        fs::create_dir(directory.path().join("input")).unwrap();
        let program = directory.path().join("wtmpdb");
        fs::write(&program, format!("#!/bin/sh\n{wtmpdb}\n")).unwrap();
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
        let notified = UnixDatagram::bind(directory.path().join("notify")).unwrap();
        notified.set_read_timeout(Some(DEADLINE)).unwrap();
        let child = spawn(directory.path());
        let power = Self {
            child,
            notified,
            directory,
        };
        assert_eq!(power.heard(), "READY=1");
        power
    }

    fn heard(&self) -> String {
        let mut message = [0; 256];
        let length = self
            .notified
            .recv(&mut message)
            .expect("the service says something in time");
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    fn ask(&self, request: &str) -> Value {
        let mut client = UnixStream::connect(self.directory.path().join("run/power.sock")).unwrap();
        client.set_read_timeout(Some(DEADLINE)).unwrap();
        client.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        BufReader::new(client).read_line(&mut answer).unwrap();
        serde_json::from_str(&answer).unwrap()
    }

    fn terminate(&mut self) {
        kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM).unwrap();
        assert!(self.child.wait().unwrap().success());
    }

    fn restart(&mut self) {
        self.child = spawn(self.directory.path());
        assert_eq!(self.heard(), "READY=1");
    }

    /// What the wtmpdb of the test has been asked to do.
    fn recorded(&self) -> String {
        fs::read_to_string(self.directory.path().join("calls")).unwrap_or_default()
    }

    /// Waits until the boot is recorded: the service makes a file then.
    fn wait_for_boot_record(&self) {
        let path = self.directory.path().join("run/recorded-boot");
        let end = std::time::Instant::now() + DEADLINE;
        while !path.exists() {
            assert!(
                std::time::Instant::now() < end,
                "the boot is recorded in time"
            );
            std::thread::yield_now();
        }
    }
}

impl Drop for Power {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn spawn(directory: &Path) -> Child {
    Command::new(env!("CARGO_BIN_EXE_keelson-power"))
        .env("NOTIFY_SOCKET", directory.join("notify"))
        .env("KEELSON_POWER_INPUT_DIRECTORY", directory.join("input"))
        .env("KEELSON_POWER_RUN_DIRECTORY", directory.join("run"))
        .env("KEELSON_POWER_WTMPDB", directory.join("wtmpdb"))
        .env("KEELSON_POWER_DATABASE", "the-database")
        .env("CALLS", directory.join("calls"))
        .spawn()
        .unwrap()
}

const RECORDING: &str = r#"echo "$@" >> "$CALLS""#;

#[test]
fn each_action_is_passed_to_the_engine() {
    let power = Power::start(RECORDING);
    for action in ["reboot", "poweroff", "halt"] {
        assert_eq!(
            power.ask(&format!("{}\n", json!({"action": action}))),
            json!({"ok": true})
        );
        assert_eq!(power.heard(), format!("X_KEELSON_POWER={action}"));
    }
}

#[test]
fn what_is_no_request_is_refused_by_name() {
    let power = Power::start(RECORDING);
    let error = |request: &str| power.ask(request)["error"].to_string();
    assert!(error("{\"action\":\"explode\"}\n").contains("unknown variant `explode`"));
    assert!(error("{\"action\":\"halt\",\"now\":true}\n").contains("unknown field `now`"));
    assert!(error("reboot\n").contains("bad request"));
}

#[test]
fn only_root_and_the_group_reach_the_socket() {
    let power = Power::start(RECORDING);
    let metadata = fs::metadata(power.directory.path().join("run/power.sock")).unwrap();
    assert_eq!(metadata.permissions().mode() & 0o777, 0o660);
}

#[test]
fn a_boot_is_recorded_once_and_a_shutdown_only_when_it_is_one() {
    let mut power = Power::start(RECORDING);
    power.wait_for_boot_record();
    power.terminate();
    power.restart();
    let boot = "boot --file the-database\n";
    assert_eq!(power.recorded(), boot);

    power.ask("{\"action\":\"reboot\"}\n");
    power.terminate();
    assert_eq!(
        power.recorded(),
        format!("{boot}shutdown --file the-database\n")
    );
}

#[test]
fn a_recorder_that_fails_or_hangs_keeps_no_machine_up() {
    for wtmpdb in ["exit 1", "exec sleep 1000"] {
        let mut power = Power::start(wtmpdb);
        assert_eq!(
            power.ask("{\"action\":\"poweroff\"}\n"),
            json!({"ok": true})
        );
        power.terminate();
    }
}
