//! `keelson.install`: onto which disk a live system installs itself, without anybody being asked.

use serde::{Deserialize, Serialize};

use super::{ServiceFile, below};
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node, Shape, Table, Value};

/// `keelson.install`
pub(super) static INSTALL: Table = Table::new(
    "install",
    &[
        (
            "disk",
            Shape::Text,
            "The disk, as /dev/vda or /dev/disk/by-id/NAME; all that is on it is lost",
        ),
        (
            "config",
            Shape::AnyOf(&[Shape::Text, Shape::Map(&Shape::Any)]),
            "The new system's configuration: a cloud-config, or a URL of one",
        ),
        (
            "append",
            Shape::Text,
            "Further words for the new system's kernel",
        ),
        (
            "reboot",
            Shape::Boolean,
            "True: the machine is started again when all is done",
        ),
        (
            "poweroff",
            Shape::Boolean,
            "True: the machine is switched off when all is done",
        ),
    ],
);

/// Name of the file of the service that does it.
const NAME: &str = "user-data-install";

/// What is installed without anybody being asked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Install {
    /// The disk: an absolute path.
    pub disk: String,
    /// A cloud-config, or a URL of one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<String>,
    /// Words for the kernel's command line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub append: Option<String>,
    /// What becomes of the machine.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub then: Option<Then>,
}

/// What becomes of the machine when the system is on its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Then {
    /// It is started again.
    Reboot,
    /// It is switched off.
    Poweroff,
}

/// Whether a text is where a configuration is, and not the configuration.
pub fn is_url(text: &str) -> bool {
    let is_word = !text.trim().contains(char::is_whitespace);
    is_word && (text.starts_with("https://") || text.starts_with("http://"))
}

/// Reads it. What makes no sense has nothing installed: it is about a whole disk.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Option<Install> {
    let node = below(top, "keelson", "install").filter(|node| !node.is_null())?;
    let fields = yaml::mapping("keelson.install", node, diagnostics)?;
    fields.check(" of keelson.install", &INSTALL, diagnostics);
    let mut refuse = |node: &Node, what: String| {
        let message = format!("keelson.install{what}; nothing is installed");
        diagnostics.error(node.position, message);
    };
    if let Some((key, _)) = fields
        .iter()
        .find(|(key, _)| INSTALL.all().all(|(name, ..)| *name != key.text))
    {
        refuse(node, format!(": `{}` is not understood", key.text));
        return None;
    }
    let Some(disk) = fields.get("disk") else {
        refuse(node, ": `disk` is missing".to_owned());
        return None;
    };
    let mut install = Install {
        disk: yaml::string("keelson.install.disk", disk, diagnostics)?,
        ..Install::default()
    };
    if !install.disk.starts_with("/dev/") {
        let message = format!(
            "keelson.install.disk: `{}` is no path of a disk, as /dev/vda; nothing is installed",
            install.disk
        );
        diagnostics.error(disk.position, message);
        return None;
    }
    if let Some(node) = fields.get("append") {
        install.append = Some(yaml::string("keelson.install.append", node, diagnostics)?);
    }
    if let Some(node) = fields.get("config") {
        install.config = Some(match &node.value {
            Value::Mapping(_) => format!("#cloud-config\n{}", yaml::write(node)),
            _ => yaml::string("keelson.install.config", node, diagnostics)?,
        });
    }
    let mut ends = Vec::new();
    for (name, then) in [("reboot", Then::Reboot), ("poweroff", Then::Poweroff)] {
        if let Some(node) = fields.get(name)
            && yaml::boolean(name, node, diagnostics)?
        {
            ends.push(then);
        }
    }
    if let [_, _] = ends.as_slice() {
        let message =
            "keelson.install: `reboot` and `poweroff` are both true; nothing is installed";
        diagnostics.error(node.position, message.to_owned());
        return None;
    }
    install.then = ends.first().copied();
    Some(install)
}

impl Install {
    /// The file that `keelson install --config-disk` reads.
    pub fn settings(&self) -> String {
        serde_json::to_string(self).unwrap_or_default()
    }

    /// The service that does it: the command that people have.
    pub(super) fn service(&self) -> ServiceFile {
        let text = "# From `keelson.install` of the configuration; written anew with each boot.
services:
  install-unattended:
    image: keelson/console
    command: [/usr/bin/keelson, install, --config-disk, --yes]
    network_mode: host              # the configuration may be somewhere else
    read_only: true
    volumes:
      - /run/keelson/install:/run/keelson/install   # asks the installation service
      - /run/keelson/power:/run/keelson/power       # has the machine go down when all is done
      - /run/keelson/network:/run/keelson/network:ro    # name servers
      - /state/config:/state/config:ro              # what is asked for
    restart: on-failure:5           # the network may come later
    x-keelson:
      after: [udev-coldplug, network, power]        # all disks that the machine has are there by then
      ready: exit
      start_timeout: 1h
      follows: true
";
        ServiceFile {
            name: NAME,
            text: text.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> (Option<Install>, Vec<String>) {
        let mut diagnostics = Diagnostics::new("user-data");
        let root = yaml::parse(text).unwrap().root;
        let top = yaml::mapping("top", &root, &mut diagnostics).unwrap();
        let install = parse(&top, &mut diagnostics);
        let said = diagnostics.into_sorted();
        (install, said.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn what_is_asked_for_comes_back_from_the_file() {
        let (install, said) = read(
            "keelson: {install: {disk: /dev/vdb, config: {hostname: boat}, append: quiet, reboot: true}}",
        );
        let install = install.unwrap();
        assert_eq!(said, Vec::<String>::new());
        assert_eq!(
            install.config.as_deref().map(str::trim_end),
            Some("#cloud-config\nhostname: boat")
        );
        assert_eq!(install.then, Some(Then::Reboot));
        let back: Install = serde_json::from_str(&install.settings()).unwrap();
        assert_eq!(back, install);
        let (install, _) = read("keelson: {install: {disk: /dev/vdb, config: 'http://a/b'}}");
        assert!(is_url(install.unwrap().config.as_deref().unwrap()));
        assert!(!is_url("#cloud-config\n"));
        assert_eq!(read("keelson: {}"), (None, Vec::new()));
    }

    #[test]
    fn what_makes_no_sense_has_nothing_installed() {
        for (text, part) in [
            ("{}", "`disk` is missing"),
            ("{disk: vdb}", "`vdb` is no path of a disk"),
            ("{disk: /dev/vdb, confg: x}", "confg"),
            (
                "{disk: /dev/vdb, reboot: maybe}",
                "reboot: expected true or false",
            ),
            ("{disk: /dev/vdb, config: [1]}", "config"),
            (
                "{disk: /dev/vdb, reboot: true, poweroff: true}",
                "are both true",
            ),
        ] {
            let (install, said) = read(&format!("keelson: {{install: {text}}}"));
            assert_eq!(install, None, "{text}");
            assert!(said.iter().any(|line| line.contains(part)), "{said:?}");
        }
    }
}
