//! A store, the program under test, and archives made on the spot.

use crate::server::Registry;
use keelson_image::Store;
use serde_json::Value;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// A store of its own.
pub(crate) struct World {
    directory: TempDir,
    pub(crate) store: Store,
}

/// What a call printed.
pub(crate) struct Answer {
    pub(crate) ok: bool,
    pub(crate) lines: Vec<Value>,
    pub(crate) output: Output,
}

impl Answer {
    /// The failure that it told; must be one.
    pub(crate) fn error(&self) -> String {
        assert!(!self.ok, "it should have failed: {:?}", self.lines);
        let last = self.lines.last().expect("it said nothing");
        last["error"]
            .as_str()
            .expect("its last line is no error")
            .to_owned()
    }

    /// Fails unless it went well.
    pub(crate) fn well(self) -> Self {
        let said = String::from_utf8_lossy(&self.output.stderr);
        assert!(self.ok, "{:?} {said}", self.lines.last());
        self
    }

    /// Whether a line has this status.
    pub(crate) fn says(&self, status: &str) -> bool {
        self.lines.iter().any(|line| {
            line["status"]
                .as_str()
                .is_some_and(|text| text.contains(status))
        })
    }
}

impl World {
    pub(crate) fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Store::new(directory.path().join("images"));
        Self { directory, store }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Says that a registry may be spoken to without TLS.
    pub(crate) fn trust(&self, registry: &Registry) {
        self.settings(&format!(
            "registries: {{\"{}\": {{insecure: true}}}}",
            registry.host()
        ));
    }

    pub(crate) fn settings(&self, text: &str) {
        fs::write(self.path("registries.yml"), text).unwrap();
    }

    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_keelson-image"));
        command
            .arg("--store")
            .arg(self.store.directory())
            .arg("--registries")
            .arg(self.path("registries.yml"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    /// Runs the program to its end.
    pub(crate) fn run(&self, arguments: &[&str]) -> Answer {
        answer(self.command(arguments).output().unwrap())
    }

    /// The same with something on standard input.
    pub(crate) fn feed(&self, arguments: &[&str], input: &[u8]) -> Answer {
        use std::io::Write;
        let mut child = self
            .command(arguments)
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let input = input.to_vec();
        let typist = std::thread::spawn(move || drop(stdin.write_all(&input)));
        let output = child.wait_with_output().unwrap();
        typist.join().unwrap();
        answer(output)
    }

    /// Every blob is what it is called, every layer of every image is there, and nothing else is.
    pub(crate) fn check(&self) {
        let blobs = self.store.directory().join("blobs/sha256");
        for entry in fs::read_dir(&blobs).unwrap() {
            let entry = entry.unwrap();
            let digest = keelson_image::Digest::of(&fs::read(entry.path()).unwrap());
            assert_eq!(entry.file_name().to_str().unwrap(), digest.hex());
        }
        for image in self.store.images().unwrap() {
            for layer in &image.layers {
                assert!(layer.is_dir(), "{} lacks {}", image.id, layer.display());
            }
        }
        let entries = self.store.entries().unwrap();
        for entry in entries {
            self.store.document::<Value>(&entry.manifest).unwrap();
        }
    }
}

fn answer(output: Output) -> Answer {
    let text = String::from_utf8_lossy(&output.stdout);
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str(line).ok())
        .collect();
    Answer {
        ok: output.status.success(),
        lines,
        output,
    }
}

/// An archive, made entry by entry.
pub(crate) struct Archive(tar::Builder<Vec<u8>>);

impl Archive {
    pub(crate) fn new() -> Self {
        Self(tar::Builder::new(Vec::new()))
    }

    fn entry(
        mut self,
        name: &str,
        kind: tar::EntryType,
        mode: u32,
        link: &str,
        content: &[u8],
    ) -> Self {
        let mut header = tar::Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(mode);
        if !name.starts_with("bare") {
            header.set_uid(7);
            header.set_gid(8);
        }
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        if !link.is_empty() {
            header.set_link_name_literal(link).unwrap();
        }
        // As it stands: what no honest program writes is to be tried as well.
        let bytes = name.as_bytes();
        header.as_gnu_mut().unwrap().name[..bytes.len()].copy_from_slice(bytes);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    pub(crate) fn file(self, name: &str, mode: u32, content: &[u8]) -> Self {
        self.entry(name, tar::EntryType::Regular, mode, "", content)
    }

    pub(crate) fn directory(self, name: &str, mode: u32) -> Self {
        self.entry(name, tar::EntryType::Directory, mode, "", b"")
    }

    pub(crate) fn symlink(self, name: &str, target: &str) -> Self {
        self.entry(name, tar::EntryType::Symlink, 0o777, target, b"")
    }

    pub(crate) fn hard_link(self, name: &str, target: &str) -> Self {
        self.entry(name, tar::EntryType::Link, 0o644, target, b"")
    }

    pub(crate) fn fifo(self, name: &str) -> Self {
        self.entry(name, tar::EntryType::Fifo, 0o600, "", b"")
    }

    pub(crate) fn end(self) -> Vec<u8> {
        self.0.into_inner().unwrap()
    }
}
