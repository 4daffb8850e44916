//! The supervisor as a process of its own, with daemons that only play their parts (`examples/fake_daemon.rs`).

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const DEADLINE: Duration = Duration::from_secs(30);

struct Docker {
    child: Child,
    notified: UnixDatagram,
    directory: TempDir,
}

impl Docker {
    fn start(user_settings: Option<&str>) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        fs::create_dir(path("cgroup")).unwrap();
        if let Some(text) = user_settings {
            fs::write(path("user.json"), text).unwrap();
        }
        let notified = UnixDatagram::bind(path("notify")).unwrap();
        notified.set_read_timeout(Some(DEADLINE)).unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_keelson-docker"))
            .env("NOTIFY_SOCKET", path("notify"))
            .env("FAKE_LOG", path("log"))
            .env("KEELSON_DOCKER_CONTAINERD", fake_daemon())
            .env("KEELSON_DOCKER_DOCKERD", fake_daemon())
            .env("KEELSON_DOCKER_RUN_DIRECTORY", path("run"))
            .env("KEELSON_DOCKER_CONTAINERD_SOCKET", path("containerd.sock"))
            .env("KEELSON_DOCKER_SOCKET", path("docker.sock"))
            .env("KEELSON_DOCKER_USER_SETTINGS", path("user.json"))
            .env("KEELSON_DOCKER_CGROUP", path("cgroup"))
            .spawn()
            .unwrap();
        Self {
            child,
            notified,
            directory,
        }
    }

    /// What the engine hears next.
    fn heard(&self) -> String {
        let mut message = [0; 1024];
        let length = self
            .notified
            .recv(&mut message)
            .expect("the supervisor says something in time");
        String::from_utf8_lossy(&message[..length]).into_owned()
    }

    /// Waits for this word; gives what was said before it.
    fn hear(&self, word: &str) -> Vec<String> {
        let mut before = Vec::new();
        loop {
            let message = self.heard();
            if message.contains(word) {
                return before;
            }
            before.push(message);
        }
    }

    /// What the daemons wrote.
    fn log(&self) -> Vec<String> {
        let text = fs::read_to_string(self.directory.path().join("log")).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// The numbers of all processes that one of the daemons has had.
    fn pids(&self, daemon: &str) -> Vec<Pid> {
        let prefix = format!("{daemon} starts ");
        let number = |line: &String| line.strip_prefix(&prefix)?.parse().ok().map(Pid::from_raw);
        self.log().iter().filter_map(number).collect()
    }

    /// Waits until a daemon has been started so often; it says so in the log only.
    fn wait_for_starts(&self, daemon: &str, count: usize) -> Vec<Pid> {
        let end = Instant::now() + DEADLINE;
        loop {
            let pids = self.pids(daemon);
            if pids.len() >= count {
                return pids;
            }
            assert!(
                Instant::now() < end,
                "{daemon} is started in time: {:?}",
                self.log()
            );
            std::thread::yield_now();
        }
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    fn stop(&mut self) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.child.wait().unwrap()
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        for pid in ["dockerd", "containerd"]
            .iter()
            .flat_map(|daemon| self.pids(daemon))
        {
            let _ = kill(pid, Signal::SIGKILL);
        }
    }
}

fn fake_daemon() -> PathBuf {
    let supervisor = Path::new(env!("CARGO_BIN_EXE_keelson-docker"));
    supervisor.with_file_name("examples").join("fake_daemon")
}

fn is_alive(pid: Pid) -> bool {
    kill(pid, None).is_ok()
}

#[test]
fn readiness_is_dockerds_own_word() {
    let docker = Docker::start(None);
    assert_eq!(docker.heard(), "READY=1\nSTATUS=Docker answers");
    assert_eq!(docker.pids("dockerd").len(), 1);
}

#[test]
fn a_daemon_that_dies_is_started_again_and_the_other_goes_on() {
    let docker = Docker::start(None);
    docker.hear("READY=1");
    let containerd = docker.wait_for_starts("containerd", 1)[0];
    kill(docker.pids("dockerd")[0], Signal::SIGKILL).unwrap();
    let said = docker.hear("READY=1");
    assert_eq!(
        said,
        ["STATUS=dockerd was ended by SIGKILL; it starts again after 0 ms"]
    );
    assert!(is_alive(containerd));

    let dockerd = docker.pids("dockerd")[1];
    kill(containerd, Signal::SIGKILL).unwrap();
    docker.wait_for_starts("containerd", 2);
    assert!(is_alive(dockerd));
    assert_eq!(docker.pids("dockerd").len(), 2);
}

#[test]
fn sighup_starts_only_dockerd_again_and_leaves_live_restore_on() {
    let docker = Docker::start(None);
    docker.hear("READY=1");
    docker.wait_for_starts("containerd", 1);
    docker.signal(Signal::SIGHUP);
    docker.hear("READY=1");
    assert!(
        docker
            .log()
            .contains(&"dockerd stops, live-restore true".to_owned())
    );
    assert_eq!(
        (
            docker.pids("dockerd").len(),
            docker.pids("containerd").len()
        ),
        (2, 1)
    );
}

#[test]
fn a_stop_turns_live_restore_off_first_and_ends_containerd_last() {
    let mut docker = Docker::start(None);
    docker.hear("READY=1");
    docker.wait_for_starts("containerd", 1);
    assert!(docker.stop().success());
    let log = docker.log();
    let expected = [
        "dockerd reloads, live-restore false",
        "dockerd stops, live-restore false",
        "containerd stops",
    ];
    assert_eq!(log[log.len() - 3..], expected);
}

#[test]
fn a_dockerd_that_does_not_stop_is_killed_within_the_time_limit() {
    let mut docker = Docker::start(Some(r#"{"mtu":"deaf"}"#));
    docker.hear("READY=1");
    let start = Instant::now();
    assert!(docker.stop().success());
    assert!(start.elapsed() < Duration::from_secs(10));
    assert!(!is_alive(docker.pids("dockerd")[0]));
    // The applications went first.
    assert!(
        docker
            .directory
            .path()
            .join("cgroup/docker/cgroup.kill")
            .exists()
    );
}

#[test]
fn settings_that_are_no_json_are_named_and_the_defaults_used() {
    let docker = Docker::start(Some("{\"mtu\": }"));
    let said = docker.hear("READY=1").join("\n");
    assert!(
        said.contains("user.json:1:9: expected value; the defaults are used"),
        "{said}"
    );
}

#[test]
fn settings_that_dockerd_refuses_are_dropped() {
    let docker = Docker::start(Some(r#"{"mtu":"wrong"}"#));
    let said = docker.hear("READY=1").join("\n");
    assert!(said.contains("dockerd did not start with "), "{said}");
    assert!(said.contains("user.json; the defaults are used"), "{said}");
    assert_eq!(
        docker
            .log()
            .iter()
            .filter(|line| line.contains("refuses"))
            .count(),
        1
    );
}

#[test]
fn a_program_that_is_missing_is_named_and_tried_again() {
    let directory = tempfile::tempdir().unwrap();
    fs::create_dir(directory.path().join("cgroup")).unwrap();
    let notified = UnixDatagram::bind(directory.path().join("notify")).unwrap();
    notified.set_read_timeout(Some(DEADLINE)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_keelson-docker"))
        .env("NOTIFY_SOCKET", directory.path().join("notify"))
        .env("KEELSON_DOCKER_CONTAINERD", "/nonexistent/containerd")
        .env("KEELSON_DOCKER_DOCKERD", "/nonexistent/dockerd")
        .env("KEELSON_DOCKER_RUN_DIRECTORY", directory.path().join("run"))
        .env("KEELSON_DOCKER_CGROUP", directory.path().join("cgroup"))
        .spawn()
        .unwrap();
    for _ in 0..4 {
        let mut message = [0; 1024];
        let length = notified.recv(&mut message).unwrap();
        let message = String::from_utf8_lossy(&message[..length]).into_owned();
        assert!(
            message.starts_with("STATUS=starting /nonexistent/"),
            "{message}"
        );
    }
    child.kill().unwrap();
    child.wait().unwrap();
}
