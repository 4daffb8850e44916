//! The whole life of versions, with a boot loader that does what systemd-boot does, or what GRUB is told to do: whatever people ask for and whatever versions are worth, a
//! machine that runs a good one does so again.
//!
//! - [`origin`]: a registry that may be an attacker's
//! - [`victim`]: a machine that asks it
//! - [`attacks`]: what a source may do to a machine
//! - [`by_itself`]: what is done without being asked

mod attacks;
mod by_itself;
mod origin;
mod victim;

use std::cell::Cell;
use std::os::unix::fs::symlink;

use proptest::prelude::*;

use super::upgrade::Change;
use super::*;
use crate::disk::tests::machine as disk_machine;
use crate::grub::Grub;
use crate::uki::sample as image;

const LOADERS: [Loader; 2] = [Loader::SystemdBoot, Loader::Grub];

/// What becomes of a version that is started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Worth {
    /// All comes up.
    Good,
    /// A service does not.
    Bad,
    /// It does not get as far as to be judged.
    Panics,
    /// Its slot has decayed: PID 1 finds that in the initrd.
    Decayed,
}

#[derive(Clone, Copy, Debug)]
enum Wish {
    Install { worth: Worth, newer: bool },
    Rollback,
    Reboot,
}

struct World {
    loader: Loader,
    directory: tempfile::TempDir,
    system: System,
    versions: Vec<(String, Worth)>,
    boots: Cell<u32>,
}

/// The root hash of a version: its slot's name is the first half.
fn slot_guid(version: &str) -> String {
    let number: u128 = version.parse::<u128>().unwrap() + 1;
    uuid::Uuid::from_u128(number).to_string()
}

impl World {
    /// Runs version 500, which is good, from the first slot.
    fn new(loader: Loader) -> Self {
        let directory = disk_machine();
        let path = |name: &str| directory.path().join(name);
        for name in ["state", "esp", "kexec"] {
            fs::create_dir(path(name)).unwrap();
        }
        let paths = Paths {
            block: path("class"),
            devices: path("dev"),
            command_line: path("cmdline"),
            boot_id: path("boot_id"),
            os_release: path("os-release"),
            keys: path("keys"),
            state: path("state"),
            settings: path("settings.json"),
            esp: path("esp"),
            log: path("log.sock"),
            machine_id: path("machine-id"),
            network: path("network"),
            kexec: path("kexec"),
            lockdown: path("lockdown"),
        };
        let reader = Reader {
            program: path("nothing"),
            registries: Vec::new(),
            certificates: Vec::new(),
            proxy: path("nothing"),
            confined: false,
        };
        let engine = Engine {
            socket: path("nothing.sock"),
            signs: Vec::new(),
            steady: Duration::ZERO,
        };
        let mount: Mount = |_, root, _| Ok(Esp::directory(root));
        let system = System::new(paths, reader, engine, mount);
        let world = World {
            loader,
            directory,
            system,
            versions: vec![("500".to_owned(), Worth::Good)],
            boots: Cell::new(0),
        };
        crate::disk::tests::rename(&world.path("dev/vda"), 2, &slot_guid("500"));
        Esp::directory(&world.path("esp"));
        world.write_entry(&Entry::good("500"));
        // As the builder does it.
        world.esp().reconcile().unwrap();
        world.settle();
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn write_entry(&self, entry: &Entry) {
        let line = format!("keelson.slot=PARTUUID={}", slot_guid(&entry.version));
        let path = self.path("esp/EFI/Linux").join(entry.to_string());
        fs::write(path, image(&line)).unwrap();
    }

    fn esp(&self) -> Esp {
        Esp::directory(&self.path("esp")).seen_by(self.loader)
    }

    /// What the boot loader starts; its tries are counted as systemd-boot 257 does it, or GRUB as `images/grub/grub.cfg` has it.
    fn load(&self) -> String {
        self.boots.set(self.boots.get() + 1);
        if self.loader == Loader::Grub {
            return self.load_by_grub();
        }
        let esp = self.esp();
        let first = esp.entries().unwrap().into_iter().next().unwrap();
        esp.rename(&first, &first.started()).unwrap();
        first.version
    }

    /// Changes nothing but GRUB's state.
    fn load_by_grub(&self) -> String {
        let directory = self.path("esp");
        let path = directory.join(crate::uki::grub::STATE);
        let mut choices = crate::uki::grub::choices(&fs::read(&path).unwrap());
        let is_bad = |tries: &str| tries.starts_with('0');
        let lower = choices.get(1).is_some_and(|lower| !is_bad(&lower.tries));
        let next = usize::from(is_bad(&choices[0].tries) && lower);
        let tries = &mut choices[next].tries;
        if !tries.is_empty() {
            let counted = match tries.as_str() {
                "3-0" => "2-1",
                "2-1" => "1-2",
                "1-2" => "0-3",
                _ => "0-4",
            };
            *tries = counted.to_owned();
        }
        fs::write(path, crate::uki::grub::state(&choices).unwrap()).unwrap();
        assert!(Grub { root: &directory }.has(&Entry::good(&choices[next].version)));
        choices.swap_remove(next).version
    }

    /// Starts the machine until it stays up; gives the version that it stays up with.
    fn settle(&self) -> String {
        for _ in 0..8 {
            let version = self.load();
            let worth = self.versions.iter().find(|(name, _)| *name == version);
            let worth = worth.unwrap().1;
            match worth {
                Worth::Panics => continue,
                Worth::Decayed => {
                    let why = "dm-verity refuses data block 4";
                    crate::entry::give_up(&self.path("esp"), &version, why).unwrap();
                    continue;
                }
                Worth::Good | Worth::Bad => {}
            }
            self.start(&version);
            let trial = self.system.trial_of_this_boot().unwrap();
            match (trial, worth) {
                (Some(trial), Worth::Good) => self.system.bless(&trial).unwrap(),
                (Some(trial), _) => {
                    self.system
                        .give_up(trial, "service x has failed".into())
                        .unwrap();
                    continue;
                }
                (None, _) => {}
            }
            return version;
        }
        panic!(
            "the machine is started again and again: {:?}",
            self.entries()
        );
    }

    fn start(&self, version: &str) {
        let guid = slot_guid(version);
        fs::write(
            self.path("cmdline"),
            format!("quiet keelson.slot=PARTUUID={guid}{}\n", self.word()),
        )
        .unwrap();
        fs::write(
            self.path("os-release"),
            format!("IMAGE_VERSION={version}\n"),
        )
        .unwrap();
        fs::write(self.path("boot_id"), self.boots.get().to_string()).unwrap();
        let number = crate::disk::tests::number_of(&self.path("dev/vda"), &guid);
        let slaves = self.path("class/dm-0/slaves");
        fs::remove_dir_all(&slaves).unwrap();
        fs::create_dir(&slaves).unwrap();
        symlink("anywhere", slaves.join(format!("vda{number}"))).unwrap();
    }

    fn word(&self) -> &'static str {
        match self.loader {
            Loader::SystemdBoot => "",
            Loader::Grub => " keelson.tries=2-1",
        }
    }

    fn entries(&self) -> Vec<String> {
        let entries = self.esp().entries().unwrap();
        entries.iter().map(Entry::to_string).collect()
    }

    /// What an upgrade does but for the fetching. Gives the version.
    fn install(&mut self, worth: Worth, newer: bool) -> Result<String> {
        let running: u32 = self.system.version()?.parse()?;
        let known = self
            .versions
            .iter()
            .filter_map(|(name, _)| name.parse::<u32>().ok());
        let (lowest, highest) = known.fold((running, running), |(low, high), version| {
            (low.min(version), high.max(version))
        });
        let version = if newer { highest + 1 } else { lowest - 1 };
        let version = version.to_string();
        self.versions.push((version.clone(), worth));
        let disk = self.system.disk()?;
        self.system.make_room(&disk, "sha256:0")?;
        disk.name_other(&slot_guid(&version))?;
        let esp = self.system.esp(&disk, false)?;
        let line = format!("keelson.slot=PARTUUID={}", slot_guid(&version));
        esp.stage(&mut &image(&line)[..])?;
        let disk = self.system.disk()?;
        let change = Change {
            running: &running.to_string(),
            version: &version,
            restart: None,
        };
        self.system.commit(&esp, &disk, &change)?;
        Ok(version)
    }

    /// The slot of a version decays.
    fn spoil(&mut self, version: &str) {
        for (name, worth) in &mut self.versions {
            if name == version {
                *worth = Worth::Decayed;
            }
        }
    }

    fn last(&self) -> Happened {
        self.system.history().unwrap().pop().unwrap()
    }
}

#[test]
fn older_expired_and_foreign_releases_are_taken_only_by_name() {
    let description = Description {
        version: "2.0".into(),
        architecture: architecture().into(),
        created: "2026-01-01T00:00:00Z".into(),
        expires: Some("2027-01-01T00:00:00Z".into()),
        staged: None,
        root_hash: "00".repeat(32),
        hash_offset_bytes: 4096,
    };
    let take = |description: &Description, running: &str, asked_for: Option<&str>, now: &str| {
        let floor = if running == "1.9" { "1.9" } else { "2.0" };
        may_take(description, running, floor, asked_for, now).map_err(|error| error.to_string())
    };
    let (before, after) = ("2026-06-01T00:00:00Z", "2027-06-01T00:00:00Z");
    assert_eq!(take(&description, "1.9", None, before), Ok(()));
    assert_eq!(take(&description, "2.1", Some("2.0"), after), Ok(()));
    for (running, asked_for, now, words) in [
        ("2.0", None, before, "runs already"),
        ("2.0", Some("2.0"), before, "runs already"),
        ("2.1", None, before, "older than 2.1"),
        ("1.9", None, after, "has expired"),
        ("1.9", Some("1.8"), before, "not 1.8"),
    ] {
        let error = take(&description, running, asked_for, now).unwrap_err();
        assert!(error.contains(words), "{error}");
    }
    let foreign = Description {
        architecture: "s390x".into(),
        ..description
    };
    let error = take(&foreign, "1.9", Some("2.0"), before).unwrap_err();
    assert!(error.contains("is for s390x"), "{error}");
    // After a rollback from 2.1 the machine runs 1.0, and is offered 2.0 once more.
    let replayed = Description {
        architecture: architecture().into(),
        ..foreign
    };
    let error = may_take(&replayed, "1.0", "2.1", None, before).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("older than 2.1, which was good on this machine"),
        "{error}"
    );
    assert!(may_take(&replayed, "1.0", "2.1", Some("2.0"), before).is_ok());
}

#[test]
fn a_good_version_stays_and_the_one_before_it_is_kept() {
    for loader in LOADERS {
        let mut world = World::new(loader);
        let version = world.install(Worth::Good, true).unwrap();
        assert_eq!(world.settle(), version);
        assert_eq!(
            world.entries(),
            [format!("keelson_{version}.efi"), "keelson_500.efi".into()]
        );
        assert_eq!(
            (world.last().what.as_str(), world.last().to),
            ("upgraded", version)
        );
    }
}

#[test]
fn a_version_that_fails_is_left_with_its_reason() {
    let of_both = |worth, why| LOADERS.map(|loader| (loader, worth, why));
    for (loader, worth, why) in of_both(Worth::Bad, "service x has failed")
        .into_iter()
        .chain(of_both(Worth::Panics, "started 3 times"))
    {
        let mut world = World::new(loader);
        let version = world.install(worth, true).unwrap();
        assert_eq!(world.settle(), "500");
        let last = world.last();
        assert_eq!(
            (last.what.as_str(), last.from, last.to.as_str()),
            ("went back", version, "500")
        );
        assert!(last.why.unwrap().contains(why));
        // And that is the end of it.
        assert_eq!(world.settle(), "500");
        let history = world.system.history().unwrap();
        assert_eq!(history.len(), 1, "{loader:?} {worth:?}: {history:?}");
    }
}

#[test]
fn an_older_version_is_taken_too_and_left_when_it_fails() {
    for (loader, worth, stays) in LOADERS.into_iter().flat_map(|loader| {
        [
            (loader, Worth::Good, true),
            (loader, Worth::Bad, false),
            (loader, Worth::Panics, false),
        ]
    }) {
        let mut world = World::new(loader);
        let version = world.install(worth, false).unwrap();
        let expected = if stays { version } else { "500".to_owned() };
        assert_eq!(world.settle(), expected);
        // What failed did not leave the one before it on probation.
        assert_eq!(world.entries()[0], format!("keelson_{expected}{}.efi", ""));
    }
}

#[test]
fn nothing_is_replaced_while_the_version_that_runs_is_on_trial() {
    for loader in LOADERS {
        let mut world = World::new(loader);
        let version = world.install(Worth::Good, true).unwrap();
        assert_eq!(world.load(), version);
        world.start(&version);
        let error = world.install(Worth::Good, true).unwrap_err();
        assert!(error.to_string().contains("has still to show"), "{error}");
        // Rolling back ends the trial, whatever its verdict would have been.
        let trial = world.system.trial_of_this_boot().unwrap().unwrap();
        world.system.rollback().unwrap();
        world.system.bless(&trial).unwrap();
        assert_eq!(world.settle(), "500");
    }
}

#[test]
fn a_live_system_is_not_judged_and_says_why_it_is_not_upgraded() {
    let world = World::new(Loader::SystemdBoot);
    let line = format!("keelson.slot=PARTUUID={} {LIVE}", slot_guid("500"));
    fs::write(world.path("cmdline"), line).unwrap();
    assert_eq!(world.system.trial_of_this_boot().unwrap(), None);
    let unable = world.system.status().unwrap().unable.unwrap();
    assert!(unable.contains("live system"), "{unable}");
}

#[test]
fn a_version_whose_slot_decays_is_left_also_when_it_was_good_long_ago() {
    for newer in [true, false] {
        let mut world = World::new(Loader::SystemdBoot);
        let version = world.install(Worth::Good, newer).unwrap();
        assert_eq!(world.settle(), version);
        world.spoil(&version);
        assert_eq!(world.settle(), "500");
        let last = world.last();
        assert_eq!(
            (last.what.as_str(), last.from.as_str(), last.to.as_str()),
            ("went back", version.as_str(), "500")
        );
        assert!(last.why.unwrap().contains("data block 4"));
        let told = world.system.history().unwrap().len();
        assert_eq!(world.settle(), "500");
        assert_eq!(world.system.history().unwrap().len(), told);
    }
}

#[test]
fn a_new_version_whose_slot_has_decayed_is_left_at_its_first_start() {
    let mut world = World::new(Loader::SystemdBoot);
    let version = world.install(Worth::Decayed, true).unwrap();
    assert_eq!(world.settle(), "500");
    let last = world.last();
    assert_eq!((last.what.as_str(), last.from), ("went back", version));
    assert!(last.why.unwrap().contains("data block 4"));
    assert_eq!(world.system.history().unwrap().len(), 1);
}

#[test]
fn kexec_starts_what_the_boot_loader_would_and_counts_as_it_does() {
    let mut world = World::new(Loader::SystemdBoot);
    let version = world.install(Worth::Good, true).unwrap();
    let prepared = world.system.prepare_kexec().unwrap();
    assert_eq!(prepared.version, version);
    let line = fs::read_to_string(world.path("kexec/next/cmdline")).unwrap();
    let slot = slot_guid(&version);
    assert_eq!(
        line,
        format!("keelson.slot=PARTUUID={slot} keelson.kexec=keelson_{version}+2-1.efi\n")
    );
    assert_eq!(fs::read(world.path("kexec/next/linux")).unwrap().len(), 513);
    assert_eq!(
        fs::read(world.path("kexec/next/initrd")).unwrap().len(),
        512
    );
    assert_eq!(world.entries()[0], format!("keelson_{version}+2-1.efi"));
    // PID 1 could not load it: the boot loader starts it all the same.
    assert_eq!(world.settle(), version);
    world.system.prepare_kexec().unwrap();
    assert_eq!(world.entries()[0], format!("keelson_{version}.efi"));
    fs::write(world.path("lockdown"), "none [integrity] confidentiality").unwrap();
    let error = world.system.prepare_kexec().unwrap_err();
    assert!(error.to_string().contains("locked down"), "{error}");
}

fn wishes() -> impl Strategy<Value = Vec<Wish>> {
    let worth = prop_oneof![
        Just(Worth::Good),
        Just(Worth::Bad),
        Just(Worth::Panics),
        Just(Worth::Decayed)
    ];
    let wish = prop_oneof![
        (worth, any::<bool>()).prop_map(|(worth, newer)| Wish::Install { worth, newer }),
        Just(Wish::Rollback),
        Just(Wish::Reboot),
    ];
    proptest::collection::vec(wish, 1..12)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn whatever_is_asked_for_a_good_version_runs_in_the_end(wishes in wishes(), bios: bool) {
        let mut world = World::new(if bios { Loader::Grub } else { Loader::SystemdBoot });
        for wish in wishes {
            match wish {
                Wish::Install { worth, newer } => {
                    let version = world.install(worth, newer).unwrap();
                    let next = world.entries()[0].clone();
                    prop_assert!(next.contains(&version), "{version} is not next: {:?}", world.entries());
                }
                // Refused where there is nothing to go back to.
                Wish::Rollback => drop(world.system.rollback()),
                Wish::Reboot => {}
            }
            if let Wish::Reboot = wish {
                let running = world.settle();
                let worth = world.versions.iter().find(|(name, _)| *name == running).unwrap().1;
                prop_assert_eq!(worth, Worth::Good);
            }
        }
        let running = world.settle();
        let worth = world.versions.iter().find(|(name, _)| *name == running).unwrap().1;
        prop_assert_eq!(worth, Worth::Good);
        prop_assert_eq!(world.settle(), running);
    }
}
