//! Compose files of the machine's own: taken in, and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, Read};
use std::path::Path;
use std::process::{Command, Stdio};

use keelson_engine::api::Service;

use super::control::{complain, each, reloaded};
use super::{all_services, find};
use crate::client::{self, escape};
use crate::failure::Failure;
use crate::output::Output;

const FILES: &str = "/keelson/v1/service-files";
/// Far more than a Compose file has.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// Where a Compose file comes from.
#[derive(Debug, PartialEq, Eq)]
enum Source<'a> {
    Input,
    Url(&'a str),
    File(&'a Path),
    /// None: it is the name of a service.
    Service(&'a str),
}

impl<'a> Source<'a> {
    fn of(what: &'a str) -> Self {
        let is_file = what.contains('/') || what.ends_with(".yml") || what.ends_with(".yaml");
        match what {
            "-" => Self::Input,
            _ if what.starts_with("https://") || what.starts_with("http://") => Self::Url(what),
            _ if is_file => Self::File(Path::new(what)),
            _ => Self::Service(what),
        }
    }

    /// The name that its file gets: that which it has, as far as a file of services may be called so.
    fn name(&self) -> String {
        let stem = match self {
            Self::Input | Self::Service(_) => "services",
            Self::Url(url) => {
                let path = url.split(['?', '#']).next().unwrap_or_default();
                path.rsplit('/').next().unwrap_or_default()
            }
            Self::File(path) => path
                .file_name()
                .and_then(|name| name.to_str())
                .unwrap_or_default(),
        };
        let stem = stem
            .strip_suffix(".yml")
            .or(stem.strip_suffix(".yaml"))
            .unwrap_or(stem);
        let plain: String = stem
            .to_ascii_lowercase()
            .chars()
            .map(|letter| match letter {
                'a'..='z' | '0'..='9' | '-' | '_' | '.' => letter,
                _ => '-',
            })
            .collect();
        match plain.trim_start_matches(['-', '_', '.']) {
            "" => "services".to_owned(),
            name => name.to_owned(),
        }
    }

    fn read(&self) -> Result<Vec<u8>, Failure> {
        let mut text = Vec::new();
        let read = match self {
            Self::Input => io::stdin()
                .lock()
                .take(FILE_MAX_BYTES)
                .read_to_end(&mut text),
            Self::File(path) => fs::File::open(path)
                .and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut text)),
            Self::Url(url) => return fetch(url),
            Self::Service(_) => Ok(0),
        };
        read.map_err(|error| Failure::Failed(format!("read {}: {error}", self.describe())))?;
        Ok(text)
    }

    fn describe(&self) -> String {
        match self {
            Self::Input => "standard input".to_owned(),
            Self::Url(url) => (*url).to_owned(),
            Self::File(path) => path.display().to_string(),
            Self::Service(name) => (*name).to_owned(),
        }
    }
}

/// wget fetches it, and says what is wrong: it is in the console anyway.
pub(crate) fn fetch(url: &str) -> Result<Vec<u8>, Failure> {
    let mut wget = Command::new("wget");
    wget.args([
        "--no-verbose",
        "--tries=2",
        "--timeout=20",
        "--output-document=-",
        "--",
    ]);
    let child = wget
        .arg(url)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn();
    let mut child = child.map_err(|error| Failure::Failed(format!("run wget: {error}")))?;
    let mut text = Vec::new();
    let read = child
        .stdout
        .take()
        .map(|output| output.take(FILE_MAX_BYTES).read_to_end(&mut text));
    let status = child.wait();
    match (read, status) {
        (Some(Ok(_)), Ok(status)) if status.success() => Ok(text),
        _ => Err(Failure::Failed(format!("{url} cannot be fetched"))),
    }
}

/// Takes a Compose file in, or has a service start with the machine again.
pub(super) fn enable(what: &str, now: bool, output: &mut Output<'_>) -> Result<(), Failure> {
    let source = Source::of(what);
    let names = match source {
        Source::Service(name) => {
            each(&[name.to_owned()], "enable", "enabled", output)?;
            vec![name.to_owned()]
        }
        _ => take_in(&source, output)?,
    };
    match now {
        true => each(&names, "up", "up", output),
        false => Ok(()),
    }
}

/// The services that the file defines.
fn take_in(source: &Source<'_>, output: &mut Output<'_>) -> Result<Vec<String>, Failure> {
    let (text, name) = (source.read()?, source.name());
    let answer = client::command("PUT", &format!("{FILES}/{name}"), &text)?;
    complain(&reloaded(answer)?);
    let file = format!("/{name}.yml");
    let defined = all_services()?.into_iter().filter(|service| {
        service.own
            && service
                .file
                .as_ref()
                .is_some_and(|path| path.ends_with(&file))
    });
    let names: Vec<String> = defined.map(|service| service.name).collect();
    if output.json {
        output.value(&serde_json::json!({ "enabled": names }))?;
    } else {
        for name in &names {
            output.text(&format!("{name}: enabled\n"))?;
        }
    }
    Ok(names)
}

/// Removes services with the files that define them.
pub(super) fn remove(names: &[String], output: &mut Output<'_>) -> Result<(), Failure> {
    let services = all_services()?;
    for stem in files_of(names, &services)? {
        let answer = client::command("DELETE", &format!("{FILES}/{}", escape(&stem)), &[])?;
        match answer {
            Some(_) => complain(&reloaded(answer)?),
            None => {
                return Err(Failure::Failed(format!(
                    "the file {stem}.yml is not there any more"
                )));
            }
        };
    }
    if output.json {
        return output.value(&serde_json::json!({ "removed": names }));
    }
    for name in names {
        output.text(&format!("{name}: removed\n"))?;
    }
    Ok(())
}

/// The names of the files that define these services and no others.
fn files_of(names: &[String], services: &[Service]) -> Result<BTreeSet<String>, Failure> {
    let mut files: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for service in services {
        if let Some(file) = &service.file {
            files.entry(file).or_default().push(&service.name);
        }
    }
    let mut stems = BTreeSet::new();
    for name in names {
        let service = find(name, services)?;
        let Some(file) = service.file.as_deref().filter(|_| service.own) else {
            return Err(Failure::Failed(format!(
                "{name} belongs to the OS image: `keelson service disable {name}` keeps it from starting"
            )));
        };
        let others: Vec<&str> = files[file]
            .iter()
            .copied()
            .filter(|other| !names.iter().any(|name| name == other))
            .collect();
        if !others.is_empty() {
            return Err(Failure::Failed(format!(
                "{file} also defines {}: name them all, or take them out of the file",
                others.join(", ")
            )));
        }
        let stem = Path::new(file).file_stem().and_then(|stem| stem.to_str());
        stems.extend(stem.map(str::to_owned));
    }
    Ok(stems)
}

#[cfg(test)]
mod tests {
    use super::super::tests::service;
    use super::*;

    #[test]
    fn a_file_keeps_the_name_that_it_has() {
        for (what, name) in [
            ("-", "services"),
            ("web.yml", "web"),
            ("/srv/My Web.yaml", "my-web"),
            ("https://example.org/a/web.yml?v=1", "web"),
            ("https://example.org/", "services"),
            ("./.hidden.yml", "hidden"),
        ] {
            assert_eq!(Source::of(what).name(), name, "{what}");
        }
        assert_eq!(Source::of("docker"), Source::Service("docker"));
    }

    #[test]
    fn a_file_goes_with_all_its_services_and_the_images_own_stay() {
        let own = |name: &str, file: &str| Service {
            own: true,
            file: Some(format!("/state/config/services/{file}.yml")),
            ..service(name)
        };
        let services = [
            own("a", "ab"),
            own("b", "ab"),
            own("c", "c"),
            service("log"),
        ];
        let remove = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            files_of(&names, &services).map_err(|failure| failure.to_string())
        };
        assert_eq!(
            remove(&["b", "c", "a"]),
            Ok(BTreeSet::from(["ab".to_owned(), "c".to_owned()]))
        );
        assert!(remove(&["a"]).unwrap_err().contains("also defines b"));
        assert!(
            remove(&["log"])
                .unwrap_err()
                .contains("belongs to the OS image")
        );
        assert!(remove(&["d"]).unwrap_err().contains("no such service"));
    }
}
