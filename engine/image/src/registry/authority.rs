//! Answers to what registries ask for.

use super::challenge::Challenge;
use crate::failure::Failure;
use anyhow::{Context, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use std::io::Read;
use ureq::Agent;

/// Most that a token server may answer.
const ANSWER_MAX_BYTES: u64 = 1 << 20;
const CLIENT_ID: &str = "keelson";

/// Docker's `AuthConfig`: what a client sends in `X-Registry-Auth`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Credentials {
    pub(crate) username: String,
    pub(crate) password: String,
    /// Instead of a password, from an earlier login.
    pub(crate) identitytoken: String,
    /// A token for the registry itself.
    pub(crate) registrytoken: String,
}

impl Credentials {
    /// Reads one JSON object.
    ///
    /// # Errors
    /// When it is none.
    pub(crate) fn read(reader: impl Read) -> anyhow::Result<Option<Self>> {
        let mut text = String::new();
        reader
            .take(ANSWER_MAX_BYTES)
            .read_to_string(&mut text)
            .context("read the credentials")?;
        if text.trim().is_empty() {
            return Ok(None);
        }
        let credentials: Self =
            serde_json::from_str(&text).context("the credentials are no JSON object")?;
        Ok(Some(credentials).filter(|given| !given.is_empty()))
    }

    fn is_empty(&self) -> bool {
        [&self.username, &self.identitytoken, &self.registrytoken]
            .iter()
            .all(|text| text.is_empty())
    }

    fn basic(&self) -> String {
        let pair = format!("{}:{}", self.username, self.password);
        format!("Basic {}", STANDARD.encode(pair))
    }
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

/// What the header `Authorization` has to be.
///
/// # Errors
/// When there is nothing to answer with, or the token server refuses.
pub(super) fn answer(
    agent: &Agent,
    challenge: &Challenge,
    repository: &str,
    credentials: Option<&Credentials>,
    https_only: bool,
) -> anyhow::Result<String> {
    match (challenge, credentials) {
        (_, Some(given)) if !given.registrytoken.is_empty() => {
            Ok(format!("Bearer {}", given.registrytoken))
        }
        (Challenge::Basic, Some(given)) => Ok(given.basic()),
        (Challenge::Basic, None) => Err(Failure::error(401, "no basic auth credentials")),
        (
            Challenge::Bearer {
                realm,
                service,
                scope,
            },
            _,
        ) => {
            if https_only && !realm.starts_with("https://") {
                bail!("the registry wants a token from {realm}, which is not https");
            }
            let asked = format!("repository:{repository}:pull");
            let scope = scope.as_deref().unwrap_or(&asked);
            let service = service.as_deref().unwrap_or_default();
            let token = token(agent, realm, service, scope, credentials)?;
            Ok(format!("Bearer {token}"))
        }
    }
}

fn token(
    agent: &Agent,
    realm: &str,
    service: &str,
    scope: &str,
    credentials: Option<&Credentials>,
) -> anyhow::Result<String> {
    let failed = || format!("fetch a token from {realm}");
    let identity = credentials.filter(|given| !given.identitytoken.is_empty());
    let mut response = if let Some(given) = identity {
        let form = [
            ("grant_type", "refresh_token"),
            ("refresh_token", &given.identitytoken),
            ("service", service),
            ("scope", scope),
            ("client_id", CLIENT_ID),
        ];
        agent.post(realm).send_form(form).with_context(failed)?
    } else {
        let mut request = agent
            .get(realm)
            .query("service", service)
            .query("scope", scope);
        if let Some(given) = credentials {
            request = request.header("Authorization", given.basic());
        }
        request.call().with_context(failed)?
    };
    let status = response.status().as_u16();
    let mut reader = response.body_mut().as_reader().take(ANSWER_MAX_BYTES);
    if status == 401 || status == 403 {
        return Err(Failure::error(
            401,
            "unauthorized: incorrect username or password",
        ));
    }
    if status != 200 {
        bail!("{}: it answers with status {status}", failed());
    }
    let mut text = String::new();
    reader.read_to_string(&mut text).with_context(failed)?;
    let token: Token = serde_json::from_str(&text).with_context(failed)?;
    token
        .token
        .or(token.access_token)
        .filter(|token| !token.is_empty())
        .with_context(|| format!("{}: its answer has no token", failed()))
}
