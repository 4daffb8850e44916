//! What the installation service is asked, over its socket: one request, a line of JSON; answers as of the
//! [upgrade service](crate::protocol).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where it is reached; the engine starts it then.
pub const SOCKET: &str = "/run/keelson/install/install.sock";

/// A request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// [`Vec<Disk>`]
    Disks {},
    /// [`Disk`]: one of them
    Disk {
        /// Its device, or a link to it.
        disk: PathBuf,
    },
    /// [`Installed`], after any number of `progress`
    Install(Wish),
}

/// What is to be installed, and where.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    /// The disk; what is on it is lost.
    pub disk: PathBuf,
    /// A cloud-config for the new system.
    #[serde(default)]
    pub configuration: Option<String>,
    /// Words for its kernel's command line.
    #[serde(default)]
    pub append: Option<String>,
    /// Leaves a disk alone on which Keelson is already: nobody was asked.
    #[serde(default)]
    pub spare_installed: bool,
}

/// A disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Disk {
    /// Its device.
    pub disk: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// What its maker calls it.
    pub model: Option<String>,
    /// Its number, by its maker.
    pub serial: Option<String>,
    /// What is on it: its partitions, or one thing.
    pub contents: Vec<Content>,
    /// Why nothing can be installed on it; a sentence for a person.
    pub unfit: Option<String>,
}

impl Disk {
    /// Whether Keelson is on it.
    pub fn is_installed(&self) -> bool {
        let label = Some(crate::state_partition::LABEL);
        self.contents
            .iter()
            .any(|content| content.name.as_deref() == label)
    }
}

/// A partition, or what takes a whole disk.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Content {
    /// Its device.
    pub device: PathBuf,
    /// Its size.
    pub size_bytes: u64,
    /// Its name in the partition table.
    pub name: Option<String>,
    /// Kind of its file system or the like.
    pub kind: Option<String>,
    /// Its file system's label.
    pub label: Option<String>,
}

/// What an installation has done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Installed {
    /// The version.
    pub version: String,
    /// The disk.
    pub disk: PathBuf,
    /// Bytes of the root image, each of which was read back.
    pub root_bytes: u64,
}
