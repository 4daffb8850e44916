//! What first-boot leaves on the state partition for the console, and how both know that it is complete.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Directory on the state partition that holds the machine's configuration.
pub const CONFIG_DIRECTORY: &str = "/state/config";
/// Name of the [`Instance`] record in [`CONFIG_DIRECTORY`]; written last, when all else is there.
pub const INSTANCE_FILE: &str = "instance.json";
/// The host's name, one line.
pub const HOSTNAME_FILE: &str = "hostname";
/// The host's name with its domain, one line; only there when a domain was given.
pub const FQDN_FILE: &str = "fqdn";
/// Directory of `passwd`, `shadow`, `group`, `gshadow` and `sudoers`.
pub const USERS_DIRECTORY: &str = "users";
/// Tree of files that the console lays over its root.
pub const FILES_DIRECTORY: &str = "files";
/// Tree of texts that the console adds to files of its root.
pub const APPEND_DIRECTORY: &str = "append";
/// Directory of an instance's scripts, by [`Instance::scripts`].
pub const SCRIPTS_DIRECTORY: &str = "scripts";
/// In an instance's scripts: made before the first one is started, so that none is ever started twice.
pub const STARTED_FILE: &str = "started";
/// In an instance's scripts: made when the last one has ended.
pub const FINISHED_FILE: &str = "finished";
/// Directory of the machine's own services, and of the variables in them.
pub const SERVICES_DIRECTORY: &str = "services";
/// What the files of services that come from the user-data begin with.
pub const SERVICES_PREFIX: &str = "user-data-";
/// In the directory of services: variables and their values.
pub const SERVICES_ENVIRONMENT: &str = ".env";
/// Directory of what the machine's data source said last. Only root may read it.
pub const SOURCE_DIRECTORY: &str = "source";
/// Directory of files of settings, each a layer of the configuration, in order of name.
pub const LAYERS_DIRECTORY: &str = "config.d";
/// What `keelson config set` wrote.
pub const SET_FILE: &str = "keelson.yml";
/// Holds the boot's id (`/proc/sys/kernel/random/boot_id`) for which the configuration is applied; written last.
pub const CONFIGURED_FILE: &str = "configured";
/// Scripts of each boot, below [`SCRIPTS_DIRECTORY`]; [`STARTED_FILE`] beside them says in which they were started last.
pub const BOOT_SCRIPTS: &str = "boot";
/// Scripts that run once on the machine, below [`SCRIPTS_DIRECTORY`].
pub const ONCE_SCRIPTS: &str = "once";
/// The network's configuration, as JSON of [`crate::network::Network`].
pub const NETWORK_FILE: &str = "network/config.json";
/// What the system engine's pulls know of registries.
pub const REGISTRIES_FILE: &str = "registries.yml";
/// Where releases of the operating system come from.
pub const UPGRADE_FILE: &str = "upgrade/settings.json";
/// What is installed on which disk without anybody being asked.
pub const INSTALL_FILE: &str = "install/settings.json";
/// A proxy for the system engine's pulls: variables, one a line.
pub const PROXY_FILE: &str = "proxy.env";
/// Directory of what the time service reads beside what DHCP says (chrony.conf(5), `sourcedir`).
pub const TIME_DIRECTORY: &str = "time";
/// Directory of the user's authorities: one file, PEM.
pub const CERTIFICATES_DIRECTORY: &str = "ca-certificates";
/// Directory of host keys and of settings for sshd.
pub const SSH_DIRECTORY: &str = "ssh";

/// In the directory of host keys: kinds of keys that sshd is to have (`rsa`, `ecdsa`, `ed25519`), one line with blanks between them.
/// Without it, and when it names none, it has the usual ones.
pub const HOST_KEY_KINDS_FILE: &str = "key-kinds";
/// The same of kinds whose fingerprints are told at the console when keys are made. Without it all are.
pub const TOLD_KINDS_FILE: &str = "told-kinds";

/// The instance that the machine is configured as.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Instance {
    /// Its id, from meta-data.
    pub instance_id: String,
    /// Id of the boot in which it became this instance.
    #[serde(default)]
    pub since_boot: String,
    /// SHA-256 of the user-data that was applied, in hexadecimal.
    pub user_data_sha256: String,
    /// Name of its directory of scripts, when there are any to run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripts: Option<String>,
    /// What was done once: by what it is about (`file /etc/motd`, `password of ann`), a digest of what was asked for.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub done: BTreeMap<String, String>,
    /// Keys that were given to users, so that they can be taken away.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub keys: BTreeMap<String, Vec<String>>,
}

impl Instance {
    /// Reads the record.
    ///
    /// # Errors
    /// It is not the JSON that [`to_json`](Self::to_json) writes.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The record as one line of JSON.
    pub fn to_json(&self) -> Vec<u8> {
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes
    }
}
