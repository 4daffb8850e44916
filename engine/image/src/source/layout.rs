//! Image layouts, in a directory or behind a web server.

use std::fs::File;
use std::io::{Read, Seek as _, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use keelson_image::Digest;
use keelson_image::document::{Index, REF_NAME};
use keelson_image::store::DOCUMENT_MAX_BYTES;
use ureq::Agent;
use ureq::http::Response;

use super::{Content, skip};
use crate::exchange;

const INDEX: &str = "index.json";

/// A layout.
pub(super) enum Layout {
    /// In a directory.
    Directory(PathBuf),
    /// At a URL, without a slash at the end.
    Url(String, Agent),
}

impl Layout {
    pub(super) fn directory(path: &Path) -> Self {
        Layout::Directory(path.to_owned())
    }

    pub(super) fn url(url: &str, certificates: &[u8]) -> Self {
        let agent = exchange::downloads(certificates, url.starts_with("https:"));
        Layout::Url(url.trim_end_matches('/').to_owned(), agent)
    }

    fn index(&self) -> anyhow::Result<Index> {
        let index = self
            .open(INDEX, 0, None)?
            .context("there is no index.json: it is no image layout")?;
        serde_json::from_slice(&whole(index)?).context("read index.json")
    }

    pub(super) fn manifest(&self, target: &str) -> anyhow::Result<Option<Content>> {
        let digest = match target.parse::<Digest>() {
            Ok(digest) => digest,
            Err(_) => {
                let index = self.index()?;
                let named = |name: &&keelson_image::document::Descriptor| {
                    name.annotations.get(REF_NAME).map(String::as_str) == Some(target)
                };
                match index.manifests.iter().find(named) {
                    Some(descriptor) => descriptor.digest.clone(),
                    None => return Ok(None),
                }
            }
        };
        let Some(found) = self.open(&path(&digest), 0, None)? else {
            return Ok(None);
        };
        let bytes = whole(found)?;
        let real = Digest::of(&bytes);
        ensure!(
            real == digest,
            "manifest verification failed for digest {digest}: its content has {real}"
        );
        Ok(Some(Content::of(bytes)))
    }

    pub(super) fn blob(
        &self,
        digest: &Digest,
        offset: u64,
        length: Option<u64>,
    ) -> anyhow::Result<Content> {
        let found = self.open(&path(digest), offset, length)?;
        found.with_context(|| format!("there is no blob {digest}"))
    }

    pub(super) fn tags(&self) -> anyhow::Result<Content> {
        let index = self.index()?;
        let tags: Vec<&String> = index
            .manifests
            .iter()
            .filter_map(|descriptor| descriptor.annotations.get(REF_NAME))
            .collect();
        Ok(Content::of(serde_json::to_vec(&tags)?))
    }

    /// A part of a file; `None` when there is no such file.
    fn open(
        &self,
        path: &str,
        offset: u64,
        length: Option<u64>,
    ) -> anyhow::Result<Option<Content>> {
        match self {
            Layout::Directory(root) => open_file(&root.join(path), offset, length),
            Layout::Url(url, agent) => open_url(agent, &format!("{url}/{path}"), offset, length),
        }
    }
}

fn path(digest: &Digest) -> String {
    format!("blobs/sha256/{}", digest.hex())
}

fn whole(content: Content) -> anyhow::Result<Vec<u8>> {
    ensure!(
        content.length <= DOCUMENT_MAX_BYTES,
        "a document of {} bytes is too long",
        content.length
    );
    let mut bytes = Vec::new();
    content
        .reader
        .take(content.length)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn open_file(path: &Path, offset: u64, length: Option<u64>) -> anyhow::Result<Option<Content>> {
    let opening = || format!("open {}", path.display());
    let mut file = match File::open(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other.with_context(opening)?,
    };
    let data = file.metadata().with_context(opening)?;
    ensure!(data.is_file(), "{} is no file", path.display());
    file.seek(SeekFrom::Start(offset)).with_context(opening)?;
    Ok(Some(Content {
        length: length.unwrap_or_else(|| data.len().saturating_sub(offset)),
        reader: Box::new(file),
    }))
}

fn open_url(
    agent: &Agent,
    url: &str,
    offset: u64,
    length: Option<u64>,
) -> anyhow::Result<Option<Content>> {
    let mut request = agent.get(url);
    if offset > 0 || length.is_some() {
        let last = length.map(|length| offset.saturating_add(length).saturating_sub(1));
        let last = last.map(|last| last.to_string()).unwrap_or_default();
        request = request.header("Range", format!("bytes={offset}-{last}"));
    }
    let response = request.call().with_context(|| url.to_owned())?;
    let before = match response.status().as_u16() {
        200 => offset,
        206 => 0,
        404 => return Ok(None),
        status => bail!("{url}: the server answers with status {status}"),
    };
    let told = content_length(&response).map(|told| told.saturating_sub(before));
    let length = length
        .or(told)
        .with_context(|| format!("{url}: the server does not say how long it is"))?;
    let mut reader = response.into_body().into_reader();
    skip(&mut reader, before).with_context(|| url.to_owned())?;
    Ok(Some(Content {
        length,
        reader: Box::new(reader),
    }))
}

fn content_length<B>(response: &Response<B>) -> Option<u64> {
    let value = response.headers().get("content-length")?;
    value.to_str().ok()?.parse().ok()
}
