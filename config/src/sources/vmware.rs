//! VMware's guestinfo: variables of a machine's configuration (`guestinfo.metadata`, `guestinfo.userdata`, `guestinfo.vendordata`),
//! as cloud-init's data source VMware reads them; and the OVF environment that vSphere hands over in the same way.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::{Source, nocloud, ovf};
use crate::MAX_DOCUMENT_BYTES;
use crate::cloud_config::{authorized_keys, unpack_gzip};
use crate::diagnostic::{Diagnostics, Position};
use crate::network;
use crate::yaml;

/// What hosts set a variable to that says nothing any more.
const NOTHING: &str = "---";
const PLACE: &str = "VMware's guestinfo";

/// Gives the value of a variable; `None` when there is none of that name.
pub type Get<'g, E> = dyn FnMut(&str) -> Result<Option<Vec<u8>>, E> + 'g;

/// What the variables say; `get` gives the value of one. `uuid` is the machine's (`product_uuid`). `None` when nothing is said.
///
/// # Errors
/// What `get` reports.
pub fn read<E>(
    get: &mut Get<'_, E>,
    uuid: &str,
    diagnostics: &mut Diagnostics,
) -> Result<Option<Source>, E> {
    let mut file = |name: &str, diagnostics: &mut Diagnostics| {
        let Some(value) = get(&format!("guestinfo.{name}"))? else {
            return Ok(None);
        };
        let text = value.trim_ascii();
        if text.is_empty() || text == NOTHING.as_bytes() {
            return Ok(None);
        }
        let encoding = get(&format!("guestinfo.{name}.encoding"))?;
        let encoding =
            String::from_utf8_lossy(encoding.as_deref().unwrap_or_default()).into_owned();
        let found = unpacked(name, value.clone(), &encoding, diagnostics);
        Ok(Some(found.ok_or(value)))
    };
    let meta_data = match file("metadata", diagnostics)? {
        // Nobody knows then which instance it is.
        Some(Err(_)) => return Ok(None),
        other => other.and_then(Result::ok),
    };
    // As it stands nobody understands it, which is said when it is read.
    let whole =
        |file: Option<Result<Vec<u8>, Vec<u8>>>| file.map(|found| found.unwrap_or_else(|raw| raw));
    let user_data = whole(file("userdata", diagnostics)?);
    let vendor_data = whole(file("vendordata", diagnostics)?);
    if meta_data.is_none() && user_data.is_none() && vendor_data.is_none() {
        let environment = get("guestinfo.ovfEnv")?;
        return Ok(environment.and_then(|xml| {
            let place = format!("{PLACE} (ovfEnv)");
            ovf::read(&xml, uuid, &place, diagnostics)
        }));
    }
    let files = nocloud::Files {
        user_data,
        meta_data: Some(meta_data.unwrap_or_default()),
        vendor_data,
        network_config: None,
    };
    let Some(mut source) = nocloud::read(files, PLACE, diagnostics) else {
        return Ok(None);
    };
    "vmware".clone_into(&mut source.platform);
    if source.meta_data["instance-id"].is_null() {
        source.instance_id = uuid.to_ascii_lowercase();
    }
    if let Some(keys) = source.meta_data["public-keys-data"].as_str() {
        let lines: Vec<&str> = keys.lines().collect();
        let node = yaml::from_json(&Json::from(lines), Position::default());
        let keys = authorized_keys("public-keys-data", &node, diagnostics);
        source.public_keys.extend(keys);
    }
    source.network = network_of(&source.meta_data, diagnostics);
    Ok(Some(source))
}

/// `network` of the meta-data: a network-config, or text that is one.
fn network_of(meta_data: &Json, diagnostics: &mut Diagnostics) -> Option<network::Network> {
    let network = &meta_data["network"];
    match network {
        Json::Null => None,
        Json::String(text) => {
            let encoding = meta_data["network.encoding"].as_str().unwrap_or_default();
            let bytes = text.clone().into_bytes();
            let bytes = unpacked("metadata.network", bytes, encoding, diagnostics)?;
            nocloud::network_config_of(&bytes, "guestinfo.metadata: network", diagnostics)
        }
        mapping => {
            let node = yaml::from_json(mapping, Position::default());
            network::parse(&node, diagnostics)
        }
    }
}

/// A variable's value without its packing; `None`, and an error, when it is not what its encoding says.
fn unpacked(
    name: &str,
    value: Vec<u8>,
    encoding: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<u8>> {
    let result = match encoding.trim() {
        "" => Ok(value),
        "base64" | "b64" => base64(&value),
        "gzip+base64" | "gz+b64" => {
            base64(&value).and_then(|bytes| unpack_gzip(&bytes, MAX_DOCUMENT_BYTES as u64))
        }
        other => Err(format!(
            "the encoding `{other}` is unknown (base64, gzip+base64)"
        )),
    };
    result
        .map_err(|error| {
            diagnostics.add_source(&format!("guestinfo.{name}"));
            diagnostics.error(None, format!("{error}; it is not applied"));
        })
        .ok()
}

fn base64(value: &[u8]) -> Result<Vec<u8>, String> {
    let packed: Vec<u8> = value
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    let unpacked = STANDARD.decode(packed);
    unpacked.map_err(|error| format!("not base64: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> (Option<Source>, Vec<String>) {
        let mut diagnostics = Diagnostics::new("");
        let mut get = |name: &str| {
            let found = variables.iter().find(|(known, _)| *known == name);
            Ok::<_, ()>(found.map(|(_, value)| value.as_bytes().to_vec()))
        };
        let source = read(&mut get, "AB-1", &mut diagnostics).unwrap();
        let said = diagnostics.into_sorted();
        (source, said.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn variables_say_who_the_machine_is() {
        let network = STANDARD.encode("version: 2\nethernets: {eth0: {dhcp4: true}}\n");
        let meta = format!(
            "instance-id: i-1\nlocal-hostname: sloop\nnetwork: {network}\nnetwork.encoding: base64\npublic-keys-data: |\n  ssh-rsa AAAA a\n  ssh-rsa BBBB b\n"
        );
        let (source, said) = of(&[
            ("guestinfo.metadata", &STANDARD.encode(meta)),
            ("guestinfo.metadata.encoding", "b64"),
            ("guestinfo.userdata", "#cloud-config\n"),
            ("guestinfo.vendordata", "---"),
        ]);
        assert_eq!(said, [] as [&str; 0]);
        let source = source.unwrap();
        assert_eq!(
            (source.instance_id.as_str(), source.hostname.as_deref()),
            ("i-1", Some("sloop"))
        );
        assert_eq!(source.public_keys.len(), 2);
        assert_eq!(source.network.unwrap().interfaces[0].name, "eth0");
        assert_eq!(source.user_data.as_deref(), Some(&b"#cloud-config\n"[..]));
        assert!(source.vendor_data.is_empty());
    }

    #[test]
    fn without_an_id_the_machines_own_counts_and_mistakes_are_named() {
        let (source, said) = of(&[
            ("guestinfo.userdata", "#!/bin/sh"),
            ("guestinfo.vendordata", "x"),
            ("guestinfo.vendordata.encoding", "rot13"),
        ]);
        assert_eq!(source.unwrap().instance_id, "ab-1");
        assert_eq!(said.len(), 1, "{said:?}");
        let broken = [
            ("guestinfo.metadata", "?"),
            ("guestinfo.metadata.encoding", "b64"),
        ];
        assert_eq!(of(&broken).0, None);
        assert_eq!(of(&[("guestinfo.metadata", " ")]).0, None);
        let (source, _) = of(&[(
            "guestinfo.ovfEnv",
            r#"<Environment><PropertySection><Property key="hostname" value="ketch"/></PropertySection></Environment>"#,
        )]);
        assert_eq!(source.unwrap().hostname.as_deref(), Some("ketch"));
    }
}
