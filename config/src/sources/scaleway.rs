//! Scaleway's metadata service (Scaleway documentation, "Using the metadata API").

use serde_json::Value as Json;

use super::Source;
use super::http::{Client, Request, first_of, found, some, text};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::yaml;

/// Its addresses, of which the first one that answers counts.
const BASES: [&str; 2] = ["http://169.254.42.42", "http://[fd00:42::42]"];
/// A tag that is a key; blanks are written as underscores.
const KEY_TAG: &str = "AUTHORIZED_KEY=";

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
    let all = client.json(&format!("{base}/conf?format=json"))?;
    let id = text(&all["id"]).ok_or("the metadata service names no instance")?;
    // What the user says is for root alone.
    let mut secret = |path: &str| {
        let url = format!("{base}/{path}");
        let response = client.send(Request {
            url: url.clone(),
            privileged_port: true,
            ..Request::default()
        })?;
        found(&url, response).map(|body| body.and_then(some))
    };
    let user_data = secret("user_data/cloud-init")?;
    let vendor_data = secret("vendor_data/cloud-init")?;
    let keys = all["ssh_public_keys"].as_array().into_iter().flatten();
    let mut keys: Vec<String> = keys.filter_map(|key| text(&key["key"])).collect();
    for tag in all["tags"]
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(Json::as_str)
    {
        keys.extend(tag.strip_prefix(KEY_TAG).map(|key| key.replace('_', " ")));
    }
    let keys = yaml::from_json(&Json::from(keys), Position::default());
    let zone = text(&all["location"]["zone_id"]).or_else(|| text(&all["zone"]));
    Ok(Source {
        platform: "scaleway".to_owned(),
        place: "the metadata service of Scaleway".to_owned(),
        instance_id: id,
        hostname: text(&all["hostname"]),
        public_keys: authorized_keys("ssh_public_keys", &keys, diagnostics),
        availability_zone: zone,
        user_data,
        vendor_data: vendor_data.into_iter().collect(),
        meta_data: all,
        ..Source::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::fake::Service;

    #[test]
    fn what_the_user_says_is_asked_for_from_a_privileged_port() {
        let document = r#"{"id": "u-1", "hostname": "scw", "ssh_public_keys": [{"key": "ssh-rsa AAAA a"}], "tags": ["x", "AUTHORIZED_KEY=ssh-rsa_AAAB_b"]}"#;
        let documents = [
            ("/conf?format=json", document),
            ("/user_data/cloud-init", "#cloud-config\n"),
        ];
        // The second address answers as well.
        let mut service = Service::new(BASES[1], &documents);
        let mut exchange = |request: &Request| match request.url.starts_with(BASES[0]) {
            true => Err("no route".to_owned()),
            false => service.answer(request),
        };
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(source.public_keys, ["ssh-rsa AAAA a", "ssh-rsa AAAB b"]);
        assert_eq!(source.user_data.as_deref(), Some(&b"#cloud-config\n"[..]));
        let ports: Vec<bool> = service
            .asked
            .iter()
            .map(|request| request.privileged_port)
            .collect();
        assert_eq!(ports, [false, true, true]);
    }
}
