//! The user's own checks (`keelson.upgrade.checks`): a new version is good when they pass, too.
//!
//! Each is tried until it passes or the time is over. What is asked over HTTP is asked by a process that is nobody; what is run is run in
//! the console, by the engine.

use std::net::{SocketAddr, TcpStream, ToSocketAddrs as _};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use keelson_engine::client;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::source::Reader;

const CONSOLE: &str = "console";
const ANSWER_TIMEOUT: Duration = Duration::from_secs(20);
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries, at first and in the end.
const PAUSE: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(15);
/// Until the engine knows how a process ended whose output has ended.
const ENDING: Duration = Duration::from_millis(100);
const ENDINGS: u32 = 50;
/// So many characters of what a command says go into the history.
const WORDS_MAX: usize = 200;
const FORMAT: &str = "{{.State.Status}}{{with .State.Health}} {{.Status}}{{end}}";

/// A check.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Check {
    /// What it is called in the history.
    pub name: String,
    /// What it looks at.
    #[serde(flatten)]
    pub what: What,
}

/// What a check looks at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A URL (without TLS) answers with a status from 200 to 299.
    Http(String),
    /// HOST:PORT takes a connection.
    Tcp(String),
    /// A program in the console ends with status 0.
    Exec(Vec<String>),
    /// A container of Docker runs, and is healthy if it has a health check.
    Container(String),
}

/// Who is asked.
#[derive(Clone, Debug)]
pub struct Checker {
    /// Asks over HTTP.
    pub exchange: Reader,
    /// The engine's socket.
    pub engine: PathBuf,
}

impl Checker {
    /// Waits until all of them have passed.
    ///
    /// # Errors
    /// At the end some have not: which, and why, for a person.
    pub fn all_pass(&self, checks: &[Check], end: Instant) -> Result<(), String> {
        let failed: Vec<String> = thread::scope(|scope| {
            let running: Vec<_> = checks
                .iter()
                .map(|check| (check, scope.spawn(move || self.passes(check, end))))
                .collect();
            let outcome = |(check, thread): (&Check, thread::ScopedJoinHandle<'_, _>)| {
                let why: Result<(), String> = thread
                    .join()
                    .unwrap_or_else(|_| Err("it could not be made".to_owned()));
                why.err()
                    .map(|why| format!("check `{}` fails: {why}", check.name))
            };
            running.into_iter().filter_map(outcome).collect()
        });
        match failed.is_empty() {
            true => Ok(()),
            false => Err(failed.join("; ")),
        }
    }

    fn passes(&self, check: &Check, end: Instant) -> Result<(), String> {
        let mut pause = PAUSE;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let Err(error) = self.attempt(&check.what, left) else {
                return Ok(());
            };
            let left = end.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(format!("{error:#}"));
            }
            thread::sleep(pause.min(left));
            pause = (pause * 2).min(PAUSE_MAX);
        }
    }

    /// One try.
    fn attempt(&self, what: &What, left: Duration) -> Result<()> {
        match what {
            What::Http(url) => {
                let status = self.exchange.status_of(url)?;
                ensure!(
                    (200..300).contains(&status),
                    "{url} answers with status {status}"
                );
                Ok(())
            }
            What::Tcp(address) => connect(address, left),
            What::Exec(words) => {
                let (status, said) = self.run(words, left)?;
                let program = words.first().map(String::as_str).unwrap_or_default();
                ensure!(
                    status == 0,
                    "{program} ends with status {status}: {}",
                    last_line(&said)
                );
                Ok(())
            }
            What::Container(name) => {
                let words = [
                    "docker",
                    "container",
                    "inspect",
                    "--format",
                    FORMAT,
                    "--",
                    name,
                ];
                let (status, said) = self.run(&words.map(str::to_owned), left)?;
                let said = last_line(&said);
                ensure!(status == 0, "container {name}: {said}");
                let is_up = matches!(said.as_str(), "running" | "running healthy");
                ensure!(is_up, "container {name} is {said}");
                Ok(())
            }
        }
    }

    /// Runs a program in the console; gives its exit status and what it said.
    fn run(&self, words: &[String], left: Duration) -> Result<(i64, Vec<u8>)> {
        let body = json!({"Cmd": words, "AttachStdout": true, "AttachStderr": true});
        let made = self.ask("POST", &format!("/containers/{CONSOLE}/exec"), &body)?;
        let id = made["Id"]
            .as_str()
            .context("the system engine names no process")?;
        let path = format!("/exec/{id}/start");
        // It has all the time that there is: one that hangs is not started twice.
        let timeout = left.max(Duration::from_secs(1));
        let output = client::listen(&self.engine, &path, b"{}", timeout);
        let output = output.context("run it in the console")?;
        if output.status != 101 {
            bail!("run it in the console: {}", message(&output.body));
        }
        for _ in 0..ENDINGS {
            let state = self.ask("GET", &format!("/exec/{id}/json"), &Value::Null)?;
            if let Some(code) = state["ExitCode"].as_i64() {
                return Ok((code, unframed(&output.body)));
            }
            thread::sleep(ENDING);
        }
        bail!("it has closed its output and does not end")
    }

    fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let body = body.to_string();
        let answer = client::ask(&self.engine, method, path, body.as_bytes(), ANSWER_TIMEOUT);
        let answer = answer.context("ask the system engine")?;
        if !(200..300).contains(&answer.status) {
            bail!("{}", message(&answer.body));
        }
        serde_json::from_slice(&answer.body).context("read the system engine's answer")
    }
}

fn connect(address: &str, left: Duration) -> Result<()> {
    let timeout = CONNECT_TIMEOUT.min(left).max(Duration::from_millis(1));
    let addresses: Vec<SocketAddr> = address
        .to_socket_addrs()
        .with_context(|| format!("find {address}"))?
        .collect();
    let mut last = None;
    for one in addresses {
        match TcpStream::connect_timeout(&one, timeout) {
            Ok(_) => return Ok(()),
            Err(error) => last = Some(error),
        }
    }
    match last {
        Some(error) => Err(error).with_context(|| format!("connect to {address}")),
        None => bail!("{address} has no address"),
    }
}

/// What the engine's error says.
fn message(body: &[u8]) -> String {
    let said: Value = serde_json::from_slice(body).unwrap_or_default();
    said["message"]
        .as_str()
        .unwrap_or("no reason is given")
        .to_owned()
}

/// A program's output without Docker's frames (stream, three zeros, length as a big-endian number of four bytes).
fn unframed(mut bytes: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while let Some((head, rest)) = bytes.split_first_chunk::<8>() {
        let [_, _, _, _, a, b, c, d] = *head;
        let length = usize::try_from(u32::from_be_bytes([a, b, c, d])).unwrap_or(usize::MAX);
        let length = length.min(rest.len());
        content.extend(rest.get(..length).unwrap_or_default());
        bytes = rest.get(length..).unwrap_or_default();
    }
    content
}

/// The last line that says something, for a person.
fn last_line(said: &[u8]) -> String {
    let text = String::from_utf8_lossy(said);
    let line = text.lines().map(str::trim).rfind(|line| !line.is_empty());
    let line = line.unwrap_or("it says nothing").chars().take(WORDS_MAX);
    line.map(|letter| if letter.is_control() { ' ' } else { letter })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;
    use std::os::unix::net::UnixListener;

    fn checker(engine: PathBuf) -> Checker {
        let exchange = Reader {
            program: "/nowhere".into(),
            registries: Vec::new(),
            certificates: Vec::new(),
            proxy: "/nowhere".into(),
            confined: false,
        };
        Checker { exchange, engine }
    }

    fn check(name: &str, what: What) -> Check {
        let name = name.to_owned();
        Check { name, what }
    }

    /// An engine whose console runs a program that says this and ends with this status.
    fn engine(directory: &std::path::Path, said: &'static str, status: i64) -> PathBuf {
        let socket = directory.join("engine.sock");
        let listener = UnixListener::bind(&socket).unwrap();
        thread::spawn(move || {
            loop {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    stream.read_exact(&mut byte).unwrap();
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                if request.contains("/start") {
                    assert!(request.contains("Upgrade: tcp"), "{request}");
                    stream
                        .write_all(b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: tcp\r\n\r\n")
                        .unwrap();
                    stream
                        .write_all(&[2, 0, 0, 0, 0, 0, 0, said.len() as u8])
                        .unwrap();
                    stream.write_all(said.as_bytes()).unwrap();
                } else {
                    let body = match request.starts_with("GET /exec/7/json ") {
                        true => json!({"ExitCode": status}),
                        false => json!({"Id": "7"}),
                    };
                    let body = body.to_string();
                    write!(
                        stream,
                        "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}",
                        body.len()
                    )
                    .unwrap();
                }
                // What is left of the request must have been read, or the answer is lost with it.
                stream.shutdown(std::net::Shutdown::Write).unwrap();
                let _ = stream.read_to_end(&mut Vec::new());
            }
        });
        socket
    }

    #[test]
    fn a_check_that_fails_is_named_with_its_words() {
        let directory = tempfile::tempdir().unwrap();
        let checker = checker(engine(directory.path(), "looking\nno such file\n\n", 1));
        let free = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap();
        let checks = [
            check("disk", What::Exec(vec!["test".into()])),
            check("web", What::Container("web".into())),
            check("db", What::Tcp(free.to_string())),
            check("shop", What::Http("http://127.0.0.1/".into())),
        ];
        let why = checker.all_pass(&checks, Instant::now()).unwrap_err();
        for words in [
            "check `disk` fails: test ends with status 1: no such file",
            "check `web` fails: container web: no such file",
            "check `db` fails: connect to 127.0.0.1:",
            "check `shop` fails: start /nowhere",
        ] {
            assert!(why.contains(words), "{words}: {why}");
        }
    }

    #[test]
    fn checks_pass_as_soon_as_what_they_look_at_is_there() {
        let directory = tempfile::tempdir().unwrap();
        let checker = checker(engine(directory.path(), "running healthy\n", 0));
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        drop(listener);
        let checks = [
            check("web", What::Container("web".into())),
            check("run", What::Exec(vec!["true".into()])),
            check("db", What::Tcp(address.clone())),
        ];
        thread::scope(|scope| {
            let checking = || checker.all_pass(&checks, Instant::now() + Duration::from_secs(60));
            let passed = scope.spawn(checking);
            let _listener = TcpListener::bind(&address).unwrap();
            assert_eq!(passed.join().unwrap(), Ok(()));
        });
    }

    #[test]
    fn a_container_that_is_not_healthy_is_not_up() {
        let directory = tempfile::tempdir().unwrap();
        let checker = checker(engine(directory.path(), "running starting\n", 0));
        let checks = [check("web", What::Container("web".into()))];
        let why = checker.all_pass(&checks, Instant::now()).unwrap_err();
        assert_eq!(why, "check `web` fails: container web is running starting");
    }

    #[test]
    fn output_is_taken_out_of_its_frames() {
        let mut bytes = vec![1, 0, 0, 0, 0, 0, 0, 2, b'a', b'b', 2, 0, 0, 0, 0, 0, 0, 9];
        bytes.extend(b"cut");
        assert_eq!(unframed(&bytes), b"abcut");
        assert_eq!(unframed(b"short"), b"");
        assert_eq!(last_line(b"\x1b[31m x \n \n"), " [31m x");
        assert_eq!(last_line(b""), "it says nothing");
    }
}
