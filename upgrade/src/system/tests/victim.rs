//! A machine that asks a registry for releases, by the real program, and what can be said of it afterwards.

use std::collections::BTreeMap;

use super::origin::Origin;
use super::*;
use crate::release::chunks::tests::noise;

/// A machine that runs version 500 and trusts the registry's key.
pub(super) fn victim(origin: &Origin) -> World {
    let mut world = World::new(Loader::SystemdBoot);
    let path = |name: &str| world.directory.path().join(name);
    // Beside the programs of this profile: `cargo build --profile tool -p keelson-image` makes it.
    let tests = std::env::current_exe().unwrap();
    let program = tests
        .parent()
        .and_then(Path::parent)
        .unwrap()
        .join("keelson-image");
    assert!(
        program.is_file(),
        "{} is missing: build keelson-image",
        program.display()
    );
    fs::create_dir(path("keys")).unwrap();
    fs::copy(origin.key.path().join("key.pub"), path("keys/key.pub")).unwrap();
    let registries = format!(
        "registries:\n  127.0.0.1:{}: {{insecure: true}}\n",
        origin.port
    );
    fs::write(path("registries.yml"), registries).unwrap();
    fs::write(path("dev/vda2"), noise(1 << 20, 31)).unwrap();
    fs::write(path("dev/vda3"), noise(1 << 20, 32)).unwrap();
    fs::write(path("machine-id"), "0123456789abcdef0123456789abcdef\n").unwrap();
    fs::write(path("settings.json"), settings(&origin.source())).unwrap();
    let registries = vec![path("registries.yml")];
    world.system.reader.program = program;
    world.system.reader.registries = registries;
    world.system.journal().unwrap().raise_floor("500").unwrap();
    world
}

pub(super) fn settings(source: &str) -> String {
    serde_json::json!({"source": source, "policy": "auto"}).to_string()
}

impl World {
    pub(super) fn take(&self, version: Option<&str>) -> Result<crate::protocol::Upgraded> {
        self.system.upgrade(None, version, None, &mut |_| Ok(()))
    }

    /// All that an upgrade might change.
    pub(super) fn all(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut files = BTreeMap::new();
        for folder in ["state", "esp/EFI/Linux", "dev"] {
            for entry in fs::read_dir(self.path(folder)).unwrap() {
                let path = entry.unwrap().path();
                files.insert(path.clone(), fs::read(&path).unwrap());
            }
        }
        files
    }

    /// Is refused with these words before anything is written.
    pub(super) fn refuses(&self, what: &str, words: &str) {
        let before = self.all();
        let error = format!("{:#}", self.take(None).unwrap_err());
        assert!(error.contains(words), "{what}: {error}");
        assert!(self.all() == before, "{what}: something was written");
    }

    /// Is refused with these words when the slot, which nothing starts from, is being written.
    pub(super) fn breaks_off(&self, what: &str, words: &str) {
        let error = format!("{:#}", self.take(None).unwrap_err());
        assert!(error.contains(words), "{what}: {error}");
        let names = fs::read_dir(self.path("esp/EFI/Linux")).unwrap();
        let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
        assert_eq!(names, ["keelson_500.efi"], "{what}");
        let journal = self.system.journal().unwrap();
        assert_eq!(journal.pending().unwrap(), None, "{what}");
        assert_eq!(journal.history().unwrap(), [], "{what}");
        assert_eq!(journal.floor().unwrap().as_deref(), Some("500"), "{what}");
    }

    /// The machine is none the worse: it takes the right one.
    pub(super) fn takes(&mut self, origin: &Origin, version: &str) {
        origin.behave();
        let taken = self.take(None).unwrap();
        assert_eq!(taken.to, version);
        self.versions.push((version.to_owned(), Worth::Good));
        assert_eq!(self.settle(), version);
    }
}
