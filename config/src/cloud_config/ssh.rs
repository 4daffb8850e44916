//! sshd: `ssh_keys`, `ssh_deletekeys`, and RancherOS' `rancher.ssh`.

use super::below;
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields};

/// What is asked of sshd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// Host keys: name of the file in `/etc/ssh` and its content. They are secrets.
    pub host_keys: Vec<HostKey>,
    /// A new instance gets new host keys.
    pub delete_host_keys: bool,
    /// Ports that it listens at.
    pub ports: Vec<u16>,
    /// Addresses that it listens at.
    pub listen: Vec<String>,
    /// False: there is no sshd.
    pub enabled: bool,
}

impl Default for Ssh {
    fn default() -> Self {
        Ssh {
            host_keys: Vec::new(),
            delete_host_keys: true,
            ports: Vec::new(),
            listen: Vec::new(),
            enabled: true,
        }
    }
}

/// A host key's file.
#[derive(Clone, PartialEq, Eq)]
pub struct HostKey {
    /// `ssh_host_ed25519_key`, `.pub` or `-cert.pub` behind it.
    pub file: String,
    /// Whether it must be kept from others.
    pub secret: bool,
    /// Its text.
    pub text: String,
}

impl std::fmt::Debug for HostKey {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(&self.file)
    }
}

const KINDS: [&str; 3] = ["rsa", "ecdsa", "ed25519"];

/// Reads all of it.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Ssh {
    let mut ssh = Ssh::default();
    let truth = |key: &str, diagnostics: &mut Diagnostics| {
        let node = top.get(key)?;
        yaml::boolean(key, node, diagnostics)
    };
    ssh.delete_host_keys = truth("ssh_deletekeys", diagnostics).unwrap_or(true);
    if let Some(node) = top.get("ssh_keys")
        && let Some(keys) = yaml::mapping("ssh_keys", node, diagnostics)
    {
        for (key, node) in keys.iter() {
            let (kind, part) = key.text.rsplit_once('_').unwrap_or((&key.text, ""));
            let file = match (KINDS.contains(&kind), part) {
                (true, "private") => format!("ssh_host_{kind}_key"),
                (true, "public") => format!("ssh_host_{kind}_key.pub"),
                (true, "certificate") => format!("ssh_host_{kind}_key-cert.pub"),
                _ => {
                    let message = format!(
                        "ssh_keys: `{}` is unknown, as ed25519_private; it is left out",
                        key.text
                    );
                    diagnostics.error(key.position, message);
                    continue;
                }
            };
            if let Some(text) = yaml::string(&format!("ssh_keys.{}", key.text), node, diagnostics) {
                ssh.host_keys.push(HostKey {
                    file,
                    secret: part == "private",
                    text: format!("{}\n", text.trim_end()),
                });
            }
        }
    }
    for name in ["rancher", "keelson"] {
        if let Some(fields) = section(top, name, diagnostics) {
            ssh.read_server(&format!("{name}.ssh"), &fields, diagnostics);
        }
    }
    ssh
}

/// The mapping `ssh` below a top-level key.
fn section<'a>(top: &Fields<'a>, name: &str, diagnostics: &mut Diagnostics) -> Option<Fields<'a>> {
    yaml::mapping(
        &format!("{name}.ssh"),
        below(top, name, "ssh")?,
        diagnostics,
    )
}

impl Ssh {
    fn read_server(&mut self, what: &str, fields: &Fields<'_>, diagnostics: &mut Diagnostics) {
        fields.check(
            &format!(" of {what}"),
            &["daemon", "enabled", "port", "ports", "listen_address"],
            &[("keys", "give host keys under `ssh_keys`")],
            diagnostics,
        );
        for key in ["daemon", "enabled"] {
            if let Some(node) = fields.get(key)
                && let Some(enabled) = yaml::boolean(&format!("{what}.{key}"), node, diagnostics)
            {
                self.enabled = enabled;
            }
        }
        for node in ["port", "ports"]
            .into_iter()
            .filter_map(|key| fields.get(key))
        {
            for text in yaml::strings(&format!("{what}.port"), node, diagnostics) {
                match text.parse::<u16>() {
                    Ok(port) if port > 0 => self.ports.push(port),
                    _ => {
                        let message = format!(
                            "{what}.port: `{text}` is no port (1 to 65535); it is left out"
                        );
                        diagnostics.error(node.position, message);
                    }
                }
            }
        }
        if let Some(node) = fields.get("listen_address") {
            for text in yaml::strings(&format!("{what}.listen_address"), node, diagnostics) {
                match text.parse::<std::net::IpAddr>() {
                    Ok(_) => self.listen.push(text),
                    Err(_) if text.is_empty() => {}
                    Err(_) => {
                        let message = format!(
                            "{what}.listen_address: `{text}` is no IP address; it is left out"
                        );
                        diagnostics.error(node.position, message);
                    }
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn host_keys_and_ports_are_read() {
        let mut diagnostics = Diagnostics::new("user-data");
        let text = "ssh_keys: {ed25519_private: PRIVATE, ed25519_public: PUBLIC, dsa_private: x}\nssh_deletekeys: no\nrancher: {ssh: {port: 65400, listen_address: 192.0.2.1}}\nkeelson: {ssh: {ports: [22, 70000]}}\n";
        let root = yaml::parse(text).unwrap().root;
        let top = yaml::mapping("top", &root, &mut diagnostics).unwrap();
        let ssh = parse(&top, &mut diagnostics);
        assert_eq!(ssh.host_keys[0].file, "ssh_host_ed25519_key");
        assert!(ssh.host_keys[0].secret && !ssh.host_keys[1].secret && !ssh.delete_host_keys);
        assert_eq!(
            (ssh.ports, ssh.listen),
            (vec![65400, 22], vec!["192.0.2.1".to_owned()])
        );
        assert_eq!(diagnostics.into_sorted().len(), 2);
    }
}
