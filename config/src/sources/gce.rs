//! Google Compute Engine's metadata server (Compute Engine documentation, "VM metadata").

use std::time::UNIX_EPOCH;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::Value as Json;

use super::Source;
use super::http::{Client, LINK_LOCAL, text};
use crate::cloud_config::authorized_keys;
use crate::diagnostic::{Diagnostics, Position};
use crate::yaml;

/// Users whose keys are the default user's; others' are for Google's own agent.
const USERS: [&str; 2] = ["cloudinit", "keelson"];

/// Asks the server. `now` is the time, in seconds since 1970: a key may have an end.
///
/// # Errors
/// It was not reached, refuses, or says nothing of the instance.
pub fn fetch(
    client: &mut Client<'_>,
    now: u64,
    diagnostics: &mut Diagnostics,
) -> Result<Source, String> {
    client.with_header("Metadata-Flavor", "Google");
    let base = format!("{LINK_LOCAL}/computeMetadata/v1");
    // One question for all of it: each answer holds what is below its directory.
    let mut instance = client.json(&format!("{base}/instance/?recursive=true"))?;
    let project = client
        .get(&format!("{base}/project/attributes/?recursive=true"))?
        .and_then(|body| serde_json::from_slice(&body).ok())
        .unwrap_or(Json::Null);
    // It changes while the machine runs.
    if let Some(all) = instance.as_object_mut() {
        all.remove("virtualClock");
    }
    let instance_id = text(&instance["id"]).ok_or("the metadata server names no instance")?;
    let zone = text(&instance["zone"]);
    let zone = zone.and_then(|zone| zone.rsplit('/').next().map(str::to_owned));
    let attributes = &instance["attributes"];
    let user_data = attributes["user-data"].as_str().map(|data| {
        match attributes["user-data-encoding"].as_str() {
            Some("base64") => STANDARD.decode(data.trim()).unwrap_or_else(|error| {
                diagnostics.error(
                    None,
                    format!("user-data: not base64: {error}; it is taken as it is"),
                );
                data.as_bytes().to_vec()
            }),
            _ => data.as_bytes().to_vec(),
        }
    });
    let lines = keys(attributes, &project, now, diagnostics);
    let lines = yaml::from_json(&Json::from(lines), Position::default());
    Ok(Source {
        platform: "gce".to_owned(),
        place: "the metadata server of Google Compute Engine".to_owned(),
        instance_id,
        // The first part is the name, as cloud-init has it.
        hostname: text(&instance["hostname"])
            .and_then(|name| name.split('.').next().map(str::to_owned)),
        public_keys: authorized_keys("ssh-keys", &lines, diagnostics),
        region: zone
            .as_deref()
            .and_then(|zone| Some(zone.rsplit_once('-')?.0.to_owned())),
        availability_zone: zone,
        user_data,
        meta_data: instance,
        ..Source::default()
    })
}

/// Keys of the default user: of the instance, and of the project unless the instance blocks those.
fn keys(instance: &Json, project: &Json, now: u64, diagnostics: &mut Diagnostics) -> Vec<String> {
    let mut lines = Vec::new();
    let mut add = |attributes: &Json, names: &[&str]| {
        for name in names {
            let text = attributes[name].as_str().unwrap_or_default();
            lines.extend(text.lines().map(str::to_owned));
        }
    };
    add(instance, &["ssh-keys", "sshKeys"]);
    let is_true = |json: &Json| {
        json.as_str()
            .is_some_and(|text| text.trim().eq_ignore_ascii_case("true"))
    };
    // The old name on the instance means that it has its own alone.
    if !is_true(&instance["block-project-ssh-keys"]) && instance["sshKeys"].is_null() {
        add(project, &["ssh-keys", "sshKeys"]);
    }
    let mut keys = Vec::new();
    let mut others: Vec<&str> = Vec::new();
    for line in &lines {
        let Some((user, key)) = line.split_once(':') else {
            continue;
        };
        if !USERS.contains(&user.trim()) {
            if !others.contains(&user.trim()) {
                others.push(user.trim());
            }
            continue;
        }
        if !has_ended(key, now) {
            keys.push(key.trim().to_owned());
        }
    }
    if !others.is_empty() {
        let others = others.join(", ");
        diagnostics.warning(
            None,
            format!("ssh-keys: those of {others} are not taken over; name the user `keelson` or `cloudinit`, or make them with user-data"),
        );
    }
    keys
}

/// Whether a key's end is past: `ssh-rsa ... google-ssh {"userName":"...","expireOn":"2021-06-14T16:59:03+0000"}`.
fn has_ended(key: &str, now: u64) -> bool {
    let Some((_, note)) = key.split_once(" google-ssh ") else {
        return false;
    };
    let note: Json = serde_json::from_str(note.trim()).unwrap_or(Json::Null);
    let end = note["expireOn"].as_str().and_then(seconds);
    // What says an end that cannot be read has none that would be known to be still to come.
    end.map_or(!note["expireOn"].is_null(), |end| end <= now)
}

/// Seconds since 1970 of `2021-06-14T16:59:03+0000`, always in UTC there.
fn seconds(text: &str) -> Option<u64> {
    let time = humantime::parse_rfc3339_weak(text.get(..19)?).ok()?;
    Some(time.duration_since(UNIX_EPOCH).ok()?.as_secs())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sources::http::Request;
    use crate::sources::http::fake::Service;

    const BASE: &str = "http://169.254.169.254/computeMetadata/v1";

    fn ask(instance: &str, project: &str) -> (Source, Vec<String>) {
        let mut service = Service::new(
            BASE,
            &[
                ("/instance/?recursive=true", instance),
                ("/project/attributes/?recursive=true", project),
            ],
        );
        service.requires = Some(("Metadata-Flavor".into(), "Google".into()));
        let mut diagnostics = Diagnostics::new("");
        let mut exchange = |request: &Request| service.answer(request);
        let source = fetch(
            &mut Client::new(&mut exchange),
            1_700_000_000,
            &mut diagnostics,
        )
        .unwrap();
        let said = diagnostics.into_sorted();
        (source, said.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn the_instance_says_who_it_is() {
        let (source, said) = ask(
            r#"{"id": 1234567890123456789, "hostname": "node.c.project.internal", "zone": "projects/1/zones/europe-west1-b",
                "attributes": {"user-data": "I2Nsb3VkLWNvbmZpZwo=", "user-data-encoding": "base64",
                "ssh-keys": "keelson:ssh-ed25519 AAAA a\ncloudinit:ssh-ed25519 AAAB b google-ssh {\"userName\":\"b\",\"expireOn\":\"2020-01-01T00:00:00+0000\"}\nann:ssh-ed25519 AAAC c"}}"#,
            r#"{"ssh-keys": "keelson:ssh-ed25519 AAAD d"}"#,
        );
        assert_eq!(source.instance_id, "1234567890123456789");
        assert_eq!(source.hostname.as_deref(), Some("node"));
        assert_eq!(
            (
                source.region.as_deref(),
                source.availability_zone.as_deref()
            ),
            (Some("europe-west1"), Some("europe-west1-b"))
        );
        assert_eq!(
            source.public_keys,
            ["ssh-ed25519 AAAA a", "ssh-ed25519 AAAD d"]
        );
        assert_eq!(source.user_data.as_deref(), Some(&b"#cloud-config\n"[..]));
        assert!(
            said[0].contains("those of ann are not taken over"),
            "{said:?}"
        );
    }

    #[test]
    fn an_instance_may_block_the_projects_keys() {
        let (source, _) = ask(
            r#"{"id": 1, "attributes": {"block-project-ssh-keys": "TRUE"}}"#,
            r#"{"ssh-keys": "keelson:ssh-ed25519 AAAD d"}"#,
        );
        assert_eq!(source.public_keys, [""; 0]);
    }

    #[test]
    fn a_time_is_read_as_seconds() {
        assert_eq!(seconds("1970-01-01T00:00:00+0000"), Some(0));
        assert_eq!(seconds("2024-02-29T12:34:56+0000"), Some(1_709_210_096));
        assert_eq!(seconds("2024-02-29"), None);
        assert_eq!(seconds("2024-13-29T12:34:56"), None);
    }
}
