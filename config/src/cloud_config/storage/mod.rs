//! Disks, file systems, swap and mounts: `device_aliases`, `disk_setup`, `fs_setup`, `swap`, `mounts`, and `rancher.mounts`.
//!
//! They become one service of the system engine, which is given the [`Plan`] on its command line: whoever has none runs none.
//!
//! - [`disks`]: `disk_setup`, `fs_setup`
//! - [`mounts`]: `mounts`, `swap`

mod disks;
mod mounts;

pub(super) use disks::{DISK_SETUP, FS_SETUP};
pub use disks::{Disk, Filesystem, Layout, Partition, Target};
pub(super) use mounts::{MOUNTS, SWAP};
pub use mounts::{Mount, NO_DEVICE, SwapFile, SwapSize, place};

use serde::{Deserialize, Serialize};

use super::{ServiceFile, below};
use crate::diagnostic::Diagnostics;
use crate::yaml::{self, Fields, Node};

/// Name of the service's file.
const NAME: &str = "user-data-storage";

/// What is asked for, in the order in which it is done.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// Partition tables to write.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub disks: Vec<Disk>,
    /// File systems to make.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub filesystems: Vec<Filesystem>,
    /// The file on the state partition that memory is swapped to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub swap: Option<SwapFile>,
    /// What is mounted, and devices that memory is swapped to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub mounts: Vec<Mount>,
}

/// Reads all of it.
pub(super) fn parse(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Plan {
    let aliases = aliases(top, diagnostics);
    let device = |name: &str| device(name, &aliases);
    let mut plan = Plan::default();
    if let Some(node) = top.get("disk_setup") {
        plan.disks = disks::disks(node, &device, diagnostics);
    }
    if let Some(node) = top.get("fs_setup") {
        plan.filesystems = disks::filesystems(node, &device, diagnostics);
    }
    if let Some(node) = top.get("swap") {
        plan.swap = mounts::swap_file(node, diagnostics);
    }
    let defaults = top
        .get("mount_default_fields")
        .map(|node| mounts::fields("mount_default_fields", node, diagnostics))
        .unwrap_or_default();
    if let Some(node) = top.get("mounts") {
        plan.mounts = mounts::parse("mounts", node, &defaults, &device, diagnostics);
    }
    if let Some(node) = below(top, "rancher", "mounts") {
        let more = mounts::parse("rancher.mounts", node, &defaults, &device, diagnostics);
        plan.mounts.extend(more);
    }
    plan
}

/// Names that people give to devices.
fn aliases(top: &Fields<'_>, diagnostics: &mut Diagnostics) -> Vec<(String, String)> {
    let Some(node) = top.get("device_aliases") else {
        return Vec::new();
    };
    let Some(all) = yaml::mapping("device_aliases", node, diagnostics) else {
        return Vec::new();
    };
    let device = |(key, node): &(yaml::Key, Node)| {
        let what = format!("device_aliases.{}", key.text);
        let path = yaml::string(&what, node, diagnostics)?;
        Some((key.text.clone(), path))
    };
    all.iter().filter_map(device).collect()
}

/// A device as mount(8) takes it: `xvdb` is `/dev/xvdb`, `ALIAS.2` the second partition of what ALIAS stands for.
fn device(name: &str, aliases: &[(String, String)]) -> String {
    let (first, part) = match name.rsplit_once('.') {
        Some((first, part)) if part.chars().all(|digit| digit.is_ascii_digit()) => {
            (first, Some(part))
        }
        _ => (name, None),
    };
    let resolved = |alias: &str| {
        let mut all = aliases.iter();
        all.find(|(name, _)| name == alias).map(|(_, path)| path)
    };
    if let Some(path) = resolved(name) {
        return absolute(path);
    }
    match (resolved(first), part) {
        (Some(path), Some("0")) => absolute(path),
        (Some(path), Some(part)) => partition(&absolute(path), part),
        (None, Some(part)) if !first.contains(['/', '=', ':']) => partition(&absolute(first), part),
        _ => absolute(name),
    }
}

fn absolute(name: &str) -> String {
    match name.starts_with('/') || name.contains(['=', ':']) || name == "none" {
        true => name.to_owned(),
        false => format!("/dev/{name}"),
    }
}

/// The device of a disk's partition, as the kernel and udev name it.
pub fn partition(disk: &str, number: &str) -> String {
    if disk.starts_with("/dev/disk/") {
        return format!("{disk}-part{number}");
    }
    match disk.ends_with(|last: char| last.is_ascii_digit()) {
        true => format!("{disk}p{number}"),
        false => format!("{disk}{number}"),
    }
}

impl Plan {
    /// The service that does it; `None` when nothing is asked for.
    pub(super) fn service(&self) -> Option<ServiceFile> {
        if *self == Plan::default() {
            return None;
        }
        // In single quotes, where a dollar sign would be a variable.
        let plan = serde_json::to_string(self).unwrap_or_default();
        let plan = plan.replace('\'', "''").replace('$', "$$");
        let lines = |line: &dyn Fn(&str) -> String| -> String {
            mounts::PLACES.iter().map(|(_, kept)| line(kept)).collect()
        };
        let volumes = lines(&|kept| format!("      - {kept}:{kept}:rshared\n"));
        let directories = lines(&|kept| format!("        - {{path: {kept}, mode: \"0755\"}}\n"));
        let text = format!(
            "# From `disk_setup`, `fs_setup`, `swap` and `mounts` of the configuration; written anew with each boot.
services:
  storage:
    image: keelson/storage
    command:
      - /usr/bin/keelson-storage
      - '{plan}'
    network_mode: none
    read_only: true
    tmpfs: [/run/mount]
    security_opt: [seccomp=unconfined]     # swapon(2)
    cap_add:
      - DAC_OVERRIDE                # makes mount points in homes that are private
      - SYS_ADMIN                   # mounts, swaps, has the kernel read partition tables
    device_cgroup_rules:
      - \"b *:* rwm\"                # reads and writes disks: those that the configuration names
    volumes:
      # Where things are mounted, for all to see.
{volumes}      - /dev:/dev
      - /run/udev:/run/udev:ro
      - /state/storage:/state/storage         # what was done once; the swap file
    restart: \"no\"
    labels: {{io.rancher.os.before: docker}}   # containers find their volumes' disks mounted
    x-keelson:
      after: [udev-coldplug]        # all disks that the machine has are there by then
      ready: notify
      start_timeout: 1h             # file systems are checked
      follows: true
      directories:
{directories}        - {{path: /state/storage, mode: \"0700\"}}
"
        );
        Some(ServiceFile { name: NAME, text })
    }
}

#[cfg(test)]
mod tests;
