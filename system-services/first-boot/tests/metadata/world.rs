//! Services of the test's own, a machine's state, and who hears what its services ask of the engine.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use keelson_config::sources::Source;
use keelson_first_boot::stored;
use keelson_sys::durable::Tree;
use tempfile::TempDir;
use tiny_http::{Header, Response, Server};

pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const INSIDE: &str = "KEELSON_TEST_INSIDE";

/// Whether the test runs in a namespace of its own, with these addresses on its loopback interface; if not, it is run in one.
pub(crate) fn is_inside(test: &str, addresses: &[&str]) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    if !rustix::process::geteuid().is_root() {
        println!("{test}: skipped: it makes a network namespace, which needs root");
        return false;
    }
    let addresses: String = addresses
        .iter()
        .map(|address| format!("ip address add {address} dev lo; "))
        .collect();
    // In the tool root, where `/` is no mount, nothing is shared already.
    let private = "mount --make-rprivate / 2>/dev/null || true";
    let script =
        format!("{private}; ip link set lo up; {addresses}exec \"$0\" --exact {test} --nocapture");
    let status = Command::new("unshare")
        .args(["--net", "--mount", "--propagation", "unchanged"])
        .args(["sh", "-ec", &script])
        .arg(std::env::current_exe().unwrap())
        .env(INSIDE, "1")
        .status()
        .expect("unshare(1) cannot be run");
    assert!(status.success(), "{test} failed in its namespace");
    false
}

/// What a service was asked, and what it answers by path: status and content.
pub(crate) type Answers = Arc<Mutex<Vec<(String, u16, Vec<u8>)>>>;

pub(crate) struct Service {
    answers: Answers,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Service {
    /// Listens at `address`; where `secret` is a header field, it answers those who send it.
    pub(crate) fn start(
        address: &str,
        answers: &[(&str, &str)],
        secret: Option<(&'static str, &'static str)>,
    ) -> Self {
        let server = Server::http(address).unwrap();
        let answers = answers.iter();
        let answers: Vec<_> = answers
            .map(|(path, content)| ((*path).to_owned(), 200, content.as_bytes().to_vec()))
            .collect();
        let service = Service {
            answers: Arc::new(Mutex::new(answers)),
            asked: Arc::default(),
        };
        let (answers, asked) = (Arc::clone(&service.answers), Arc::clone(&service.asked));
        std::thread::spawn(move || {
            for request in server.incoming_requests() {
                let port = request.remote_addr().map_or(0, std::net::SocketAddr::port);
                let line = format!(
                    "{} {} {}",
                    request.method(),
                    request.url(),
                    if port < 1024 { "low" } else { "high" }
                );
                asked.lock().unwrap().push(line);
                let is_known = secret.is_none_or(|(name, value)| {
                    let mut headers = request.headers().iter();
                    headers.any(|header| header.field.equiv(name) && header.value.as_str() == value)
                });
                let answers = answers.lock().unwrap();
                let found = answers.iter().find(|(path, ..)| path == request.url());
                let (status, content) = match found {
                    _ if !is_known && request.method() == &tiny_http::Method::Get => {
                        (401, Vec::new())
                    }
                    Some((_, status, content)) => (*status, content.clone()),
                    None => (404, b"not here".to_vec()),
                };
                let header = Header::from_bytes("Content-Type", "text/plain").unwrap();
                let response = Response::from_data(content)
                    .with_status_code(status)
                    .with_header(header);
                drop(request.respond(response));
            }
        });
        service
    }

    pub(crate) fn answer(&self, path: &str, status: u16, content: &str) {
        let mut answers = self.answers.lock().unwrap();
        answers.retain(|(known, ..)| known != path);
        answers.push((path.to_owned(), status, content.as_bytes().to_vec()));
    }

    pub(crate) fn was_asked(&self, line: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| asked.starts_with(line)).count()
    }
}

/// A machine's state, and who hears what its services ask of the engine.
pub(crate) struct Machine {
    pub(crate) root: TempDir,
    engine: UnixDatagram,
}

impl Machine {
    pub(crate) fn new(command_line: &str, dmi: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for directory in ["state/config/source", "sys/class/dmi/id", "proc/net"] {
            fs::create_dir_all(root.path().join(directory)).unwrap();
        }
        fs::write(root.path().join("proc/cmdline"), command_line).unwrap();
        for (field, value) in dmi {
            fs::write(
                root.path().join("sys/class/dmi/id").join(field),
                format!("{value}\n"),
            )
            .unwrap();
        }
        // Built beside this test.
        let programs = std::env::current_exe().unwrap();
        let program = programs.ancestors().nth(2).unwrap().join("keelson-image");
        assert!(program.exists(), "cargo build -p keelson-image");
        fs::create_dir_all(root.path().join("usr/bin")).unwrap();
        std::os::unix::fs::symlink(program, root.path().join("usr/bin/keelson-image")).unwrap();
        let engine = UnixDatagram::bind(root.path().join("notify.sock")).unwrap();
        engine.set_read_timeout(Some(PATIENCE)).unwrap();
        Machine { root, engine }
    }

    pub(crate) fn config(&self) -> Tree {
        Tree::open(&self.root.path().join("state/config")).unwrap()
    }

    pub(crate) fn kept(&self) -> Option<Source> {
        stored::kept(&self.config()).unwrap()
    }

    pub(crate) fn start(&self) -> Fetching {
        self.start_with(&[])
    }

    pub(crate) fn start_with(&self, options: &[&str]) -> Fetching {
        let child = Command::new(env!("CARGO_BIN_EXE_keelson-first-boot"))
            .arg("fetch")
            .args(options)
            .arg(self.root.path())
            .env("NOTIFY_SOCKET", self.root.path().join("notify.sock"))
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Fetching(child)
    }

    /// Runs it to its end; what it said.
    pub(crate) fn fetch(&self) -> String {
        self.start().end()
    }

    /// How often the configuration was to be applied since the last time this was asked.
    pub(crate) fn configured(&self) -> usize {
        self.engine.set_nonblocking(true).unwrap();
        let mut buffer = [0; 256];
        let mut count = 0;
        while let Ok(length) = self.engine.recv(&mut buffer) {
            count += usize::from(&buffer[..length] == b"X_KEELSON_CONFIGURE=1");
        }
        self.engine.set_nonblocking(false).unwrap();
        count
    }
}

pub(crate) struct Fetching(pub(crate) Child);

impl Fetching {
    pub(crate) fn end(mut self) -> String {
        let deadline = Instant::now() + PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "it does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
        assert!(self.0.try_wait().unwrap().unwrap().success());
        self.words()
    }

    pub(crate) fn is_going_on(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    pub(crate) fn words(&mut self) -> String {
        std::io::read_to_string(self.0.stderr.take().unwrap()).unwrap()
    }
}

impl Drop for Fetching {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
