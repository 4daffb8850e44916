//! A client of Docker's API that costs next to nothing, for `qemu-tests/run --bench engine`: HTTP/1.1 over a Unix socket, one
//! connection, one thread.
//!
//! `engine-client SOCKET cycle IMAGE COUNT`: containers are created, started, waited for and removed; prints the
//! microseconds of each round. `start IMAGE COUNT`: containers that sleep. `list COUNT`: lists them all so often.
//! `remove`: removes all that `start` made.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Instant;

struct Client {
    stream: BufReader<UnixStream>,
}

impl Client {
    fn ask(&mut self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let text = match body {
            Value::Null => String::new(),
            body => body.to_string(),
        };
        let request = format!(
            "{method} /v1.43{path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{text}",
            text.len()
        );
        self.stream.get_mut().write_all(request.as_bytes())?;
        let status = self.line()?;
        let (mut length, mut chunked) = (0, false);
        loop {
            let line = self.line()?.to_ascii_lowercase();
            match line.split_once(": ") {
                None => break,
                Some(("content-length", value)) => length = value.parse()?,
                Some(("transfer-encoding", _)) => chunked = true,
                Some(_) => {}
            }
        }
        let mut answer = vec![0; length];
        self.stream.read_exact(&mut answer)?;
        while chunked {
            let size = usize::from_str_radix(&self.line()?, 16)?;
            let mut piece = vec![0; size];
            self.stream.read_exact(&mut piece)?;
            answer.extend(piece);
            self.line()?;
            chunked = size > 0;
        }
        ensure!(
            status.contains(" 20") || status.contains(" 304"),
            "{method} {path}: {status}: {}",
            String::from_utf8_lossy(&answer)
        );
        Ok(serde_json::from_slice(&answer).unwrap_or(Value::Null))
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        ensure!(self.stream.read_line(&mut line)? > 0, "the engine hung up");
        Ok(line.trim_end().to_owned())
    }

    fn create(&mut self, image: &str, words: &[&str]) -> Result<String> {
        let body = json!({ "Image": image, "Cmd": words, "Labels": {"bench": "1"}, "HostConfig": {"NetworkMode": "none"} });
        let made = self.ask("POST", "/containers/create", &body)?;
        let id = made["Id"]
            .as_str()
            .context("a container without a number")?;
        Ok(id.to_owned())
    }
}

fn main() -> Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let socket = words.first().context("which socket?")?;
    let mut client = Client {
        stream: BufReader::new(UnixStream::connect(socket)?),
    };
    match words[1..] {
        ["cycle", image, count] => {
            for _ in 0..count.parse()? {
                let begun = Instant::now();
                let id = client.create(image, &["true"])?;
                client.ask("POST", &format!("/containers/{id}/start"), &Value::Null)?;
                let ended = client.ask("POST", &format!("/containers/{id}/wait"), &Value::Null)?;
                ensure!(ended["StatusCode"] == 0, "it ended with {ended}");
                client.ask("DELETE", &format!("/containers/{id}"), &Value::Null)?;
                println!("{}", begun.elapsed().as_micros());
            }
        }
        ["start", image, count] => {
            for _ in 0..count.parse()? {
                let id = client.create(image, &["sleep", "100000"])?;
                client.ask("POST", &format!("/containers/{id}/start"), &Value::Null)?;
            }
        }
        ["list", count] => {
            for _ in 0..count.parse()? {
                client.ask("GET", "/containers/json", &Value::Null)?;
            }
        }
        ["remove"] => {
            let filter = "/containers/json?all=1&filters=%7B%22label%22%3A%5B%22bench%22%5D%7D";
            let all = client.ask("GET", filter, &Value::Null)?;
            for container in all.as_array().into_iter().flatten() {
                let id = container["Id"].as_str().unwrap_or_default();
                client.ask("DELETE", &format!("/containers/{id}?force=1"), &Value::Null)?;
            }
        }
        _ => bail!("cycle IMAGE COUNT, start IMAGE COUNT, list COUNT or remove"),
    }
    Ok(())
}
