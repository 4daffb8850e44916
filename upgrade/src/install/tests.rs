//! A whole installation onto a file, looked at from the outside at every step.

use std::cell::RefCell;
use std::fs;
use std::process::Command;

use gptman::GPT;

use super::verity::tests::image as root_image;
use super::*;
use crate::disk::Plan;
use crate::esp::Esp;
use crate::release::chunks::tests::noise;
use crate::uki::sample as uki_image;

const DISK_BYTES: u64 = 1 << 30;
const CONFIGURATION: &str = "#cloud-config\nhostname: boat\n";

struct World {
    directory: tempfile::TempDir,
    disk: File,
    root_hash: String,
}

impl World {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = |name: &str| directory.path().join(name);
        let data = noise(700 * BLOCK_BYTES, 3);
        let (image, root_hash) = root_image(&data);
        fs::write(path("slot"), image).unwrap();
        for name in [
            "esp/EFI/Linux",
            "esp/EFI/systemd",
            "esp/loader",
            "esp/grub",
            "scratch",
        ] {
            fs::create_dir_all(path(name)).unwrap();
        }
        let line = |hash: &str| {
            let slot = Uuid::parse_str(&hash[..32]).unwrap();
            let offset = data.len();
            let mut uki = uki_image(&format!(
                "keelson.slot=PARTUUID={slot} keelson.roothash={hash} keelson.hashoffset={offset}"
            ));
            uki.resize(200_000, 0);
            uki
        };
        let other = "ab".repeat(32);
        fs::write(path("esp/EFI/Linux/keelson_2.efi"), line(&other)).unwrap();
        fs::write(path("esp/EFI/Linux/keelson_1+2-1.efi"), line(&root_hash)).unwrap();
        fs::write(
            path("esp/EFI/systemd/systemd-bootx64.efi"),
            noise(99_999, 1),
        )
        .unwrap();
        fs::write(path("esp/loader/loader.conf"), "timeout 0\n").unwrap();
        fs::write(path("esp/grub/grub.cfg"), "boot\n").unwrap();
        fs::write(path("esp/grub/boot.img"), noise(440, 5)).unwrap();
        fs::write(path("esp/grub/core.img"), noise(99_000, 6)).unwrap();
        let disk = File::options()
            .read(true)
            .write(true)
            .create_new(true)
            .open(path("disk"))
            .unwrap();
        disk.set_len(DISK_BYTES).unwrap();
        World {
            directory,
            disk,
            root_hash,
        }
    }

    fn medium(&self) -> Result<Medium> {
        let esp = Esp::of_directory(&self.directory.path().join("esp"));
        let root = File::open(self.directory.path().join("slot")).unwrap();
        Medium::of(esp, "1".to_owned(), root, &self.root_hash)
    }

    fn install(&self, tell: Tell<'_>) -> Result<()> {
        let extras = Extras {
            configuration: Some(CONFIGURATION),
            append: Some("quiet"),
        };
        let scratch = self.directory.path().join("scratch");
        install(
            &self.medium()?,
            &self.disk,
            DISK_BYTES,
            &extras,
            &scratch,
            tell,
        )
    }

    /// Gives the disk a table, as if something had been there.
    fn occupy(&self) {
        let mut plan = Plan::new(&self.disk);
        let table = GPT::new_from(&mut plan, SECTOR_BYTES, [9; 16]);
        let mut table = table.unwrap();
        table.write_into(&mut plan).unwrap();
        plan.carry_out(table.header.first_usable_lba * SECTOR_BYTES)
            .unwrap();
    }

    /// `None` when there is no partition table; else whether all is there.
    fn installed(&self) -> Option<bool> {
        let table = GPT::find_from(&mut Plan::new(&self.disk)).ok()?;
        if table.header.disk_guid == [9; 16] {
            return None;
        }
        Some(self.is_whole(&table).unwrap_or(false))
    }

    fn is_whole(&self, table: &GPT) -> Result<bool> {
        let part = |number: u32| {
            let entry = &table[number];
            (
                entry.starting_lba * SECTOR_BYTES,
                entry.size().unwrap() * SECTOR_BYTES,
            )
        };
        let layout = Layout::plan(
            &Sizes::shipped()?,
            DISK_BYTES,
            Uuid::nil(),
            &mut random_guid,
        )?;
        assert_eq!(part(1), (layout.esp.offset, layout.esp.size));
        let slot = Uuid::from_bytes_le(table[2].unique_partition_guid);
        assert_eq!(slot, Uuid::parse_str(&self.root_hash[..32])?);
        let image = fs::read(self.directory.path().join("slot"))?;
        let mut there = vec![0; image.len()];
        self.disk.read_exact_at(&mut there, part(2).0)?;
        let esp = format!(
            "{}@@{}",
            self.directory.path().join("disk").display(),
            layout.esp.offset
        );
        let content = |path: &str| {
            let mut mtype = Command::new("mtype");
            mtype.env("MTOOLS_SKIP_CHECK", "1");
            let output = mtype.args(["-i", &esp, &format!("::/{path}")]).output();
            let output = output.unwrap();
            assert!(output.status.success(), "{path}");
            output.stdout
        };
        let kernel = content("EFI/Linux/keelson_1.efi");
        content("EFI/BOOT/BOOTX64.EFI");
        assert_eq!(
            content("loader/addons/install.addon.efi"),
            addon::make("quiet")
        );
        for path in [
            "grub/grub.cfg",
            "grub/state",
            "grub/entries/1.cfg",
            "grub/medium.cfg",
        ] {
            assert!(!content(path).is_empty(), "{path}");
        }
        let mut core = vec![0; 99_000];
        self.disk.read_exact_at(&mut core, layout.bios.offset)?;
        ensure!(core == noise(99_000, 6), "GRUB's core image");
        let mut mark = [0; 2];
        self.disk.read_exact_at(&mut mark, part(4).0 + 0x438)?;
        let uki = fs::read(
            self.directory
                .path()
                .join("esp/EFI/Linux/keelson_1+2-1.efi"),
        )?;
        Ok(there == image && kernel == uki && mark == [0x53, 0xef])
    }

    /// What tools of others say of a part of the disk, when they are there.
    fn ask(&self, part: &Part, program: &str, arguments: &[&str]) -> Option<String> {
        let path = self.directory.path().join("part");
        let mut bytes = vec![0; usize::try_from(part.size.min(128 << 20)).unwrap()];
        self.disk.read_exact_at(&mut bytes, part.offset).unwrap();
        fs::write(&path, bytes).unwrap();
        let output = Command::new(program).args(arguments).arg(&path).output();
        let output = output.ok()?;
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(output.status.success(), "{program}: {said}");
        Some(said)
    }
}

#[test]
fn at_every_step_the_disk_has_no_system_or_a_whole_one() {
    let world = World::new();
    world.occupy();
    let seen = RefCell::new(Vec::new());
    let mut tell = |progress: Progress| {
        let installed = world.installed();
        let mut seen = seen.borrow_mut();
        if seen.last().is_none_or(|(step, _)| *step != progress.step) {
            seen.push((progress.step, installed));
        }
        Ok(())
    };
    world.install(&mut tell).unwrap();
    let steps: Vec<Option<bool>> = seen.borrow().iter().map(|(_, there)| *there).collect();
    assert_eq!(steps.last(), Some(&Some(true)), "{seen:?}");
    assert_eq!(steps.len(), 7, "{seen:?}");
    assert!(steps[..6].iter().all(Option::is_none), "{seen:?}");
}

#[test]
fn tools_of_others_find_nothing_wrong_with_the_disk() {
    let world = World::new();
    world.install(&mut |_| Ok(())).unwrap();
    let layout = Layout::plan(
        &Sizes::shipped().unwrap(),
        DISK_BYTES,
        Uuid::nil(),
        &mut random_guid,
    )
    .unwrap();
    let path = world.directory.path().join("disk");
    if let Ok(output) = Command::new("/usr/sbin/sgdisk")
        .arg("-v")
        .arg(path)
        .output()
    {
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(said.contains("No problems found"), "{said}");
    }
    world.ask(&layout.esp, "/usr/sbin/fsck.vfat", &["-n"]);
    world.ask(&layout.state, "/usr/sbin/e2fsck", &["-fn"]);
    let request = ["-R", "cat config/config.d/install.yml"];
    if let Some(text) = world.ask(&layout.state, "/usr/sbin/debugfs", &request) {
        assert_eq!(text, CONFIGURATION);
    }
}

#[test]
fn whoever_ends_it_leaves_a_disk_without_a_system_that_can_be_installed_again() {
    let world = World::new();
    for end in 0..7 {
        world.occupy();
        let (mut last, mut count) = (String::new(), 0);
        let mut tell = |progress: Progress| {
            if last != progress.step {
                last.clone_from(&progress.step);
                count += 1;
            }
            ensure!(count <= end, "the power fails");
            Ok(())
        };
        let result = world.install(&mut tell);
        assert!(result.is_err(), "{end}");
        // At the last step all is there already.
        let expected = (end == 6).then_some(true);
        assert_eq!(world.installed(), expected, "step {end}: {last}");
    }
    world.install(&mut |_| Ok(())).unwrap();
    assert_eq!(world.installed(), Some(true));
}

#[test]
fn a_damaged_root_is_not_installed() {
    let world = World::new();
    let slot = world.directory.path().join("slot");
    let file = File::options().read(true).write(true).open(slot).unwrap();
    file.write_all_at(&[0x55; 3], 123_456).unwrap();
    let error = world.install(&mut |_| Ok(())).unwrap_err();
    assert!(
        format!("{error:#}").contains("block 30 is damaged"),
        "{error:#}"
    );
    assert_eq!(world.installed(), None);
    // The hashes themselves: that is seen before anything is erased.
    world.occupy();
    file.write_all_at(&[0x55; 3], 702 * 4096).unwrap();
    let error = world.install(&mut |_| Ok(())).unwrap_err();
    assert!(
        format!("{error:#}").contains("tree of dm-verity"),
        "{error:#}"
    );
    assert!(GPT::find_from(&mut Plan::new(&world.disk)).is_ok());
}
