//! A registry of the test's own on the loopback interface, and images pushed to it.

use flate2::Compression;
use flate2::write::GzEncoder;
use keelson_image::Digest;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use tempfile::TempDir;

/// A registry that runs until it is dropped.
pub(crate) struct Registry {
    pub(crate) port: u16,
    pub(crate) directory: TempDir,
    child: Child,
    secure: bool,
}

/// How a layer is compressed.
#[derive(Clone, Copy)]
pub(crate) enum Packed {
    Plain,
    Gzip,
    Zstd,
}

pub(crate) const USER: &str = "me";
pub(crate) const PASSWORD: &str = "secret";
/// `htpasswd` of the two, bcrypt with the least work.
const HTPASSWD: &str = "me:$2b$04$N.uqq4jCKmkAwS66ofymceNDHosb6Ms.zVho8g3qcUzMuC8acV8VC\n";

impl Registry {
    /// Without TLS or passwords.
    pub(crate) fn plain() -> Self {
        Self::start(&json!({}), false)
    }

    /// With a certificate of an authority of its own, `ca.pem` in its directory.
    pub(crate) fn secure() -> Self {
        Self::start(&json!({}), true)
    }

    pub(crate) fn start(more: &Value, secure: bool) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name).display().to_string();
        // Free a moment ago; nobody else on this machine takes one of these meanwhile.
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        fs::write(path("htpasswd"), HTPASSWD).unwrap();
        let mut config = json!({
            "version": 0.1,
            "log": { "accesslog": { "disabled": true } },
            "storage": { "filesystem": { "rootdirectory": path("data") } },
            "http": { "addr": format!("127.0.0.1:{port}") },
        });
        if secure {
            make_certificates(directory.path());
            config["http"]["tls"] =
                json!({ "certificate": path("server.pem"), "key": path("server.key") });
        }
        for (key, value) in more.as_object().unwrap() {
            config[key] = value.clone();
        }
        // JSON is YAML.
        fs::write(path("config.yml"), config.to_string()).unwrap();
        let mut child = Command::new("docker-registry")
            .arg("serve")
            .arg(path("config.yml"))
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .expect("docker-registry is in the tool root");
        let mut said = BufReader::new(child.stderr.take().unwrap()).lines();
        let listens = said
            .by_ref()
            .map_while(Result::ok)
            .any(|line| line.contains("listening on"));
        assert!(listens, "the registry ended early");
        std::thread::spawn(move || said.for_each(drop));
        Self {
            port,
            directory,
            child,
            secure,
        }
    }

    /// What images in it are named after.
    pub(crate) fn host(&self) -> String {
        format!("localhost:{}", self.port)
    }

    fn request(&self, method: &str, url: &str, kind: &str, body: &[u8]) -> (u16, String) {
        let scheme = if self.secure { "https" } else { "http" };
        let url = match url.strip_prefix('/') {
            Some(path) => format!("{scheme}://localhost:{}/{path}", self.port),
            None => url.to_owned(),
        };
        let tls = ureq::tls::TlsConfig::builder()
            .disable_verification(true)
            .build();
        let agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .tls_config(tls)
            .build()
            .new_agent();
        let request = match method {
            "POST" => agent.post(&url),
            _ => agent.put(&url),
        };
        let response = request.header("Content-Type", kind).send(body).unwrap();
        let location = response
            .headers()
            .get("location")
            .map(|value| value.to_str().unwrap().to_owned());
        (response.status().as_u16(), location.unwrap_or_default())
    }

    /// Uploads a blob.
    pub(crate) fn push_blob(&self, repository: &str, bytes: &[u8]) -> Digest {
        let (status, location) =
            self.request("POST", &format!("/v2/{repository}/blobs/uploads/"), "", b"");
        assert_eq!(status, 202);
        let digest = Digest::of(bytes);
        let joint = if location.contains('?') { '&' } else { '?' };
        let url = format!("{location}{joint}digest={digest}");
        let (status, _) = self.request("PUT", &url, "application/octet-stream", bytes);
        assert_eq!(status, 201);
        digest
    }

    /// Uploads a manifest.
    pub(crate) fn push_manifest(
        &self,
        repository: &str,
        target: &str,
        kind: &str,
        value: &Value,
    ) -> Digest {
        let bytes = serde_json::to_vec(value).unwrap();
        let url = format!("/v2/{repository}/manifests/{target}");
        let (status, _) = self.request("PUT", &url, kind, &bytes);
        assert_eq!(status, 201);
        Digest::of(&bytes)
    }

    /// Pushes an image of some layers; gives its manifest's digest.
    pub(crate) fn push(&self, repository: &str, tag: &str, layers: &[(Vec<u8>, Packed)]) -> Digest {
        let mut descriptors = Vec::new();
        let mut diff_ids = Vec::new();
        for (archive, packed) in layers {
            let (bytes, kind) = pack(archive, *packed);
            diff_ids.push(Digest::of(archive));
            let digest = self.push_blob(repository, &bytes);
            descriptors.push(json!({ "mediaType": kind, "digest": digest, "size": bytes.len() }));
        }
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64", "os": "linux", "config": { "Cmd": ["sh"], "Env": ["A=1"] },
            "rootfs": { "type": "layers", "diff_ids": diff_ids },
        }))
        .unwrap();
        let digest = self.push_blob(repository, &config);
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let manifest = json!({
            "schemaVersion": 2, "mediaType": kind, "layers": descriptors,
            "config": { "mediaType": "application/vnd.oci.image.config.v1+json", "digest": digest, "size": config.len() },
        });
        self.push_manifest(repository, tag, kind, &manifest)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A registry that wants a name and a password for what `push` has put into it.
pub(crate) fn with_password(push: impl FnOnce(&Registry)) -> (Registry, Registry) {
    let open = Registry::plain();
    push(&open);
    let path = |name: &str| open.directory.path().join(name);
    let closed = Registry::start(
        &json!({
            "auth": { "htpasswd": { "realm": "test", "path": path("htpasswd") } },
            "storage": { "filesystem": { "rootdirectory": path("data") } },
        }),
        false,
    );
    // The data are the first one's.
    (closed, open)
}

fn pack(archive: &[u8], packed: Packed) -> (Vec<u8>, &'static str) {
    match packed {
        Packed::Plain => (archive.to_vec(), "application/vnd.oci.image.layer.v1.tar"),
        Packed::Gzip => {
            let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
            encoder.write_all(archive).unwrap();
            (
                encoder.finish().unwrap(),
                "application/vnd.oci.image.layer.v1.tar+gzip",
            )
        }
        Packed::Zstd => (
            zstd::encode_all(archive, 1).unwrap(),
            "application/vnd.oci.image.layer.v1.tar+zstd",
        ),
    }
}

/// An authority and a certificate of it for `localhost`.
pub(crate) fn make_certificates(directory: &Path) {
    let script = "\
        openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.pem -days 2 -subj /CN=test-authority && \
        openssl req -newkey rsa:2048 -nodes -keyout server.key -out server.csr -subj /CN=localhost && \
        printf 'subjectAltName=DNS:localhost\\nbasicConstraints=CA:FALSE\\n' >extensions && \
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -out server.pem -days 2 -extfile extensions";
    let output = Command::new("sh")
        .args(["-c", script])
        .current_dir(directory)
        .output()
        .unwrap();
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
}
