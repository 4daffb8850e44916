//! Amazon EC2's metadata service, IMDSv2 (Amazon EC2 User Guide, "Instance metadata and user data"), and services that speak the
//! same: Alibaba Cloud's (Elastic Compute Service, "Instance metadata"), Exoscale's, CloudStack's.
//!
//! - [`network`]: its cards

mod network;

pub use network::network;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::{Map, Value as Json, json};

use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::sources::Source;
use crate::sources::http::{
    Client, LINK_LOCAL, Method, Request, first_of, found, maybe_base64, some, text,
};
use crate::yaml;

/// How deeply directories may be inside one another, and how much there may be in all of them.
const MAX_DEPTH: usize = 8;
const MAX_DOCUMENTS: usize = 512;
/// How long a token holds, in seconds; as in cloud-init.
const TOKEN_SECONDS: &str = "21600";
/// Secrets, and what changes while the machine runs: no configuration needs them.
const LEFT_OUT: [&str; 6] = [
    "iam/",
    "identity-credentials/",
    "security-credentials/",
    "events/",
    "spot/",
    "autoscaling/",
];
/// What stands for itself in a path (RFC 3986, section 3.3).
const NAME: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b':')
    .remove(b'/');

/// One of the services.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Dialect {
    /// As cloud-init calls it in instance data.
    pub platform: &'static str,
    /// Addresses, of which the first one that answers counts.
    pub bases: Vec<String>,
    /// Versions, the newest first.
    pub versions: &'static [&'static str],
    /// What its header fields of tokens begin with, when it has tokens.
    pub token: Option<&'static str>,
}

impl Dialect {
    /// Amazon's.
    pub fn amazon() -> Self {
        Dialect {
            platform: "ec2",
            bases: vec![LINK_LOCAL.to_owned(), "http://[fd00:ec2::254]".to_owned()],
            versions: &["2021-03-23", "2018-09-24", "2016-09-02", "2009-04-04"],
            token: Some("X-aws-ec2-metadata-token"),
        }
    }

    /// Alibaba Cloud's.
    pub fn alibaba() -> Self {
        Dialect {
            platform: "aliyun",
            bases: vec!["http://100.100.100.200".to_owned()],
            versions: &["2016-01-01"],
            token: Some("X-aliyun-ecs-metadata-token"),
        }
    }

    /// Exoscale's.
    pub fn exoscale() -> Self {
        Dialect {
            platform: "exoscale",
            bases: vec![LINK_LOCAL.to_owned()],
            versions: &["1.0"],
            token: None,
        }
    }

    /// CloudStack's, on its virtual routers.
    pub fn cloudstack(bases: Vec<String>) -> Self {
        Dialect {
            platform: "cloudstack",
            bases,
            versions: &["latest"],
            token: None,
        }
    }
}

/// Asks the service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(
    dialect: &Dialect,
    client: &mut Client<'_>,
    diagnostics: &mut Diagnostics,
) -> Result<Source, String> {
    first_of(&dialect.bases, |base| {
        fetch_from(dialect, base, client, diagnostics)
    })
}

fn fetch_from(
    dialect: &Dialect,
    base: &str,
    client: &mut Client<'_>,
    diagnostics: &mut Diagnostics,
) -> Result<Source, String> {
    if let Some(name) = dialect.token {
        token(name, base, client)?;
    }
    let mut instance = None;
    for version in dialect.versions {
        let url = format!("{base}/{version}/meta-data/instance-id");
        if let Some(id) = client.get(&url)?.and_then(some) {
            instance = Some((version, String::from_utf8_lossy(&id).trim().to_owned()));
            break;
        }
    }
    let Some((version, instance_id)) = instance else {
        return Err(format!(
            "{base} has no instance-id in any version that is known"
        ));
    };
    let mut left = MAX_DOCUMENTS;
    let meta_data = walk(
        client,
        &format!("{base}/{version}/meta-data/"),
        0,
        &mut left,
    )?;
    let user_data = client.get(&format!("{base}/{version}/user-data"))?;
    let keys = yaml::from_json(&public_keys(&meta_data), Position::default());
    let place = &meta_data["placement"];
    let zone = text(&place["availability-zone"]).or_else(|| text(&meta_data["zone-id"]));
    // Earlier versions have the zone alone; a region's zones are the region and a letter.
    let region = text(&place["region"])
        .or_else(|| text(&meta_data["region-id"]))
        .or_else(|| {
            let zone = zone.as_deref().filter(|_| dialect.platform == "ec2")?;
            Some(zone.trim_end_matches(char::is_alphabetic).to_owned())
        });
    let network = network(&meta_data["network"])
        .and_then(|network| crate::sources::synthesised(&network, diagnostics));
    Ok(Source {
        platform: dialect.platform.to_owned(),
        place: format!("the metadata service {base}"),
        instance_id,
        hostname: text(&meta_data["local-hostname"]).or_else(|| text(&meta_data["hostname"])),
        public_keys: authorized_keys("public-keys", &keys, diagnostics),
        region,
        availability_zone: zone,
        network,
        user_data: user_data.and_then(some).map(maybe_base64),
        meta_data,
        ..Source::default()
    })
}

/// Gets a token and shows it from then on. A service that knows none does without.
fn token(name: &str, base: &str, client: &mut Client<'_>) -> Result<(), String> {
    let url = format!("{base}/latest/api/token");
    let request = Request {
        method: Method::Put,
        url: url.clone(),
        headers: vec![(format!("{name}-ttl-seconds"), TOKEN_SECONDS.to_owned())],
        ..Request::default()
    };
    let response = client.send(request)?;
    match response.status {
        200..=299 => {
            client.with_header(name, String::from_utf8_lossy(&response.body).trim());
            Ok(())
        }
        400 | 404 | 405 | 501 => Ok(()),
        403 => Err(format!(
            "{url} answers with status 403: the service is switched off for this machine"
        )),
        status => Err(format!("{url} answers with status {status}")),
    }
}

/// Reads a directory, whose lines are names; that of a directory ends with a slash.
fn walk(
    client: &mut Client<'_>,
    url: &str,
    depth: usize,
    left: &mut usize,
) -> Result<Json, String> {
    let listing = client.get(url)?.unwrap_or_default();
    let listing = String::from_utf8_lossy(&listing).into_owned();
    let mut all = Map::new();
    for line in listing.lines().map(str::trim) {
        // The one with keys lists `0=name of the key`, and each key is a directory.
        let (line, is_key) = match line.split_once('=') {
            Some((number, _)) if url.ends_with("/public-keys/") => (number, true),
            _ => (line, false),
        };
        if line.is_empty() || LEFT_OUT.contains(&line) || line.contains("..") {
            continue;
        }
        if *left == 0 {
            return Err(format!(
                "{url}: there are more than {MAX_DOCUMENTS} documents"
            ));
        }
        *left -= 1;
        let name = utf8_percent_encode(line, NAME);
        let value = match line.strip_suffix('/') {
            Some(_) if depth == MAX_DEPTH => {
                return Err(format!(
                    "{url}: directories are nested more than {MAX_DEPTH} deep"
                ));
            }
            Some(_) => walk(client, &format!("{url}{name}"), depth + 1, left)?,
            None if is_key => walk(client, &format!("{url}{name}/"), depth + 1, left)?,
            None => match document(client, &format!("{url}{name}"))? {
                Some(bytes) => leaf(&bytes),
                None => continue,
            },
        };
        all.insert(line.trim_end_matches('/').to_owned(), value);
    }
    Ok(Json::Object(all))
}

/// One document of many: what the service lists and then refuses is left out.
fn document(client: &mut Client<'_>, url: &str) -> Result<Option<Vec<u8>>, String> {
    let response = client.send(Request {
        url: url.to_owned(),
        ..Request::default()
    })?;
    match response.status {
        400 | 403 | 405 => Ok(None),
        _ => found(url, response),
    }
}

/// Several lines are a list.
fn leaf(bytes: &[u8]) -> Json {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<&str> = text.lines().collect();
    match lines.as_slice() {
        [_, _, ..] => json!(lines),
        _ => Json::String(text.trim_end_matches('\n').to_owned()),
    }
}

/// All keys, however the service groups them.
fn public_keys(meta_data: &Json) -> Json {
    fn collect(json: &Json, all: &mut Vec<Json>) {
        match json {
            Json::String(_) => all.push(json.clone()),
            Json::Array(items) => items.iter().for_each(|item| collect(item, all)),
            Json::Object(fields) => match fields.get("openssh-key") {
                Some(key) => collect(key, all),
                None => fields.values().for_each(|item| collect(item, all)),
            },
            _ => {}
        }
    }
    let mut all = Vec::new();
    collect(&meta_data["public-keys"], &mut all);
    all.retain(|key| key.as_str().is_some_and(|text| !text.trim().is_empty()));
    Json::Array(all)
}

#[cfg(test)]
mod tests;
