//! What people have decided about services: which start with the machine, which run from another image. One file on
//! the state partition.

use keelson_sys::durable::{Access, Tree};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

const FILE: &str = "services.json";
/// Far more than there are services.
const FILE_MAX_BYTES: u64 = 1 << 20;

/// An image that was chosen for a service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pin {
    /// The name that it was chosen by.
    pub reference: String,
    /// The digest of its configuration: the name may come to mean another image.
    pub id: String,
}

/// What was decided about one service.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Choice {
    /// It starts with the machine.
    pub enabled: bool,
    /// It runs from this image, whatever its definition says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<Pin>,
}

impl Default for Choice {
    fn default() -> Self {
        Self {
            enabled: true,
            image: None,
        }
    }
}

/// All that was decided, by service.
#[derive(Debug, Default)]
pub struct Choices {
    directory: PathBuf,
    services: BTreeMap<String, Choice>,
}

impl Choices {
    /// Reads them from a directory. A file that cannot be used is put aside; what is wrong with it comes second.
    pub fn load(directory: &Path) -> (Self, Option<String>) {
        let mut choices = Self {
            directory: directory.to_owned(),
            services: BTreeMap::new(),
        };
        let complaint = match choices.read() {
            Ok(services) => {
                choices.services = services;
                None
            }
            Err(error) => {
                let path = directory.join(FILE);
                let aside = path.with_extension("json.unusable");
                let _ = fs::rename(&path, &aside);
                Some(format!(
                    "cannot use {}: {error}; it is kept as {}, and services are as their definitions say",
                    path.display(),
                    aside.display()
                ))
            }
        };
        (choices, complaint)
    }

    fn read(&self) -> io::Result<BTreeMap<String, Choice>> {
        let tree = match Tree::open(&self.directory) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeMap::new()),
            tree => tree?,
        };
        let text = tree.read(Path::new(FILE), FILE_MAX_BYTES)?;
        Ok(text
            .map(|text| serde_json::from_slice(&text))
            .transpose()?
            .unwrap_or_default())
    }

    /// What was decided about a service.
    pub fn of(&self, service: &str) -> Choice {
        self.services.get(service).cloned().unwrap_or_default()
    }

    /// Decides about a service. It is on the disk when this returns: people decide so seldom that this may be waited
    /// for.
    ///
    /// # Errors
    /// What the system calls report; then nothing has changed.
    pub fn decide(&mut self, service: &str, choice: Choice) -> io::Result<()> {
        let mut services = self.services.clone();
        if choice == Choice::default() {
            services.remove(service);
        } else {
            services.insert(service.to_owned(), choice);
        }
        if services == self.services {
            return Ok(());
        }
        let text = serde_json::to_vec_pretty(&services)?;
        fs::create_dir_all(&self.directory)?;
        Tree::open(&self.directory)?.write(Path::new(FILE), &text, Access::root(0o600))?;
        self.services = services;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen() -> Choice {
        Choice {
            enabled: false,
            image: Some(Pin {
                reference: "registry/network:2".into(),
                id: "sha256:00".into(),
            }),
        }
    }

    #[test]
    fn what_was_decided_is_read_again_and_a_default_leaves_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("engine");
        let (mut choices, complaint) = Choices::load(&place);
        assert_eq!(complaint, None);
        choices.decide("network", chosen()).unwrap();
        let (mut read, complaint) = Choices::load(&place);
        assert_eq!((read.of("network"), complaint), (chosen(), None));
        assert_eq!(read.of("other"), Choice::default());
        read.decide("network", Choice::default()).unwrap();
        assert_eq!(fs::read_to_string(place.join(FILE)).unwrap(), "{}");
    }

    #[test]
    fn a_file_that_cannot_be_used_is_put_aside() {
        let directory = tempfile::tempdir().unwrap();
        fs::write(directory.path().join(FILE), "{\"a\": {\"enabld\": true}}").unwrap();
        let (mut choices, complaint) = Choices::load(directory.path());
        assert!(complaint.unwrap().contains("enabld"));
        choices.decide("a", chosen()).unwrap();
        assert!(directory.path().join("services.json.unusable").exists());
    }
}
