//! OpenStack's documents, on a config drive or from the metadata service: `meta_data.json`, `network_data.json`,
//! `vendor_data.json` (OpenStack Nova documentation, "Metadata").
//!
//! - [`network`]: links, addresses, name servers

mod network;

pub use network::network;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::sources::http::{Client, LINK_LOCAL};
use crate::sources::{Source, http, meta_data};
use crate::yaml;

/// Versions of the documents that are understood, the newest first; `latest` is taken when none of them is there.
pub const VERSIONS: [&str; 9] = [
    "2018-08-27",
    "2017-02-22",
    "2016-10-06",
    "2016-06-30",
    "2015-10-15",
    "2013-10-17",
    "2013-04-04",
    "2012-08-10",
    "latest",
];

/// The documents. One that is not there is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Files {
    /// `meta_data.json`.
    pub meta_data: Vec<u8>,
    /// `user_data`.
    pub user_data: Option<Vec<u8>>,
    /// `vendor_data.json`.
    pub vendor_data: Option<Vec<u8>>,
    /// `vendor_data2.json`.
    pub vendor_data_2: Option<Vec<u8>>,
    /// `network_data.json`.
    pub network_data: Option<Vec<u8>>,
}

/// Asks OpenStack's metadata service for the documents of the newest version that both know.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(client: &mut Client<'_>, diagnostics: &mut Diagnostics) -> Result<Source, String> {
    let base = format!("{LINK_LOCAL}/openstack");
    let listing = client.require(&base)?;
    let listing = String::from_utf8_lossy(&listing).into_owned();
    let offered: Vec<&str> = listing
        .lines()
        .map(|line| line.trim().trim_end_matches('/'))
        .collect();
    let version = VERSIONS
        .into_iter()
        .find(|version| offered.contains(version));
    let version = version.unwrap_or("latest");
    let mut file = |name: &str| client.get(&format!("{base}/{version}/{name}"));
    let files = Files {
        meta_data: file("meta_data.json")?
            .ok_or_else(|| format!("{base}/{version} has no meta_data.json"))?,
        user_data: file("user_data")?,
        vendor_data: file("vendor_data.json")?,
        vendor_data_2: file("vendor_data2.json")?,
        network_data: file("network_data.json")?,
    };
    let place = format!("the metadata service {LINK_LOCAL}");
    read(files, "openstack", &place, diagnostics)
        .ok_or_else(|| format!("{base}/{version}/meta_data.json cannot be used"))
}

/// What the documents say; `platform` and `place` are what they were found as. `None`, and an error, without an instance.
pub fn read(
    files: Files,
    platform: &str,
    place: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Source> {
    let mut meta = json("meta_data.json", &files.meta_data, diagnostics)?;
    let Some(id) = http::text(&meta["uuid"]) else {
        diagnostics.error(None, "there is no `uuid`; nothing of it is applied");
        return None;
    };
    let node = yaml::from_json(&meta, Position::default());
    let fields = yaml::mapping("meta_data.json", &node, diagnostics)?;
    let hostname = meta_data::hostname(
        &fields,
        &["hostname", "local-hostname", "name"],
        diagnostics,
    );
    let keys = fields.get("public_keys");
    let public_keys = keys
        .map(|node| authorized_keys("public_keys", node, diagnostics))
        .unwrap_or_default();
    // Another one each time, and nobody else's business.
    let random_seed = meta
        .as_object_mut()
        .and_then(|all| all.remove("random_seed"));
    let random_seed = random_seed.as_ref().and_then(Json::as_str);
    let network = files
        .network_data
        .and_then(|bytes| json("network_data.json", &bytes, diagnostics))
        .map(|data| network(&data, diagnostics))
        .filter(|network| !network.interfaces.is_empty());
    let vendor_data = [
        ("vendor_data.json", files.vendor_data),
        ("vendor_data2.json", files.vendor_data_2),
    ];
    Some(Source {
        platform: platform.to_owned(),
        place: place.to_owned(),
        instance_id: id,
        hostname,
        public_keys,
        network,
        user_data: files.user_data,
        vendor_data: vendor_data
            .into_iter()
            .filter_map(|(name, bytes)| vendor_data_of(name, &bytes?, diagnostics))
            .collect(),
        random_seed: random_seed.map(|text| STANDARD.decode(text).unwrap_or_else(|_| text.into())),
        meta_data: meta,
        ..Source::default()
    })
}

/// Reads a document; `None`, and an error with the place, when it is no JSON.
fn json(name: &str, bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<Json> {
    let source = diagnostics.add_source(name);
    match serde_json::from_slice(bytes) {
        Ok(json) => Some(json),
        Err(error) => {
            let at = Position {
                source,
                line: error.line().max(1),
                column: error.column().max(1),
            };
            diagnostics.error(
                at,
                format!("not valid JSON, nothing of it is applied: {error}"),
            );
            None
        }
    }
}

/// The user-data in vendor data: a text, what stands under `cloud-init`, or a list of such.
fn vendor_data_of(name: &str, bytes: &[u8], diagnostics: &mut Diagnostics) -> Option<Vec<u8>> {
    let text = match json(name, bytes, diagnostics)? {
        Json::String(text) => text,
        Json::Object(fields) => match fields.get("cloud-init")? {
            Json::String(text) => text.clone(),
            Json::Array(items) => items
                .iter()
                .filter_map(Json::as_str)
                .collect::<Vec<_>>()
                .join("\n"),
            _ => return None,
        },
        _ => return None,
    };
    (!text.trim().is_empty()).then(|| text.into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::Request;
    use crate::sources::http::fake::Service;

    #[test]
    fn a_config_drive_says_who_the_machine_is() {
        let mut diagnostics = Diagnostics::new("");
        let files = Files {
            meta_data: br#"{"uuid": "u-1", "hostname": "node.example", "public_keys": {"mine": "ssh-rsa AAAA me\n"}, "random_seed": "aGVsbG8="}"#.to_vec(),
            vendor_data: Some(br##"{"cloud-init": "#cloud-config\n"}"##.to_vec()),
            network_data: Some(br#"{"links": [{"id": "l", "type": "phy", "ethernet_mac_address": "FA:16:3E:00:00:01"}, {"id": "v", "type": "vlan", "vlan_id": 7, "vlan_link": "l"}],
                "networks": [{"link": "l", "type": "ipv4", "ip_address": "192.0.2.5", "netmask": "255.255.255.0", "routes": [{"network": "0.0.0.0", "netmask": "0.0.0.0", "gateway": "192.0.2.1"}]}],
                "services": [{"type": "dns", "address": "192.0.2.53"}]}"#.to_vec()),
            ..Files::default()
        };
        let source = read(files, "configdrive", "vdb", &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(source.public_keys, ["ssh-rsa AAAA me"]);
        assert_eq!(source.random_seed.as_deref(), Some(&b"hello"[..]));
        assert_eq!(source.vendor_data, [b"#cloud-config\n"]);
        let network = source.network.unwrap();
        assert_eq!(
            network.interfaces[0].matches.mac.as_deref(),
            Some("fa:16:3e:00:00:01")
        );
        assert_eq!(network.interfaces[0].routes[0].to.prefix, 0);
        assert_eq!(network.interfaces[1].name, "l.7");
    }

    #[test]
    fn the_service_is_asked_for_the_newest_version_that_both_know() {
        let documents = [
            ("", "2012-08-10\n2018-08-27\n2025-04-04\nlatest"),
            ("/2018-08-27/meta_data.json", r#"{"uuid": "u-1"}"#),
            ("/2018-08-27/user_data", "#!/bin/sh"),
        ];
        let mut service = Service::new("http://169.254.169.254/openstack", &documents);
        let mut exchange = |request: &Request| service.answer(request);
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(source.instance_id, "u-1");
        assert_eq!(source.user_data.as_deref(), Some(&b"#!/bin/sh"[..]));
        service.documents.clear();
        let mut exchange = |request: &Request| service.answer(request);
        let error = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap_err();
        assert!(error.contains("status 404"), "{error}");
    }

    #[test]
    fn without_an_instance_there_is_nothing_to_apply() {
        let mut diagnostics = Diagnostics::new("");
        for bytes in [&b"{}"[..], b"{", b"[]"] {
            let files = Files {
                meta_data: bytes.to_vec(),
                ..Files::default()
            };
            assert!(read(files, "configdrive", "vdb", &mut diagnostics).is_none());
        }
        assert_eq!(diagnostics.into_sorted().len(), 3);
    }
}
