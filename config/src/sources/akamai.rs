//! Akamai's (Linode's) metadata service (Akamai documentation, "Overview of the Metadata service").

use serde_json::Value as Json;

use super::http::{Client, LINK_LOCAL, Method, Request, first_of, found, some, text};
use super::{Source, http};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::yaml;

/// Its addresses, of which the first one that answers counts.
const BASES: [&str; 2] = [LINK_LOCAL, "http://[fd00:a9fe:a9fe::1]"];
/// How long a token holds, in seconds.
const TOKEN_SECONDS: &str = "300";

/// Asks the service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(client: &mut Client<'_>, diagnostics: &mut Diagnostics) -> Result<Source, String> {
    first_of(&BASES, |base| fetch_from(base, client, diagnostics))
}

fn fetch_from(
    base: &str,
    client: &mut Client<'_>,
    diagnostics: &mut Diagnostics,
) -> Result<Source, String> {
    let url = format!("{base}/v1/token");
    let response = client.send(Request {
        method: Method::Put,
        url: url.clone(),
        headers: vec![(
            "Metadata-Token-Expiry-Seconds".to_owned(),
            TOKEN_SECONDS.to_owned(),
        )],
        ..Request::default()
    })?;
    let token = found(&url, response)?.ok_or_else(|| format!("{url} answers with status 404"))?;
    client.with_header("Metadata-Token", String::from_utf8_lossy(&token).trim());
    client.with_header("Accept", "application/json");
    let all = client.json(&format!("{base}/v1/instance"))?;
    let id = text(&all["id"]).ok_or("the metadata service names no instance")?;
    let keys = match client.get(&format!("{base}/v1/ssh-keys"))? {
        Some(body) => serde_json::from_slice(&body).unwrap_or(Json::Null),
        None => Json::Null,
    };
    let keys = keys["users"].as_object().map(|users| users.values());
    let keys = keys
        .into_iter()
        .flatten()
        .filter_map(Json::as_array)
        .flatten();
    let keys = yaml::from_json(&Json::from_iter(keys.cloned()), Position::default());
    client.with_header("Accept", "text/plain");
    let user_data = client.get(&format!("{base}/v1/user-data"))?.and_then(some);
    let user_data = user_data.and_then(|data| http::base64("user-data", &data, diagnostics));
    Ok(Source {
        platform: "akamai".to_owned(),
        place: "the metadata service of Akamai".to_owned(),
        instance_id: id,
        hostname: text(&all["label"]),
        public_keys: authorized_keys("ssh-keys", &keys, diagnostics),
        region: text(&all["region"]),
        user_data,
        meta_data: all,
        ..Source::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::fake::Service;

    #[test]
    fn a_token_is_asked_for_first() {
        let documents = [
            ("/v1/token", "t-1"),
            (
                "/v1/instance",
                r#"{"id": 7, "label": "node", "region": "us-east"}"#,
            ),
            ("/v1/ssh-keys", r#"{"users": {"root": ["ssh-rsa AAAA a"]}}"#),
            ("/v1/user-data", "IyEvYmluL3NoCg==\n"),
        ];
        let mut service = Service::new(LINK_LOCAL, &documents);
        service.requires = Some(("Metadata-Token".into(), "t-1".into()));
        let mut exchange = |request: &Request| service.answer(request);
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(
            (source.instance_id.as_str(), source.hostname.as_deref()),
            ("7", Some("node"))
        );
        assert_eq!(source.public_keys, ["ssh-rsa AAAA a"]);
        assert_eq!(source.user_data.as_deref(), Some(&b"#!/bin/sh\n"[..]));
    }
}
