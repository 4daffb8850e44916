//! Random changes of good bytes, for targets of fuzzers: what goes with every run of the tests, of this crate and of others.

use proptest::prelude::*;
use proptest::sample::Index;
use proptest::test_runner::{Config, TestRunner};

/// One change.
#[derive(Debug, Clone)]
enum Change {
    /// A byte is another one.
    Byte(Index, u8),
    /// A part is not there.
    Cut(Index, usize),
    /// These bytes come in between.
    Insert(Index, Vec<u8>),
    /// A part is there again, elsewhere.
    Copy(Index, Index, usize),
    /// It breaks off.
    End(Index),
}

fn change() -> impl Strategy<Value = Change> {
    let telling = prop_oneof![
        any::<u8>(),
        prop::sample::select(vec![0u8, 1, 0x7f, 0x80, 0xff])
    ];
    prop_oneof![
        4 => (any::<Index>(), telling).prop_map(|(at, byte)| Change::Byte(at, byte)),
        1 => (any::<Index>(), 1usize..16).prop_map(|(at, length)| Change::Cut(at, length)),
        1 => (any::<Index>(), prop::collection::vec(any::<u8>(), 1..8)).prop_map(|(at, bytes)| Change::Insert(at, bytes)),
        1 => (any::<Index>(), any::<Index>(), 1usize..64).prop_map(|(from, to, length)| Change::Copy(from, to, length)),
        1 => any::<Index>().prop_map(Change::End),
    ]
}

fn changed(mut bytes: Vec<u8>, changes: Vec<Change>) -> Vec<u8> {
    for change in changes {
        let size = bytes.len() + 1;
        match change {
            Change::Byte(at, byte) => {
                if let Some(place) = bytes.get_mut(at.index(size)) {
                    *place = byte;
                }
            }
            Change::Cut(at, length) => {
                let from = at.index(size);
                bytes.drain(from..(from + length).min(size - 1));
            }
            Change::Insert(at, more) => {
                let at = at.index(size);
                bytes.splice(at..at, more);
            }
            Change::Copy(from, to, length) => {
                let (from, to) = (from.index(size), to.index(size));
                let part = bytes[from..(from + length).min(size - 1)].to_vec();
                bytes.splice(to..to, part);
            }
            Change::End(at) => bytes.truncate(at.index(size)),
        }
    }
    bytes
}

/// Name, what is to bear any bytes, and what it begins from.
pub(crate) type Target = (&'static str, fn(&[u8]), fn() -> Vec<Vec<u8>>);

/// Gives each target its seeds, and so many random changes of them; `KEELSON_FUZZ_CASES` says how many otherwise.
pub(crate) fn change_seeds(targets: &[Target], cases: u32) {
    let asked = std::env::var("KEELSON_FUZZ_CASES").ok();
    let cases = asked.and_then(|cases| cases.parse().ok()).unwrap_or(cases);
    for (name, target, seeds) in targets {
        let seeds = seeds();
        seeds.iter().for_each(|seed| target(seed));
        let config = Config {
            cases,
            failure_persistence: None,
            ..Config::default()
        };
        let input = (
            prop::sample::select(seeds),
            prop::collection::vec(change(), 0..8),
        );
        let input = input.prop_map(|(seed, changes)| changed(seed, changes));
        let result = TestRunner::new(config).run(&input, |bytes| {
            target(&bytes);
            Ok(())
        });
        assert!(result.is_ok(), "{name}: {}", result.unwrap_err());
    }
}

/// Writes what the targets begin from, for fuzzers: into the folder that `KEELSON_FUZZ_SEEDS` names, or into one that goes away.
pub(crate) fn write_seeds(targets: &[Target]) {
    let given = std::env::var_os("KEELSON_FUZZ_SEEDS").map(std::path::PathBuf::from);
    let temporary = tempfile::tempdir().unwrap();
    let folder = given.unwrap_or_else(|| temporary.path().to_owned());
    for (name, _, seeds) in targets {
        let folder = folder.join(name);
        std::fs::create_dir_all(&folder).unwrap();
        for (number, seed) in seeds().iter().enumerate() {
            std::fs::write(folder.join(format!("seed-{number}")), seed).unwrap();
        }
        assert!(std::fs::read_dir(&folder).unwrap().count() > 1, "{name}");
    }
}
