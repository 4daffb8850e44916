use super::*;
use std::os::unix::fs::symlink;

fn nothing(_: &Path) -> Probed {
    Probed::default()
}

/// A machine of files: `/sys/class/block`, `/dev`, and disks that are free.
fn machine(root: &Path) -> Machine {
    for name in ["class", "dev"] {
        fs::create_dir_all(root.join(name)).unwrap();
    }
    Machine {
        block: root.join("class"),
        devices: root.join("dev"),
        swaps: root.join("swaps"),
        probe: nothing,
        claim,
    }
}

/// Adds a device (`vdb`, or `vdb/vdb1`) with its attributes.
fn add(root: &Path, path: &str, size_bytes: u64, attributes: &[(&str, &str)]) {
    let place = root.join("devices").join(path);
    fs::create_dir_all(&place).unwrap();
    let size = (size_bytes / SYS_SECTOR_BYTES).to_string();
    for (name, value) in attributes.iter().chain(&[("size", size.as_str())]) {
        let file = place.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, value).unwrap();
    }
    let name = place.file_name().unwrap().to_owned();
    symlink(&place, root.join("class").join(&name)).unwrap();
    let node = File::create(root.join("dev").join(&name)).unwrap();
    node.set_len(size_bytes).unwrap();
}

fn unfit(machine: &Machine, name: &str) -> String {
    let disk = machine.disk(&machine.devices.join(name)).unwrap();
    let why = disk.unfit.unwrap_or_default();
    why.replace(machine.devices.to_str().unwrap(), "/dev")
}

#[test]
fn a_disk_shows_what_is_on_it() {
    let root = tempfile::tempdir().unwrap();
    let mut machine = machine(root.path());
    machine.probe = |path| {
        let is_data = path.ends_with("vdb2");
        Probed {
            kind: Some(if is_data { "ext4" } else { "vfat" }.to_owned()),
            label: is_data.then(|| "photos".to_owned()),
        }
    };
    add(root.path(), "vdb", 2 << 30, &[("device/model", "Disk 9\n")]);
    let esp = [("partition", "1"), ("uevent", "X=1\nPARTNAME=esp\n")];
    add(root.path(), "vdb/vdb1", 1 << 20, &esp);
    add(root.path(), "vdb/vdb2", 1 << 30, &[("partition", "2")]);
    let disks = machine.disks().unwrap();
    let [disk] = disks.as_slice() else {
        panic!("{disks:?}")
    };
    assert_eq!(disk.model.as_deref(), Some("Disk 9"));
    assert_eq!(disk.unfit, None);
    let [first, second] = disk.contents.as_slice() else {
        panic!("{disk:?}")
    };
    assert_eq!(first.name.as_deref(), Some("esp"));
    assert_eq!(second.label.as_deref(), Some("photos"));
    assert_eq!(second.kind.as_deref(), Some("ext4"));
}

#[test]
fn disks_that_are_used_small_or_of_another_kind_are_refused_and_it_is_said_why() {
    let root = tempfile::tempdir().unwrap();
    let mut machine = machine(root.path());
    let size = 2 << 30;
    machine.claim = |path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        match ["vdc", "vdc1", "vdd", "vde", "vde1"].contains(&name) {
            true => Err(io::ErrorKind::ResourceBusy.into()),
            false => File::open(path),
        }
    };
    add(root.path(), "vda", size, &[]);
    add(root.path(), "vda/vda2", size, &[("partition", "2")]);
    add(
        root.path(),
        "dm-0",
        size,
        &[("dm/name", "keelson-root"), ("slaves/vda2", "")],
    );
    add(root.path(), "dm-1", size, &[("dm/name", "vault")]);
    add(root.path(), "vdc", size, &[]);
    add(root.path(), "vdc/vdc1", size, &[("partition", "1")]);
    add(root.path(), "vdd", size, &[("holders/dm-1", "")]);
    add(root.path(), "vde", size, &[]);
    add(root.path(), "vde/vde1", size, &[("partition", "1")]);
    let swaps = format!(
        "Filename Type\n{}/vde1 partition\n",
        machine.devices.display()
    );
    fs::write(&machine.swaps, swaps).unwrap();
    add(root.path(), "vdf", size, &[("ro", "1\n")]);
    add(
        root.path(),
        "vdg",
        size,
        &[("queue/logical_block_size", "4096\n")],
    );
    add(root.path(), "vdh", 500 << 20, &[]);
    for (name, why) in [
        (
            "vda",
            "/dev/vda is the disk that the running system was started from",
        ),
        ("vdc", "/dev/vdc is in use: /dev/vdc1 is mounted"),
        (
            "vdd",
            "/dev/vdd is in use: /dev/vdd is a part of the mapping vault",
        ),
        ("vde", "/dev/vde is in use: memory is swapped to /dev/vde1"),
        ("vdf", "/dev/vdf is write-protected"),
        (
            "vdg",
            "/dev/vdg has sectors of 4096 bytes, and only disks with sectors of 512 bytes are supported",
        ),
        (
            "vdh",
            "/dev/vdh is too small: it has 500 MiB, and 707 MiB are needed",
        ),
    ] {
        assert_eq!(unfit(&machine, name), why);
    }
    for (name, part) in [
        ("vda2", "is a partition"),
        ("dm-1", "is no disk of its own"),
        ("vdz", "there is no disk"),
    ] {
        let error = machine.disk(&machine.devices.join(name)).unwrap_err();
        assert!(format!("{error:#}").contains(part), "{error:#}");
    }
    let names = machine.disks().unwrap().len();
    assert_eq!(names, 7);
}

#[test]
fn what_blkid_says_is_read() {
    let probed = parse_blkid("DEVNAME=/dev/vdb\nLABEL=my\\ disk\nTYPE=ext4\n");
    assert_eq!(probed.label.as_deref(), Some("my disk"));
    assert_eq!(probed.kind.as_deref(), Some("ext4"));
}
