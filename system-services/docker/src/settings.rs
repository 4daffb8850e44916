//! dockerd's configuration: the user's `daemon.json` over the defaults.

use crate::bridge;
use crate::paths::Paths;
use serde_json::{Map, Value, json};
use std::fs;
use std::io;
use std::path::Path;

/// Keys that tie dockerd to its container. The user's values for them are left out, with a word about it.
const FIXED: [&str; 4] = ["containerd", "data-root", "exec-root", "pidfile"];
const HOSTS: &str = "hosts";
/// docker0's address and network.
pub const BIP: &str = "bip";

/// A configuration, and what was wrong with the user's part of it.
#[derive(Debug, Clone, PartialEq)]
pub struct Settings {
    /// The keys of `daemon.json`.
    pub keys: Map<String, Value>,
    /// Whether any of them are the user's.
    pub from_user: bool,
    /// Where docker0 was put here.
    pub chosen_bip: Option<String>,
    /// For the user: what was not followed, and why.
    pub complaints: Vec<String>,
}

/// What dockerd gets when the user says nothing.
#[must_use]
pub fn defaults(paths: &Paths) -> Map<String, Value> {
    let socket = format!("unix://{}", paths.docker_socket.display());
    let defaults = json!({
        // A restart of dockerd leaves the applications alone.
        "live-restore": true,
        // Named, so that dockerd tries no others.
        "storage-driver": "overlay2",
        // Bounded and compressed of itself: no application fills the disk with its output.
        "log-driver": "local",
        "data-root": "/var/lib/docker",
        "exec-root": paths.run_directory,
        "pidfile": paths.run_directory.join("dockerd.pid"),
        "containerd": paths.containerd_socket,
        "hosts": [socket],
        "group": "docker",
        "exec-opts": ["native.cgroupdriver=cgroupfs"],
        "shutdown-timeout": 8,
        // The kernel forwards published ports; no process for each of them.
        "userland-proxy": false,
    });
    match defaults {
        Value::Object(keys) => keys,
        _ => Map::new(),
    }
}

/// Reads the user's file, if there is one, and merges it over the defaults key by key.
#[must_use]
pub fn load(paths: &Paths, refused: &Refused) -> Settings {
    let mut settings = of_user(paths);
    if settings.from_user
        && refused.user_settings.is_some()
        && refused.user_settings == text_of(paths)
    {
        let file = paths.user_settings.display();
        settings = Settings {
            keys: defaults(paths),
            from_user: false,
            chosen_bip: None,
            complaints: vec![format!(
                "dockerd did not start with {file}; the defaults are used"
            )],
        };
    }
    // Who says where Docker's networks are has thought of it.
    let says = [BIP, "bridge", "default-address-pools"];
    if !says.iter().any(|key| settings.keys.contains_key(*key)) {
        settings.chosen_bip = bridge::choose(paths, &refused.bips);
        let bip = settings.chosen_bip.iter();
        let bip = bip.map(|bip| (BIP.to_owned(), bip.clone().into()));
        settings.keys.extend(bip);
    }
    settings
}

/// What dockerd did not start with.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Refused {
    /// The user's file, as it was.
    pub user_settings: Option<String>,
    /// Places of docker0.
    pub bips: Vec<String>,
}

/// The user's file, as it is.
#[must_use]
pub fn text_of(paths: &Paths) -> Option<String> {
    fs::read_to_string(&paths.user_settings).ok()
}

fn of_user(paths: &Paths) -> Settings {
    let mut settings = Settings {
        keys: defaults(paths),
        from_user: false,
        chosen_bip: None,
        complaints: Vec::new(),
    };
    let file = paths.user_settings.display();
    let text = match fs::read_to_string(&paths.user_settings) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return settings,
        Err(error) => {
            settings
                .complaints
                .push(format!("{file}: {error}; the defaults are used"));
            return settings;
        }
    };
    match parse(&text) {
        Ok(user) => merge(&mut settings, user, &file.to_string()),
        Err(why) => settings
            .complaints
            .push(format!("{file}:{why}; the defaults are used")),
    }
    settings
}

/// Reads an object; an error starts with line and column.
fn parse(text: &str) -> Result<Map<String, Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Object(keys)) => Ok(keys),
        Ok(_) => Err("1:1: not an object of settings".to_owned()),
        Err(error) => {
            let message = error.to_string();
            let position = format!(" at line {} column {}", error.line(), error.column());
            let message = message.strip_suffix(&position).unwrap_or(&message);
            Err(format!("{}:{}: {message}", error.line(), error.column()))
        }
    }
}

fn merge(settings: &mut Settings, user: Map<String, Value>, file: &str) {
    for (key, value) in user {
        if FIXED.contains(&key.as_str()) {
            let why =
                format!("{file}: `{key}` cannot be set here: it is where this system keeps Docker");
            settings.complaints.push(why);
        } else if key == HOSTS {
            // Without our own socket nobody in the system would reach Docker.
            let ours = settings
                .keys
                .get(HOSTS)
                .and_then(Value::as_array)
                .cloned()
                .unwrap_or_default();
            let theirs = value.as_array().cloned().unwrap_or_default();
            let more = theirs.into_iter().filter(|host| !ours.contains(host));
            settings
                .keys
                .insert(key, ours.iter().cloned().chain(more).collect());
            settings.from_user = true;
        } else {
            settings.keys.insert(key, value);
            settings.from_user = true;
        }
    }
}

/// Writes the file that dockerd reads.
///
/// # Errors
/// What the file system reports.
pub fn write(keys: &Map<String, Value>, path: &Path) -> io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, serde_json::to_vec_pretty(keys)?)?;
    fs::rename(&new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn loaded(text: &str) -> Settings {
        let directory = tempfile::tempdir().unwrap();
        let mut paths = Paths::from_environment();
        (paths.routes, paths.bridge) = (
            directory.path().join("route"),
            directory.path().join("bridge"),
        );
        paths.user_settings = directory.path().join("daemon.json");
        fs::write(&paths.user_settings, text).unwrap();
        let mut settings = load(&paths, &Refused::default());
        let shown = paths.user_settings.display().to_string();
        for complaint in &mut settings.complaints {
            *complaint = complaint.replace(&shown, "FILE");
        }
        settings
    }

    #[test]
    fn without_a_file_the_defaults_count() {
        let settings = load(&Paths::from_environment(), &Refused::default());
        assert_eq!(settings.keys["live-restore"], true);
        assert_eq!(
            settings.keys["hosts"],
            json!(["unix:///run/keelson/docker/docker.sock"])
        );
        assert_eq!(
            (settings.from_user, settings.complaints),
            (false, Vec::new())
        );
    }

    #[test]
    fn the_users_keys_win_and_the_socket_stays() {
        let settings =
            loaded(r#"{"log-driver":"json-file","hosts":["tcp://127.0.0.1:2375"],"mtu":1400}"#);
        assert_eq!(settings.keys["log-driver"], "json-file");
        assert_eq!(settings.keys["mtu"], 1400);
        let hosts = json!([
            "unix:///run/keelson/docker/docker.sock",
            "tcp://127.0.0.1:2375"
        ]);
        assert_eq!(settings.keys["hosts"], hosts);
        assert_eq!(settings.keys["storage-driver"], "overlay2");
        assert!(settings.from_user && settings.complaints.is_empty());
    }

    #[test]
    fn what_ties_dockerd_to_its_container_stays() {
        let settings = loaded(r#"{"data-root":"/elsewhere"}"#);
        assert_eq!(settings.keys["data-root"], "/var/lib/docker");
        assert!(settings.complaints[0].starts_with("FILE: `data-root` cannot be set here"));
    }

    #[test]
    fn broken_json_is_named_with_its_position_and_the_defaults_are_used() {
        let settings = loaded("{\n  \"mtu\": 1400,\n}");
        let complaint = "FILE:3:1: trailing comma; the defaults are used";
        assert_eq!(settings.complaints, [complaint]);
        assert!(!settings.keys.contains_key("mtu"));
        assert_eq!(
            loaded("[]").complaints,
            ["FILE:1:1: not an object of settings; the defaults are used"]
        );
    }

    proptest! {
        #[test]
        fn whatever_the_file_holds_our_socket_is_there(text: String, mtu: i32) {
            for text in [text.clone(), format!("{{\"mtu\":{mtu},\"hosts\":{text:?}}}")] {
                let settings = loaded(&text);
                let hosts = settings.keys["hosts"].as_array().unwrap();
                prop_assert_eq!(&hosts[0], "unix:///run/keelson/docker/docker.sock");
            }
        }
    }
}
