//! Credentials in the firmware's tables, as the kernel shows them.

use std::fs;
use std::io::Read as _;
use std::path::Path;

use keelson_config::sources::Source;
use keelson_config::sources::credentials::{self, Credentials};
use keelson_config::{Diagnostics, MAX_DOCUMENT_BYTES};

use crate::report::Report;

/// Items of QEMU's `fw_cfg` that are credentials.
const ITEMS: &str = "qemu_fw_cfg/by_name/opt/io.systemd.credentials";
const TABLE: &str = "dmi/tables/DMI";

/// What the tables below `firmware`, which is `/sys/firmware`, say of a machine with this `product_uuid`. Of two of one name
/// `fw_cfg`'s counts.
pub(crate) fn find(
    firmware: &Path,
    uuid: &str,
    diagnostics: &mut Diagnostics,
    report: &mut Report,
) -> Option<Source> {
    let table = fs::read(firmware.join(TABLE)).unwrap_or_default();
    let mut given = credentials::of_smbios(&table, diagnostics);
    given.extend(items(&firmware.join(ITEMS), report));
    credentials::read(given, uuid, diagnostics)
}

/// Each item is a directory with its content in `raw`.
fn items(directory: &Path, report: &mut Report) -> Credentials {
    let mut all = Credentials::new();
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let limit = MAX_DOCUMENT_BYTES as u64;
        let mut content = Vec::new();
        let read = fs::File::open(entry.path().join("raw"))
            .and_then(|file| file.take(limit + 1).read_to_end(&mut content));
        match read {
            Ok(_) if content.len() as u64 > limit => {
                report.error(format!(
                    "credential {name}: larger than {limit} bytes; it is not used"
                ));
            }
            Ok(_) => drop(all.insert(name, content)),
            Err(error) => report.error(format!("read the credential {name}: {error}")),
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn items_are_credentials_by_their_names() {
        let firmware = tempfile::tempdir().unwrap();
        let mut report = Report::quiet();
        let mut find = || {
            find(
                firmware.path(),
                "4C4C",
                &mut Diagnostics::new(""),
                &mut report,
            )
        };
        assert_eq!(find(), None);
        let item = firmware.path().join(ITEMS).join("keelson.user-data");
        fs::create_dir_all(&item).unwrap();
        fs::write(item.join("raw"), "#!/bin/sh\n").unwrap();
        let found = find().unwrap();
        assert_eq!(
            (found.instance_id.as_str(), found.user_data.as_deref()),
            ("4c4c", Some(&b"#!/bin/sh\n"[..]))
        );
        fs::write(item.join("raw"), vec![b'x'; MAX_DOCUMENT_BYTES + 1]).unwrap();
        assert_eq!(find(), None);
        assert_eq!(report.errors().len(), 1);
    }
}
