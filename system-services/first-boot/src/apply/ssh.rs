//! sshd: host keys and settings.

use std::path::Path;

use keelson_config::CloudConfig;
use keelson_config::cloud_config::HOST_KEY_KINDS;
use keelson_config::instance::{HOST_KEY_KINDS_FILE, SSH_DIRECTORY, TOLD_KINDS_FILE};
use keelson_sys::durable::Access;

use super::replace;
use crate::report::Report;
use crate::state::State;

const SETTINGS: &str = "sshd_config.d/50-cloud-config.conf";
/// Says that there is to be no sshd.
const OFF: &str = "off";

/// Removes the host keys of an earlier instance; the console makes new ones.
pub(super) fn remove_host_keys(state: &State, report: &mut Report) {
    for kind in HOST_KEY_KINDS {
        for suffix in ["", ".pub", "-cert.pub"] {
            let path = Path::new(SSH_DIRECTORY).join(format!("ssh_host_{kind}_key{suffix}"));
            if let Err(error) = state.config.remove(&path) {
                report.error(format!("remove the host key {}: {error}", path.display()));
            }
        }
    }
}

/// Writes the user's host keys and settings.
pub(super) fn apply(state: &State, config: &CloudConfig, report: &mut Report) {
    let directory = Path::new(SSH_DIRECTORY);
    for key in &config.ssh.host_keys {
        let access = Access::root(if key.secret { 0o600 } else { 0o644 });
        let text = Some(key.text.as_bytes());
        replace(state, &directory.join(&key.file), text, access, report);
    }
    for (file, kinds) in [
        (HOST_KEY_KINDS_FILE, &config.ssh.key_kinds),
        (TOLD_KINDS_FILE, &config.ssh.told_kinds),
    ] {
        let line = kinds.as_ref().map(|kinds| format!("{}\n", kinds.join(" ")));
        let content = line.as_deref().map(str::as_bytes);
        let access = Access::root(0o644);
        replace(state, &directory.join(file), content, access, report);
    }
    let text = settings(config);
    let content = (!text.is_empty()).then_some(text.as_bytes());
    let access = Access::root(0o644);
    replace(state, &directory.join(SETTINGS), content, access, report);
    let off: Option<&[u8]> = (!config.ssh.enabled).then_some(b"");
    replace(state, &directory.join(OFF), off, access, report);
}

/// sshd_config(5) of what is asked for.
fn settings(config: &CloudConfig) -> String {
    let mut text = String::new();
    if let Some(passwords) = config.ssh_password_login {
        let word = if passwords { "yes" } else { "no" };
        text.push_str(&format!("PasswordAuthentication {word}\n"));
    }
    for port in &config.ssh.ports {
        text.push_str(&format!("Port {port}\n"));
    }
    for address in &config.ssh.listen {
        text.push_str(&format!("ListenAddress {address}\n"));
    }
    let files = || config.ssh.host_keys.iter().map(|key| key.file.as_str());
    // The others are in the console's own settings.
    let is_made = |kinds: &Vec<&str>| kinds.contains(&"rsa");
    if files().any(|file| file == "ssh_host_rsa_key")
        || config.ssh.key_kinds.as_ref().is_some_and(is_made)
    {
        text.push_str("HostKey /state/config/ssh/ssh_host_rsa_key\n");
    }
    for file in files().filter(|file| file.ends_with("-cert.pub")) {
        text.push_str(&format!("HostCertificate /state/config/ssh/{file}\n"));
    }
    text
}
