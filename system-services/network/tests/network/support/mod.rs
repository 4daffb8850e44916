//! A laboratory: two network namespaces joined by a cable (a veth pair), the service in one of them and a DHCP server
//! in the other. It needs root; without, every test fails and says so.
//!
//! Nothing is polled: whoever waits is woken by the kernel's announcements, by files that change, and by what the
//! programs print, and looks again.

mod namespace;
mod server;

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::net::Ipv4Addr;
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tempfile::TempDir;

pub(crate) use namespace::Namespace;

/// How long anything may take that happens at once. Machines are busy.
pub(crate) const SOON: Duration = Duration::from_secs(30);

/// Lines that a program printed so far.
#[derive(Clone, Default)]
pub(crate) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub(crate) fn count(&self, part: &str) -> usize {
        self.all().iter().filter(|line| line.contains(part)).count()
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn clear(&self) {
        self.0.lock().unwrap().clear();
    }
}

pub(crate) struct Lab {
    pub(crate) directory: TempDir,
    /// Where the service runs; the cable's end is `e0`.
    pub(crate) client: Namespace,
    /// Where the server runs; the cable's end is `s0`, 10.77.0.1/24.
    pub(crate) server: Namespace,
    pub(crate) service: Option<Child>,
    pub(crate) dnsmasq: Option<Child>,
    /// Other programs in the server's namespace.
    peers: Vec<Child>,
    /// What the service printed.
    pub(crate) log: Lines,
    /// What the server printed.
    pub(crate) server_log: Lines,
    /// What `ip monitor` printed in the service's namespace.
    pub(crate) announcements: Lines,
    /// What the service told its supervisor.
    pub(crate) notifications: Lines,
    monitor: Child,
    wake: Sender<()>,
    woken: Receiver<()>,
}

impl Lab {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        for name in ["run", "state", "sys/e0/device"] {
            fs::create_dir_all(directory.path().join(name)).unwrap();
        }
        let (client, server) = (Namespace::new(), Namespace::new());
        client.join(&server, "e0", "s0");
        server.ip("addr add 10.77.0.1/24 dev s0");
        server.ip("link set s0 up");
        let (wake, woken) = channel();
        let [log, server_log, announcements, notifications]: [Lines; 4] = Default::default();
        let mut monitor = client.command("ip");
        let mut monitor = monitor
            .args(["-o", "monitor", "link", "address", "route"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        follow(
            monitor.stdout.take().unwrap(),
            announcements.clone(),
            wake.clone(),
        );
        let lab = Self {
            directory,
            client,
            server,
            service: None,
            dnsmasq: None,
            peers: Vec::new(),
            log,
            server_log,
            announcements,
            notifications,
            monitor,
            wake,
            woken,
        };
        lab.listen_for_notifications();
        lab.watch_files();
        lab
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap_or_default()
    }

    /// Starts the service; it is ready when this returns.
    pub(crate) fn start_service(&mut self) {
        assert!(self.service.is_none());
        self.notifications.clear();
        // With the capabilities that service.yml names, and no others.
        let mut command = self.client.command("setpriv");
        command.args([
            "--bounding-set=-all,+net_admin,+net_raw,+net_bind_service",
            "--no-new-privs",
        ]);
        command.arg(env!("CARGO_BIN_EXE_keelson-network"));
        for option in ["run", "state"] {
            command.arg(format!("--{option}")).arg(self.path(option));
        }
        command.arg("--sys-class-net").arg(self.path("sys"));
        command
            .env("KEELSON_LOG", "debug")
            .env("NOTIFY_SOCKET", self.path("notify.sock"));
        let mut service = command.stderr(Stdio::piped()).spawn().unwrap();
        follow(
            service.stderr.take().unwrap(),
            self.log.clone(),
            self.wake.clone(),
        );
        self.service = Some(service);
        self.wait("the service is ready", SOON, |lab| {
            lab.notifications.count("READY=1") == 1
        });
    }

    /// Ends the service as its supervisor would.
    pub(crate) fn stop_service(&mut self) {
        let mut service = self.service.take().expect("the service runs");
        kill(Pid::from_raw(service.id() as i32), Signal::SIGTERM).unwrap();
        assert!(
            service.wait().unwrap().success(),
            "the service ends in good order"
        );
    }

    /// Waits until `condition` holds, looking again whenever anything happens.
    pub(crate) fn wait(&mut self, what: &str, limit: Duration, condition: impl Fn(&Lab) -> bool) {
        let end = Instant::now() + limit;
        while !condition(self) {
            if let Some(Ok(Some(status))) = self.service.as_mut().map(Child::try_wait) {
                panic!("the service ended ({status}) before: {what}");
            }
            let left = end.saturating_duration_since(Instant::now());
            if self.woken.recv_timeout(left).is_err() {
                // Once more: the last event may have come before what it announced.
                assert!(condition(self), "not within {limit:?}: {what}");
                return;
            }
        }
    }

    /// Adds another host to the network, by making the server's end of the cable a switch. It has to be done before
    /// anything runs.
    pub(crate) fn add_host(&self, address: &str) -> Namespace {
        self.server.ip("link add sw0 type bridge");
        self.server.ip("addr flush dev s0");
        self.server.ip("link set s0 master sw0");
        self.server.ip("addr add 10.77.0.1/24 dev sw0");
        self.server.ip("link set sw0 up");
        let host = Namespace::new();
        host.join(&self.server, "h0", "port1");
        self.server.ip("link set port1 master sw0 up");
        host.ip(&format!("addr add {address} dev h0"));
        host.ip("link set h0 up");
        host
    }

    /// IPv4 addresses of an interface of the service's namespace, with their remaining lifetimes in seconds.
    pub(crate) fn addresses(&self, interface: &str) -> Vec<(Ipv4Addr, u64)> {
        let links = self.client.json(&format!("-4 addr show dev {interface}"));
        let addresses = links
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|link| link["addr_info"].as_array());
        let one = |address: &Value| {
            let local = address["local"].as_str()?.parse().ok()?;
            Some((local, address["valid_life_time"].as_u64()?))
        };
        addresses.flatten().filter_map(one).collect()
    }

    pub(crate) fn has_address(&self, interface: &str) -> bool {
        !self.addresses(interface).is_empty()
    }

    /// The routes of the service's namespace, as `ip route` shows them.
    pub(crate) fn routes(&self) -> String {
        self.client.output("ip", &["-4", "route"])
    }

    fn listen_for_notifications(&self) {
        let socket = UnixDatagram::bind(self.path("notify.sock")).unwrap();
        let (lines, wake) = (self.notifications.clone(), self.wake.clone());
        thread::spawn(move || {
            let mut buffer = [0; 1024];
            while let Ok(length) = socket.recv(&mut buffer) {
                lines
                    .0
                    .lock()
                    .unwrap()
                    .push(String::from_utf8_lossy(&buffer[..length]).into_owned());
                if wake.send(()).is_err() {
                    return;
                }
            }
        });
    }

    fn watch_files(&self) {
        let inotify = Inotify::init(InitFlags::empty()).unwrap();
        inotify
            .add_watch(&self.path("run"), AddWatchFlags::IN_MOVED_TO)
            .unwrap();
        inotify
            .add_watch(
                &self.path("state"),
                AddWatchFlags::IN_MOVED_TO | AddWatchFlags::IN_DELETE,
            )
            .unwrap();
        let wake = self.wake.clone();
        thread::spawn(move || while inotify.read_events().is_ok() && wake.send(()).is_ok() {});
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in self
            .service
            .iter_mut()
            .chain(&mut self.dnsmasq)
            .chain(&mut self.peers)
            .chain([&mut self.monitor])
        {
            let _ = child.kill();
            let _ = child.wait();
        }
        if thread::panicking() {
            for (title, lines) in [
                ("service", &self.log),
                ("server", &self.server_log),
                ("kernel", &self.announcements),
            ] {
                eprintln!("--- {title}\n{}", lines.all().join("\n"));
            }
            eprintln!(
                "--- addresses\n{}",
                self.client.output("ip", &["-4", "addr"])
            );
        }
    }
}

fn follow(output: impl Read + Send + 'static, lines: Lines, wake: Sender<()>) {
    thread::spawn(move || {
        for line in BufReader::new(output).lines().map_while(Result::ok) {
            lines.0.lock().unwrap().push(line);
            if wake.send(()).is_err() {
                return;
            }
        }
    });
}

/// The file that keeps the lease of `e0`.
pub(crate) fn lease_file(lab: &Lab) -> PathBuf {
    let mut files = fs::read_dir(lab.path("state"))
        .unwrap()
        .map(|entry| entry.unwrap().path());
    files.find(|path| is_lease(path)).expect("a lease is kept")
}

fn is_lease(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "json")
}
