//! A registry on this machine: Debian's `docker-registry`.

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::{fs, thread};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

/// One that runs until it is dropped.
pub struct Registry {
    child: Child,
    /// Where it listens, on the loopback interface.
    pub port: u16,
    _data: TempDir,
}

impl Registry {
    /// Starts one without TLS or passwords.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        let data = tempfile::tempdir().context("making a folder for the registry")?;
        let listener = TcpListener::bind("127.0.0.1:0").context("looking for a free port")?;
        let port = listener.local_addr()?.port();
        drop(listener);
        let config = data.path().join("config.yml");
        let root = data.path().join("data");
        let text = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: \"127.0.0.1:{port}\"}}\n",
            root.display()
        );
        fs::write(&config, text).context("writing the registry's settings")?;
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting docker-registry")?;
        let stderr = child.stderr.take().context("the registry has no output")?;
        let mut said = BufReader::new(stderr).lines().map_while(Result::ok);
        let listens = said.any(|line| line.contains("listening on"));
        thread::spawn(move || said.for_each(drop));
        let registry = Registry {
            child,
            port,
            _data: data,
        };
        ensure!(listens, "the registry ended early");
        Ok(registry)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
