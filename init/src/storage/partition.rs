//! The block devices that the kernel knows, from /sys/class/block.

use super::gpt::{SECTOR_BYTES, Table};
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

/// A block device: a disk or a partition.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Device {
    /// The kernel's name, like `vda2`.
    pub(crate) name: String,
    /// The name of the disk that it is on, or is.
    pub(crate) disk: String,
    /// A partition's number.
    pub(crate) number: Option<u32>,
    /// A partition's name, when the kernel gives it.
    pub(crate) label: Option<String>,
    /// A partition's unique identifier in lower case, when the kernel gives it (6.13 and later).
    pub(crate) uuid: Option<String>,
    /// Its size, in bytes.
    pub(crate) size_bytes: u64,
    /// It cannot be written.
    pub(crate) read_only: bool,
}

impl Device {
    /// Its node.
    pub(crate) fn node(&self) -> PathBuf {
        Path::new("/dev").join(&self.name)
    }

    /// The node of the disk that it is on.
    pub(crate) fn disk_node(&self) -> PathBuf {
        Path::new("/dev").join(&self.disk)
    }
}

/// All block devices with a medium, by name. One that goes away meanwhile is left out.
pub(crate) fn list(class: &Path) -> Vec<Device> {
    let mut devices: Vec<Device> = fs::read_dir(class)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| describe(&entry.path()))
        .filter(|device| device.size_bytes > 0)
        .collect();
    devices.sort_by(|a, b| a.name.cmp(&b.name));
    devices
}

fn describe(path: &Path) -> Option<Device> {
    let name = path.file_name()?.to_str()?.to_owned();
    let real = fs::canonicalize(path).ok()?;
    let attribute = |name: &str| {
        fs::read_to_string(path.join(name))
            .ok()
            .map(|text| text.trim().to_owned())
    };
    let uevent = attribute("uevent").unwrap_or_default();
    let property = |key: &str| {
        let value = uevent
            .lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix('='));
        value.map(str::to_owned)
    };
    let number = attribute("partition").and_then(|text| text.parse().ok());
    let disk = match number {
        Some(_) => real.parent()?.file_name()?.to_str()?.to_owned(),
        None => name.clone(),
    };
    Some(Device {
        disk,
        number,
        label: property("PARTNAME"),
        uuid: property("PARTUUID").map(|uuid| uuid.to_ascii_lowercase()),
        size_bytes: attribute("size")?
            .parse::<u64>()
            .ok()?
            .checked_mul(SECTOR_BYTES)?,
        read_only: attribute("ro").as_deref() == Some("1"),
        name,
    })
}

/// Fills in the identifiers and names that the kernel does not give, from the partition tables themselves.
pub(crate) fn identify(devices: &mut [Device]) {
    let mut tables: BTreeMap<String, Option<Table>> = BTreeMap::new();
    for device in devices
        .iter_mut()
        .filter(|device| device.number.is_some() && device.uuid.is_none())
    {
        let table = tables
            .entry(device.disk.clone())
            .or_insert_with(|| read_table(&device.disk_node()).ok());
        let entry = table.as_ref().and_then(|table| {
            table
                .partitions()
                .find(|entry| Some(entry.number) == device.number)
        });
        if let Some(entry) = entry {
            device.uuid = Some(entry.uuid);
            device.label = Some(entry.label);
        }
    }
}

/// Reads a disk's partition table.
pub(crate) fn read_table(disk: &Path) -> Result<Table> {
    let file = File::open(disk).with_context(|| format!("open {}", disk.display()))?;
    let size_bytes = keelson_sys::block::size_bytes(&file)
        .with_context(|| format!("size of {}", disk.display()))?;
    Table::read(&file, size_bytes).with_context(|| disk.display().to_string())
}

/// One line for people: `vda (21 MiB), vda1 "esp" (16 MiB)`.
pub(crate) fn describe_all(devices: &[Device]) -> String {
    if devices.is_empty() {
        return "none".to_owned();
    }
    let one = |device: &Device| {
        let label = device
            .label
            .as_ref()
            .map(|label| format!(" \"{label}\""))
            .unwrap_or_default();
        format!("{}{label} ({} MiB)", device.name, device.size_bytes >> 20)
    };
    devices.iter().map(one).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(root: &Path, path: &str, attributes: &[(&str, &str)]) {
        let device = root.join("devices").join(path);
        fs::create_dir_all(&device).unwrap();
        for (name, value) in attributes {
            fs::write(device.join(name), value).unwrap();
        }
        let class = root.join("class");
        fs::create_dir_all(&class).unwrap();
        std::os::unix::fs::symlink(&device, class.join(device.file_name().unwrap())).unwrap();
    }

    #[test]
    fn disks_and_partitions_are_listed_by_name() {
        let root = tempfile::tempdir().unwrap();
        add(
            root.path(),
            "vda",
            &[
                ("size", "2048\n"),
                ("ro", "0\n"),
                ("uevent", "DEVNAME=vda\n"),
            ],
        );
        add(
            root.path(),
            "vda/vda2",
            &[
                ("size", "1024\n"),
                ("ro", "1\n"),
                ("partition", "2\n"),
                ("uevent", "PARTNAME=keelson-a\nPARTUUID=AB-1\n"),
            ],
        );
        add(
            root.path(),
            "sr0",
            &[("size", "0\n"), ("ro", "0\n"), ("uevent", "")],
        );
        let devices = list(&root.path().join("class"));
        assert_eq!(
            describe_all(&devices),
            "vda (1 MiB), vda2 \"keelson-a\" (0 MiB)"
        );
        let slot = &devices[1];
        assert_eq!(
            (slot.disk.as_str(), slot.number, slot.uuid.as_deref()),
            ("vda", Some(2), Some("ab-1"))
        );
        assert!(slot.read_only && !devices[0].read_only);
    }

    #[test]
    fn no_devices_are_none() {
        assert_eq!(describe_all(&list(Path::new("/nonexistent"))), "none");
    }
}
