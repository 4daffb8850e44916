//! Device nodes in the container and the devices that its cgroup may open.

use crate::compose::Definition;
use nix::sys::stat::{SFlag, major, minor};
use serde_json::{Value, json};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Nodes and rules of one container.
#[derive(Debug, Default, PartialEq)]
pub struct Devices {
    /// `linux.devices`.
    pub nodes: Vec<Value>,
    /// `linux.resources.devices`: everything is denied first.
    pub rules: Vec<Value>,
}

/// What every container may use: null, zero, full, random, urandom, tty, ptmx and pseudo terminals.
const STANDARD: [(i64, Option<i64>); 8] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (136, None),
];

/// The number of a disk, by its node or that of one of its partitions: limits are on whole disks.
pub(super) fn disk(path: &Path) -> std::io::Result<(u64, u64)> {
    let stat = std::fs::metadata(path)?;
    if SFlag::from_bits_truncate(stat.mode() & SFlag::S_IFMT.bits()) != SFlag::S_IFBLK {
        return Err(std::io::Error::other("it is not a block device"));
    }
    let (major, minor) = (major(stat.rdev()), minor(stat.rdev()));
    let device = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
    if !device.join("partition").exists() {
        return Ok((major, minor));
    }
    let whole = std::fs::canonicalize(device)?.join("../dev");
    let text = std::fs::read_to_string(whole)?;
    let number = text.trim().split_once(':');
    number
        .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)))
        .ok_or_else(|| std::io::ErrorKind::InvalidData.into())
}

/// Looks the service's devices up on this machine. One that does not exist is left out with a warning: what hardware
/// there is must not decide whether the system boots.
pub(super) fn resolve(definition: &Definition, warnings: &mut Vec<String>) -> Devices {
    let service = &definition.service;
    if service.privileged {
        return Devices {
            nodes: Vec::new(),
            rules: vec![json!({ "allow": true, "access": "rwm" })],
        };
    }
    let mut devices = Devices::default();
    devices
        .rules
        .push(json!({ "allow": false, "access": "rwm" }));
    for (major, minor) in STANDARD {
        devices.rules.push(rule('c', Some(major), minor, "rwm"));
    }
    let own_dev = super::mounts::replaces_dev(definition);
    for device in &service.devices {
        let stat = match std::fs::metadata(&device.source) {
            Ok(stat) => stat,
            Err(error) => {
                warnings.push(format!("device {} is left out: {error}", device.source));
                continue;
            }
        };
        let kind = match SFlag::from_bits_truncate(stat.mode() & SFlag::S_IFMT.bits()) {
            SFlag::S_IFCHR => 'c',
            SFlag::S_IFBLK => 'b',
            _ => {
                warnings.push(format!(
                    "device {} is left out: it is not a device node",
                    device.source
                ));
                continue;
            }
        };
        let (major, minor) = (major(stat.rdev()) as i64, minor(stat.rdev()) as i64);
        devices
            .rules
            .push(rule(kind, Some(major), Some(minor), &device.permissions));
        if !own_dev {
            devices.nodes.push(json!({
                "path": device.target, "type": kind.to_string(), "major": major, "minor": minor,
                "fileMode": stat.mode() & 0o7777, "uid": stat.uid(), "gid": stat.gid(),
            }));
        }
    }
    for given in &service.device_cgroup_rules {
        devices.rules.push(rule(
            given.kind,
            given.major,
            given.minor,
            &given.permissions,
        ));
    }
    devices
}

/// A rule of `linux.resources.devices`; a number left out is every number.
fn rule(kind: char, major: Option<i64>, minor: Option<i64>, access: &str) -> Value {
    let mut rule = json!({ "allow": true, "type": kind.to_string(), "access": access });
    for (key, number) in [("major", major), ("minor", minor)] {
        if let Some(number) = number {
            rule[key] = number.into();
        }
    }
    rule
}
