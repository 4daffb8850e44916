//! `ovf-env.xml`: what a hypervisor writes on a disc for a machine (DMTF DSP0243, section 9, "OVF environment document").
//!
//! Azure's has a section of its own (Microsoft's "LinuxProvisioningConfigurationSet"), with the user's custom data, which nobody
//! else hands out; vSphere's and others' have properties, by the names that cloud-init gives them.

use std::collections::BTreeMap;

use roxmltree::{Document, Node};
use serde_json::json;

use super::{FromDisk, Source, http, nocloud};
use crate::MAX_DOCUMENT_BYTES;
use crate::diagnostic::Diagnostics;
use crate::names;

/// Name of the file.
pub const FILE: &str = "ovf-env.xml";
const AZURE: &str = "http://schemas.microsoft.com/windowsazure";
/// The instance when nobody names one, as in cloud-init.
const DEFAULT_INSTANCE_ID: &str = "iid-dsovf";
/// Azure writes it over what was once read.
const REDACTED: &str = "REDACTED";

/// What the document says. `uuid` is the machine's (`product_uuid`), `place` where the document was. `None` when it says nothing
/// of a machine, or cannot be read, which is an error.
pub fn read(xml: &[u8], uuid: &str, place: &str, diagnostics: &mut Diagnostics) -> Option<Source> {
    diagnostics.add_source(FILE);
    if xml.len() > MAX_DOCUMENT_BYTES {
        let message = format!("larger than {MAX_DOCUMENT_BYTES} bytes; nothing of it is applied");
        diagnostics.error(None, message);
        return None;
    }
    let text = String::from_utf8_lossy(xml);
    let text = text.trim_start_matches('\u{feff}');
    let document = match Document::parse(text) {
        Ok(document) => document,
        Err(error) => {
            let message = format!("not valid XML, nothing of it is applied: {error}");
            diagnostics.error(None, message);
            return None;
        }
    };
    let root = document.root_element();
    let named = |name: &'static str| {
        let mut all = root.descendants();
        all.find(move |node| node.is_element() && node.tag_name().name() == name)
    };
    if let Some(set) = named("LinuxProvisioningConfigurationSet")
        .filter(|set| set.tag_name().namespace() == Some(AZURE))
    {
        return Some(azure(set, uuid, place));
    }
    // Those of other machines, which stand in `Entity`, are none of its own.
    let mut sections = root.children();
    let section = sections.find(|node| node.tag_name().name() == "PropertySection")?;
    let properties = section.children().filter_map(|node| {
        let attribute = |name: &str| {
            let mut all = node.attributes();
            let found = all.find(|attribute| attribute.name() == name);
            found.map(|attribute| attribute.value().to_owned())
        };
        Some((attribute("key")?.to_ascii_lowercase(), attribute("value")?))
    });
    properties_of(properties.collect(), place, diagnostics)
}

/// The text of the first element of that name below `node`; `None` when it is empty.
fn text(node: Node<'_, '_>, name: &str) -> Option<String> {
    let mut all = node.descendants();
    let found = all.find(|node| node.is_element() && node.tag_name().name() == name)?;
    let text = found.text()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}

fn azure(set: Node<'_, '_>, uuid: &str, place: &str) -> Source {
    let custom = text(set, "CustomData").or_else(|| text(set, "UserData"));
    let custom = custom.map(|data| data.split_whitespace().collect::<String>());
    // What is no base64 is said so when it is read: as it stands it is nothing that anybody understands.
    let user_data = custom.map(|data| http::maybe_base64(data.into_bytes()));
    let values = set
        .descendants()
        .filter(|node| node.is_element() && node.tag_name().name() == "PublicKey");
    // Keys that are named by their fingerprints alone come from the metadata service.
    let public_keys: Vec<String> = values.filter_map(|key| text(key, "Value")).collect();
    let password = text(set, "UserPassword").filter(|password| password != REDACTED);
    let no_passwords = text(set, "DisableSshPasswordAuthentication");
    let no_passwords = no_passwords.is_some_and(|text| text.eq_ignore_ascii_case("true"));
    let mut config = json!({});
    if let Some(name) = text(set, "UserName") {
        config["user"] = json!({"name": name});
    }
    if let Some(password) = password {
        config["password"] = json!(password);
        config["chpasswd"] = json!({"expire": false});
        config["ssh_pwauth"] = json!(!no_passwords);
    }
    let says_something = config.as_object().is_some_and(|keys| !keys.is_empty());
    let vendor_data = says_something.then(|| format!("#cloud-config\n{config}\n").into_bytes());
    Source {
        platform: "azure".to_owned(),
        place: place.to_owned(),
        instance_id: uuid.to_ascii_lowercase(),
        hostname: text(set, "HostName").filter(|name| names::is_host(name)),
        from_disk: Some(FromDisk {
            user_data: user_data.is_some(),
            public_keys: public_keys.clone(),
            answered: false,
        }),
        public_keys,
        user_data,
        vendor_data: vendor_data.into_iter().collect(),
        ..Source::default()
    }
}

/// What properties say, by cloud-init's names; `None` without any.
fn properties_of(
    mut given: BTreeMap<String, String>,
    place: &str,
    diagnostics: &mut Diagnostics,
) -> Option<Source> {
    if given.is_empty() {
        return None;
    }
    let mut take = |name: &str| given.remove(name).filter(|value| !value.trim().is_empty());
    let user_data = take("user-data").map(|data| {
        let packed: String = data.split_whitespace().collect();
        let unpacked = http::maybe_base64(packed.clone().into_bytes());
        // As in cloud-init, what is no base64 is taken as it stands.
        match unpacked == packed.as_bytes() {
            true => data.into_bytes(),
            false => unpacked,
        }
    });
    let network = take("network-config").and_then(|data| {
        let bytes = http::maybe_base64(data.into_bytes());
        nocloud::network_config(&bytes, diagnostics)
    });
    let keys = take("public-keys").unwrap_or_default();
    let keys = keys.lines().map(str::trim).filter(|key| !key.is_empty());
    let password = take("password").map(|password| {
        let config = json!({"password": password});
        format!("#cloud-config\n{config}\n").into_bytes()
    });
    if take("seedfrom").is_some() {
        let message = "seedfrom: nothing is fetched from there; give it as `ds=nocloud;s=URL` on the kernel command line";
        diagnostics.warning(None, message);
    }
    Some(Source {
        platform: "ovf".to_owned(),
        place: place.to_owned(),
        instance_id: take("instance-id").unwrap_or_else(|| DEFAULT_INSTANCE_ID.to_owned()),
        hostname: take("hostname")
            .or_else(|| take("local-hostname"))
            .filter(|name| names::is_host(name)),
        public_keys: keys.map(str::to_owned).collect(),
        network,
        user_data,
        vendor_data: password.into_iter().collect(),
        ..Source::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(xml: &str) -> (Option<Source>, Vec<String>) {
        let mut diagnostics = Diagnostics::new("");
        let source = read(xml.as_bytes(), "AB-1", "a disc", &mut diagnostics);
        let said = diagnostics.into_sorted();
        (source, said.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn azures_section_has_the_users_custom_data() {
        let (source, said) = of(r#"<?xml version="1.0" encoding="utf-8"?>
<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure">
 <wa:ProvisioningSection><wa:Version>1.0</wa:Version>
  <LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure">
   <ConfigurationSetType>LinuxProvisioningConfiguration</ConfigurationSetType>
   <HostName>node</HostName><UserName>ann</UserName><UserPassword>oak &amp; tar</UserPassword>
   <DisableSshPasswordAuthentication>true</DisableSshPasswordAuthentication>
   <SSH><PublicKeys><PublicKey><Fingerprint>F</Fingerprint><Path>p</Path><Value>ssh-rsa AAAA ann</Value></PublicKey>
    <PublicKey><Fingerprint>G</Fingerprint><Path>p</Path><Value/></PublicKey></PublicKeys></SSH>
   <CustomData>I2Nsb3Vk
LWNvbmZpZwo=</CustomData>
  </LinuxProvisioningConfigurationSet></wa:ProvisioningSection></Environment>"#);
        assert_eq!(said, [] as [&str; 0]);
        let source = source.unwrap();
        assert_eq!(
            (
                source.platform.as_str(),
                source.instance_id.as_str(),
                source.hostname.as_deref()
            ),
            ("azure", "ab-1", Some("node"))
        );
        assert_eq!(source.user_data.as_deref(), Some(&b"#cloud-config\n"[..]));
        assert_eq!(source.public_keys, ["ssh-rsa AAAA ann"]);
        let vendor = String::from_utf8_lossy(&source.vendor_data[0]).into_owned();
        assert!(
            vendor.contains("oak & tar") && vendor.contains(r#""ssh_pwauth":false"#),
            "{vendor}"
        );
    }

    #[test]
    fn properties_have_cloud_inits_names() {
        let (source, said) = of(
            r#"<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:oe="http://schemas.dmtf.org/ovf/environment/1" oe:id="">
 <PropertySection><Property oe:key="Instance-Id" oe:value="i-7"/><Property oe:key="hostname" oe:value="sloop"/>
  <Property oe:key="public-keys" oe:value="ssh-rsa AAAA a"/><Property oe:key="user-data" oe:value="IyEvYmluL3No"/><Property oe:key="password" oe:value=""/>
  <Property oe:key="seedfrom" oe:value="http://x/"/></PropertySection></Environment>"#,
        );
        let source = source.unwrap();
        assert_eq!(
            (source.instance_id.as_str(), source.hostname.as_deref()),
            ("i-7", Some("sloop"))
        );
        assert_eq!(source.user_data.as_deref(), Some(&b"#!/bin/sh"[..]));
        assert!(source.vendor_data.is_empty());
        assert_eq!(said.len(), 1, "{said:?}");
    }

    #[test]
    fn what_is_no_such_document_says_nothing() {
        assert_eq!(of("<Environment/>").0, None);
        let (source, said) = of("<Environment");
        assert!(source.is_none() && said.len() == 1);
        // Entities are not expanded: nothing can grow.
        let bomb = "<!DOCTYPE x [<!ENTITY a 'aaaa'>]><Environment>&a;</Environment>";
        assert!(of(bomb).0.is_none() && of(bomb).1.len() == 1);
    }
}
