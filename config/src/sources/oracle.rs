//! Oracle Cloud Infrastructure's metadata service (Oracle documentation, "Getting Instance Metadata").

use serde_json::Value as Json;

use super::http::{Client, LINK_LOCAL, text};
use super::{Source, http};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::yaml;

/// Versions of the service, the newest first.
const VERSIONS: [&str; 2] = ["v2", "v1"];

/// Asks the service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(client: &mut Client<'_>, diagnostics: &mut Diagnostics) -> Result<Source, String> {
    // The second version answers to nobody without it.
    client.with_header("Authorization", "Bearer Oracle");
    let mut found = None;
    for version in VERSIONS {
        let url = format!("{LINK_LOCAL}/opc/{version}/instance/");
        if let Some(body) = client.get(&url)? {
            let json = serde_json::from_slice::<Json>(&body);
            found = Some(json.map_err(|error| format!("{url} answers with no JSON: {error}"))?);
            break;
        }
    }
    let all = found.ok_or("the metadata service has no version that is known")?;
    let id = text(&all["id"]).ok_or("the metadata service names no instance")?;
    let metadata = &all["metadata"];
    let user_data = text(&metadata["user_data"]);
    let user_data =
        user_data.and_then(|data| http::base64("user_data", data.as_bytes(), diagnostics));
    let keys = text(&metadata["ssh_authorized_keys"]).unwrap_or_default();
    let keys = yaml::from_json(&Json::from(keys), Position::default());
    Ok(Source {
        platform: "oracle".to_owned(),
        place: "the metadata service of Oracle Cloud".to_owned(),
        instance_id: id,
        hostname: text(&all["hostname"]).or_else(|| text(&all["displayName"])),
        public_keys: authorized_keys("ssh_authorized_keys", &keys, diagnostics),
        region: text(&all["canonicalRegionName"]).or_else(|| text(&all["region"])),
        availability_zone: text(&all["ociAdName"]).or_else(|| text(&all["availabilityDomain"])),
        user_data,
        meta_data: all,
        ..Source::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::Request;
    use crate::sources::http::fake::Service;

    #[test]
    fn the_older_version_will_do() {
        let document = r#"{"id": "ocid1.instance", "displayName": "node", "canonicalRegionName": "us-phoenix-1", "metadata": {"ssh_authorized_keys": "ssh-rsa AAAA a\nssh-rsa AAAB b\n", "user_data": "IyEvYmluL3NoCg=="}}"#;
        let mut service = Service::new(LINK_LOCAL, &[("/opc/v1/instance/", document)]);
        service.requires = Some(("Authorization".into(), "Bearer Oracle".into()));
        let mut exchange = |request: &Request| service.answer(request);
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(source.public_keys, ["ssh-rsa AAAA a", "ssh-rsa AAAB b"]);
        assert_eq!(source.user_data.as_deref(), Some(&b"#!/bin/sh\n"[..]));
        assert_eq!(source.hostname.as_deref(), Some("node"));
    }
}
