//! Seeds made by the tools that people make them with, and seeds that are broken.

use std::path::Path;
use std::process::Command;

use keelson_config::sources::choice::Choice;
use proptest::prelude::*;

use super::super::bytes;
use super::*;

impl ReadAt for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start
            .checked_add(buffer.len())
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }
}

/// Runs a tool; `false` when it is not there, as on a machine that only compiles.
fn run(program: &str, arguments: &[&str], directory: &Path) -> bool {
    match Command::new(program)
        .args(arguments)
        .current_dir(directory)
        .output()
    {
        Ok(output) => {
            assert!(
                output.status.success(),
                "{program}: {}",
                String::from_utf8_lossy(&output.stderr)
            );
            true
        }
        Err(_) => {
            eprintln!("skipped: no {program}");
            false
        }
    }
}

fn files(directory: &Path) {
    std::fs::write(
        directory.join("user-data"),
        format!("#cloud-config\n{}", "# long\n".repeat(2000)),
    )
    .unwrap();
    std::fs::write(directory.join("meta-data"), "instance-id: i-1\n").unwrap();
    std::fs::write(directory.join("network-config"), "version: 2\n").unwrap();
}

fn check(image: &[u8]) {
    let seed = read("vdb", &image.to_vec()).unwrap().expect("a seed");
    assert_eq!(seed.device, "vdb");
    let Files::NoCloud(files) = seed.files else {
        panic!()
    };
    assert_eq!(files.user_data.unwrap().len(), 14 + 7 * 2000);
    assert_eq!(files.meta_data.unwrap(), b"instance-id: i-1\n");
    assert_eq!(files.network_config.unwrap(), b"version: 2\n");
    assert_eq!(files.vendor_data, None);
}

fn fat_image(label: &str, kibibytes: &str, bits: &str) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path());
    let made = run(
        "mkfs.vfat",
        &["-C", "-F", bits, "-n", label, "seed", kibibytes],
        directory.path(),
    ) && run(
        "mcopy",
        &[
            "-i",
            "seed",
            "user-data",
            "meta-data",
            "network-config",
            "::",
        ],
        directory.path(),
    );
    made.then(|| std::fs::read(directory.path().join("seed")).unwrap())
}

fn iso_image(options: &[&str]) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    files(directory.path());
    let mut arguments = vec!["-as", "mkisofs", "-quiet", "-o", "seed", "-V", "cidata"];
    arguments.extend(options);
    arguments.extend(["user-data", "meta-data", "network-config"]);
    run("xorriso", &arguments, directory.path())
        .then(|| std::fs::read(directory.path().join("seed")).unwrap())
}

#[test]
fn fat_of_each_width_is_read_also_where_it_is_small() {
    for (kibibytes, bits) in [
        ("2048", "12"),
        ("16384", "16"),
        ("16384", "32"),
        ("65536", "32"),
    ] {
        for label in ["cidata", "CIDATA"] {
            if let Some(image) = fat_image(label, kibibytes, bits) {
                check(&image);
            }
        }
    }
}

#[test]
fn iso_9660_is_read_with_rock_ridge_and_with_joliet_names() {
    for options in [&["-r"][..], &["-J"], &["-r", "-J"]] {
        if let Some(image) = iso_image(options) {
            check(&image);
        }
    }
}

/// A config drive made by the tool with those options.
fn config_drive_image(fat: bool) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    for version in ["2012-08-10", "2018-08-27", "latest", "2099-01-01"] {
        let path = directory.path().join("openstack").join(version);
        std::fs::create_dir_all(&path).unwrap();
        std::fs::write(
            path.join("meta_data.json"),
            format!("{{\"uuid\": \"{version}\"}}"),
        )
        .unwrap();
    }
    std::fs::write(
        directory.path().join("openstack/2018-08-27/user_data"),
        "#!/bin/sh\n",
    )
    .unwrap();
    let made = match fat {
        true => {
            run(
                "mkfs.vfat",
                &["-C", "-n", "CONFIG-2", "seed", "2048"],
                directory.path(),
            ) && run(
                "mcopy",
                &["-s", "-i", "seed", "openstack", "::"],
                directory.path(),
            )
        }
        false => {
            let options = [
                "-as",
                "mkisofs",
                "-quiet",
                "-o",
                "seed",
                "-V",
                "config-2",
                "-r",
                "-J",
                "-graft-points",
                "openstack=openstack",
            ];
            run("xorriso", &options, directory.path())
        }
    };
    made.then(|| std::fs::read(directory.path().join("seed")).unwrap())
}

#[test]
fn a_config_drive_is_read_in_the_newest_version_that_is_understood() {
    for fat in [true, false] {
        let Some(image) = config_drive_image(fat) else {
            return;
        };
        let found = read("vdb", &image).unwrap().expect("a config drive");
        let mut diagnostics = Diagnostics::new("");
        let source = found.read("", &mut diagnostics).unwrap();
        assert_eq!(source.instance_id, "2018-08-27");
        assert_eq!(source.user_data.as_deref(), Some(&b"#!/bin/sh\n"[..]));
        assert_eq!(source.place, "the config drive vdb");
    }
}

#[test]
fn other_labels_and_other_contents_are_no_seed() {
    if let Some(image) = fat_image("data", "2048", "12") {
        assert_eq!(read("vdb", &image).unwrap(), None);
    }
    assert_eq!(read("vdb", &vec![0; 1 << 16]).unwrap(), None);
    assert_eq!(read("vdb", &vec![0xff; 1 << 16]).unwrap(), None);
}

#[test]
fn a_device_that_is_too_short_is_an_error_and_no_panic() {
    assert!(read("vdb", &vec![0; 100]).is_err());
}

#[test]
fn the_seed_is_found_among_devices_that_cannot_be_read() {
    let Some(image) = fat_image("cidata", "2048", "12") else {
        return;
    };
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("vda"), vec![0; 1 << 16]).unwrap();
    std::fs::write(directory.path().join("vdb"), image).unwrap();
    let devices: Vec<(String, Box<Path>)> = ["gone", "vda", "vdb"]
        .iter()
        .map(|name| ((*name).to_owned(), directory.path().join(name).into()))
        .collect();
    let mut reports = Vec::new();
    assert_eq!(
        find(&devices, &Machine::default(), |report| reports.push(report))
            .unwrap()
            .device,
        "vdb"
    );
    assert_eq!(reports, Vec::<String>::new());
    let found = |line: &str| {
        let machine = Machine {
            command_line: line.to_owned(),
            choice: Choice::new(Some(vec!["configdrive".into()]), None),
            ..Machine::default()
        };
        find(&devices, &machine, |_| ()).is_some()
    };
    assert!(!found("quiet") && found("ds=nocloud"));
}

#[test]
fn a_labelled_volume_whose_chains_are_broken_is_reported() {
    let Some(mut image) = fat_image("cidata", "2048", "12") else {
        return;
    };
    let sector = usize::from(bytes::u16_at(&image, 11));
    let table = usize::from(bytes::u16_at(&image, 14)) * sector;
    image[table..table + sector].fill(0xee);
    let error = read("vdb", &image).map(|_| ()).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::InvalidData, "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_seed_is_read_or_refused(damage in prop::collection::vec((0..60_000_usize, any::<u8>()), 1..200), fat in any::<bool>()) {
        use std::sync::OnceLock;
        static IMAGES: OnceLock<[Option<Vec<u8>>; 2]> = OnceLock::new();
        let images = IMAGES.get_or_init(|| [fat_image("cidata", "2048", "12"), iso_image(&["-r", "-J"])]);
        let Some(image) = &images[usize::from(!fat)] else { return Ok(()) };
        let mut image = image.clone();
        for (offset, value) in damage {
            // Most of the damage where the structures are.
            let offset = if fat { offset / 4 } else { 16 * 2048 + offset / 2 };
            if let Some(byte) = image.get_mut(offset) {
                *byte = value;
            }
        }
        let _ = read("vdb", &image);
    }
}

const ENVIRONMENT: &str = r#"<Environment xmlns="http://schemas.dmtf.org/ovf/environment/1" xmlns:wa="http://schemas.microsoft.com/windowsazure"><wa:ProvisioningSection>
<LinuxProvisioningConfigurationSet xmlns="http://schemas.microsoft.com/windowsazure"><HostName>node</HostName></LinuxProvisioningConfigurationSet></wa:ProvisioningSection></Environment>"#;

/// A volume with `ovf-env.xml`, of that label; with `udf` that is UDF, and ISO 9660 beside it, which is made unrecognisable.
fn environment(label: &str, udf: bool) -> Option<Vec<u8>> {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("tree")).unwrap();
    std::fs::write(directory.path().join("tree/ovf-env.xml"), ENVIRONMENT).unwrap();
    std::fs::write(directory.path().join("tree/large"), vec![b'x'; 100_000]).unwrap();
    let mut arguments = vec!["-quiet", "-V", label, "-o", "disc"];
    arguments.push(if udf { "-udf" } else { "-R" });
    arguments.push("tree");
    if !run("genisoimage", &arguments, directory.path()) {
        return None;
    }
    let mut image = std::fs::read(directory.path().join("disc")).unwrap();
    if udf {
        for sector in 16..32 {
            let name = &mut image[sector * 2048 + 1..sector * 2048 + 6];
            if name == b"CD001" {
                name.copy_from_slice(b"BOOT2");
            }
        }
    }
    Some(image)
}

#[test]
fn environments_are_read_from_udf_and_iso() {
    for (label, udf) in [("rd_rdfe_stable.1", true), ("OVF ENV", false)] {
        let Some(image) = environment(label, udf) else {
            return;
        };
        let found = read("sr0", &image).unwrap().expect(label);
        let source = found.read("AB", &mut Diagnostics::new("")).unwrap();
        assert_eq!(
            (source.hostname.as_deref(), source.instance_id.as_str()),
            (Some("node"), "ab")
        );
    }
}

#[test]
fn broken_udf_is_an_error_and_never_more() {
    let Some(image) = environment("x", true) else {
        return;
    };
    let runner = &mut proptest::test_runner::TestRunner::deterministic();
    let changes = prop::collection::vec((0..300_000usize, any::<u8>()), 1..6);
    let tried = runner.run(&changes, |changes| {
        let mut broken = image.clone();
        for (place, byte) in changes {
            // Where descriptors and entries are.
            let place = (16 * 2048 + place) % broken.len();
            broken[place] = byte;
        }
        let _ = read("sr0", &broken);
        Ok(())
    });
    tried.unwrap();
    let mut cut = image;
    cut.truncate(260 * 2048);
    // Somebody else's disc, as far as anybody can tell.
    assert!(!matches!(read("sr0", &cut), Ok(Some(_))));
}
