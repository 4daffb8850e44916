//! NoCloud seeds and OpenStack's config drives: file systems with a label, on the disks that are there.

use std::fs::File;
use std::io;
use std::path::Path;

use keelson_config::Diagnostics;
use keelson_config::sources::{Source, nocloud, openstack};

use super::{ReadAt, Volume, fat, iso};

/// Labels, in small letters or capitals. Of several file systems the first label counts.
const NOCLOUD: &str = "cidata";
const CONFIG_DRIVE: &str = "config-2";
const LABELS: [&str; 2] = [NOCLOUD, CONFIG_DRIVE];

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
}

impl Found {
    /// What the files say; `None`, and an error, when it cannot be used.
    pub(crate) fn read(self, diagnostics: &mut Diagnostics) -> Option<Source> {
        let device = self.device;
        match self.files {
            Files::NoCloud(files) => {
                nocloud::read(*files, &format!("the seed on {device}"), diagnostics)
            }
            Files::ConfigDrive(files) => {
                let place = format!("the config drive {device}");
                openstack::read(*files, "configdrive", &place, diagnostics)
            }
        }
    }

    fn label(&self) -> &'static str {
        match self.files {
            Files::NoCloud(_) => NOCLOUD,
            Files::ConfigDrive(_) => CONFIG_DRIVE,
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
            return Ok(None);
        };
    let files = match label {
        NOCLOUD => Some(Files::NoCloud(Box::new(nocloud::Files {
            user_data: volume.file("user-data")?,
            meta_data: volume.file("meta-data")?,
            vendor_data: volume.file("vendor-data")?,
            network_config: volume.file("network-config")?,
        }))),
        _ => config_drive(volume.as_ref())?,
    };
    Ok(files.map(|files| Found {
        device: name.to_owned(),
        files,
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

/// The first data source on the devices that there are now; one that is plugged in later is left alone.
/// Devices that cannot be read are skipped, unless they bear a label: `report` is told.
pub(crate) fn find(
    devices: &[(String, Box<Path>)],
    mut report: impl FnMut(String),
) -> Option<Found> {
    let mut best: Option<Found> = None;
    for (name, path) in devices {
        let Ok(device) = File::open(path) else {
            continue;
        };
        match read(name, &device) {
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
