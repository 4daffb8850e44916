//! Hetzner Cloud's metadata service (Hetzner Cloud API documentation, "Server Metadata").

use super::http::{Client, LINK_LOCAL, maybe_base64, some};
use super::{Source, http, meta_data};
use crate::diagnostic::{Diagnostics, Position};
use crate::network;
use crate::yaml;

/// Asks the service.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(client: &mut Client<'_>, diagnostics: &mut Diagnostics) -> Result<Source, String> {
    let base = format!("{LINK_LOCAL}/hetzner/v1");
    let url = format!("{base}/metadata");
    let bytes = client.require(&url)?;
    let meta = meta_data::parse(&bytes, diagnostics)
        .filter(|meta| !meta.all["instance-id"].is_null())
        .ok_or_else(|| format!("{url} names no instance"))?;
    let user_data = client.get(&format!("{base}/userdata"))?;
    let config = yaml::from_json(&meta.all["network-config"], Position::default());
    Ok(Source {
        platform: "hetzner".to_owned(),
        place: "the metadata service of Hetzner Cloud".to_owned(),
        instance_id: meta.instance_id,
        hostname: meta.local_hostname,
        public_keys: meta.public_keys,
        region: http::text(&meta.all["region"]),
        availability_zone: http::text(&meta.all["availability-zone"]),
        network: match config.is_null() {
            true => None,
            false => network::parse(&config, diagnostics),
        },
        user_data: user_data.and_then(some).map(maybe_base64),
        vendor_data: http::text(&meta.all["vendor_data"])
            .map(String::into_bytes)
            .into_iter()
            .collect(),
        meta_data: meta.all,
        ..Source::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::Request;
    use crate::sources::http::fake::Service;

    #[test]
    fn a_server_is_who_the_service_says() {
        let metadata = "hostname: node\ninstance-id: 123456\npublic-keys:\n- ssh-ed25519   AAAA me\nregion: eu-central\nnetwork-config:\n  version: 1\n  config:\n  - {type: physical, name: eth0, mac_address: 96:00:00:08:19:da, subnets: [{type: dhcp, ipv4: true}, {type: static, address: 2a01:4f8::1/64, gateway: 'fe80::1', ipv6: true}]}\n";
        let documents = [
            ("/hetzner/v1/metadata", metadata),
            ("/hetzner/v1/userdata", "IyEvYmluL3NoCg=="),
        ];
        let mut service = Service::new(LINK_LOCAL, &documents);
        let mut exchange = |request: &Request| service.answer(request);
        let mut diagnostics = Diagnostics::new("");
        let source = fetch(&mut Client::new(&mut exchange), &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(
            (source.instance_id.as_str(), source.public_keys.len()),
            ("123456", 1)
        );
        assert_eq!(source.user_data.as_deref(), Some(&b"#!/bin/sh\n"[..]));
        let network = source.network.unwrap();
        assert!(network.interfaces[0].dhcp4 && network.interfaces[0].addresses.len() == 1);
        service.documents.insert(
            format!("{LINK_LOCAL}/hetzner/v1/metadata"),
            "<html>busy</html>".into(),
        );
        let mut exchange = |request: &Request| service.answer(request);
        let error = fetch(&mut Client::new(&mut exchange), &mut Diagnostics::new("")).unwrap_err();
        assert!(
            error.ends_with("/hetzner/v1/metadata names no instance"),
            "{error}"
        );
    }
}
