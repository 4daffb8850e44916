//! The block devices that there are.

use std::fs;
use std::path::Path;

/// Name and node of each disk and partition that has a medium, in order of name.
pub(crate) fn block_devices(sys: &Path, dev: &Path) -> Vec<(String, Box<Path>)> {
    let Ok(entries) = fs::read_dir(sys.join("class/block")) else {
        return Vec::new();
    };
    let mut devices: Vec<_> = entries
        .filter_map(|entry| {
            let name = entry.ok()?.file_name().into_string().ok()?;
            if ["loop", "ram", "zram", "dm-", "nbd"]
                .iter()
                .any(|prefix| name.starts_with(prefix))
            {
                return None;
            }
            let size = fs::read_to_string(sys.join("class/block").join(&name).join("size")).ok()?;
            if size.trim() == "0" {
                return None;
            }
            // The kernel writes a slash in a device's name as an exclamation mark.
            let node = dev.join(name.replace('!', "/")).into_boxed_path();
            Some((name, node))
        })
        .collect();
    devices.sort();
    devices
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn devices_with_a_medium_are_listed_in_order() {
        let directory = tempfile::tempdir().unwrap();
        for (name, size) in [
            ("vdb", "2048"),
            ("sr0", "0"),
            ("loop0", "8"),
            ("vda1", "2048"),
            ("cciss!c0d0", "8"),
        ] {
            let path = directory.path().join("class/block").join(name);
            fs::create_dir_all(&path).unwrap();
            fs::write(path.join("size"), format!("{size}\n")).unwrap();
        }
        let found = block_devices(directory.path(), Path::new("/dev"));
        let nodes: Vec<_> = found
            .iter()
            .map(|(_, node)| node.to_str().unwrap())
            .collect();
        assert_eq!(nodes, ["/dev/cciss/c0d0", "/dev/vda1", "/dev/vdb"]);
        assert_eq!(
            block_devices(Path::new("/nonexistent"), Path::new("/dev")),
            []
        );
    }
}
