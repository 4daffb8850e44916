//! `keelson install`: asks the installation service.

use std::fs;
use std::path::Path;

use keelson_config::cloud_config::install::{Install as Unattended, Then, is_url};
use keelson_config::instance::{CONFIG_DIRECTORY, INSTALL_FILE};
use keelson_config::{CloudConfig, Diagnostics};
use keelson_upgrade::install::protocol::{Disk, Installed, Request, SOCKET, Wish};
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::arguments::Install;
use crate::failure::Failure;
use crate::os::{Bar, confirm, exchange, show};
use crate::output::{Output, size, table};
use crate::power::{self, Action};
use crate::service;

const SERVICE: &str = "the installation service";
/// What a cloud-config begins with.
const MARK: &str = "#cloud-config";

/// Installs, or shows the disks.
pub(crate) fn run(command: Install, output: &mut Output<'_>) -> Result<(), Failure> {
    if command.config_disk {
        return unattended(command.yes, output);
    }
    let Some(disk) = command.disk else {
        if command.config.is_some() || command.append.is_some() || command.yes {
            let message = "which disk? `keelson install` shows them, --disk names one";
            return Err(Failure::Usage(message.to_owned()));
        }
        let (value, disks): (_, Vec<Disk>) = ask(&Request::Disks {})?;
        return show(output, &value, &render_disks(&disks));
    };
    let configuration = command.config.as_deref().map(read).transpose()?;
    let wish = Wish {
        disk,
        configuration,
        append: command.append,
        spare_installed: false,
    };
    install(wish, command.yes, output)
}

/// As the configuration says. A disk that has the system already is left alone: otherwise a machine that is started from the same medium
/// again would lose what it has.
fn unattended(yes: bool, output: &mut Output<'_>) -> Result<(), Failure> {
    let path = Path::new(CONFIG_DIRECTORY).join(INSTALL_FILE);
    let text = match fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let message = "this machine's configuration asks for no installation (keelson.install)";
            return Err(Failure::Failed(message.to_owned()));
        }
        Err(error) => return Err(failed(&format!("read {}", path.display()), error)),
    };
    let asked: Unattended =
        serde_json::from_str(&text).map_err(|error| failed("read keelson.install", error))?;
    let disk = look(Path::new(&asked.disk))?;
    if disk.is_installed() {
        let value = serde_json::json!({ "installed": false });
        let text = format!(
            "Keelson is on {} already: nothing is installed. `keelson install --disk` does it all the same.\n",
            disk.disk.display()
        );
        return show(output, &value, &text);
    }
    let configuration = match asked.config {
        Some(config) if is_url(&config) => Some(read(config.trim())?),
        Some(config) => Some(checked(config, "keelson.install.config")?),
        None => None,
    };
    let wish = Wish {
        disk: disk.disk,
        configuration,
        append: asked.append,
        spare_installed: true,
    };
    install(wish, yes, output)?;
    match asked.then {
        Some(Then::Reboot) => power::run(Action::Reboot, &mut Output::nowhere()),
        Some(Then::Poweroff) => power::run(Action::Poweroff, &mut Output::nowhere()),
        None => Ok(()),
    }
}

fn install(wish: Wish, yes: bool, output: &mut Output<'_>) -> Result<(), Failure> {
    if !yes {
        let disk = look(&wish.disk)?;
        if let Some(why) = disk.unfit {
            return Err(Failure::Failed(format!("{why}; nothing was changed")));
        }
        confirm(&render_question(&disk))?;
    }
    let (value, installed): (_, Installed) = ask(&Request::Install(wish))?;
    let text = format!(
        "Version {} is installed on {} ({}, read back). Start the machine from that disk, without the medium that it runs from now.\n",
        installed.version,
        installed.disk.display(),
        size(installed.root_bytes)
    );
    show(output, &value, &text)
}

/// What is on the disk.
fn look(disk: &Path) -> Result<Disk, Failure> {
    let disk = disk.to_owned();
    ask(&Request::Disk { disk }).map(|(_, disk)| disk)
}

fn ask<T: DeserializeOwned>(request: &Request) -> Result<(Value, T), Failure> {
    let mut bar = Bar::default();
    let answer = exchange(SERVICE, Path::new(SOCKET), request, &mut |progress| {
        bar.show(&progress)
    });
    bar.clear();
    let value = answer?;
    let read = serde_json::from_value(value.clone())
        .map_err(|error| failed("read the answer of the installation service", error))?;
    Ok((value, read))
}

/// A configuration from a file or a URL.
fn read(from: &str) -> Result<String, Failure> {
    let bytes = match is_url(from) {
        true => service::fetch(from)?,
        false => fs::read(from).map_err(|error| failed(&format!("read {from}"), error))?,
    };
    let text = String::from_utf8(bytes).map_err(|error| failed(&format!("read {from}"), error))?;
    checked(text, from)
}

/// Whether it is one that the new system understands; what it does not understand of it, it says there.
fn checked(text: String, from: &str) -> Result<String, Failure> {
    if text.lines().next().map(str::trim_end) != Some(MARK) {
        let message = format!("{from} is no cloud-config: its first line has to be {MARK}");
        return Err(Failure::Failed(message));
    }
    let mut diagnostics = Diagnostics::new(from);
    let parsed = CloudConfig::parse(&text, &mut diagnostics);
    let said = diagnostics.into_sorted();
    if parsed.is_none() {
        let said: Vec<String> = said.iter().map(ToString::to_string).collect();
        return Err(Failure::Failed(said.join("\n")));
    }
    for line in said {
        eprintln!("{line}");
    }
    Ok(text)
}

fn failed(what: &str, error: impl std::fmt::Display) -> Failure {
    Failure::Failed(format!("{what}: {error}"))
}

fn render_disks(disks: &[Disk]) -> String {
    let rows: Vec<[String; 4]> = disks
        .iter()
        .map(|disk| {
            [
                disk.disk.display().to_string(),
                size(disk.size_bytes),
                disk.model.clone().unwrap_or_default(),
                disk.unfit.clone().unwrap_or_else(|| contents(disk)),
            ]
        })
        .collect();
    table(["DISK", "SIZE", "MODEL", "WHAT IS ON IT"], &rows)
}

fn contents(disk: &Disk) -> String {
    match disk.contents.len() {
        0 => "nothing".to_owned(),
        1 => "1 partition or file system".to_owned(),
        count => format!("{count} partitions"),
    }
}

fn render_question(disk: &Disk) -> String {
    let mut text = format!("{} ({}", disk.disk.display(), size(disk.size_bytes));
    for part in [&disk.model, &disk.serial].into_iter().flatten() {
        text.push_str(&format!(", {part}"));
    }
    text.push_str(")\n");
    for content in &disk.contents {
        let mut words = vec![
            content.device.display().to_string(),
            size(content.size_bytes),
        ];
        words.extend(content.kind.clone());
        for name in [&content.name, &content.label].into_iter().flatten() {
            words.push(format!("\"{name}\""));
        }
        text.push_str(&format!("    {}\n", words.join("  ")));
    }
    text.push_str(match disk.contents.is_empty() {
        true => "Nothing is found on it. Keelson takes the whole disk.",
        false => "All of that will be lost. Keelson takes the whole disk.",
    });
    text
}

#[cfg(test)]
mod tests {
    use keelson_upgrade::install::protocol::Content;

    use super::*;

    fn disk() -> Disk {
        Disk {
            disk: "/dev/vdb".into(),
            size_bytes: 4 << 30,
            model: Some("Disk 9".to_owned()),
            serial: None,
            contents: vec![Content {
                device: "/dev/vdb1".into(),
                size_bytes: 1 << 30,
                name: Some("data".to_owned()),
                kind: Some("ext4".to_owned()),
                label: Some("photos".to_owned()),
            }],
            unfit: None,
        }
    }

    #[test]
    fn the_question_shows_what_will_be_lost() {
        let text = render_question(&disk());
        for part in [
            "/dev/vdb (",
            "Disk 9",
            "/dev/vdb1",
            "ext4",
            "\"photos\"",
            "will be lost",
        ] {
            assert!(text.contains(part), "{text}");
        }
        let empty = Disk {
            contents: Vec::new(),
            ..disk()
        };
        assert!(render_question(&empty).contains("Nothing is found on it"));
    }

    #[test]
    fn only_a_cloud_config_is_taken() {
        let check = |text: &str| checked(text.to_owned(), "boat.yml");
        assert!(check("#cloud-config\nhostname: boat\n").is_ok());
        for (text, part) in [
            ("hostname: boat\n", "its first line has to be #cloud-config"),
            ("#cloud-config\na: [\n", "not valid YAML"),
        ] {
            let error = check(text).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
