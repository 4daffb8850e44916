//! One repository of one registry, or of a mirror of it.

use super::authority::{Credentials, answer};
use super::challenge::Challenge;
use super::settings::Registry;
use crate::blob::Cut;
use crate::failure::Failure;
use anyhow::{Context, bail};
use keelson_image::document::media;
use keelson_image::store::DOCUMENT_MAX_BYTES;
use keelson_image::{Digest, Reference, reference};
use std::io::{self, Read};
use std::sync::Mutex;
use std::time::Duration;
use ureq::http::Response;
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

/// Docker's registry answers under this name.
const DEFAULT_HOST: &str = "registry-1.docker.io";
const CONNECT_TIMEOUT: Duration = Duration::from_secs(15);
/// How long a registry may think about an answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// One answer's content may take so long; then the rest is asked for anew, which ends a connection that hangs.
const BODY_TIMEOUT: Duration = Duration::from_secs(120);
/// So often a registry that is too busy is asked again.
const BUSY_TRIES: u32 = 4;

/// A repository.
#[derive(Debug)]
pub(crate) struct Remote {
    agent: Agent,
    /// `https://HOST`, without a slash at the end.
    base: String,
    repository: String,
    credentials: Option<Credentials>,
    insecure: bool,
    is_mirror: bool,
    /// The header `Authorization` that was last taken.
    authorization: Mutex<Option<String>>,
}

/// A manifest.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: Digest,
    pub(crate) media_type: String,
}

impl Remote {
    /// Where an image may be had, in the order in which it is tried: mirrors, then the registry itself; one that may be
    /// spoken to without TLS is there twice.
    ///
    /// # Errors
    /// When certificates cannot be read.
    pub(crate) fn all(
        name: &Reference,
        registry: &Registry,
        certificates: &[u8],
        credentials: Option<&Credentials>,
    ) -> anyhow::Result<Vec<Self>> {
        let mut pem = certificates.to_vec();
        pem.extend(registry.certificates()?.unwrap_or_default());
        let make = |base: String, insecure: bool, credentials: Option<&Credentials>| Self {
            agent: agent(&pem, insecure),
            base,
            repository: name.repository.clone(),
            credentials: credentials.cloned(),
            insecure,
            is_mirror: false,
            authorization: Mutex::new(None),
        };
        let mut all: Vec<Self> = registry
            .mirrors
            .iter()
            // Credentials are the registry's, not its mirrors'. A mirror without TLS was asked for as such.
            .map(|url| {
                let insecure = url.starts_with("http://");
                Self {
                    is_mirror: true,
                    ..make(url.trim_end_matches('/').to_owned(), insecure, None)
                }
            })
            .collect();
        let host = match name.registry.as_str() {
            reference::DEFAULT_REGISTRY => DEFAULT_HOST,
            other => other,
        };
        all.push(make(
            format!("https://{host}"),
            registry.insecure,
            credentials,
        ));
        if registry.insecure {
            all.push(make(format!("http://{host}"), true, credentials));
        }
        Ok(all)
    }

    /// Fetches a manifest by tag or digest and checks what it is called by.
    ///
    /// # Errors
    /// When there is none, it is too long, or not what its digest says.
    pub(crate) fn manifest(&self, target: &str) -> anyhow::Result<Fetched> {
        let path = format!("manifests/{target}");
        let accept = media::MANIFESTS.join(", ");
        let mut response = self.get(&path, &[("Accept", &accept)])?;
        self.refuse(&response, target)?;
        let media_type = header(&response, "content-type");
        let told = header(&response, "docker-content-digest");
        let mut bytes = Vec::new();
        let reader = response.body_mut().as_reader();
        reader
            .take(DOCUMENT_MAX_BYTES + 1)
            .read_to_end(&mut bytes)
            .with_context(|| format!("read the manifest {target}"))?;
        if bytes.len() as u64 > DOCUMENT_MAX_BYTES {
            bail!("the manifest {target} is too long: more than {DOCUMENT_MAX_BYTES} bytes");
        }
        let digest = Digest::of(&bytes);
        let expected = target.parse::<Digest>().ok().or_else(|| told.parse().ok());
        if expected
            .as_ref()
            .is_some_and(|expected| *expected != digest)
        {
            bail!("manifest verification failed for digest {target}: its content has {digest}");
        }
        let media_type = media_type
            .split(';')
            .next()
            .unwrap_or_default()
            .trim()
            .to_owned();
        Ok(Fetched {
            bytes,
            digest,
            media_type,
        })
    }

    /// A blob from a byte on, up to another one (exclusive); gives its content, and how long that is when the registry tells.
    ///
    /// # Errors
    /// When there is none, or the registry could not be reached.
    pub(crate) fn range(
        &self,
        digest: &Digest,
        offset: u64,
        end: Option<u64>,
    ) -> anyhow::Result<(impl Read + use<>, Option<u64>)> {
        let last = end.map(|end| end.saturating_sub(1).to_string());
        let range = format!("bytes={offset}-{}", last.unwrap_or_default());
        let headers: &[(&str, &str)] = match (offset, end) {
            (0, None) => &[],
            _ => &[("Range", &range)],
        };
        let response = self.get(&format!("blobs/{digest}"), headers)?;
        self.refuse(&response, digest.as_str())?;
        let before = match response.status().as_u16() {
            206 => 0,
            _ => offset,
        };
        let length = header(&response, "content-length").parse::<u64>().ok();
        let mut reader = response.into_body().into_reader();
        // A registry that gives all of it.
        let passed = io::copy(&mut reader.by_ref().take(before), &mut io::sink())?;
        if passed < before {
            bail!("the blob {digest} ends before byte {offset}");
        }
        Ok((reader, length.map(|length| length.saturating_sub(before))))
    }

    /// The tags of the repository (OCI distribution specification, "Listing Tags").
    ///
    /// # Errors
    /// When the registry could not be reached, or answers with something else.
    pub(crate) fn tags(&self) -> anyhow::Result<Vec<String>> {
        #[derive(serde::Deserialize)]
        struct Tags {
            #[serde(default)]
            tags: Option<Vec<String>>,
        }
        let mut response = self.get("tags/list", &[])?;
        self.refuse(&response, "its tags")?;
        let reader = response.body_mut().as_reader();
        let tags: Tags = serde_json::from_reader(reader.take(DOCUMENT_MAX_BYTES))
            .with_context(|| format!("read the tags of {}", self.repository))?;
        Ok(tags.tags.unwrap_or_default())
    }

    /// Begins to fetch a blob at a byte; gives its content and where that really begins.
    ///
    /// # Errors
    /// When there is none; [`Cut`] when the registry could not be reached just now.
    pub(crate) fn blob(&self, digest: &Digest, offset: u64) -> anyhow::Result<(impl Read, u64)> {
        let range = format!("bytes={offset}-");
        let headers: &[(&str, &str)] = match offset {
            0 => &[],
            _ => &[("Range", &range)],
        };
        let response = self.get(&format!("blobs/{digest}"), headers)?;
        let start = match response.status().as_u16() {
            206 => {
                let told = header(&response, "content-range");
                let start = told
                    .strip_prefix("bytes ")
                    .and_then(|rest| rest.split('-').next());
                start.and_then(|start| start.parse().ok()).unwrap_or(offset)
            }
            _ => 0,
        };
        self.refuse(&response, digest.as_str())?;
        Ok((response.into_body().into_reader(), start))
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response<Body>> {
        let url = format!("{}/v2/{}/{path}", self.base, self.repository);
        self.get_url(&url, headers)
    }

    /// Whether it is another place than the registry itself.
    pub(crate) fn is_mirror(&self) -> bool {
        self.is_mirror
    }

    /// Shows the registry the credentials (OCI distribution specification, "Determining Support").
    ///
    /// # Errors
    /// When it does not take them.
    pub(crate) fn login(&self) -> anyhow::Result<()> {
        let url = format!("{}/v2/", self.base);
        match self.get_url(&url, &[])?.status().as_u16() {
            200 => Ok(()),
            401 | 403 => Err(Failure::error(
                401,
                format!("login attempt to {url} failed with status: 401 Unauthorized"),
            )),
            status => bail!("login attempt to {url} failed with status: {status}"),
        }
    }

    fn get_url(&self, url: &str, headers: &[(&str, &str)]) -> anyhow::Result<Response<Body>> {
        let mut busy = 0;
        let mut asked = false;
        loop {
            let mut request = self.agent.get(url);
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let authorization = self.authorization.lock().map(|held| held.clone());
            if let Ok(Some(value)) = authorization {
                request = request.header("Authorization", value);
            }
            let response = request
                .call()
                .map_err(|error| self.unreachable(url, error))?;
            match response.status().as_u16() {
                401 if !asked => {
                    asked = true;
                    self.authorize(&response)?;
                }
                429 | 500..=599 if busy < BUSY_TRIES => {
                    busy += 1;
                    std::thread::sleep(pause(&response, busy));
                }
                _ => return Ok(response),
            }
        }
    }

    /// Answers what the registry asks for; a token that has run out is replaced so, too.
    fn authorize(&self, response: &Response<Body>) -> anyhow::Result<()> {
        let challenges = response.headers().get_all("www-authenticate").iter();
        let challenge = challenges
            .filter_map(|value| value.to_str().ok())
            .find_map(Challenge::parse)
            .ok_or_else(|| Failure::error(401, "unauthorized: authentication required"))?;
        let value = answer(
            &self.agent,
            &challenge,
            &self.repository,
            self.credentials.as_ref(),
            !self.insecure,
        )?;
        if let Ok(mut held) = self.authorization.lock() {
            *held = Some(value);
        }
        Ok(())
    }

    /// A connection that did not come about: worth another try for a blob, and another place for a manifest.
    fn unreachable(&self, url: &str, error: ureq::Error) -> anyhow::Error {
        let mut text = format!("Get \"{url}\": {error}");
        // An error of TLS comes as one of the connection.
        if !self.insecure
            && ["certificate", "InvalidContentType"]
                .iter()
                .any(|word| text.contains(word))
        {
            text.push_str(
                " (a registry with a certificate of its own, or without TLS, has to be named in the registries file)",
            );
        }
        anyhow::Error::new(Cut(io::Error::other(text)))
    }

    /// Docker's words for an answer that is no success.
    fn refuse(&self, response: &Response<Body>, target: &str) -> anyhow::Result<()> {
        let name = &self.repository;
        match response.status().as_u16() {
            200 | 206 => Ok(()),
            401 | 403 => Err(Failure::error(
                404,
                format!(
                    "pull access denied for {name}, repository does not exist or may require 'docker login'"
                ),
            )),
            404 => Err(Failure::error(
                404,
                format!(
                    "manifest for {name}:{target} not found: manifest unknown: manifest unknown"
                ),
            )),
            status => bail!("the registry answers with status {status} for {name} {target}"),
        }
    }
}

fn header(response: &Response<Body>, name: &str) -> String {
    let value = response.headers().get(name);
    value
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default()
        .to_owned()
}

/// As long as a busy registry asks for, within reason; else longer each time.
fn pause(response: &Response<Body>, tries: u32) -> Duration {
    let asked = header(response, "retry-after").parse::<u64>().ok();
    let seconds = asked.unwrap_or_else(|| 2_u64.pow(tries - 1)).min(20);
    Duration::from_secs(seconds)
}

/// Certificates of authorities in PEM.
pub(crate) fn authorities(pem: &[u8]) -> Vec<Certificate<'static>> {
    parse_pem(pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate.to_owned()),
            _ => None,
        })
        .collect()
}

fn agent(pem: &[u8], insecure: bool) -> Agent {
    let certificates = authorities(pem);
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&certificates))
        .disable_verification(insecure)
        .build();
    Agent::config_builder()
        .http_status_as_error(false)
        .https_only(!insecure)
        .user_agent(concat!("keelson/", env!("CARGO_PKG_VERSION")))
        .timeout_connect(Some(CONNECT_TIMEOUT))
        .timeout_recv_response(Some(ANSWER_TIMEOUT))
        .timeout_recv_body(Some(BODY_TIMEOUT))
        .tls_config(tls)
        .build()
        .new_agent()
}
