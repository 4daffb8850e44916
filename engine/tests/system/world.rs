//! One engine and its surroundings.

use crate::pid1::{self, Init};
use crate::place::{make_image, separate};
use keelson_engine::api;
use keelson_sys::control::{self, ToInit};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::sys::stat::Mode;
use nix::unistd::{Pid, mkfifo};
use serde::de::DeserializeOwned;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

/// Long enough for a loaded machine; only a failing test waits so long.
const PATIENCE: Duration = Duration::from_secs(60);

pub(crate) struct World {
    directory: tempfile::TempDir,
    cgroup: PathBuf,
    engine: Option<i32>,
    init: Option<Init>,
    said: Receiver<ToInit>,
    lines: Receiver<String>,
    console: PathBuf,
    /// Where the next engine dies.
    pub(crate) failpoint: Option<&'static str>,
}

impl World {
    /// Surroundings with this `NAME.yml` files; the engine is not started. `None` when this machine does not allow it.
    pub(crate) fn new(services: &[(&str, &str)], with_init: bool) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("skipped: needs root");
            return None;
        }
        let directory = tempfile::tempdir().unwrap();
        let cgroup = separate(directory.path());
        for name in ["services", "own", "images", "run"] {
            fs::create_dir(directory.path().join(name)).unwrap();
        }
        make_image(&directory.path().join("images/box"));
        let profile = r#"{"defaultAction": "SCMP_ACT_ALLOW", "archMap": [], "syscalls": []}"#;
        fs::write(directory.path().join("seccomp.json"), profile).unwrap();
        for (name, text) in services {
            fs::write(
                directory
                    .path()
                    .join("services")
                    .join(format!("{name}.yml")),
                text,
            )
            .unwrap();
        }
        let console = directory.path().join("console");
        let (say, said) = channel();
        let lines = read_console(&console, with_init);
        let init = with_init.then(|| pid1::new(say));
        pid1::reap();
        Some(Self {
            directory,
            cgroup,
            engine: None,
            init,
            said,
            lines,
            console,
            failpoint: None,
        })
    }

    /// The same, with the engine started.
    pub(crate) fn start(services: &[(&str, &str)], with_init: bool) -> Option<Self> {
        let mut world = Self::new(services, with_init)?;
        world.start_engine();
        Some(world)
    }

    /// Starts the engine, once more if it was killed.
    pub(crate) fn start_engine(&mut self) {
        let path = |name: &str| self.directory.path().join(name);
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson-engine"));
        command
            .arg("--services")
            .arg(path("services"))
            .arg("--own-services")
            .arg(path("own"))
            .arg("--images")
            .arg(path("images"));
        command
            .arg("--run")
            .arg(path("run"))
            .arg("--state")
            .arg(path("state"))
            .arg("--seccomp")
            .arg(path("seccomp.json"));
        command.arg("--without-limits");
        command
            .stdin(Stdio::null())
            .env_remove(control::FD_VARIABLE);
        if let Some(name) = self.failpoint.take() {
            command.env(keelson_engine::failpoint::VARIABLE, name);
        }
        if std::env::var_os("KEELSON_RUNTIME").is_none() {
            command.env("KEELSON_RUNTIME", "/usr/bin/crun");
        }
        let console = || OpenOptions::new().write(true).open(&self.console).unwrap();
        command.stdout(console()).stderr(console());
        let pair = self.init.as_ref().map(|_| control::pair().unwrap());
        if let Some((_, theirs)) = &pair {
            // Inherited over exec: the number stays the same in the child.
            fcntl_cloexec(theirs, false);
            command.env(control::FD_VARIABLE, theirs.as_raw_fd().to_string());
        }
        self.engine = Some(i32::try_from(command.spawn().unwrap().id()).unwrap());
        if let (Some(init), Some((ours, theirs))) = (&self.init, pair) {
            drop(theirs);
            pid1::attach(init, ours);
        }
    }

    /// `kill -9` to the engine, and to nothing else; returns when it is gone.
    pub(crate) fn kill_engine(&mut self) {
        let pid = self.engine.take().unwrap();
        kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
        self.wait_gone(pid);
    }

    /// Waits until the engine has died by itself.
    pub(crate) fn engine_dies(&mut self) {
        let pid = self.engine.take().unwrap();
        self.wait_gone(pid);
    }

    pub(crate) fn engine_pid(&self) -> i32 {
        self.engine.unwrap()
    }

    /// SIGTERM to the engine.
    pub(crate) fn terminate_engine(&self) {
        kill(Pid::from_raw(self.engine.unwrap()), Signal::SIGTERM).unwrap();
    }

    /// Waits until a process is reaped.
    pub(crate) fn wait_gone(&self, pid: i32) {
        self.wait("the end of a process", || {
            (!Path::new(&format!("/proc/{pid}")).exists()).then_some(())
        });
    }

    /// The directory of an image, made when it is not there.
    pub(crate) fn image(&self, name: &str) -> PathBuf {
        let image = self.directory.path().join("images").join(name);
        if !image.exists() {
            make_image(&image);
        }
        image
    }

    /// Where the machine's own services are defined.
    pub(crate) fn own_services(&self) -> PathBuf {
        self.directory.path().join("own")
    }

    /// What outlives the machine's going down.
    pub(crate) fn state(&self) -> PathBuf {
        self.directory.path().join("state")
    }

    pub(crate) fn init(&self) -> &Init {
        self.init.as_ref().unwrap()
    }

    pub(crate) fn run(&self) -> PathBuf {
        self.directory.path().join("run")
    }

    /// The next words of the engine to PID 1.
    pub(crate) fn said(&self) -> ToInit {
        self.said
            .recv_timeout(PATIENCE)
            .expect("the engine says something to PID 1")
    }

    /// Waits until the engine is up. There are no services of the user slice here: they have settled before.
    pub(crate) fn is_up(&self) {
        assert_eq!(self.said(), ToInit::UserSettled);
        assert_eq!(self.said(), ToInit::Ready);
    }

    /// Reads what the engine tells until a line has this in it; returns all of them, that one last.
    pub(crate) fn wait_for(&self, text: &str) -> Vec<String> {
        let (deadline, mut lines) = (Instant::now() + PATIENCE, Vec::new());
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no line with `{text}` came; there were: {lines:#?}")
            };
            let found = line.contains(text);
            lines.push(line);
            if found {
                return lines;
            }
        }
    }

    /// What the engine has told by now, since the last [`World::wait_for`].
    pub(crate) fn told(&self) -> Vec<String> {
        // What it writes is read by a thread: a line of our own marks the end.
        let mut console = OpenOptions::new().write(true).open(&self.console).unwrap();
        console.write_all(b"end of what was told\n").unwrap();
        self.wait_for("end of what was told")
    }

    /// Waits until something outside the engine's own words is true.
    pub(crate) fn wait<T>(&self, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = look() {
                return found;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// Waits until the program of a service runs: before that it has nothing to say.
    pub(crate) fn wait_running(&self, service: &str) {
        self.wait("a service's program to run", || {
            self.service(service).started_us
        });
    }

    /// Speaks as a service does.
    pub(crate) fn notify(&self, service: &str, message: &str) {
        let socket = self.run().join("notify").join(service).join("notify.sock");
        UnixDatagram::unbound()
            .unwrap()
            .send_to(message.as_bytes(), socket)
            .unwrap();
    }

    /// One request to the API: status code and body. Waits for the engine when it is just starting.
    pub(crate) fn request(&self, method: &str, path: &str) -> (u16, String) {
        self.send(method, path, "")
    }

    /// The same, with a body.
    pub(crate) fn send(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        self.wait("an answer of the API", || {
            self.try_request(method, path, body).ok()
        })
    }

    /// One request whose answer is left to be read.
    pub(crate) fn ask(&self, method: &str, path: &str, body: &str) -> std::io::Result<UnixStream> {
        let mut stream = UnixStream::connect(self.run().join("system.sock"))?;
        let length = body.len();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        )?;
        Ok(stream)
    }

    fn try_request(&self, method: &str, path: &str, body: &str) -> std::io::Result<(u16, String)> {
        let mut stream = self.ask(method, path, body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let cut = || std::io::Error::other("the answer was cut");
        let (head, body) = answer.split_once("\r\n\r\n").ok_or_else(cut)?;
        Ok((head[9..12].parse().unwrap(), body.to_owned()))
    }

    pub(crate) fn get<T: DeserializeOwned>(&self, path: &str) -> T {
        let (status, body) = self.request("GET", path);
        assert_eq!(status, 200, "{body}");
        serde_json::from_str(&body).unwrap()
    }

    pub(crate) fn service(&self, name: &str) -> api::Service {
        let services: Vec<api::Service> = self.get("/keelson/v1/services");
        services
            .into_iter()
            .find(|service| service.name == name)
            .unwrap()
    }
}

impl Drop for World {
    /// Ends the engine and everything in this world's cgroup.
    fn drop(&mut self) {
        if let Some(pid) = self.engine {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
        let _ = fs::write(self.cgroup.join("cgroup.kill"), "1");
        let deadline = Instant::now() + Duration::from_secs(10);
        for slice in ["system", "user"] {
            for entry in fs::read_dir(self.cgroup.join(slice))
                .into_iter()
                .flatten()
                .flatten()
            {
                while fs::remove_dir(entry.path()).is_err()
                    && entry.path().is_dir()
                    && Instant::now() < deadline
                {
                    std::thread::sleep(Duration::from_millis(5));
                }
            }
            let _ = fs::remove_dir(self.cgroup.join(slice));
        }
        if self.init.is_some() {
            // The next world of this thread has a kernel log of its own.
            let _ = umount2("/dev/kmsg", MntFlags::MNT_DETACH);
        }
        let _ = umount2("/sys/fs/cgroup", MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.cgroup);
        // Nothing must be mounted below the directory when it is removed.
        for entry in fs::read_dir(self.run().join("containers"))
            .into_iter()
            .flatten()
            .flatten()
        {
            let _ = umount2(&entry.path().join("rootfs"), MntFlags::MNT_DETACH);
        }
        umount2(&self.directory.path().join("cgroup"), MntFlags::MNT_DETACH).unwrap();
    }
}

fn fcntl_cloexec(fd: &std::os::fd::OwnedFd, on: bool) {
    use nix::fcntl::{FcntlArg, FdFlag, fcntl};
    fcntl(
        fd,
        FcntlArg::F_SETFD(if on {
            FdFlag::FD_CLOEXEC
        } else {
            FdFlag::empty()
        }),
    )
    .unwrap();
}

/// What the engine tells arrives in a named pipe: its standard error, or what it takes for the kernel's log.
fn read_console(path: &Path, kernel_log: bool) -> Receiver<String> {
    mkfifo(path, Mode::from_bits_truncate(0o600)).unwrap();
    let pipe: File = OpenOptions::new()
        .read(true)
        .write(true)
        .open(path)
        .unwrap();
    if kernel_log {
        mount(
            Some(path),
            "/dev/kmsg",
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )
        .unwrap();
    }
    let (sender, lines) = channel();
    std::thread::spawn(move || {
        for line in BufReader::new(pipe).lines() {
            let Ok(line) = line else { return };
            if std::env::var_os("KEELSON_TEST_VERBOSE").is_some() {
                eprintln!("{line}");
            }
            if sender.send(line).is_err() {
                return;
            }
        }
    });
    lines
}
