//! sshd: `ssh_keys`, `ssh_deletekeys`, `ssh_genkeytypes`, which fingerprints are told at the console, and RancherOS' `rancher.ssh`.

use super::below;
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Shape, Table, Value};
use serde_json::{Map, Value as Json, json};

/// `keelson.ssh`, `rancher.ssh`
pub(super) static SERVER: Table = Table::new(
    "ssh",
    &[
        ("daemon", Shape::Boolean, "False: there is no sshd"),
        ("enabled", Shape::Boolean, "False: there is no sshd"),
        ("port", PORTS, "Port that it listens at"),
        ("ports", PORTS, "Ports that it listens at"),
        (
            "listen_address",
            Shape::TEXTS,
            "Addresses that it listens at",
        ),
    ],
)
.unsupported(&[("keys", "give host keys under `ssh_keys`")]);
const PORTS: Shape = Shape::OneOrMore(&Shape::Integer(1, u16::MAX as i64));

/// `ssh` at the top level
pub(super) static CONSOLE: Table = Table::new(
    "ssh.console",
    &[(
        "emit_keys_to_console",
        Shape::Boolean,
        "False: no fingerprints of host keys at the console",
    )],
);
/// `ssh_genkeytypes`
pub(super) const KEY_KINDS: Shape = Shape::OneOrMore(&Shape::Words(&KINDS));

/// What is asked of sshd.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ssh {
    /// Host keys: name of the file in `/etc/ssh` and its content. They are secrets.
    pub host_keys: Vec<HostKey>,
    /// A new instance gets new host keys.
    pub delete_host_keys: bool,
    /// Kinds of host keys that are made, of [`KINDS`]; `None` for those that are unless asked otherwise.
    pub key_kinds: Option<Vec<&'static str>>,
    /// Kinds of host keys whose fingerprints are told at the console when they are made; `None` for all.
    pub told_kinds: Option<Vec<&'static str>>,
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
            key_kinds: None,
            told_kinds: None,
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

/// Kinds of host keys that sshd knows.
pub const KINDS: [&str; 3] = ["rsa", "ecdsa", "ed25519"];
const PARTS: [&str; 3] = ["private", "public", "certificate"];

/// The schema of `ssh_keys`.
pub(super) fn host_keys() -> Json {
    let names = KINDS
        .iter()
        .flat_map(|kind| PARTS.map(|part| format!("{kind}_{part}")));
    let all: Map<String, Json> = names
        .map(|name| (name, json!({"$ref": "#/definitions/text"})))
        .collect();
    json!({"type": ["object", "null"], "properties": all, "additionalProperties": false})
}

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
    ssh.key_kinds = key_kinds(top, &ssh.host_keys, diagnostics);
    ssh.told_kinds = told_kinds(top, diagnostics);
    for name in ["rancher", "keelson"] {
        if let Some(fields) = section(top, name, diagnostics) {
            ssh.read_server(&format!("{name}.ssh"), &fields, diagnostics);
        }
    }
    ssh
}

/// `ssh_genkeytypes`, with the kinds of those that are given: an empty list makes none.
fn key_kinds(
    top: &Fields<'_>,
    given: &[HostKey],
    diagnostics: &mut Diagnostics,
) -> Option<Vec<&'static str>> {
    // Making them says nothing, whether or not that is asked for.
    if let Some(node) = top.get("ssh_quiet_keygen") {
        yaml::boolean("ssh_quiet_keygen", node, diagnostics);
    }
    let node = top.get("ssh_genkeytypes").filter(|node| !node.is_null())?;
    let mut kinds: Vec<&'static str> = Vec::new();
    for text in yaml::strings("ssh_genkeytypes", node, diagnostics) {
        match KINDS.into_iter().find(|kind| *kind == text) {
            Some(kind) if kinds.contains(&kind) => {}
            Some(kind) => kinds.push(kind),
            None => {
                let message = format!(
                    "ssh_genkeytypes: `{text}` is no kind that sshd knows (rsa, ecdsa and ed25519 are); it is left out"
                );
                diagnostics.error(node.position, message);
            }
        }
    }
    let is_given = |kind: &&str| {
        let file = format!("ssh_host_{kind}_key");
        given.iter().any(|key| key.file == file)
    };
    for kind in KINDS.into_iter().filter(is_given) {
        if !kinds.contains(&kind) {
            kinds.push(kind);
        }
    }
    if kinds.is_empty() {
        let message = "ssh_genkeytypes: without a host key nobody can log in with ssh; the usual ones are made";
        diagnostics.error(node.position, message);
        return None;
    }
    Some(kinds)
}

/// Which fingerprints of host keys are told: `ssh.emit_keys_to_console`, `ssh_fp_console_blacklist`.
fn told_kinds(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Vec<&'static str>> {
    // These are of people's keys, whose fingerprints are not told: there is nothing to switch off.
    if let Some(node) = top.get("no_ssh_fingerprints") {
        yaml::boolean("no_ssh_fingerprints", node, diagnostics);
    }
    if let Some(node) = top.get("authkey_hash") {
        yaml::string("authkey_hash", node, diagnostics);
    }
    let section = top
        .get("ssh")
        .and_then(|node| yaml::mapping("ssh", node, diagnostics));
    let emits = section.and_then(|fields| {
        fields.check(" of ssh", &CONSOLE, diagnostics);
        let node = fields.get("emit_keys_to_console")?;
        if matches!(&node.value, Value::Scalar(scalar) if !scalar.plain) {
            let message = "ssh.emit_keys_to_console: true and false have no quotes around them; it is taken all the same";
            diagnostics.warning(node.position, message);
        }
        yaml::boolean("ssh.emit_keys_to_console", node, diagnostics)
    });
    // Keys themselves are not told, whichever they are.
    kinds_of_list("ssh_key_console_blacklist", top, diagnostics);
    let hidden = kinds_of_list("ssh_fp_console_blacklist", top, diagnostics);
    if emits == Some(false) {
        return Some(Vec::new());
    }
    let hidden = hidden?;
    let is_hidden = |kind: &str| hidden.iter().any(|name| name.contains(kind));
    let told = KINDS.into_iter().filter(|kind| !is_hidden(kind));
    Some(told.collect())
}

/// Names of kinds as they stand in a public key (`ssh-rsa`, `ecdsa-sha2-nistp256`).
fn kinds_of_list(
    what: &str,
    top: &Fields<'_>,
    diagnostics: &mut Diagnostics,
) -> Option<Vec<String>> {
    let node = top.get(what)?;
    let names = yaml::strings(what, node, diagnostics);
    let is_kind = |name: &str| {
        let mut kinds = KINDS.iter().chain(&["dss", "dsa"]);
        kinds.any(|kind| name.contains(kind))
    };
    for name in names.iter().filter(|name| !is_kind(name)) {
        let message = format!("{what}: `{name}` is no kind of key, as ssh-ed25519");
        diagnostics.warning(node.position, message);
    }
    Some(names)
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
        fields.check(&format!(" of {what}"), &SERVER, diagnostics);
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

    fn read(text: &str) -> (Ssh, Vec<String>) {
        let mut diagnostics = Diagnostics::new("user-data");
        let config = crate::CloudConfig::parse(text, &mut diagnostics).unwrap();
        let messages = diagnostics.into_sorted();
        let messages = messages.iter().map(ToString::to_string).collect();
        (config.ssh, messages)
    }

    #[test]
    fn kinds_of_keys_are_those_of_the_list_and_those_that_are_given() {
        let kinds = |text: &str| read(text).0.key_kinds;
        assert_eq!(kinds("{}"), None);
        assert_eq!(
            kinds("{ssh_genkeytypes: [rsa, ed25519, rsa], ssh_quiet_keygen: true}"),
            Some(vec!["rsa", "ed25519"])
        );
        assert_eq!(
            kinds("{ssh_genkeytypes: [], ssh_keys: {ecdsa_private: X}}"),
            Some(vec!["ecdsa"])
        );
        let (ssh, messages) = read("ssh_genkeytypes: [dsa]\n");
        assert_eq!((ssh.key_kinds, messages.len()), (None, 2));
        assert_eq!(
            messages[0],
            "user-data:1:18: ssh_genkeytypes: `dsa` is no kind that sshd knows (rsa, ecdsa and ed25519 are); it is left out"
        );
    }

    #[test]
    fn fingerprints_are_told_unless_that_is_not_wanted() {
        for (text, told) in [
            ("{}", None),
            ("{no_ssh_fingerprints: true, authkey_hash: sha512}", None),
            ("{ssh_key_console_blacklist: [ssh-rsa]}", None),
            ("{ssh: {emit_keys_to_console: false}}", Some(vec![])),
            (
                "{ssh_fp_console_blacklist: [ssh-dss, ecdsa-sha2-nistp256]}",
                Some(vec!["rsa", "ed25519"]),
            ),
        ] {
            let (ssh, messages) = read(text);
            assert_eq!((ssh.told_kinds, messages), (told, Vec::new()), "{text}");
        }
        assert_eq!(read("{no_ssh_fingerprints: [x]}").1.len(), 1);
        assert_eq!(read("{ssh: {emit: false}}").1.len(), 1);
    }
}
