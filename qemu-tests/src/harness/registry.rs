//! A registry on this machine: Debian's `docker-registry`.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
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

    /// Puts an image of so many MB into it: layers of one file each, half of whose bytes are random.
    ///
    /// # Errors
    /// When the registry refuses it.
    pub fn push_random(
        &self,
        name: &str,
        tag: &str,
        megabytes: usize,
        layers: usize,
    ) -> Result<()> {
        let mut manifest_layers = Vec::new();
        let mut diff_ids = Vec::new();
        for number in 0..layers {
            let script = format!(
                "set -e; d=$(mktemp -d); cd $d; head -c {0}000000 /dev/urandom >file{number}; head -c {0}000000 /dev/zero >>file{number}; tar cf layer.tar --owner=0 --group=0 file{number}; sha256sum layer.tar | cut -d' ' -f1; gzip -1 layer.tar; sha256sum layer.tar.gz | cut -d' ' -f1; pwd",
                megabytes / layers / 2
            );
            let made = Command::new("sh").args(["-c", &script]).output()?;
            let made = String::from_utf8(made.stdout)?;
            let [diff_id, digest, directory] = made.lines().collect::<Vec<_>>()[..] else {
                anyhow::bail!("a layer cannot be made: {made}");
            };
            let blob = fs::read(format!("{directory}/layer.tar.gz"))?;
            fs::remove_dir_all(directory)?;
            self.put_blob(name, digest, &blob)?;
            diff_ids.push(format!("sha256:{diff_id}"));
            manifest_layers.push(serde_json::json!({
                "mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", "digest": format!("sha256:{digest}"), "size": blob.len(),
            }));
        }
        let config = serde_json::json!({
            "architecture": "amd64", "os": "linux", "config": {"Cmd": ["true"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        })
        .to_string();
        let digest = sha256(config.as_bytes())?;
        self.put_blob(name, &digest, config.as_bytes())?;
        let manifest = serde_json::json!({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", "digest": format!("sha256:{digest}"), "size": config.len()},
            "layers": manifest_layers,
        })
        .to_string();
        let path = format!("/v2/{name}/manifests/{tag}");
        let kind = "application/vnd.oci.image.manifest.v1+json";
        self.send("PUT", &path, kind, manifest.as_bytes()).map(drop)
    }

    fn put_blob(&self, name: &str, digest: &str, blob: &[u8]) -> Result<()> {
        let kind = "application/octet-stream";
        let head = self.send("POST", &format!("/v2/{name}/blobs/uploads/"), kind, b"")?;
        let location = head.lines().find_map(|line| {
            let (key, value) = line.split_once(": ")?;
            key.eq_ignore_ascii_case("location").then_some(value)
        });
        let location = location.context("the registry names no place for an upload")?;
        let path = location.splitn(4, '/').nth(3).context("no path")?;
        self.send(
            "PUT",
            &format!("/{path}&digest=sha256:{digest}"),
            kind,
            blob,
        )
        .map(drop)
    }

    /// One request; the head of its answer.
    fn send(&self, method: &str, path: &str, kind: &str, body: &[u8]) -> Result<String> {
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: 127.0.0.1:{}\r\nConnection: close\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n",
            self.port,
            body.len()
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        ensure!(
            answer.starts_with("HTTP/1.1 20"),
            "{method} {path}: {answer}"
        );
        Ok(answer)
    }
}

fn sha256(bytes: &[u8]) -> Result<String> {
    let mut child = Command::new("sha256sum")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    child.stdin.take().context("no input")?.write_all(bytes)?;
    let output = child.wait_with_output()?;
    Ok(String::from_utf8(output.stdout)?.chars().take(64).collect())
}

impl Drop for Registry {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
