//! `keelson-image read`: documents and content for another program, from a registry and from image layouts.

use crate::server::Registry;
use crate::world::World;
use keelson_image::Digest;
use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

const KIND: &str = "application/vnd.oci.image.manifest.v1+json";

/// The program, asked line by line.
struct Reader {
    child: Child,
    answers: BufReader<std::process::ChildStdout>,
}

impl Reader {
    fn start(world: &World, arguments: &[&str]) -> Self {
        let mut child = world
            .command(&[&["read"], arguments].concat())
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        let answers = BufReader::new(child.stdout.take().unwrap());
        Reader { child, answers }
    }

    /// The line that answers, and the content after it.
    fn ask(&mut self, question: &Value) -> (Value, Vec<u8>) {
        writeln!(self.child.stdin.as_mut().unwrap(), "{question}").unwrap();
        let mut line = String::new();
        self.answers.read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        let mut content = Vec::new();
        let length = answer["length"].as_u64().unwrap_or(0);
        let mut limited = (&mut self.answers).take(length);
        limited.read_to_end(&mut content).unwrap();
        assert_eq!(content.len() as u64, length);
        (answer, content)
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An image layout with one manifest, `one`, of one blob.
fn layout(root: &Path, blob: &[u8]) -> (Vec<u8>, Digest) {
    let blobs = root.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let add = |bytes: &[u8]| {
        let digest = Digest::of(bytes);
        fs::write(blobs.join(digest.hex()), bytes).unwrap();
        json!({"mediaType": KIND, "digest": digest, "size": bytes.len()})
    };
    let manifest = manifest(&add(b"{}"), &add(blob));
    let mut named = add(&manifest);
    named["annotations"] = json!({"org.opencontainers.image.ref.name": "one"});
    let index = json!({"schemaVersion": 2, "manifests": [named]});
    fs::write(root.join("index.json"), index.to_string()).unwrap();
    (manifest, Digest::of(blob))
}

fn manifest(config: &Value, layer: &Value) -> Vec<u8> {
    json!({"schemaVersion": 2, "mediaType": KIND, "config": config, "layers": [layer]})
        .to_string()
        .into_bytes()
}

/// What must be true of any source.
fn check(mut reader: Reader, manifest: &[u8], blob: &[u8], digest: &Digest) {
    assert_eq!(reader.ask(&json!({"manifest": "one"})).1, manifest);
    let by_digest = Digest::of(manifest);
    assert_eq!(reader.ask(&json!({"manifest": by_digest})).1, manifest);
    let (missing, _) = reader.ask(&json!({"manifest": "two"}));
    assert_eq!(missing, json!({"missing": true}));
    assert_eq!(reader.ask(&json!({"blob": digest})).1, blob);
    let part = json!({"blob": digest, "offset": 70_000, "length": 1000});
    assert_eq!(reader.ask(&part).1, &blob[70_000..71_000]);
    let (_, tags) = reader.ask(&json!({"tags": true}));
    let tags: Value = serde_json::from_slice(&tags).unwrap();
    assert_eq!(tags, json!(["one"]));
    let (error, _) = reader.ask(&json!({"blob": Digest::of(b"nothing of that kind")}));
    assert!(error["error"].is_string(), "{error}");
    // It goes on after an error.
    assert_eq!(reader.ask(&json!({"manifest": "one"})).1, manifest);
}

fn content() -> Vec<u8> {
    (0..200_000_u32)
        .map(|number| (number % 251) as u8)
        .collect()
}

#[test]
fn a_registry_is_read_by_manifest_blob_and_tag() {
    let (world, registry) = (World::new(), Registry::plain());
    world.trust(&registry);
    let blob = content();
    let digest = registry.push_blob("os", &blob);
    let config = registry.push_blob("os", b"{}");
    let descriptor =
        |digest: &Digest, size: usize| json!({"mediaType": KIND, "digest": digest, "size": size});
    let bytes = manifest(&descriptor(&config, 2), &descriptor(&digest, blob.len()));
    let value: Value = serde_json::from_slice(&bytes).unwrap();
    registry.push_manifest("os", "one", KIND, &value);
    let bytes = serde_json::to_vec(&value).unwrap();
    let name = format!("{}/os", registry.host());
    // As nobody, who must not need what root could read.
    for user in [&["--user", "65534"][..], &[]] {
        let reader = Reader::start(&world, &[&[name.as_str()], user].concat());
        check(reader, &bytes, &blob, &digest);
    }
}

#[test]
fn a_layout_is_read_from_a_directory_and_from_web_servers_with_and_without_ranges() {
    let world = World::new();
    let root = world.path("layout");
    let blob = content();
    let (manifest, digest) = layout(&root, &blob);
    let reader = Reader::start(&world, &[root.to_str().unwrap()]);
    check(reader, &manifest, &blob, &digest);
    for ranges in [true, false] {
        let url = format!("http://127.0.0.1:{}/os/", serve(root.clone(), ranges));
        check(Reader::start(&world, &[&url]), &manifest, &blob, &digest);
    }
}

#[test]
fn what_a_layout_calls_by_a_wrong_digest_is_refused() {
    let world = World::new();
    let root = world.path("layout");
    let (manifest, _) = layout(&root, b"blob");
    let digest = Digest::of(&manifest);
    fs::write(
        root.join("blobs/sha256").join(digest.hex()),
        b"{\"other\": 1}",
    )
    .unwrap();
    let mut reader = Reader::start(&world, &[root.to_str().unwrap()]);
    let (error, _) = reader.ask(&json!({"manifest": "one"}));
    assert!(
        error["error"]
            .as_str()
            .unwrap()
            .contains("verification failed"),
        "{error}"
    );
    let mut reader = Reader::start(&world, &[world.path("none").to_str().unwrap()]);
    let (error, _) = reader.ask(&json!({"manifest": "one"}));
    assert!(
        error["error"].as_str().unwrap().contains("no image layout"),
        "{error}"
    );
}

/// A web server for as long as the test runs.
fn serve(root: PathBuf, ranges: bool) -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let root = root.clone();
            // A client that goes away early is none of its concern.
            std::thread::spawn(move || drop(answer(stream.unwrap(), &root, ranges)));
        }
    });
    port
}

fn answer(mut stream: TcpStream, root: &Path, ranges: bool) -> std::io::Result<()> {
    let mut lines = BufReader::new(stream.try_clone()?).lines();
    let request = lines.next().unwrap()?;
    let headers: Vec<String> = lines
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let path = request
        .split(' ')
        .nth(1)
        .unwrap()
        .trim_start_matches("/os/");
    let Ok(content) = fs::read(root.join(path)) else {
        return stream.write_all(
            b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
        );
    };
    let range = headers.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        let value = value.strip_prefix("bytes=")?;
        let (first, last) = value.split_once('-')?;
        let bounds = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        name.eq_ignore_ascii_case("range").then_some(bounds)
    });
    let (status, part) = match range.filter(|_| ranges) {
        Some((first, last)) => ("206 Partial Content", &content[first..=last]),
        None => ("200 OK", &content[..]),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        part.len()
    )?;
    stream.write_all(part)
}
