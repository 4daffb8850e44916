//! A cloud's metadata service: documents by path, which the test may change while machines ask for them.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use tiny_http::{Response, Server};

/// Where machines find it.
pub const ADDRESS: &str = "169.254.169.254";

/// The service; it ends with the test program.
#[derive(Debug)]
pub struct Cloud {
    port: u16,
    documents: Arc<Mutex<Vec<(String, String)>>>,
    asked: Arc<Mutex<Vec<String>>>,
}

impl Cloud {
    /// Starts one on the loopback interface. So far it answers that it has no time.
    ///
    /// # Errors
    /// When no port is to be had.
    pub fn start() -> Result<Self> {
        let server = Server::http("127.0.0.1:0").map_err(|error| anyhow!("listening: {error}"))?;
        let address = server
            .server_addr()
            .to_ip()
            .context("listening at no port")?;
        let cloud = Cloud {
            port: address.port(),
            documents: Arc::default(),
            asked: Arc::default(),
        };
        let (documents, asked) = (Arc::clone(&cloud.documents), Arc::clone(&cloud.asked));
        std::thread::spawn(move || {
            for request in server.incoming_requests() {
                let line = format!("{} {}", request.method(), request.url());
                let (mut content, mut status) = (String::new(), 503);
                if let (Ok(documents), Ok(mut asked)) = (documents.lock(), asked.lock()) {
                    asked.push(line);
                    if !documents.is_empty() {
                        let found = documents.iter().find(|(path, _)| path == request.url());
                        status = if found.is_some() { 200 } else { 404 };
                        content = found
                            .map(|(_, content)| content.clone())
                            .unwrap_or_default();
                    }
                }
                // A machine that goes away has no use for an answer.
                let _ = request.respond(Response::from_string(content).with_status_code(status));
            }
        });
        Ok(cloud)
    }

    /// What it has from now on; with nothing it has no time.
    pub fn has(&self, documents: &[(&str, &str)]) {
        if let Ok(mut all) = self.documents.lock() {
            *all = documents
                .iter()
                .map(|(path, content)| ((*path).to_owned(), (*content).to_owned()))
                .collect();
        }
    }

    /// What it was asked for: `PUT /latest/api/token`.
    pub fn asked(&self) -> Vec<String> {
        self.asked
            .lock()
            .map_or_else(|_| Vec::new(), |asked| asked.clone())
    }

    /// Waits until somebody asks.
    ///
    /// # Errors
    /// When nobody does within the deadline.
    pub fn wait_asked(&self, deadline: Duration) -> Result<()> {
        let until = Instant::now() + deadline;
        while self.asked().is_empty() {
            ensure!(Instant::now() < until, "nobody asks the metadata service");
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// Writes the program that QEMU starts for each connection to it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn write_bridge(&self, dir: &Path) -> Result<PathBuf> {
        let program = dir.join("cloud-bridge");
        let text = format!(
            "#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{} 4<&0\ncat <&4 >&3 &\nexec cat <&3\n",
            self.port
        );
        fs::write(&program, text).with_context(|| format!("writing {}", program.display()))?;
        fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
            .with_context(|| format!("making {} a program", program.display()))?;
        Ok(program)
    }
}
