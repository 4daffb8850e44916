//! Where releases come from: `keelson-image read`, a process that has the network and nothing else, answers for a registry or an image
//! layout.

use std::io::{BufRead as _, BufReader, Read, Write as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use keelson_image::Digest;
use serde_json::{Value, json};

use crate::release::{Store, document::DOCUMENT_MAX_BYTES};

/// The release that is taken when nobody names one.
const DEFAULT_TAG: &str = "stable";
/// Who asks the network: nobody.
const USER: u32 = 65534;
/// No line of an answer is longer.
const LINE_MAX_BYTES: u64 = 64 * 1024;

/// The program, and what it is told on its command line.
#[derive(Clone, Debug)]
pub struct Reader {
    /// `keelson-image`
    pub program: PathBuf,
    /// `--registries FILE`, in this order.
    pub registries: Vec<PathBuf>,
    /// `--certificates FILE|DIR`
    pub certificates: Vec<PathBuf>,
    /// Lines `NAME=VALUE` that name proxies.
    pub proxy: PathBuf,
    /// It becomes nobody. (Tests are nobody already.)
    pub confined: bool,
}

impl Reader {
    /// The status that a GET of this URL (without TLS) answers with. The one who asks is nobody.
    ///
    /// # Errors
    /// There is no answer; a sentence for a person.
    pub fn status_of(&self, url: &str) -> Result<u16> {
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .arg("exchange")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped());
        if self.confined {
            command.uid(USER).gid(USER);
        }
        let starting = || format!("start {}", self.program.display());
        let mut child = command.spawn().with_context(starting)?;
        let question = format!("{}\n", json!({"url": url}));
        let asked = child
            .stdin
            .take()
            .map(|mut pipe| pipe.write_all(question.as_bytes()));
        let output = child.wait_with_output().with_context(starting)?;
        asked.context("it has no pipe")?.context("ask")?;
        let answer: Value = serde_json::from_slice(&output.stdout).context("read its answer")?;
        if let Some(error) = answer["error"].as_str() {
            bail!("{error}");
        }
        let status = answer["status"]
            .as_u64()
            .context("its answer has no status")?;
        Ok(u16::try_from(status)?)
    }
}

/// A source of releases.
#[derive(Debug)]
pub struct Source {
    reader: Reader,
    place: String,
    /// The tag or the digest that its name ends with.
    target: String,
    process: Option<Process>,
}

#[derive(Debug)]
struct Process {
    child: Child,
    questions: ChildStdin,
    answers: BufReader<ChildStdout>,
}

/// The place and the tag or digest in the name of a source: `HOST/REPOSITORY[:TAG|@DIGEST]`, `https://HOST/PATH[#TAG]`, `/PATH[#TAG]`.
pub fn split(name: &str) -> (String, String) {
    let (place, target) = if name.starts_with('/') || name.contains("://") {
        name.split_once('#').unwrap_or((name, DEFAULT_TAG))
    } else if let Some((place, digest)) = name.split_once('@') {
        (place, digest)
    } else {
        match name.rsplit_once(':') {
            // A port stands before the path.
            Some((place, tag)) if !tag.contains('/') => (place, tag),
            _ => (name, DEFAULT_TAG),
        }
    };
    (place.to_owned(), target.to_owned())
}

impl Source {
    /// The source of this name. Nothing is asked yet.
    pub fn new(reader: &Reader, name: &str) -> Self {
        let (place, target) = split(name);
        Source {
            reader: reader.clone(),
            place,
            target,
            process: None,
        }
    }

    /// The tag or the digest that its name ends with; `stable` when it has none.
    pub fn target(&self) -> &str {
        &self.target
    }

    /// All tags.
    ///
    /// # Errors
    /// The source cannot be reached, or has no such list.
    pub fn tags(&mut self) -> Result<Vec<String>> {
        let length = self.ask(&json!({"tags": true}))?;
        let bytes = self.take(
            length.context("there is no list of tags")?,
            DOCUMENT_MAX_BYTES,
        )?;
        serde_json::from_slice(&bytes).context("read the list of tags")
    }

    /// A part of a blob.
    ///
    /// # Errors
    /// The source cannot be reached, or does not have it.
    pub fn range(
        &mut self,
        digest: &Digest,
        offset: u64,
        length: u64,
    ) -> Result<impl Read + use<'_>> {
        let question = json!({"blob": digest, "offset": offset, "length": length});
        let told = self.ask(&question)?;
        ensure!(
            told == Some(length),
            "the source has no such part of {digest}"
        );
        let process = self.process.as_mut().context("the source is gone")?;
        Ok((&mut process.answers).take(length))
    }

    /// Asks; gives the length of the content that follows, and `None` when there is none.
    fn ask(&mut self, question: &Value) -> Result<Option<u64>> {
        let place = self.place.clone();
        let answer = match self.carry(question) {
            Ok(answer) => answer,
            Err(error) => {
                // The next question has a fresh one.
                self.process = None;
                return Err(error.context(format!("{place} could not be read")));
            }
        };
        if let Some(error) = answer["error"].as_str() {
            bail!("{place}: {error}");
        }
        Ok(answer["length"].as_u64())
    }

    fn carry(&mut self, question: &Value) -> Result<Value> {
        let process = match &mut self.process {
            Some(process) => process,
            none => none.insert(start(&self.reader, &self.place)?),
        };
        let ends = "the program that reads it has ended";
        let line = format!("{question}\n");
        process.questions.write_all(line.as_bytes()).context(ends)?;
        let mut line = String::new();
        let read = (&mut process.answers)
            .take(LINE_MAX_BYTES)
            .read_line(&mut line)
            .context(ends)?;
        ensure!(read > 0, ends);
        serde_json::from_str(&line).context("read its answer")
    }

    fn take(&mut self, length: u64, limit: u64) -> Result<Vec<u8>> {
        let outcome = (|| {
            ensure!(length <= limit, "a document of {length} bytes is too long");
            let process = self.process.as_mut().context("the source is gone")?;
            let mut bytes = Vec::new();
            (&mut process.answers)
                .take(length)
                .read_to_end(&mut bytes)?;
            ensure!(bytes.len() as u64 == length, "the answer breaks off");
            Ok(bytes)
        })();
        if outcome.is_err() {
            self.process = None;
        }
        outcome
    }

    /// Ends the program: the next question is put to a new one.
    pub fn restart(&mut self) {
        self.process = None;
    }
}

impl Store for Source {
    fn manifest(&mut self, target: &str) -> Result<Option<Vec<u8>>> {
        match self.ask(&json!({"manifest": target}))? {
            Some(length) => self.take(length, DOCUMENT_MAX_BYTES).map(Some),
            None => Ok(None),
        }
    }

    fn blob(&mut self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let length = self.ask(&json!({"blob": digest}))?;
        let length = length.with_context(|| format!("there is no blob {digest}"))?;
        self.take(length, limit)
    }
}

fn start(reader: &Reader, place: &str) -> Result<Process> {
    let mut command = Command::new(&reader.program);
    // Least of all where the engine listens to the service.
    command.env_clear();
    for (option, paths) in [
        ("--registries", &reader.registries),
        ("--certificates", &reader.certificates),
    ] {
        for path in paths {
            command.arg(option).arg(path);
        }
    }
    for (name, value) in proxies(&reader.proxy) {
        command.env(name, value);
    }
    command.args(["read", place]);
    if reader.confined {
        command.args(["--user", &USER.to_string()]);
    }
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .with_context(|| format!("start {}", reader.program.display()))?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(questions), Some(answers)) => Ok(Process {
            child,
            questions,
            answers: BufReader::new(answers),
        }),
        _ => bail!("start {}: it has no pipes", reader.program.display()),
    }
}

fn proxies(file: &Path) -> Vec<(String, String)> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let pair = |line: &str| {
        let (name, value) = line.split_once('=')?;
        Some((name.to_owned(), value.to_owned()))
    };
    text.lines().filter_map(pair).collect()
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may be waiting for a server. One that cannot be ended is not waited for.
        if self.child.kill().is_ok() {
            let _ = self.child.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_a_source_ends_with_a_tag_or_a_digest() {
        for (name, place, target) in [
            ("example.org/os", "example.org/os", "stable"),
            ("example.org:5000/os", "example.org:5000/os", "stable"),
            ("example.org:5000/os:1.2", "example.org:5000/os", "1.2"),
            ("example.org/os@sha256:12", "example.org/os", "sha256:12"),
            (
                "https://example.org:80/os",
                "https://example.org:80/os",
                "stable",
            ),
            (
                "https://example.org/os#beta",
                "https://example.org/os",
                "beta",
            ),
            ("/mnt/os#1.0", "/mnt/os", "1.0"),
            ("/mnt/os", "/mnt/os", "stable"),
        ] {
            assert_eq!(split(name), (place.to_owned(), target.to_owned()), "{name}");
        }
    }
}
