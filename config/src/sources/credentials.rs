//! Credentials that a hypervisor hands to a machine, as systemd reads them (systemd.system-credentials(7)): OEM strings of the
//! SMBIOS (DMTF DSP0134, section 7.12), and items of QEMU's `fw_cfg` below `opt/io.systemd.credentials/`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::meta_data::DEFAULT_INSTANCE_ID;
use super::{Source, nocloud};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::names;
use crate::yaml;

/// What a string begins with.
const TEXT: &str = "io.systemd.credential:";
const BINARY: &str = "io.systemd.credential.binary:";
/// Files of NoCloud have these names.
const PREFIX: &str = "keelson.";
/// The type of OEM strings, and of the end.
const OEM_STRINGS: u8 = 11;
const END_OF_TABLE: u8 = 127;
const HEADER_BYTES: usize = 4;

/// Credentials by name.
pub type Credentials = BTreeMap<String, Vec<u8>>;

/// The credentials in the SMBIOS' table of structures. What is broken ends the table.
pub fn of_smbios(table: &[u8], diagnostics: &mut Diagnostics) -> Credentials {
    let mut all = Credentials::new();
    for text in oem_strings(table) {
        let (packed, pair) = match (text.strip_prefix(TEXT), text.strip_prefix(BINARY)) {
            (Some(pair), _) => (false, pair),
            (_, Some(pair)) => (true, pair),
            _ => continue,
        };
        let Some((name, value)) = pair.split_once('=') else {
            continue;
        };
        let value = match packed {
            false => value.as_bytes().to_vec(),
            true => match STANDARD.decode(value.trim()) {
                Ok(value) => value,
                Err(error) => {
                    diagnostics.add_source("SMBIOS");
                    let message = format!("credential {name}: not base64: {error}; it is not used");
                    diagnostics.error(None, message);
                    continue;
                }
            },
        };
        all.insert(name.to_owned(), value);
    }
    all
}

/// All OEM strings: a structure is a header (type, length, handle), what its length says, strings that each end with a zero byte, and
/// one more zero byte (section 6.1).
fn oem_strings(mut table: &[u8]) -> Vec<String> {
    let mut all = Vec::new();
    while let [kind, length, _, _, ..] = *table {
        let length = usize::from(length);
        if length < HEADER_BYTES || kind == END_OF_TABLE {
            break;
        }
        let Some(mut strings) = table.get(length..) else {
            break;
        };
        // No strings at all are two zero bytes.
        if let [0, 0, rest @ ..] = strings {
            table = rest;
            continue;
        }
        loop {
            let Some(end) = strings.iter().position(|byte| *byte == 0) else {
                return all;
            };
            let (text, rest) = strings.split_at(end);
            strings = rest.get(1..).unwrap_or_default();
            if text.is_empty() {
                break;
            }
            if kind == OEM_STRINGS {
                all.push(String::from_utf8_lossy(text).into_owned());
            }
        }
        table = strings;
    }
    all
}

/// What credentials say: files of NoCloud (`keelson.user-data`, `keelson.meta-data` ...), `system.hostname`, and
/// `ssh.authorized_keys.root`, which are the default user's here. Without meta-data the machine's id (`product_uuid`) is the
/// instance's. `None` when nothing is said.
pub fn read(mut given: Credentials, uuid: &str, diagnostics: &mut Diagnostics) -> Option<Source> {
    let mut file = |name: &str| given.remove(&format!("{PREFIX}{name}"));
    let mut files = nocloud::Files {
        user_data: file("user-data"),
        meta_data: file("meta-data"),
        vendor_data: file("vendor-data"),
        network_config: file("network-config"),
    };
    let mut text = |name: &str| {
        let value = given.remove(name)?;
        Some(String::from_utf8_lossy(&value).trim().to_owned())
    };
    let hostname = text("system.hostname");
    let keys = text("ssh.authorized_keys.root");
    if files == nocloud::Files::default() && hostname.is_none() && keys.is_none() {
        return None;
    }
    let names_instance = files.meta_data.is_some();
    files.meta_data.get_or_insert_default();
    let mut source = nocloud::read(files, "the hypervisor's credentials", diagnostics)?;
    "credentials".clone_into(&mut source.platform);
    let has_id = uuid
        .bytes()
        .any(|byte| byte.is_ascii_alphanumeric() && byte != b'0');
    if !names_instance || source.instance_id == DEFAULT_INSTANCE_ID {
        source.instance_id = match has_id {
            true => uuid.to_ascii_lowercase(),
            false => DEFAULT_INSTANCE_ID.to_owned(),
        };
    }
    match hostname {
        Some(name) if names::is_host(&name) => source.hostname = Some(name),
        Some(name) => {
            let message = format!("credential system.hostname: `{name}` is no host name");
            diagnostics.error(None, message);
        }
        None => {}
    }
    if let Some(keys) = keys {
        let node = yaml::from_json(&keys.into(), Position::default());
        source.public_keys.extend(authorized_keys(
            "ssh.authorized_keys.root",
            &node,
            diagnostics,
        ));
    }
    Some(source)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn structure(kind: u8, formatted: &[u8], strings: &[&str]) -> Vec<u8> {
        let mut bytes = vec![
            kind,
            u8::try_from(HEADER_BYTES + formatted.len()).unwrap(),
            0,
            0,
        ];
        bytes.extend(formatted);
        for text in strings {
            bytes.extend(text.bytes().chain([0]));
        }
        bytes.push(0);
        if strings.is_empty() {
            bytes.push(0);
        }
        bytes
    }

    #[test]
    fn oem_strings_are_found_between_other_structures() {
        let mut table = structure(1, &[1, 2, 0, 3], &["QEMU", "Standard PC"]);
        table.extend(structure(32, &[0; 7], &[]));
        table.extend(structure(
            11,
            &[3],
            &[
                "io.systemd.credential:system.hostname=brig",
                "io.systemd.credential.binary:keelson.user-data=I2Nsb3VkLWNvbmZpZwo=",
                "io.systemd.credential.binary:broken=%",
                "something else",
            ],
        ));
        table.extend(structure(127, &[], &[]));
        table.extend(structure(11, &[1], &["io.systemd.credential:late=1"]));
        let mut diagnostics = Diagnostics::new("");
        let found = of_smbios(&table, &mut diagnostics);
        assert_eq!(
            found.keys().collect::<Vec<_>>(),
            ["keelson.user-data", "system.hostname"]
        );
        assert_eq!(diagnostics.into_sorted().len(), 1);
        let mut diagnostics = Diagnostics::new("");
        let source = read(found, "4C4C4544-0001", &mut diagnostics).unwrap();
        assert_eq!(diagnostics.into_sorted(), []);
        assert_eq!(
            (source.instance_id.as_str(), source.hostname.as_deref()),
            ("4c4c4544-0001", Some("brig"))
        );
        assert_eq!(source.user_data.as_deref(), Some(&b"#cloud-config\n"[..]));
        // Cut anywhere, it is a shorter table.
        for end in 0..table.len() {
            of_smbios(&table[..end], &mut Diagnostics::new(""));
        }
    }

    #[test]
    fn keys_alone_are_a_source_and_foreign_credentials_are_none() {
        let given = |name: &str, value: &str| {
            Credentials::from([(name.to_owned(), value.as_bytes().to_vec())])
        };
        let mut diagnostics = Diagnostics::new("");
        let zeros = "00000000-0000-0000-0000-000000000000";
        let source = read(
            given(
                "ssh.authorized_keys.root",
                "ssh-ed25519 AAAA a\nssh-rsa AAAB b\n",
            ),
            zeros,
            &mut diagnostics,
        )
        .unwrap();
        assert_eq!(
            (source.public_keys.len(), source.instance_id.as_str()),
            (2, DEFAULT_INSTANCE_ID)
        );
        let named = read(
            given("keelson.meta-data", "instance-id: i-7"),
            "4C4C",
            &mut diagnostics,
        )
        .unwrap();
        assert_eq!(named.instance_id, "i-7");
        assert_eq!(
            read(
                given("tty.virtual.tty1.agetty.autologin", "root"),
                "4C4C",
                &mut diagnostics
            ),
            None
        );
        assert_eq!(diagnostics.into_sorted(), []);
    }
}
