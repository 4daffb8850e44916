//! The disks that the machine has: what is on each, and whether the system may be installed on it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use nix::fcntl::OFlag;

use super::layout::{MIB, SECTOR_BYTES, Sizes};
use super::protocol::{Content, Disk};

/// The kernel's unit in /sys, whatever the disk's own is.
const SYS_SECTOR_BYTES: u64 = 512;
/// Device mapper's name for the running root.
const ROOT: &str = "keelson-root";

/// Where the kernel says what there is, and who says more.
#[derive(Clone, Debug)]
pub struct Machine {
    /// `/sys/class/block`
    pub block: PathBuf,
    /// `/dev`
    pub devices: PathBuf,
    /// `/proc/swaps`
    pub swaps: PathBuf,
    /// Says what is on a device.
    pub probe: fn(&Path) -> Probed,
    /// Opens a device for whoever wants it for itself.
    pub claim: fn(&Path) -> io::Result<File>,
}

/// What is on a device.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Probed {
    /// Kind of its file system or the like.
    pub kind: Option<String>,
    /// Its label.
    pub label: Option<String>,
}

impl Machine {
    /// All disks.
    ///
    /// # Errors
    /// The kernel's list cannot be read.
    pub fn disks(&self) -> Result<Vec<Disk>> {
        let mut names = Vec::new();
        let reading = || format!("read {}", self.block.display());
        for entry in fs::read_dir(&self.block).with_context(reading)? {
            let name = entry.with_context(reading)?.file_name();
            let name = name.to_string_lossy().into_owned();
            if self.is_disk(&name) && self.size_bytes(&name) > 0 {
                names.push(name);
            }
        }
        names.sort();
        names.iter().map(|name| self.describe(name)).collect()
    }

    /// The disk at this path, which may be a link.
    ///
    /// # Errors
    /// There is none, or it is something else.
    pub fn disk(&self, path: &Path) -> Result<Disk> {
        let real = fs::canonicalize(path)
            .with_context(|| format!("there is no disk {}", path.display()))?;
        let name = real.file_name().unwrap_or_default().to_string_lossy();
        let entry = self.block.join(&*name);
        ensure!(
            real.starts_with(&self.devices) && entry.exists(),
            "{} is no disk",
            path.display()
        );
        if entry.join("partition").exists() {
            let parent = self.parent(&name).unwrap_or_default();
            anyhow::bail!(
                "{} is a partition: the system is installed on a whole disk, which is {}",
                path.display(),
                self.devices.join(parent).display()
            );
        }
        ensure!(
            self.is_disk(&name),
            "{} is no disk of its own",
            path.display()
        );
        self.describe(&name)
    }

    fn describe(&self, name: &str) -> Result<Disk> {
        let node = self.devices.join(name);
        let mut contents: Vec<Content> = self
            .partitions(name)
            .iter()
            .map(|part| self.content(part))
            .collect();
        let whole = (self.probe)(&node);
        if contents.is_empty() && whole != Probed::default() {
            contents.push(self.content(name));
        }
        Ok(Disk {
            size_bytes: self.size_bytes(name),
            model: self.attribute(name, "device/model"),
            serial: self
                .attribute(name, "serial")
                .or_else(|| self.attribute(name, "device/serial")),
            unfit: self
                .unfit(name, &node)
                .map(|why| format!("{} {why}", node.display())),
            disk: node,
            contents,
        })
    }

    fn content(&self, name: &str) -> Content {
        let node = self.devices.join(name);
        let Probed { kind, label } = (self.probe)(&node);
        let uevent = self.attribute(name, "uevent").unwrap_or_default();
        let named = uevent
            .lines()
            .find_map(|line| line.strip_prefix("PARTNAME="));
        Content {
            device: node,
            size_bytes: self.size_bytes(name),
            name: named.map(str::to_owned),
            kind,
            label,
        }
    }

    /// Why nothing can be installed there.
    fn unfit(&self, name: &str, node: &Path) -> Option<String> {
        if self.roots().contains(name) {
            return Some("is the disk that the running system was started from".to_owned());
        }
        if self.attribute(name, "ro").as_deref() == Some("1") {
            return Some("is write-protected".to_owned());
        }
        match (self.claim)(node) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::ResourceBusy => {
                return Some(format!("is in use: {}", self.users(name)));
            }
            Err(error) => return Some(format!("cannot be opened: {error}")),
        }
        let sector = self.attribute(name, "queue/logical_block_size");
        let sector = sector.unwrap_or_else(|| SECTOR_BYTES.to_string());
        if sector != SECTOR_BYTES.to_string() {
            return Some(format!(
                "has sectors of {sector} bytes, and only disks with sectors of {SECTOR_BYTES} bytes are supported"
            ));
        }
        let size = self.size_bytes(name);
        let smallest = Sizes::shipped().map_or(0, |sizes| sizes.smallest_disk_bytes());
        (size < smallest).then(|| {
            format!(
                "is too small: it has {} MiB, and {} MiB are needed",
                size / MIB,
                smallest / MIB
            )
        })
    }

    /// Who uses the disk, or a part of it: the kernel says only that somebody does.
    fn users(&self, name: &str) -> String {
        let swaps = fs::read_to_string(&self.swaps).unwrap_or_default();
        let mut parts = self.partitions(name);
        parts.push(name.to_owned());
        let mut uses = Vec::new();
        for part in &parts {
            let node = self.devices.join(part);
            let shown = node.display();
            let holders = self.holders(part);
            if !holders.is_empty() {
                uses.push(format!("{shown} is a part of {}", holders.join(", ")));
            } else if swaps
                .lines()
                .any(|line| line.split_whitespace().next() == node.to_str())
            {
                uses.push(format!("memory is swapped to {shown}"));
            } else if *part != name && (self.claim)(&node).is_err() {
                uses.push(format!("{shown} is mounted"));
            }
        }
        match uses.is_empty() {
            true => "it is mounted, or another program has it".to_owned(),
            false => uses.join(", "),
        }
    }

    /// What stands on a device: mappings and arrays, by their names for people.
    fn holders(&self, name: &str) -> Vec<String> {
        let entries = fs::read_dir(self.block.join(name).join("holders"));
        let named = |holder: String| {
            self.attribute(&holder, "dm/name")
                .map(|title| format!("the mapping {title}"))
                .unwrap_or(holder)
        };
        let names = entries.into_iter().flatten().flatten();
        names
            .map(|entry| named(entry.file_name().to_string_lossy().into_owned()))
            .collect()
    }

    /// The disks that are below the running root.
    fn roots(&self) -> BTreeSet<String> {
        let mut roots = BTreeSet::new();
        for entry in fs::read_dir(&self.block).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if self.attribute(&name, "dm/name").as_deref() != Some(ROOT) {
                continue;
            }
            let slaves = fs::read_dir(self.block.join(&name).join("slaves"));
            for slave in slaves.into_iter().flatten().flatten() {
                let slave = slave.file_name().to_string_lossy().into_owned();
                roots.extend(self.parent(&slave));
                roots.insert(slave);
            }
        }
        roots
    }

    /// A disk has no disk above it, and is not made of others.
    fn is_disk(&self, name: &str) -> bool {
        let entry = self.block.join(name);
        let is_made = ["partition", "dm", "loop", "md", "mm_stat"]
            .iter()
            .any(|part| entry.join(part).exists());
        let is_memory = ["ram", "zram", "loop", "nbd"]
            .iter()
            .any(|start| name.starts_with(start));
        !is_made && !is_memory
    }

    fn parent(&self, partition: &str) -> Option<String> {
        if !self.block.join(partition).join("partition").exists() {
            return None;
        }
        let place = fs::canonicalize(self.block.join(partition)).ok()?;
        let parent = place.parent()?.file_name()?.to_str()?;
        Some(parent.to_owned())
    }

    /// The names of a disk's partitions, in order of number.
    fn partitions(&self, disk: &str) -> Vec<String> {
        let entries = fs::read_dir(self.block.join(disk));
        let mut found: BTreeMap<u32, String> = BTreeMap::new();
        for entry in entries.into_iter().flatten().flatten() {
            let number = fs::read_to_string(entry.path().join("partition"));
            if let Some(number) = number.ok().and_then(|text| text.trim().parse().ok()) {
                found.insert(number, entry.file_name().to_string_lossy().into_owned());
            }
        }
        found.into_values().collect()
    }

    fn size_bytes(&self, name: &str) -> u64 {
        let sectors = self
            .attribute(name, "size")
            .and_then(|text| text.parse().ok());
        sectors.unwrap_or(0u64).saturating_mul(SYS_SECTOR_BYTES)
    }

    fn attribute(&self, name: &str, attribute: &str) -> Option<String> {
        let text = fs::read_to_string(self.block.join(name).join(attribute)).ok()?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }
}

/// Opens a device for reading, if nobody uses it (open(2), `O_EXCL` of a block device).
///
/// # Errors
/// What open(2) reports, `EBUSY` when it is in use.
pub fn claim(device: &Path) -> io::Result<File> {
    let mut options = File::options();
    let options = options.read(true).custom_flags(OFlag::O_EXCL.bits());
    options.open(device)
}

/// What blkid(8) finds on a device by its own bytes.
pub fn blkid(device: &Path) -> Probed {
    let mut command = Command::new("blkid");
    command.args(["--probe", "--output", "export"]).arg(device);
    // That nothing is known of it is the worst that can come of an error here.
    let output = command.output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    parse_blkid(&text.unwrap_or_default())
}

fn parse_blkid(text: &str) -> Probed {
    let field = |name: &str| {
        let mut fields = text.lines().filter_map(|line| line.split_once('='));
        let found = fields.find(|(key, _)| *key == name);
        found.map(|(_, value)| value.replace('\\', ""))
    };
    Probed {
        kind: field("TYPE"),
        label: field("LABEL"),
    }
}

#[cfg(test)]
mod tests;
