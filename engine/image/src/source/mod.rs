//! Documents and content of one repository for another program: `keelson-image read SOURCE`. System services have no other way to what
//! is in registries.
//!
//! A source is `HOST/REPOSITORY` (a registry), or an OCI image layout: `https://HOST/PATH`, `http://HOST/PATH` or `/PATH`.
//!
//! Questions are JSON lines on standard input: `{"manifest": TAG or DIGEST}`, `{"blob": DIGEST, "offset": 0, "length": N}` (all of it
//! without the last two), `{"tags": true}`. An answer is a line `{"length": N}` and N bytes, `{"missing": true}`, or `{"error": SENTENCE}`; `tags` are a
//! JSON list. Nothing is checked here but what a manifest is called by: who asks knows what it should be. An answer that breaks off ends the program.
//!
//! - [`layout`]: image layouts (OCI image specification, "OCI Image Layout Specification")

mod layout;

use std::io::{self, BufRead as _, Read, Write};
use std::path::Path;

use anyhow::{Context as _, bail};
use keelson_image::{Digest, Reference};
use rustix::thread::{set_no_new_privs, set_thread_groups, set_thread_res_gid, set_thread_res_uid};
use serde::Deserialize;

use crate::access;
use crate::arguments::{Read as Asked, Request};
use crate::blob::Cut;
use crate::failure::Failure;
use crate::registry::Remote;
use layout::Layout;

/// No question is longer.
const QUESTION_MAX_BYTES: u64 = 4096;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase", untagged, deny_unknown_fields)]
enum Question {
    Manifest {
        manifest: String,
    },
    Blob {
        blob: Digest,
        #[serde(default)]
        offset: u64,
        #[serde(default)]
        length: Option<u64>,
    },
    Tags {
        #[serde(rename = "tags")]
        _tags: bool,
    },
}

/// What answers.
enum Source {
    Registry(Vec<Remote>),
    Layout(Layout),
}

/// An answer whose content is of known length.
struct Content {
    length: u64,
    reader: Box<dyn Read>,
}

impl Content {
    fn of(bytes: Vec<u8>) -> Self {
        Content {
            length: bytes.len() as u64,
            reader: Box::new(io::Cursor::new(bytes)),
        }
    }
}

/// Answers until there are no more questions.
///
/// # Errors
/// The source makes no sense, or an answer broke off.
pub(crate) fn serve(request: &Request, asked: &Asked) -> anyhow::Result<()> {
    let source = open(request, &asked.source)?;
    if let Some(user) = asked.user {
        become_user(user)?;
    }
    let mut input = io::stdin().lock();
    let mut out = io::stdout().lock();
    loop {
        let mut line = String::new();
        if input
            .by_ref()
            .take(QUESTION_MAX_BYTES)
            .read_line(&mut line)?
            == 0
        {
            return Ok(());
        }
        let question = serde_json::from_str(&line).context("a line is no question")?;
        match source.answer(&question) {
            Ok(None) => out.write_all(b"{\"missing\":true}\n")?,
            Ok(Some(content)) => {
                writeln!(out, "{{\"length\":{}}}", content.length)?;
                let copied = io::copy(&mut content.reader.take(content.length), &mut out)?;
                if copied < content.length {
                    bail!(
                        "the answer breaks off after {copied} of {} bytes",
                        content.length
                    );
                }
            }
            Err(error) => writeln!(
                out,
                "{}",
                serde_json::json!({"error": format!("{error:#}")})
            )?,
        }
        out.flush()?;
    }
}

fn open(request: &Request, name: &str) -> anyhow::Result<Source> {
    if name.starts_with('/') {
        return Ok(Source::Layout(Layout::directory(Path::new(name))));
    }
    if name.starts_with("https://") || name.starts_with("http://") {
        let certificates = access::certificates(request)?;
        return Ok(Source::Layout(Layout::url(name, &certificates)));
    }
    let reference: Reference = name
        .parse()
        .map_err(|why: String| Failure::error(400, why))?;
    Ok(Source::Registry(access::remotes(
        request, &reference, None,
    )?))
}

/// What is in files was read: from here on it is nobody's business to be root.
fn become_user(user: u32) -> anyhow::Result<()> {
    let (uid, gid) = (
        rustix::process::Uid::from_raw(user),
        rustix::process::Gid::from_raw(user),
    );
    // There is one thread, so the thread's are the process's; with the last root identity go all capabilities.
    let changed = set_no_new_privs(true)
        .and_then(|()| set_thread_groups(&[]))
        .and_then(|()| set_thread_res_gid(gid, gid, gid))
        .and_then(|()| set_thread_res_uid(uid, uid, uid));
    changed.with_context(|| format!("become user {user}"))
}

impl Source {
    fn answer(&self, question: &Question) -> anyhow::Result<Option<Content>> {
        match self {
            Source::Layout(layout) => match question {
                Question::Manifest { manifest } => layout.manifest(manifest),
                Question::Blob {
                    blob,
                    offset,
                    length,
                } => layout.blob(blob, *offset, *length).map(Some),
                Question::Tags { .. } => layout.tags().map(Some),
            },
            Source::Registry(remotes) => {
                let mut failed = None;
                for remote in remotes {
                    match of_registry(remote, question) {
                        Ok(answer) => return Ok(answer),
                        // A refusal, or an answer that is none, says more than a connection that did not come about.
                        Err(error)
                            if failed.as_ref().is_none_or(is_cut)
                                || error.downcast_ref::<Failure>().is_some() =>
                        {
                            failed = Some(error);
                        }
                        Err(_) => {}
                    }
                }
                Err(failed.context("no registry to ask")?)
            }
        }
    }
}

fn of_registry(remote: &Remote, question: &Question) -> anyhow::Result<Option<Content>> {
    match question {
        Question::Manifest { manifest } => match remote.manifest(manifest) {
            Ok(fetched) => Ok(Some(Content::of(fetched.bytes))),
            Err(error) if is_missing(&error) => Ok(None),
            Err(error) => Err(error),
        },
        Question::Blob {
            blob,
            offset,
            length,
        } => {
            let end = length.map(|length| offset.saturating_add(length));
            let (content, told) = remote.range(blob, *offset, end)?;
            let length = length
                .or(told)
                .context("the registry does not say how long it is")?;
            Ok(Some(Content {
                length,
                reader: Box::new(content),
            }))
        }
        Question::Tags { .. } => Ok(Some(Content::of(serde_json::to_vec(&remote.tags()?)?))),
    }
}

fn is_cut(error: &anyhow::Error) -> bool {
    error.downcast_ref::<Cut>().is_some()
}

fn is_missing(error: &anyhow::Error) -> bool {
    error
        .downcast_ref::<Failure>()
        .is_some_and(|failure| failure.message.contains("manifest unknown"))
}

/// Passes over what is before `offset`, of a server that gives all of a file.
fn skip(reader: &mut impl Read, offset: u64) -> io::Result<()> {
    let passed = io::copy(&mut reader.take(offset), &mut io::sink())?;
    match passed == offset {
        true => Ok(()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}
