//! Debian packages: resolved, downloaded and verified by apt, unpacked without their scripts.
//!
//! - `apt.rs`: apt with lists, status and archives of its own, nothing installed
//! - `deb.rs`: unpacks a package into a tree

mod apt;
mod deb;

use serde::{Deserialize, Serialize};

pub(crate) use apt::{archive_path, closure, exact, fetch, update};
pub(crate) use deb::unpack;

/// Source text of this folder, an input of the steps that use it.
pub(crate) const CODE: &[&str] = &[include_str!("apt.rs"), include_str!("deb.rs")];

/// A package in the version that apt chose.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Package {
    /// Package name.
    pub(crate) name: String,
    /// Version, with its epoch.
    pub(crate) version: String,
    /// Architecture, `all` for independent ones.
    pub(crate) architecture: String,
    /// Name of the .deb file in the archives folder.
    pub(crate) file: String,
    /// Size of the .deb in bytes.
    pub(crate) size_bytes: u64,
    /// SHA-256 of the .deb in hex, from the archive's signed lists.
    pub(crate) sha256: String,
}
