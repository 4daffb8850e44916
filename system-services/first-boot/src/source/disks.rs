//! NoCloud seeds, OpenStack's config drives, and discs with an `ovf-env.xml`, on the disks that are there.

use std::fs::File;
use std::io;
use std::path::Path;

use keelson_config::Diagnostics;
use keelson_config::sources::machine::Machine;
use keelson_config::sources::{Source, nocloud, openstack, ovf};

use super::{ReadAt, Volume, fat, iso, udf};

/// Labels, in small letters or capitals. Of several file systems the first label counts.
const NOCLOUD: &str = "cidata";
const CONFIG_DRIVE: &str = "config-2";
/// Discs of vSphere and of others that know OVF.
const OVF: [&str; 3] = ["ovf env", "ovfenv", "ovf-transport"];
const LABELS: [&str; 5] = [NOCLOUD, CONFIG_DRIVE, OVF[0], OVF[1], OVF[2]];

/// Files of a data source, and the device they were found on.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Found {
    device: String,
    files: Files,
}

#[derive(Debug, PartialEq, Eq)]
enum Files {
    NoCloud(Box<nocloud::Files>),
    ConfigDrive(Box<openstack::Files>),
    Ovf(Vec<u8>),
}

impl Found {
    /// What the files say to the machine with this `product_uuid`; `None`, and an error, when it cannot be used.
    pub(crate) fn read(self, uuid: &str, diagnostics: &mut Diagnostics) -> Option<Source> {
        let device = self.device;
        match self.files {
            Files::NoCloud(files) => {
                nocloud::read(*files, &format!("the seed on {device}"), diagnostics)
            }
            Files::ConfigDrive(files) => {
                let place = format!("the config drive {device}");
                openstack::read(*files, "configdrive", &place, diagnostics)
            }
            Files::Ovf(xml) => {
                let place = format!("{} on {device}", ovf::FILE);
                ovf::read(&xml, uuid, &place, diagnostics)
            }
        }
    }

    fn is_allowed(&self, machine: &Machine) -> bool {
        match self.files {
            Files::NoCloud(_) => machine.allows("nocloud"),
            Files::ConfigDrive(_) => machine.allows("configdrive"),
            // Which of the two it is, its content tells.
            Files::Ovf(_) => machine.allows("ovf") || machine.allows("azure"),
        }
    }

    fn label(&self) -> &'static str {
        match self.files {
            Files::NoCloud(_) => NOCLOUD,
            Files::ConfigDrive(_) => CONFIG_DRIVE,
            Files::Ovf(_) => OVF[0],
        }
    }
}

/// What `device` holds; `None` when it is no file system with one of the labels.
///
/// # Errors
/// What reading reports, or what is wrong with a file system that has the label.
pub(crate) fn read(name: &str, device: &impl ReadAt) -> io::Result<Option<Found>> {
    let (volume, label): (Box<dyn Volume + '_>, &str) =
        if let Some((volume, label)) = fat::open(device, &LABELS)? {
            (Box::new(volume), label)
        } else if let Some((volume, label)) = iso::open(device, &LABELS)? {
            (Box::new(volume), label)
        } else {
            return udf_disc(name, device);
        };
    let files = match label {
        NOCLOUD => Some(Files::NoCloud(Box::new(nocloud::Files {
            user_data: volume.file("user-data")?,
            meta_data: volume.file("meta-data")?,
            vendor_data: volume.file("vendor-data")?,
            network_config: volume.file("network-config")?,
        }))),
        CONFIG_DRIVE => config_drive(volume.as_ref())?,
        _ => volume.file(ovf::FILE)?.map(Files::Ovf),
    };
    Ok(files.map(|files| Found {
        device: name.to_owned(),
        files,
    }))
}

/// Azure gives its discs a label that changes: the file tells. What cannot be read, and what is no such disc, is somebody else's.
fn udf_disc(name: &str, device: &impl ReadAt) -> io::Result<Option<Found>> {
    let file = || match udf::open(device)? {
        Some(volume) => volume.file(ovf::FILE),
        None => Ok(None),
    };
    let found = match file() {
        Err(error) if error.kind() == io::ErrorKind::InvalidData => None,
        other => other?,
    };
    Ok(found.map(|xml| Found {
        device: name.to_owned(),
        files: Files::Ovf(xml),
    }))
}

/// The documents of the newest version that there is and that is understood.
fn config_drive(volume: &dyn Volume) -> io::Result<Option<Files>> {
    for version in openstack::VERSIONS {
        let file = |name: &str| volume.file(&format!("openstack/{version}/{name}"));
        let Some(meta_data) = file("meta_data.json")? else {
            continue;
        };
        return Ok(Some(Files::ConfigDrive(Box::new(openstack::Files {
            meta_data,
            user_data: file("user_data")?,
            vendor_data: file("vendor_data.json")?,
            vendor_data_2: file("vendor_data2.json")?,
            network_data: file("network_data.json")?,
        }))));
    }
    Ok(None)
}

/// The first data source on the devices that there are now, of those that are allowed; one that is plugged in later is left alone.
/// Devices that cannot be read are skipped, unless they bear a label: `report` is told.
pub(crate) fn find(
    devices: &[(String, Box<Path>)],
    machine: &Machine,
    mut report: impl FnMut(String),
) -> Option<Found> {
    let mut best: Option<Found> = None;
    for (name, path) in devices {
        let Ok(device) = File::open(path) else {
            continue;
        };
        match read(name, &device) {
            Ok(Some(found)) if !found.is_allowed(machine) => {}
            Ok(Some(found)) if found.label() == NOCLOUD => return Some(found),
            Ok(Some(found)) => best = best.or(Some(found)),
            Ok(None) => {}
            // Only a broken file system gives this kind: empty drives and the like give others.
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                report(format!("read the seed on {name}: {error}"))
            }
            Err(_) => {}
        }
    }
    best
}

#[cfg(test)]
mod tests;
