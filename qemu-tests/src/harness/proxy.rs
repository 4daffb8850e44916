//! Debian's tinyproxy: a proxy between machines and a registry.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// A running proxy; it is killed when this is dropped.
pub struct Proxy {
    /// Its port on the host's loopback interface.
    pub port: u16,
    child: Child,
    said: Arc<Mutex<Vec<String>>>,
    _directory: TempDir,
}

impl Proxy {
    /// Starts one.
    ///
    /// # Errors
    /// When it cannot be started, or ends early.
    pub fn start() -> Result<Self> {
        let directory = tempfile::tempdir().context("making a folder for the proxy")?;
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let config = directory.path().join("tinyproxy.conf");
        let text = format!(
            "Port {port}\nListen 127.0.0.1\nAllow 127.0.0.1\nTimeout 60\nMaxClients 20\nLogLevel Info\n"
        );
        fs::write(&config, text).with_context(|| config.display().to_string())?;
        let mut child = Command::new("setpriv")
            .args([
                "--pdeathsig",
                "KILL",
                "stdbuf",
                "-oL",
                "tinyproxy",
                "-d",
                "-c",
            ])
            .arg(&config)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .context("starting tinyproxy")?;
        let output = child.stdout.take().context("the proxy has no output")?;
        let mut lines = BufReader::new(output).lines().map_while(Result::ok);
        let accepts = lines.any(|line| line.contains("Accepting connections"));
        let said = Arc::<Mutex<Vec<String>>>::default();
        let heard = Arc::clone(&said);
        thread::spawn(move || {
            for line in lines {
                if let Ok(mut heard) = heard.lock() {
                    heard.push(line);
                }
            }
        });
        let proxy = Proxy {
            port,
            child,
            said,
            _directory: directory,
        };
        ensure!(accepts, "tinyproxy ended early");
        Ok(proxy)
    }

    /// What it said since it began to accept connections.
    pub fn said(&self) -> String {
        self.said
            .lock()
            .map_or_else(|_| String::new(), |said| said.join("\n"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
